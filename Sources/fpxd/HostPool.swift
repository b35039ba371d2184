import Admission

/// The sessions of one licence type on this host, over the segment in force and those that it has replaced.
struct HostPool: Sendable {
    let host: HostSegment
    /// The pool's number in a segment.
    let index: Int

    /// What is in force for the host as a whole: a deadline in nanoseconds of CLOCK_BOOTTIME.
    var limits: PoolSettings { host.settings(of: index) }

    func setCap(_ cap: Int, borrowed: Int = 0, until deadline: Int64 = 0) throws(SegmentError) {
        try host.set(index) { settings in
            // A segment keeps milliseconds.
            (settings.cap, settings.borrowed) = (cap, borrowed)
            settings.deadline = borrowed == 0 ? 0 : deadline / 1_000_000 * 1_000_000
        }
    }

    var policy: OverLimitPolicy { limits.policy }

    func setPolicy(_ policy: OverLimitPolicy) throws(SegmentError) { try host.set(index) { $0.policy = policy } }

    /// As `Pool.taken`, with what is in progress in former segments.
    var taken: Int { current.taken + host.takenBefore(pool: index) }

    /// The figures of the host: in `free` and `spare` former segments have no part.
    func snapshot() -> PoolSnapshot {
        let before = host.takenBefore(pool: index)
        let now = current.snapshot()
        return before == 0 ? now : now.adding(inUse: before, cap: host.withheld(pool: index))
    }

    func holdings() -> [Holding] { current.holdings() }
    func writers() -> [WriterStatistics] { current.writers() }
    func traffic() -> Traffic { host.traffic(pool: index) }
    func report(bytesIn: Int, out bytesOut: Int) throws(SegmentError) { try current.report(bytesIn: bytesIn, out: bytesOut) }

    private var current: Pool { host.current(pool: index) }
}
