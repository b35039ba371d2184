// Clock: a unit's CLOCK_BOOTTIME as a function of real time: its rate wanders within the bound, and a hypervisor may stop it.

import SeatSharing

struct Clock {
    private var realBase: Nanoseconds = 0
    private var base: Nanoseconds
    /// Millionths of real time.
    private var rate: Nanoseconds
    private(set) var isStopped = false

    init(at real: Nanoseconds, reading: Nanoseconds, rate: Nanoseconds) {
        realBase = real
        base = reading
        self.rate = rate
    }

    func reading(_ real: Nanoseconds) -> Instant {
        guard !isStopped else { return Instant(base) }
        let passed = real - realBase
        return Instant(base + passed / 1_000_000 * rate + passed % 1_000_000 * rate / 1_000_000)
    }

    /// The first real time at which it shows at least that, if nothing changes.
    func real(_ reading: Instant) -> Nanoseconds {
        guard reading.nanoseconds > base else { return realBase }
        let passed = min(reading.nanoseconds - base, 1_000_000_000_000_000)
        return realBase + passed / rate * 1_000_000 + passed % rate * 1_000_000 / rate + 2
    }

    mutating func setRate(_ rate: Nanoseconds, at real: Nanoseconds) {
        base = reading(real).nanoseconds
        realBase = real
        self.rate = rate
    }

    mutating func stop(at real: Nanoseconds) {
        base = reading(real).nanoseconds
        isStopped = true
    }

    mutating func go(at real: Nanoseconds) {
        realBase = real
        isStopped = false
    }
}
