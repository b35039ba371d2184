// PoolEngine: freeze, fence, settle. The counter of one pool as one process sees it.
//
// DESIGN
// Sessions are counted where they happen: by writers (a lane of one thread, or the shard of a CPU), each on a line of its own,
// with plain stores. A writer has admits A and releases R; H = A - R is what it holds. Its gate is a bound G: while the gate is
// loose it may admit as long as H < G. What it may hold is taken from the pool in advance and counted as its credit C.
//
//     free + sum of C over all writers + sum of C over all balances = cap           (the law of conservation)
//
// A balance is what a process holds besides its writers: one for each process and pool. When the pool has nothing left,
// somebody collects: *freeze* every loose gate, *fence* all running threads of all processes once (membarrier), *settle* each
// writer: its spare sessions G - H go back, its gate is tight. A tight writer admits and releases through the pool, one at a
// time, and does not touch A, R or G: C += 1, C -= 1. When all gates are tight, `free <= 0` is one word that says "full".
//
// OPERATIONS ARE PUBLISHED, THEN APPLIED
// Whatever moves credit is one 128-bit compare-and-swap of the pool word. It changes `free` and `loose`, and names the change
// that is to be made elsewhere: operation, target, amount, under the next sequence number. Whoever meets an operation applies
// it first, by a 128-bit compare-and-swap of the target that is guarded by the sequence in it: exactly once. So a thread that
// dies or stops between the two halves harms nobody, and the pool word never changes under a decision that was made on it: if
// a transaction succeeds, nothing was pending and nothing had moved credit since `begin`.
//
// ORDER (docs/ORDERING.md has the proofs and the model that checks them)
//  (a) A claim is A += 1 after the gate was seen open and H < G; R += 1 after it was seen open. Both are followed by a second
//      look at the gate, with a compiler barrier between and no fence. An unchanged gate makes the claim a session.
//  (b) A collector changes the gate (a locked instruction), then fences. A store of (a) that its fence does not make visible
//      comes after it, and then its second look sees the changed gate.
//  (c) A claim whose second look fails is *pending*: it is in A, so whoever settles the writer counts it as held. It ends as a
//      session, if it is covered (H <= G), or is paid for, or is withdrawn when the pool is full, each by a transaction, so
//      that no two threads decide on the same spare session.
//  (d) Only a transaction lowers G or C, and only from frozen (after a fence) or tight.
//  (e) R is read before A when a writer is settled: the spare sessions may be taken for fewer than they are, never for more.
//  (f) A refusal is one load that finds free <= 0 (with a loan: at most minus its sessions, between two loads of the loan
//      that find the same) and loose == 0: all credit lies in tight writers and balances, as sessions, pending claims that
//      are covered, or releases not yet returned.
//
// LOANS Besides its cap a pool may have a loan: sessions that may be admitted until a deadline. Such an admission is a tight
// one that takes `free` below zero, and so makes the debt that is there anyway when the time is over: nobody has to act then,
// and a process that stops across the deadline cannot admit late. The clock is read after the transaction; whoever finds the
// time over takes the loan away, and its session back unless the cap covers it by then. Otherwise no clock is read.
//
// BOUNDS What a retry rests on is that another thread's operation succeeded. Where the memory is damaged that need not be so.
// Each slow way therefore has a number of attempts that no contention uses up; then it marks the segment as damaged and gives
// up: an admission is refused, a release is lost. Whoever comes later gives up at once, and the segment's keeper replaces it.
//
// PROGRESS
// Fast admit and release: wait-free (an rseq section restarts only when the thread was preempted). Everything else: lock-free;
// a retry means that another thread's transaction succeeded. Nothing waits for a particular thread.
//
// CRASH At any instruction: a published operation is applied by the next one; an unpublished one never was. A dead process'
// writers are settled and folded into its balance, and that goes back in one transaction (Segment+Reap.swift). The keeper's
// sessions stay counted, and its successor takes them over (Segment+Keeper.swift).
//
// REFERENCES
// P. McKenney, "Is Parallel Programming Hard", chapter Counting (limit counters); M. Desnoyers, membarrier(2), rseq(2);
// M. Herlihy, "Wait-free synchronization" (helping).

import CAdmission

