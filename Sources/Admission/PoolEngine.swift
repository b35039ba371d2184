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
//      session, if it is covered (H <= G), or is paid for, or is withdrawn when the pool is full, each by a transaction, so that
//      no two threads decide on the same spare session.
//  (d) Only a transaction lowers G or C, and only from frozen (after a fence) or tight.
//  (e) R is read before A when a writer is settled: the spare sessions may be taken for fewer than they are, never for more.
//  (f) A refusal is one load that finds free <= 0 and loose == 0: all credit lies in tight writers and balances, as sessions,
//      pending claims that are covered, or releases not yet returned.
//
// PROGRESS
// Fast admit and release: wait-free (an rseq section restarts only when the thread was preempted). Everything else: lock-free;
// a retry means that another thread's transaction succeeded. Nothing waits for a particular thread.
//
// CRASH
// At any instruction: a published operation is applied by the next one; an unpublished one never was. A dead process' writers
// are settled and folded into its balance, and that goes back in one transaction (Segment+Reap.swift).
//
// REFERENCES
// P. McKenney, "Is Parallel Programming Hard", chapter Counting (limit counters); M. Desnoyers, membarrier(2), rseq(2);
// M. Herlihy, "Wait-free synchronization" (helping).

import CAdmission

/// What an engine knows of its pool and process. Lives for the life of the process.
@safe
@usableFromInline
struct PoolContext {
    /// The segment's memory. Never unmapped: after a detach or a fork it is empty, and empty memory refuses.
    let base: UnsafeMutableRawPointer
    /// The shard of CPU 0 of this process and pool.
    @usableFromInline let shards: UnsafeMutablePointer<CChar>
    /// CPUs that have shards, or 0 when this process cannot use restartable sequences.
    @usableFromInline let rseqCPUs: UInt64
    let cpus: Int
    let pool: Int
    let slot: Int
    let plain: Bool
}

/// One process' access to one pool: a pointer, so that it costs nothing to keep in a session.
@safe
@usableFromInline
package struct PoolEngine: Equatable, @unchecked Sendable {
    @usableFromInline let context: UnsafePointer<PoolContext>

    /// - Parameter plain: whether gates may be open to plain stores (all processes are fenced by membarrier).
    init(base: UnsafeMutableRawPointer, cpus: Int, pool: Int, slot: Int, plain: Bool) {
        let offset = Layout.shards + (slot * Limits.pools + pool) * Layout.writerBytes
        let context = UnsafeMutablePointer<PoolContext>.allocate(capacity: 1)
        unsafe context.initialize(
            to: PoolContext(
                base: base, shards: (base + offset).assumingMemoryBound(to: CChar.self),
                rseqCPUs: plain && fpx_rseq_is_registered() ? UInt64(cpus) : 0,
                cpus: cpus, pool: pool, slot: slot, plain: plain))
        unsafe self.context = UnsafePointer(context)
    }

    /// Frees the context of an engine that nothing refers to.
    func discard() { unsafe UnsafeMutablePointer(mutating: context).deallocate() }

    @inlinable
    package static func == (left: PoolEngine, right: PoolEngine) -> Bool { unsafe left.context == right.context }

    var base: UnsafeMutableRawPointer { unsafe context.pointee.base }
    @inlinable var shards: UnsafeMutablePointer<CChar> { unsafe context.pointee.shards }
    @inlinable var rseqCPUs: UInt64 { unsafe context.pointee.rseqCPUs }
    var cpus: Int { unsafe context.pointee.cpus }
    var pool: Int { unsafe context.pointee.pool }
    var slot: Int { unsafe context.pointee.slot }
    var plain: Bool { unsafe context.pointee.plain }

    var low: Word { unsafe Word(record, at: Layout.poolWord) }
    var high: Word { unsafe Word(record, at: Layout.poolWord + 8) }
    var done: Word { unsafe Word(record, at: Layout.poolDone) }

    static let looseMin = 4
    static let batchMax = 64
    static let foldAt = 1 << 20
    static let backoff = 16
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
    /// Process slot : 6 | index : 10.
    let target: Int
    let kind: Kind

    var pair: Pair { unsafe Pair(memory, at: Layout.writerPair) }
    var gate: Word { pair.low }
    var admitted: Word { unsafe Word(memory, at: Layout.writerAdmitted) }
    var released: Word { unsafe Word(memory, at: Layout.writerReleased) }
    var bypassed: Word { unsafe Word(memory, at: Layout.writerBypassed) }
    var bypassedPeak: Word { unsafe Word(memory, at: Layout.writerBypassedPeak) }
    var refused: Word { unsafe Word(memory, at: Layout.writerRefused) }
    var cursor: Word { unsafe Word(memory, at: Layout.writerCursor) }

    var account: Account { pair.account }

    /// Spare sessions behind the gate of `account`. Releases are read first (e).
    func spare(_ account: Account) -> Int {
        let releases = released.load()
        return account.spare(admitted: admitted.load(), released: releases)
    }
}

