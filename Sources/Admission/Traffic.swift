// Traffic: what sessions carry, as those who carry it report it.
//
// Bytes are counted like sessions, on the line of the CPU that the reporting thread runs on, and for inspected and bypassed
// sessions alike. They decide nothing: an addition is one relaxed instruction for each direction, by whoever has moved the
// bytes.

/// Bytes of both directions. The counters only grow, modulo 2^64.
public struct Traffic: Equatable, Sendable {
    /// From clients.
    public private(set) var bytesIn: UInt64
    /// To clients.
    public private(set) var bytesOut: UInt64

    public init(bytesIn: UInt64 = 0, bytesOut: UInt64 = 0) {
        self.bytesIn = bytesIn
        self.bytesOut = bytesOut
    }

    /// Adds each direction; wraps.
    public mutating func add(_ other: Traffic) {
        bytesIn &+= other.bytesIn
        bytesOut &+= other.bytesOut
    }

    /// Of two readings of the same counters, what the later one has more in each direction; nothing where it has less.
    public func growth(since earlier: Traffic) -> Traffic {
        func growth(_ now: UInt64, _ before: UInt64) -> UInt64 { UInt64(max(0, Int64(bitPattern: now &- before))) }
        return Traffic(bytesIn: growth(bytesIn, earlier.bytesIn), bytesOut: growth(bytesOut, earlier.bytesOut))
    }
}

extension Writer {
    var traffic: Traffic { Traffic(bytesIn: bytesIn.load(), bytesOut: bytesOut.load()) }
}

extension PoolEngine {
    package func report(bytesIn: Int, out bytesOut: Int) throws(SegmentError) {
        let allowed = 0...Limits.report
        guard allowed.contains(bytesIn) else { throw .range(what: "bytes in", found: bytesIn, allowed: allowed) }
        guard allowed.contains(bytesOut) else { throw .range(what: "bytes out", found: bytesOut, allowed: allowed) }
        guard isAttached else { throw .detached }
        let writer = currentWriter()
        markUsed(writer)
        if bytesIn > 0 { writer.bytesIn.count(UInt64(bytesIn)) }
        if bytesOut > 0 { writer.bytesOut.count(UInt64(bytesOut)) }
    }
}

extension Pool {
    /// Counts bytes that sessions of this pool have carried: from clients and to clients. Any thread, at any time.
    ///
    /// - Throws: `range` for less than 0 or more than `Limits.report` bytes, `detached`; then nothing is counted.
    public func report(bytesIn: Int, out bytesOut: Int) throws(SegmentError) {
        try engine.report(bytesIn: bytesIn, out: bytesOut)
    }

    /// All bytes that have been reported since the segment was made, by whoever: what a process reported stays when it goes.
    ///
    /// While a process attaches, what the last holder of its slot has reported may be missing for a moment: keep the
    /// higher of two readings (`Traffic.growth`).
    public func traffic() -> Traffic {
        var all = Traffic(bytesIn: engine.formerBytesIn.load(), bytesOut: engine.formerBytesOut.load())
        engine.memory.forEachSlot { slot in engine.forEachWriter(of: slot) { all.add($0.traffic) } }
        return all
    }
}