/// What an engine knows of its pool and process. Lives for the life of the process.
@safe
@usableFromInline
struct PoolContext {
    let memory: SegmentMemory
    /// The pool's record.
    let record: UnsafeMutableRawPointer
    /// The shard of CPU 0 of this process and pool.
    @usableFromInline let shards: UnsafeMutablePointer<CChar>
    /// CPUs that have shards, or 0 when this process cannot use restartable sequences.
    @usableFromInline let rseqCPUs: UInt64
    let pool: Int
    /// The segment's file, for taking more of its memory; nil: an engine that takes none.
    let file: SegmentFile?
}

/// One process' access to one pool: a pointer, so that it costs nothing to keep in a session.
@safe
@usableFromInline
package struct PoolEngine: Equatable, @unchecked Sendable {
    @usableFromInline let context: UnsafePointer<PoolContext>

    init(_ memory: SegmentMemory, pool: Int, file: SegmentFile? = nil) {
        let offset = Layout.shards + (memory.slot * Limits.pools + pool) * Layout.writerBytes
        let context = UnsafeMutablePointer<PoolContext>.allocate(capacity: 1)
        unsafe context.initialize(
            to: PoolContext(
                memory: memory, record: memory.base + (Layout.pools + pool * Layout.poolBytes),
                shards: (memory.base + offset).assumingMemoryBound(to: CChar.self),
                rseqCPUs: memory.plain && fpx_rseq_is_registered() ? UInt64(memory.cpus) : 0, pool: pool,
                file: file))
        unsafe self.context = UnsafePointer(context)
    }

    /// Frees the context of an engine that nothing refers to.
    func discard() {
        let context = unsafe UnsafeMutablePointer(mutating: self.context)
        unsafe context.deinitialize(count: 1)
        unsafe context.deallocate()
    }

    @inlinable
    package static func == (left: PoolEngine, right: PoolEngine) -> Bool { unsafe left.context == right.context }

    var memory: SegmentMemory { unsafe context.pointee.memory }
    @inlinable var shards: UnsafeMutablePointer<CChar> { unsafe context.pointee.shards }
    @inlinable var rseqCPUs: UInt64 { unsafe context.pointee.rseqCPUs }
    var pool: Int { unsafe context.pointee.pool }
    var base: UnsafeMutableRawPointer { unsafe context.pointee.memory.base }
    var cpus: Int { unsafe context.pointee.memory.cpus }
    var slot: Int { unsafe context.pointee.memory.slot }
    var plain: Bool { unsafe context.pointee.memory.plain }
    var file: SegmentFile? { unsafe context.pointee.file }

    var poolPair: Pair { unsafe Pair(record, at: Layout.poolWord) }
    var low: Word { poolPair.low }
    var high: Word { poolPair.high }
    var done: Word { unsafe Word(record, at: Layout.poolDone) }
    var loanWord: Word { unsafe Word(record, at: Layout.poolLoan) }
}

// MARK: - What the pool word can name

/// A writer of this pool, of any process.
@safe
@usableFromInline
package struct Writer {
    enum Kind {
        /// One owner thread; plain stores.
        case lane
        /// Threads of one process on one CPU; restartable sequences.
        case shard
        /// Threads of one process; locked stores.
        case locked
    }

    let memory: UnsafeMutableRawPointer
    let target: Target
    let kind: Kind

    var pair: Pair { unsafe Pair(memory, at: Layout.writerPair) }
    var gate: Word { pair.low }
    var admitted: Word { unsafe Word(memory, at: Layout.writerAdmitted) }
    var released: Word { unsafe Word(memory, at: Layout.writerReleased) }
    var bypassed: Word { unsafe Word(memory, at: Layout.writerBypassed) }
    var bypassedPeak: Word { unsafe Word(memory, at: Layout.writerBypassedPeak) }
    var refused: Word { unsafe Word(memory, at: Layout.writerRefused) }
    var cursor: Word { unsafe Word(memory, at: Layout.writerCursor) }
    var poolAdmissions: Word { unsafe Word(memory, at: Layout.writerPoolAdmissions) }
    var bytesIn: Word { unsafe Word(memory, at: Layout.writerBytesIn) }
    var bytesOut: Word { unsafe Word(memory, at: Layout.writerBytesOut) }

    var account: Account { pair.account }

    /// Spare sessions behind the gate of `account`. Releases are read first (e).
    func spare(_ account: Account) -> Int {
        let releases = released.load()
        return account.spare(admitted: admitted.load(), released: releases)
    }
}