extension Pair {
    /// Both words as they were at one moment.
    var account: Account {
        while true {
            let before = low.load()
            let upper = high.load()
            if low.load() == before { return Account(low: before, high: upper) }
        }
    }
}

extension PoolEngine {
    static let lockedIndex = Limits.cpus
    static let firstLaneIndex = Limits.cpus + 1
    static let balanceIndex = 1023

    var record: UnsafeMutableRawPointer { unsafe base + (Layout.pools + pool * Layout.poolBytes) }
    var capAccount: Pair { unsafe Pair(record, at: Layout.poolCap) }
    var policy: Word { unsafe Word(record, at: Layout.poolPolicy) }
    var bypassPeak: Word { unsafe Word(record, at: Layout.poolBypassPeak) }
    var collects: Word { unsafe Word(record, at: Layout.poolCollects) }

    func balance(_ slot: Int) -> Pair {
        unsafe Pair(base, at: Layout.balances + (slot * Limits.pools + pool) * Layout.balanceBytes)
    }

    func processWord(_ slot: Int, _ word: Int) -> Word {
        unsafe Word(base, at: Layout.processes + slot * Layout.processBytes + word)
    }

    /// Where a writer's record lies; nil for an index that no segment has (damaged memory).
    func writer(slot: Int, index: Int, kind: Writer.Kind) -> Writer? {
        let offset: Int
        if index < cpus {
            offset = Layout.shards + index * Layout.cpuStride + (slot * Limits.pools + pool) * Layout.writerBytes
        } else if index >= Self.lockedIndex && index < Self.lockedIndex + Layout.extraWriters {
            offset =
                Layout.extras + slot * Layout.extrasOfProcess
                + ((index - Self.lockedIndex) * Limits.pools + pool) * Layout.writerBytes
        } else {
            return nil
        }
        return unsafe Writer(memory: base + offset, target: slot << 10 | index, kind: kind)
    }

    /// Calls `body` for each writer that a process slot has ever used.
    func forEachWriter(of slot: Int, _ body: (Writer) -> Void) {
        for word in 0..<((cpus + 63) / 64) {
            var used = processWord(slot, Layout.processCPUs + word * 8).load()
            while used != 0 {
                let index = word * 64 + used.trailingZeroBitCount
                used &= used &- 1
                if index < cpus, let shard = writer(slot: slot, index: index, kind: .shard) { body(shard) }
            }
        }
        var extra = processWord(slot, Layout.processLanes).load()
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

    /// Process slots that have ever been used.
    func forEachSlot(_ body: (Int) -> Void) {
        var slots = unsafe Word(base, at: Layout.headerSlots).load()
        while slots != 0 {
            body(slots.trailingZeroBitCount)
            slots &= slots &- 1
        }
    }
}

// MARK: - Transactions

extension PoolEngine {
    func loadPool() -> PoolWord {
        while true {
            let upper = high.load()
            let lower = low.load()
            if high.load() == upper { return PoolWord(low: lower, high: upper) }
        }
    }

    /// The pool with nothing pending: what a transaction may be built on.
    func begin() -> PoolWord {
        let word = loadPool()
        complete(word)
        return word
    }

