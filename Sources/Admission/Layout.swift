// Layout: where everything lies in a segment, and how its words are packed.
//
//     0          header (one page)               magic, version, sizes: written once, before the segment has its name
//     4096       16 pools x 256 B                line 0: the pool word, the loan; line 1: cap, policy, statistics
//     8192       512 processes x 36 KiB          each: its record, 16 balances x 64 B, 17 x 16 writers x 128 B (a locked shard
//                                                and 16 lanes for each pool)
//     ...        CPUs x 512 x 16 shards x 128 B  the shards of one CPU lie together: 1 MiB on the CPU's own node
//     ...        512 x 65536 handles x 8 B
//
// Memory that nobody has used is zero, and zero is a valid state everywhere: closed gates, no credit, free slots.
//
// The file is sparse: a process takes the pages that it may touch when it attaches, and those of its handles when it first uses
// them. Whoever reads others' words reads only what they have taken: on a file system in memory a read takes pages too, and a
// full one answers with a signal (SegmentFile.swift).

import CAdmission

/// What a segment can hold. Each limit is checked where it is met.
public enum Limits {
    /// Pools (licence types) in a segment.
    public static let pools = 16
    /// Processes attached at the same time, one of them the keeper.
    public static let processes = 512
    /// Lanes of one process.
    public static let lanes = 16
    /// CPUs that may have shards; threads on others use their process' locked shard.
    public static let cpus = 1000
    /// The highest cap of a pool, in sessions.
    public static let cap = (1 << 22) - 1
    /// Sessions of one process that have a handle at the same time.
    public static let handles = 1 << 16
    /// Bytes of one direction in one report: more is a mistake, such as a negative number that was cast.
    public static let report = 1 << 50
}

package enum Layout {
    static let magic: UInt64 = 0x6670_7861_646d_3031  // "fpxadm01"
    static let version: UInt64 = 4

    static let pageBytes = 4096
    static let poolBytes = 256
    package static let writerBytes = MemoryLayout<fpx_writer>.size
    /// The locked shard, then the lanes.
    static let extraWriters = 1 + Limits.lanes

    static let pools = pageBytes
    static let processes = pools + Limits.pools * poolBytes
    // Within a process.
    static let balanceBytes = 64
    static let balances = 512
    static let extras = balances + Limits.pools * balanceBytes
    static let processBytes = (extras + extraWriters * Limits.pools * writerBytes + pageBytes - 1) & ~(pageBytes - 1)

    static let shards = processes + Limits.processes * processBytes
    package static let cpuStride = 1 << Int(FPX_CPU_STRIDE_SHIFT)
    /// The shards of one process on one CPU.
    static let shardsOfProcess = Limits.pools * writerBytes
    static let handleBytes = 8
    /// Handles are taken into use by the page.
    static let handlesOfChunk = pageBytes / handleBytes
    static let handleChunks = Limits.handles / handlesOfChunk

    static func process(_ slot: Int) -> Int { processes + slot * processBytes }
    static func handles(cpus: Int) -> Int { shards + cpus * cpuStride }
    package static func size(cpus: Int) -> Int { handles(cpus: cpus) + Limits.processes * Limits.handles * handleBytes }

    // The words, each with who writes and who reads it. All loads acquire and all stores release (`Word`). Where a word says
    // "statistic", nobody decides anything by it, so that relaxed additions are enough and a reader may be late.

    // Header. The first seven words but the incarnation are written by who makes the segment, before it has its name: all
    // others read what was there before they could map it.
    static let headerMagic = 0
    static let headerVersion = 8
    static let headerSize = 16
    static let headerCPUs = 24
    static let headerPools = 32
    static let headerFence = 40
    /// Counts attachments. Added to by who attaches; nobody else reads it.
    static let headerIncarnation = 48
    /// 1: another segment has taken its place. Written by its keeper, once; read by who attaches and before new sessions begin.
    /// Late readers admit here, where the keeper still counts.
    static let headerReplaced = 56
    /// What somebody has found damaged, a pool's number and 1. Written by who finds it first; read by slow ways and the keeper.
    static let headerDamage = 64
    /// Attachments that found every process slot taken. Counted by who tried, read by the keeper: a statistic.
    static let headerRefusedProcesses = 72
    /// A collector could not fence, so that the keeper is asked to collect: bit N for pool N. Set by the collector, taken away
    /// by who collects in its place: each before it looks at the pool.
    static let headerCollects = 80
    /// Process slots that were ever used, a bit each. Set by who attaches, after it has reserved the slot's memory and before
    /// its first operation: who reads a bit may touch that memory, and who reads an operation reads the bit.
    static let headerSlots = 128
    static let slotWords = Limits.processes / 64

    // A pool.
    /// The last operation, a `PoolWord`. Swapped by anybody: each change decides on the whole pair.
    static let poolWord = 0
    /// The last sequence that is known to be applied. Stored by who has applied it, read by all: a hint, which may be behind.
    static let poolDone = 16
    /// A `Loan`. Stored by the keeper, taken away by who finds its time over; a transaction follows each change.
    static let poolLoan = 24
    /// The cap, an `Account`: changed by operations of the keeper, applied by anybody.
    static let poolCap = 128
    /// An `OverLimitPolicy`. Stored by the keeper, read by who is over the limit: it holds for the next session.
    static let poolPolicy = 144
    /// Raised by who bypasses or takes a snapshot, read by snapshots: a statistic.
    static let poolBypassPeak = 152
    /// Counted by who collects, read by snapshots: a statistic.
    static let poolCollects = 160
    /// Bytes of earlier holders of process slots. Counted by who takes such a slot, read by who adds up: a statistic.
    static let poolBytesIn = 168
    static let poolBytesOut = 176

    // A process. Its holder writes these before it is live, and who reads them looks at the balance first.
    static let processIdentity = 0
    static let processStart = 8
    /// The errno with which membarrier failed this process after it had attached; 0: it never has. Read by the keeper: a
    /// statistic.
    static let processFenceError = 16
    /// 15 bytes of its name and a zero, as it was when the process attached.
    static let processName = 24
    /// Writers that were ever used, a bit each: of the locked shard and lanes, and of CPUs. Set by their process before the
    /// operation that opens them; read by collectors, reapers and statistics, which find every open one.
    static let processLanes = 40
    static let processCPUs = 64
    /// Chunks of handles that are taken into use, and those of them in which no entry is free. The first are set by the
    /// process, after the memory is reserved; the second by it, and taken away by who frees an entry (SessionHandle.swift).
    static let processHandles = 192
    static let processFullHandles = 208

    // A writer (fpx_writer).
    /// Admissions and releases, A and R. Written by the lane's owner; for a shard by sections on its CPU; for a locked one by
    /// locked additions of its process. Read by collectors after their fence, R first (e), and by statistics.
    static let writerAdmitted = 0
    static let writerReleased = 8
    /// Gate and credit, an `Account`. Swapped by who applies an operation; the gate alone is frozen by collectors.
    static let writerPair = 16
    /// Sessions that pass uninspected now. Written as `writerAdmitted` is, and by others who release a handle: locked there.
    static let writerBypassed = 32
    /// Written by the writer's threads; read by snapshots: statistics, in which two threads may lose a count.
    static let writerBypassedPeak = 40
    static let writerRefused = 48
    /// Where to look for a free handle first: a hint of the writer's threads.
    static let writerCursor = 56
    static let writerPoolAdmissions = 64
    /// Bytes reported. Counted by the writer's threads, read by who adds up: a statistic.
    static let writerBytesIn = 72
    static let writerBytesOut = 80

    /// The slot of the keeper, whose sessions outlive its process.
    static let keeperSlot = Limits.processes - 1
}

