// Oracle: a thread that looks at what every unit's segment enforces, more than a thousand times a second, and knows nothing of
// daemons, networks and clocks but how far a unit's clock is from the host's.
//
// Law 1: at no instant do the units enforce more sessions than the licences in force have bought. All units are read twice; only
// where both readings are the same, so that between them all of it was so at one instant, does the sample count. A unit counts
// with what its segment says, whatever has become of its daemon.
//
// Law 2: sessions in use do not grow beyond what the unit enforces. What was over it already may only become less.
//
// Law 3: a seat is given away, or given back, when nobody uses it any more: a unit that enforces less than it has in use counts
// with what it has in use. Not so where what it enforces has fallen by time, or by what befell the unit alone: its daemon has been
// started again, its licence or its clock was changed. Sessions are never cut, so these go on until they end.

import Admission
import Foundation
import Synchronization

struct Violation: Error {
    let text: String
    let trace: [String]
}

/// What one unit enforces of one type, as its segment says it.
struct Limit: Equatable {
    var cap = 0
    var borrowed = 0
    /// By the unit's clock.
    var deadline: Int64 = 0

    func enforced(at time: Int64) -> Int { cap + (time < deadline ? borrowed : 0) }
}

/// Law 2 for one pool.
struct Growth {
    private var enforced = 0
    private var taken = 0
    private var bound = 0

    /// - Parameters:
    ///   - isSteady: nothing was changed since the last sample. Else sessions may have been admitted under what was in force for a
    ///     moment between the two: at most `admissible`.
    ///   - workers: each may have counted one session that it is about to take back.
    /// - Returns: by how many sessions too many are in use; nil: none.
    mutating func check(enforced now: Int, taken: Int, isSteady: Bool, workers: Int, admissible: Int) -> Int? {
        let excess = min(bound, self.taken)
        bound = max(now, isSteady ? excess : max(enforced, excess))
        let tolerated = bound + workers + (isSteady ? 0 : admissible)
        defer { (enforced, self.taken) = (now, taken) }
        if taken > tolerated { return taken - bound }
        if !isSteady { bound = max(bound, taken) }
        return nil
    }
}

/// A unit as the oracle knows it.
struct Watched {
    let serial: String
    let pools: [Pool]
    let clock: UnitClock
    let workers: Int
    let sessionsPerSeat: Int
    /// Seats of each type that its licences may give: what is in force, and what was and may be used until a time.
    var licences: [(seats: [Int], until: Int64)]
}

final class Oracle: @unchecked Sendable {
    static let types = ["furl", "fnbi", "fcas"]
    private static let traceMax = 400
    /// Readings that lie further apart say nothing about one instant.
    private static let spanMax = millisecond

    struct Report {
        var samples = 0
        /// Something was being changed.
        var skipped = 0
        /// The longest time without a sample, in ns.
        var longestGap: Int64 = 0
        /// Samples in which something was borrowed, and the most sessions of one type that were at once.
        var lending = 0
        var borrowedMax = 0
        var violation: Violation?
        /// Since when all that is bought is enforced without a break; nil: it is not.
        var fullSince: Int64?
        var enforced = [0, 0, 0]
        var bought = [0, 0, 0]
    }

    private struct State {
        var report = Report()
        var licences: [[(seats: [Int], until: Int64)]]
        /// Of each unit: until then what it enforces may fall without notice.
        var excusedUntil: [Int64]
        var trace: [String] = []
        var isOver = false
    }

    private let units: [Watched]
    private let state: Mutex<State>
    private let begin = boottime()
    private let isGone = DispatchSemaphore(value: 0)
    private var thread: Thread?

    // Of the thread alone.
    private var growth: [Growth]
    private var last: [Limit]
    private var lastEnforced: [Int]
    private var lastTime: Int64 = 0
    /// The pool has more in use than it enforces, and need not have waited for the end of it.
    private var isExcused: [Bool]