    /// Publishes one operation on top of `word` and applies it. False: something else came first, and nothing was done.
    func transact(
        _ word: PoolWord, free: Int = 0, loose: Int = 0, _ operation: Operation, target: Int, amount: Int
    ) -> Bool {
        let next = PoolWord(
            free: word.free &+ free, loose: word.loose &+ loose, amount: amount, sequence: word.sequence &+ 1,
            target: target, operation: operation)
        guard unsafe Pair(record, at: Layout.poolWord).compareAndSwap((word.low, word.high), (next.low, next.high)) else {
            for _ in 0..<Self.backoff { fpx_pause() }
            return false
        }
        complete(next)
        return true
    }

    /// Applies the operation that `word` names, unless that has been done.
    func complete(_ word: PoolWord) {
        let operation = word.operation
        if operation == .none || done.load() == word.sequence { return }
        let slot = word.target >> 10 & (Limits.processes - 1)
        let amount = word.amount
        switch operation {
        case .cap:
            apply(word, to: capAccount)
        case .free, .live:
            apply(word, to: balance(slot))
        case .releaseHandle:
            apply(word, to: balance(slot))
            finishRelease(word, handle: amount & (Limits.handles - 1), of: slot)
        default:
            let index = word.target & 1023
            if index == Self.balanceIndex {
                apply(word, to: balance(slot))
            } else if let writer = writer(slot: slot, index: index, kind: .locked) {
                apply(word, to: writer.pair)
                if operation == .fold { apply(word, to: balance(slot), atBalance: true) }
            }
        }
        done.store(word.sequence)
    }

    private func apply(_ word: PoolWord, to pair: Pair, atBalance: Bool = false) {
        while true {
            let account = pair.account
            if account.sequence == word.sequence || high.load() != word.high { return }
            let next = Self.result(of: word, on: account, atBalance: atBalance)
            if pair.compareAndSwap((account.low, account.high), (next.low, next.high)) { return }
        }
    }

    private static func result(of word: PoolWord, on account: Account, atBalance: Bool) -> Account {
        let n = word.amount
        var credit = account.credit
        var bound = account.bound
        var phase = account.phase
        switch word.operation {
        case .none: break
        case .adjust: credit &+= n
        case .refill, .refillAndOpen, .refillAndOpenLocked:
            credit &+= n
            bound &+= UInt32(truncatingIfNeeded: n &- 1)
            if word.operation == .refillAndOpen { phase = Phase.loose }
            if word.operation == .refillAndOpenLocked { phase = Phase.looseLocked }
        case .grow:
            credit &+= n
            bound &+= UInt32(truncatingIfNeeded: n)
        case .settle:
            credit &-= n
            bound &-= UInt32(truncatingIfNeeded: n)
            phase = Phase.tight
        case .open, .openLocked:
            bound &+= 1
            phase = word.operation == .open ? Phase.loose : Phase.looseLocked
        case .withdraw: bound &+= 1
        case .fold: credit = atBalance ? credit &+ n : credit &- n
        case .free:
            credit = 0
            phase = 0
        case .live: phase = Account.live
        case .cap: credit = n
        case .releaseHandle: credit &-= 1
        }
        return Account(bound: bound, phase: phase, credit: credit, sequence: word.sequence)
    }
}

// MARK: - Collect

extension PoolEngine {
    /// Takes the spare sessions of every open writer: freeze, fence, settle.
    @inline(never)
    func collect() {
        collects.add(1)
        unsafe withUnsafeTemporaryAllocation(of: Frozen.self, capacity: Frozen.batch) { frozen in
            var count = 0
            var plainSeen = false
            forEachSlot { slot in
                guard balance(slot).account.phase == Account.live else { return }
                forEachWriter(of: slot) { writer in
                    guard let seen = freeze(writer) else { return }
                    plainSeen = plainSeen || seen.plain
                    unsafe frozen[count] = Frozen(gate: seen.gate, writer: writer)
                    count += 1
                    if count == Frozen.batch {
                        unsafe settleAll(UnsafeMutableBufferPointer(rebasing: frozen[..<count]), fence: plainSeen)
                        count = 0
                        plainSeen = false
                    }
                }
            }
            unsafe settleAll(UnsafeMutableBufferPointer(rebasing: frozen[..<count]), fence: plainSeen)
        }
    }

    /// A frozen gate as the collector saw it before its fence.
    @safe
    private struct Frozen {
        static let batch = 128
        let gate: UInt64
        let writer: Writer
    }

