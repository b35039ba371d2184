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

    /// As `Pool.taken`, with what is in progress in former segments: all there can be, where that cannot be told.
    var taken: Int { current.taken + (host.takenBefore(pool: index) ?? Limits.cap) }

    /// The figures of the host: in `free` and `spare` former segments have no part. Where it cannot be told how many sessions
    /// are in use there, it is as many as they hold back of the cap.
    func snapshot() -> PoolSnapshot { figures.snapshot }

    /// The figures, and whether `inUse` is known.
    var figures: (snapshot: PoolSnapshot, isKnown: Bool) {
        let before = host.takenBefore(pool: index)
        let now = current.snapshot()
        if before == 0 { return (now, true) }
        let withheld = host.withheld(pool: index)
        return (now.adding(inUse: before ?? withheld, cap: withheld), before != nil)
    }

    func holdings() -> [Holding] { current.holdings() }
    func writers() -> [WriterStatistics] { current.writers() }
    func traffic() -> Traffic { host.traffic(pool: index) }
    func report(bytesIn: Int, out bytesOut: Int) throws(SegmentError) { try current.report(bytesIn: bytesIn, out: bytesOut) }

    private var current: Pool { host.current(pool: index) }
}