    init(_ units: [Watched]) {
        self.units = units
        state = Mutex(State(licences: units.map(\.licences), excusedUntil: units.map { _ in 0 }))
        let count = units.count * Self.types.count
        growth = Array(repeating: Growth(), count: count)
        last = Array(repeating: Limit(), count: count)
        lastEnforced = Array(repeating: -1, count: count)
        isExcused = Array(repeating: false, count: count)
    }

    var report: Report { state.withLock { $0.report } }
    /// What was changed last, by units and by faults.
    var trace: [String] { state.withLock { $0.trace } }

    func start() {
        let thread = Thread { [self] in
            while !state.withLock({ $0.isOver }) {
                look()
                usleep(200)
            }
            isGone.signal()
        }
        self.thread = thread
        thread.start()
    }

    func stop() {
        guard thread != nil else { return }
        thread = nil
        state.withLock { $0.isOver = true }
        isGone.wait()
    }

    /// For the trace of a violation.
    func note(_ text: String) {
        let line = "\(Self.time(boottime() - begin)) \(text)"
        state.withLock { Self.note(line, &$0) }
    }

    private static func note(_ line: String, _ state: inout State) {
        state.trace.append(line)
        if state.trace.count > traceMax { state.trace.removeFirst(traceMax / 4) }
    }

    private static func time(_ nanoseconds: Int64) -> String { String(format: "%8.3f s", Double(nanoseconds) / 1e9) }

    /// From now on the unit's licence may give so many seats, besides what it gave.
    func allow(_ unit: Int, seats: [Int]) { state.withLock { $0.licences[unit].append((seats, .max)) } }

    /// The licence before the last one is not in force any more; what was lent of it may be used until `until`.
    func disallow(_ unit: Int, until: Int64) {
        state.withLock { state in
            for index in state.licences[unit].indices.dropLast() {
                state.licences[unit][index].until = min(state.licences[unit][index].until, until)
            }
        }
    }

    /// For a while what a unit enforces may fall without notice.
    func excuse(_ unit: Int, seconds: Int64 = 15) {
        state.withLock { $0.excusedUntil[unit] = max($0.excusedUntil[unit], boottime() + seconds * second) }
    }

    // MARK: One look

    private func read() -> [Limit] {
        units.flatMap { unit in
            unit.pools.map { pool in
                let limits = pool.settings
                return Limit(cap: limits.cap, borrowed: limits.borrowed, deadline: limits.deadline)
            }
        }
    }

    /// Public for the test of the oracle itself, which looks by hand.
    func look() {
        let start = boottime()
        let limits = read()
        let now = boottime()
        let taken = units.flatMap { $0.pools.map(\.taken) }
        guard read() == limits, boottime() - start < Self.spanMax else {
            state.withLock { $0.report.skipped += 1 }
            return
        }
        let enforced = limits.enumerated().map { index, limit in
            limit.enforced(at: units[index / Self.types.count].clock.reading(at: now))
        }
        let gap = lastTime == 0 ? 0 : now - lastTime
        state.withLock { state in
            state.report.samples += 1
            state.report.longestGap = max(state.report.longestGap, gap)
            countLending(limits, enforced, &state)
            trace(limits, enforced, at: now, &state)
            checkSum(enforced, at: now, &state)
            checkGiven(enforced, taken, at: now, &state)
            checkGrowth(limits, enforced, taken, gap: gap, &state)
        }
        (last, lastEnforced, lastTime) = (limits, enforced, now)
    }

    private func sum(_ sessions: [Int], of type: Int) -> Int {
        units.indices.reduce(0) { $0 + sessions[$1 * Self.types.count + type] }
    }

    private func shown(_ sessions: [Int], of type: Int) -> String {
        units.indices.map { "\(units[$0].serial) \(sessions[$0 * Self.types.count + type])" }.joined(separator: ", ")
    }

