// RenewalSchedule: when to ask. Pure: time and chance come from outside.

import Licensing

/// When the authority is asked next. Times are seconds since 1970.
package struct RenewalSchedule: Sendable {
    package static let day = 86_400
    /// Chance is added to a unit's own time of the day, so that units whose offset is the same do not ask as one.
    package static let jitterMax = 300
    package static let firstWait = 60
    package static let longestWait = 3600

    /// A unit's time of the day, spread over all units by their ids.
    package let offset: Int
    private let jitter: @Sendable (ClosedRange<Int>) -> Int
    package private(set) var next: Int
    package private(set) var failures = 0

    /// - Parameters:
    ///   - lastSuccess: nil, or 0: at once.
    ///   - jitter: any number in the range.
    package init(unitID: String, lastSuccess: Int?, jitter: @escaping @Sendable (ClosedRange<Int>) -> Int) {
        // FNV-1a: the same at each start, unlike Swift's own hash.
        offset = Int(unitID.utf8.reduce(UInt32(2_166_136_261)) { ($0 ^ UInt32($1)) &* 16_777_619 }) % Self.day
        self.jitter = jitter
        next = 0
        if let lastSuccess, lastSuccess > 0 { next = slot(after: lastSuccess) }
    }

    /// A `next` further away than any wait is from a clock that was wrong.
    package func isDue(_ now: Int) -> Bool { now >= next || next - now > 2 * Self.day }

    package mutating func succeeded(at now: Int) {
        failures = 0
        next = slot(after: now)
    }

    /// - Parameter retryAfter: what the authority asks for, seconds.
    package mutating func failed(at now: Int, retryAfter: Int?) {
        failures += 1
        let longest = min(Self.longestWait, Self.firstWait << min(failures - 1, 10))
        // All of the wait is left to chance, so that units which lost the authority at one time do not come back at one time.
        next = now + (retryAfter.map { $0 + jitter(0...Self.firstWait) } ?? jitter(1...longest))
    }

    /// At once where the last attempt failed.
    package mutating func retry() { if failures > 0 { next = 0 } }

    private func slot(after time: Int) -> Int {
        let today = (time - offset) / Self.day * Self.day + offset
        return (today > time ? today : today + Self.day) + jitter(0...Self.jitterMax)
    }
}