/// What an operation names: a process slot, and one of its accounts.
///
///     process slot : 9 | index : 10
///
/// The index is that of a CPU's shard, from `PoolEngine.lockedIndex` on that of the locked shard and the lanes, or
/// `PoolEngine.balanceIndex`.
struct Target: Equatable {
    /// Of operations that name no account of a process.
    static let none = Target(rawValue: 0)
    private static let indexBits = 10

    let rawValue: Int

    var slot: Int { rawValue >> Self.indexBits & (Limits.processes - 1) }
    var index: Int { rawValue & (1 << Self.indexBits - 1) }

    init(rawValue: Int) { self.rawValue = rawValue }

    init(slot: Int, index: Int) { rawValue = slot << Self.indexBits | index }

    /// The balance of a process.
    static func balance(_ slot: Int) -> Target { Target(slot: slot, index: PoolEngine.balanceIndex) }
}

/// The last operation on a pool and its result: one 128-bit word.
///
///     low   free : 23 signed | loose : 18 | amount : 23 signed
///     high  sequence : 41 | target : 19 | operation : 4
///
/// `free`: sessions in nobody's hands. `loose`: writers whose gate is open or frozen, that is, that may hold spare sessions. A
/// gate opens only while there are 16 free sessions for each one that is open (`PoolEngine.opens`), so there are never 2^18.
package struct PoolWord {
    let low: UInt64
    let high: UInt64

    var free: Int { Int(Int64(bitPattern: low) >> 41) }
    var loose: Int { Int(low >> 23 & 0x3ffff) }
    var amount: Int { Int(Int64(bitPattern: low << 41) >> 41) }
    var sequence: UInt64 { high >> 23 }
    var target: Target { Target(rawValue: Int(high >> 4 & 0x7ffff)) }
    /// Nil: no operation has this number (damaged memory).
    var knownOperation: Operation? { Operation(rawValue: UInt8(high & 15)) }
    var operation: Operation { knownOperation ?? .none }

    init(low: UInt64, high: UInt64) {
        self.low = low
        self.high = high
    }

    init(free: Int, loose: Int, amount: Int, sequence: UInt64, target: Target, operation: Operation) {
        low =
            UInt64(bitPattern: Int64(free)) << 41 | UInt64(truncatingIfNeeded: loose & 0x3ffff) << 23
            | UInt64(truncatingIfNeeded: amount & 0x7fffff)
        high = sequence << 23 | UInt64(truncatingIfNeeded: target.rawValue & 0x7ffff) << 4 | UInt64(operation.rawValue)
    }
}