    private func countLending(_ limits: [Limit], _ enforced: [Int], _ state: inout State) {
        let borrowed = zip(limits, enforced).map { $0.borrowed > 0 ? $1 - $0.cap : 0 }
        let most = Self.types.indices.map { sum(borrowed, of: $0) }.max() ?? 0
        if most > 0 { state.report.lending += 1 }
        state.report.borrowedMax = max(state.report.borrowedMax, most)
    }

    private func trace(_ limits: [Limit], _ enforced: [Int], at now: Int64, _ state: inout State) {
        for index in limits.indices where enforced[index] != lastEnforced[index] {
            let (unit, limit) = (units[index / Self.types.count], limits[index])
            let left = limit.borrowed == 0 ? "" : " for \((limit.deadline - unit.clock.reading(at: now)) / millisecond) ms"
            let type = Self.types[index % Self.types.count]
            let text = "\(unit.serial) \(type) enforces \(enforced[index]): \(limit.cap) own, \(limit.borrowed) borrowed\(left)"
            Self.note("\(Self.time(now - begin)) \(text)", &state)
        }
    }

    private func checkSum(_ enforced: [Int], at now: Int64, _ state: inout State) {
        var isFull = true
        for (type, name) in Self.types.enumerated() {
            let sum = sum(enforced, of: type)
            let bought = units.indices.reduce(0) { total, unit in
                let seats = state.licences[unit].filter { now < $0.until }.map { $0.seats[type] }.max() ?? 0
                return total + seats * units[unit].sessionsPerSeat
            }
            state.report.enforced[type] = sum
            state.report.bought[type] = bought
            if sum != bought { isFull = false }
            if sum > bought {
                violate(
                    "all units enforce \(sum) sessions of \(name), bought are \(bought): \(shown(enforced, of: type))", now,
                    &state)
            }
        }
        state.report.fullSince = isFull ? state.report.fullSince ?? now : nil
    }

    private func checkGiven(_ enforced: [Int], _ taken: [Int], at now: Int64, _ state: inout State) {
        var counted = enforced
        for index in enforced.indices {
            let unit = index / Self.types.count
            let hasEnded = last[index].borrowed > 0 && last[index].deadline <= units[unit].clock.reading(at: now)
            if taken[index] <= enforced[index] {
                isExcused[index] = false
            } else if hasEnded || now < state.excusedUntil[unit] {
                isExcused[index] = true
            }
            if !isExcused[index] { counted[index] = max(enforced[index], taken[index] - units[unit].workers) }
        }
        for (type, name) in Self.types.enumerated() where sum(counted, of: type) > state.report.bought[type] {
            violate(
                "\(sum(counted, of: type)) sessions of \(name) are in use or enforced, bought are \(state.report.bought[type]): a seat "
                    + "was given away in use: in use \(shown(taken, of: type)), enforced \(shown(enforced, of: type))", now,
                &state)
        }
    }

    private func checkGrowth(_ limits: [Limit], _ enforced: [Int], _ taken: [Int], gap: Int64, _ state: inout State) {
        for index in limits.indices {
            let unit = units[index / Self.types.count]
            // A change between two samples that was undone again is seen by nobody; it is likelier the further they are apart.
            let isSteady = limits[index] == last[index] && enforced[index] == lastEnforced[index] && gap < 5 * millisecond
            let looks = Int(gap / (Int64(Worker.pause) * 1000)) + 2
            let excess = growth[index].check(
                enforced: enforced[index], taken: taken[index], isSteady: isSteady, workers: unit.workers,
                admissible: unit.workers * looks * Worker.burst)
            guard let excess else { continue }
            violate(
                "\(unit.serial) has \(taken[index]) sessions of \(Self.types[index % 3]) in use and enforces \(enforced[index]): "
                    + "\(excess) more than there were before", lastTime, &state)
        }
    }

    private func violate(_ text: String, _ now: Int64, _ state: inout State) {
        guard state.report.violation == nil else { return }
        Self.note("\(Self.time(now - begin)) VIOLATION \(text)", &state)
        state.report.violation = Violation(text: text, trace: state.trace)
    }
}