    /// Freezes an open gate. The gate as it is now, or nil where it is tight; `plain`: a fence is needed.
    private func freeze(_ writer: Writer) -> (gate: UInt64, plain: Bool)? {
        var gate = writer.gate.load()
        while true {
            switch gate & 7 {
            case Phase.tight: return nil
            case Phase.frozen: return (gate, plain)
            default:
                let frozen = Account.frozen(gate)
                let (exchanged, now) = writer.gate.compareExchange(gate, frozen)
                if exchanged { return (frozen, gate & 7 == Phase.loose) }
                gate = now
            }
        }
    }

    private func settleAll(_ frozen: UnsafeMutableBufferPointer<Frozen>, fence: Bool) {
        // When somebody else has filled the pool meanwhile, the frozen ones stay: they count as loose, and their threads
        // or the next collector settle them.
        if frozen.isEmpty || loadPool().free > 0 { return }
        if fence { fpx_fence_everybody() }
        for unsafe entry in unsafe frozen { settle(entry.writer, gate: entry.gate) }
    }

    /// Gives the spare sessions of a writer back if its gate is still the one that was fenced.
    private func settle(_ writer: Writer, gate: UInt64) {
        while true {
            let word = begin()
            let account = writer.account
            guard account.low == gate else { return }
            let spare = max(0, writer.spare(account))
            if transact(word, free: spare, loose: -1, .settle, target: writer.target, amount: spare) { return }
        }
    }

    /// Settles a frozen writer of this thread's own process. A lane's owner sees its own stores and locked stores are seen by
    /// all; a shard's may still be in another CPU's store buffer.
    private func thaw(_ writer: Writer, _ account: Account) {
        if writer.kind == .shard { fpx_fence_everybody() }
        settle(writer, gate: account.low)
    }
}

// MARK: - The slow ways

extension PoolEngine {
    enum Outcome {
        case admitted
        case refused
        /// The gate is open again: try the fast path.
        case retry
    }

    /// Whether every licensed session is in use. One load, exact (f).
    var isFull: Bool {
        let word = PoolWord(low: low.load(), high: 0)
        return word.free <= 0 && word.loose == 0
    }

    /// How many sessions a writer may take at once: few near the limit, where they would only have to be collected again.
    private func batch(_ word: PoolWord) -> Int {
        max(1, min(word.free / (4 * (word.loose + 1)), Self.batchMax))
    }

    /// Admits with nothing stored yet.
    func admitSlow(_ writer: Writer) -> Outcome {
        if isFull { return .refused }
        markUsed(writer)
        unsafe Pair(record, at: Layout.poolWord).prefetchForWrite()
        while true {
            let word = begin()
            if word.free <= 0 {
                if word.loose == 0 { return .refused }
                collect()
                continue
            }
            let account = writer.account
            if abs(account.credit) > Self.foldAt {
                _ = transact(word, .fold, target: writer.target, amount: account.credit)
                continue
            }
            let count = batch(word)
            let opens = count >= Self.looseMin
            switch account.phase {
            case Phase.tight, Phase.frozen:
                let wasLoose = account.phase == Phase.frozen
                if opens {
                    let operation: Operation = opening(writer) == Phase.loose ? .refillAndOpen : .refillAndOpenLocked
                    if transact(
                        word, free: -count, loose: wasLoose ? 0 : 1, operation, target: writer.target, amount: count)
                    {
                        return .admitted
                    }
                } else if wasLoose {
                    thaw(writer, account)
                } else if transact(word, free: -1, .adjust, target: writer.target, amount: 1) {
                    return .admitted
                }
            default:
                if writer.spare(account) > 0 { return .retry }
                if transact(word, free: -count, .refill, target: writer.target, amount: count) { return .admitted }
            }
        }
    }

    /// Releases with nothing stored yet. False: the gate is open again, try the fast path.
    func releaseSlow(_ writer: Writer) -> Bool {
        markUsed(writer)
        unsafe Pair(record, at: Layout.poolWord).prefetchForWrite()
        while true {
            let word = begin()
            let account = writer.account
            if abs(account.credit) > Self.foldAt {
                _ = transact(word, .fold, target: writer.target, amount: account.credit)
                continue
            }
            switch account.phase {
            case Phase.frozen: thaw(writer, account)
            case Phase.tight:
                if word.free > 0 && batch(word) >= Self.looseMin {
                    let operation: Operation = opening(writer) == Phase.loose ? .open : .openLocked
                    if transact(word, loose: 1, operation, target: writer.target, amount: 0) { return true }
                } else if transact(word, free: 1, .adjust, target: writer.target, amount: -1) {
                    return true
                }
            default: return false
            }
        }
    }