/// What an operation does to its target's credit C, bound G and phase; `n` is its amount.
package enum Operation: UInt8 {
    /// Nothing is pending.
    case none = 0
    /// C := n. A tight admission or release.
    case adjust
    /// C += n, G += n - 1. A refill: the caller keeps one session.
    case refill
    /// The same and the gate opens.
    case refillAndOpen
    /// The same and the gate opens to locked stores.
    case refillAndOpenLocked
    /// C += n, G += n. A pending claim is paid for; with n = 0 only the sequence changes and a covered claim becomes a session.
    case grow
    /// C -= n, G -= n, the gate closes. Spare sessions go back to the pool.
    case settle
    /// G += 1 and the gate opens: the session of a tight release stays as a spare one.
    case open
    /// The same, to locked stores.
    case openLocked
    /// G += 1: a pending claim that is not covered is taken back.
    case withdraw
    /// C -= n at the writer, C += n at its process' balance.
    case fold
    /// The balance of a dead process has been given back: C = 0, free.
    case free
    /// The balance belongs to a living process.
    case live
    /// The pool's cap is n.
    case cap
    /// Handle n of a process is free, and C -= 1 at its balance. From n = `Limits.handles` on: no handle, and
    /// C -= n - `Limits.handles` + 1.
    case releaseHandle
}

/// How a writer's gate stands.
package enum Phase {
    /// Closed: no spare session behind it, all go by the pool.
    static let tight: UInt64 = 0
    /// Open to plain stores.
    static let loose: UInt64 = UInt64(FPX_GATE_OPEN)
    /// Open to locked stores.
    static let looseLocked: UInt64 = 2
    /// Closed for a collector that is about to look behind it.
    static let frozen: UInt64 = 4
}

/// Sessions beyond the cap that may be admitted until a deadline: one word, so that nobody sees half of a change.
///
///     deadline : 40, milliseconds of CLOCK_BOOTTIME | sessions : 24
package struct Loan: Equatable {
    static let none = Loan(rawValue: 0)
    /// As much as 34 years after boot: for ever.
    static let latest: UInt64 = 1 << 40 - 1

    let rawValue: UInt64

    var sessions: Int { Int(rawValue & 0xff_ffff) }
    var deadline: UInt64 { rawValue >> 24 }

    init(rawValue: UInt64) { self.rawValue = rawValue }

    init(sessions: Int, deadline: UInt64) {
        rawValue = sessions == 0 ? 0 : min(deadline, Self.latest) << 24 | UInt64(sessions)
    }
}

/// A writer's gate and credit, a process' balance (bound = incarnation, phase = `live` or 0), or a pool's cap (credit).
///
///     low   gate : 32 | sequence : 29 | phase : 3          the gate stands FPX_GATE_BIAS above the bound while it is `loose`
///     high  sequence, upper bits : 32 | credit : 32 signed
package struct Account {
    /// The phase of a living process' balance.
    static let live: UInt64 = 2

    let low: UInt64
    let high: UInt64

    var phase: UInt64 { low & 7 }
    var sequence: UInt64 { (high >> 32) << 29 | (low >> 3 & 0x1fff_ffff) }
    var credit: Int { Int(Int32(truncatingIfNeeded: high)) }
    /// The bound that admits minus releases may reach, modulo 2^32.
    var bound: UInt32 { UInt32(truncatingIfNeeded: low >> 32) &- (phase == Phase.loose ? UInt32(FPX_GATE_BIAS) : 0) }

    init(low: UInt64, high: UInt64) {
        self.low = low
        self.high = high
    }

    init(bound: UInt32, phase: UInt64, credit: Int, sequence: UInt64) {
        let gate = bound &+ (phase == Phase.loose ? UInt32(FPX_GATE_BIAS) : 0)
        low = UInt64(gate) << 32 | (sequence & 0x1fff_ffff) << 3 | phase
        high = (sequence >> 29) << 32 | UInt64(UInt32(truncatingIfNeeded: credit))
    }

    /// The low word with the gate frozen, nothing else changed.
    static func frozen(_ low: UInt64) -> UInt64 {
        let open = Account(low: low, high: 0)
        return UInt64(open.bound) << 32 | (low & 0xffff_fff8) | Phase.frozen
    }

    /// Spare sessions behind the gate, given admits and releases. Negative: claims that are not covered.
    func spare(admitted: UInt64, released: UInt64) -> Int {
        Int(Int32(bitPattern: bound &- UInt32(truncatingIfNeeded: admitted) &+ UInt32(truncatingIfNeeded: released)))
    }
}