/// The attempts of one slow way (see BOUNDS).
struct Attempts {
    /// Each that fails backs off for two microseconds or follows another thread's success: an eighth of a second.
    static let limit = 1 << 16
    /// So many pass without a look at the segment.
    private static let quiet = 64

    private var count = 0

    @inline(__always)
    mutating func areLeft(_ engine: PoolEngine) -> Bool {
        count &+= 1
        return count < Self.quiet || areLeftAfterMany(engine)
    }

    @inline(never)
    private func areLeftAfterMany(_ engine: PoolEngine) -> Bool {
        if count < Self.limit { return !engine.memory.isDamaged }
        engine.markDamaged()
        return false
    }
}

extension PoolEngine {
    /// Names this pool as the one that stands still.
    func markDamaged() { _ = memory.header(Layout.headerDamage).compareExchange(0, UInt64(pool) + 1) }
}

extension Pair {
    /// Both words as they were at one moment.
    var account: Account {
        var before = low.load()
        for _ in 0..<Attempts.limit {
            let upper = high.load()
            let after = low.load()
            if after == before { return Account(low: before, high: upper) }
            before = after
        }
        return Account(low: before, high: high.load())  // only a vandal writes so often
    }
}

extension PoolEngine {
    static let lockedIndex = Limits.cpus
    static let firstLaneIndex = Limits.cpus + 1
    static let balanceIndex = 1023

    var record: UnsafeMutableRawPointer { unsafe context.pointee.record }
    var capAccount: Pair { unsafe Pair(record, at: Layout.poolCap) }
    var policy: Word { unsafe Word(record, at: Layout.poolPolicy) }
    var bypassPeak: Word { unsafe Word(record, at: Layout.poolBypassPeak) }
    var collects: Word { unsafe Word(record, at: Layout.poolCollects) }
    /// Bytes that earlier holders of process slots have reported.
    var formerBytesIn: Word { unsafe Word(record, at: Layout.poolBytesIn) }
    var formerBytesOut: Word { unsafe Word(record, at: Layout.poolBytesOut) }

    func balance(_ slot: Int) -> Pair {
        unsafe Pair(base, at: Layout.process(slot) + Layout.balances + pool * Layout.balanceBytes)
    }

    /// Where a writer's record lies; nil for an index that no segment has (damaged memory).
    func writer(slot: Int, index: Int, kind: Writer.Kind) -> Writer? {
        let offset: Int
        if index < cpus {
            offset = Layout.shards + index * Layout.cpuStride + (slot * Limits.pools + pool) * Layout.writerBytes
        } else if index >= Self.lockedIndex && index < Self.lockedIndex + Layout.extraWriters {
            offset =
                Layout.process(slot) + Layout.extras
                + ((index - Self.lockedIndex) * Limits.pools + pool) * Layout.writerBytes
        } else {
            return nil
        }
        return unsafe Writer(memory: base + offset, target: Target(slot: slot, index: index), kind: kind)
    }

    /// Calls `body` for each writer that a process slot has ever used.
    func forEachWriter(of slot: Int, _ body: (Writer) -> Void) {
        for word in 0..<((cpus + 63) / 64) {
            var used = memory.process(slot, Layout.processCPUs + word * 8).load()
            while used != 0 {
                let index = word * 64 + used.trailingZeroBitCount
                used &= used &- 1
                if index < cpus, let shard = writer(slot: slot, index: index, kind: .shard) { body(shard) }
            }
        }
        var extra = memory.process(slot, Layout.processLanes).load()
        while extra != 0 {
            let index = extra.trailingZeroBitCount
            extra &= extra &- 1
            if index < Layout.extraWriters,
                let writer = writer(slot: slot, index: Self.lockedIndex + index, kind: index == 0 ? .locked : .lane)
            {
                body(writer)
            }
        }
    }

    /// Calls `body` for each writer of a process slot, used or not. For slots that somebody holds: their memory is reserved.
    func forEveryWriter(of slot: Int, _ body: (Writer) -> Void) {
        for index in 0..<(Self.lockedIndex + Layout.extraWriters) {
            if let writer = writer(slot: slot, index: index, kind: .locked) { body(writer) }
        }
    }
}