    /// My claim is in A, and the gate changed under it (c). Whether it became a session.
    @inline(never)
    func resolveAdmit(_ writer: Writer) -> Bool {
        while true {
            let word = begin()
            let account = writer.account
            let covered = writer.spare(account) >= 0
            switch account.phase {
            case Phase.frozen:
                thaw(writer, account)
            case Phase.tight where covered:
                if transact(word, .grow, target: writer.target, amount: 0) { return true }
            case _ where covered:
                return true
            case _ where word.free > 0:
                if transact(word, free: -1, .grow, target: writer.target, amount: 1) { return true }
            case Phase.tight where word.loose == 0:
                if transact(word, .withdraw, target: writer.target, amount: 0) { return false }
            default:
                collect()
            }
        }
    }

    /// My release is in R, and the gate changed under it.
    @inline(never)
    func resolveRelease(_ writer: Writer) {
        while true {
            let word = begin()
            let account = writer.account
            switch account.phase {
            case Phase.frozen: thaw(writer, account)
            case Phase.tight:
                // With nothing to give back somebody has done it, or a claim has taken it. The transaction is made all the same:
                // it makes one fail that was decided before R counted this release (a claim withdrawn, or paid for).
                let spare = max(0, writer.spare(account))
                if transact(word, free: spare, .settle, target: writer.target, amount: spare) { return }
            default: return
            }
        }
    }

    /// The phase in which a writer's gate opens.
    private func opening(_ writer: Writer) -> UInt64 {
        plain && writer.kind != .locked ? Phase.loose : Phase.looseLocked
    }

    /// Lets collectors, reapers and statistics know of a writer before it is used.
    func markUsed(_ writer: Writer) {
        let index = writer.target & 1023
        let (word, bit) =
            index < Self.lockedIndex
            ? (Layout.processCPUs + index / 64 * 8, UInt64(1) << UInt64(index & 63))
            : (Layout.processLanes, UInt64(1) << UInt64(index - Self.lockedIndex))
        let used = processWord(slot, word)
        if used.load() & bit == 0 { used.insert(bits: bit) }
    }
}

// MARK: - Locked claims

extension PoolEngine {
    /// Admits by locked stores, for threads without restartable sequences and on machines without membarrier.
    func admitLocked(_ writer: Writer) -> Bool {
        while true {
            let gate = writer.gate.load()
            let account = Account(low: gate, high: 0)
            if account.phase == Phase.looseLocked && writer.spare(account) > 0 {
                let ticket = writer.admitted.add(1) &+ 1
                let covered = account.spare(admitted: ticket, released: writer.released.load()) >= 0
                return covered && writer.gate.load() == gate || resolveAdmit(writer)
            }
            switch admitSlow(writer) {
            case .admitted: return true
            case .refused: return false
            case .retry: break
            }
        }
    }

    func releaseLocked(_ writer: Writer) {
        while true {
            let gate = writer.gate.load()
            if gate & 7 == Phase.looseLocked {
                writer.released.add(1)
                if writer.gate.load() != gate { resolveRelease(writer) }
                return
            }
            if releaseSlow(writer) { return }
        }
    }
}

// MARK: - Cap

extension PoolEngine {
    var cap: Int { capAccount.account.credit }

    /// Changes the cap. When this returns, no admission succeeds while `cap` or more sessions are in use.
    func setCap(_ cap: Int) {
        while true {
            let word = begin()
            let delta = cap - capAccount.account.credit
            if transact(word, free: delta, .cap, target: 0, amount: cap) { break }
        }
        settleDebt()
    }

    /// While there is a debt no writer may keep spare sessions.
    func settleDebt() {
        while true {
            let word = begin()
            if word.free >= 0 || word.loose == 0 { return }
            collect()
        }
    }
}
