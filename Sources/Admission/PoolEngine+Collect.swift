// Collect: freeze, fence, settle (see PoolEngine.swift).

import CAdmission

extension PoolEngine {
    /// Takes the spare sessions of every open writer: freeze, fence, settle.
    ///
    /// - Parameter word: the pool with nothing pending and writers loose.
    /// - Returns: whether to look again. False: no loose writer was found and the pool is as it was (the memory is damaged), or
    ///   this process may not fence: the frozen writers count as loose, and the keeper is asked to settle them.
    @inline(never)
    func collect(_ word: PoolWord) -> Bool {
        collects.add(1)
        var found = false
        var refused = false
        // On the stack: nothing here allocates.
        var frozen = InlineArray<128, Frozen>(repeating: Frozen(gate: 0, writer: lockedShard))
        var count = 0
        var plainSeen = false
        memory.forEachSlot { slot in
            guard balance(slot).account.phase == Account.live else { return }
            forEachWriter(of: slot) { writer in
                guard let seen = freeze(writer) else { return }
                found = true
                plainSeen = plainSeen || seen.plain
                frozen[count] = Frozen(gate: seen.gate, writer: writer)
                count += 1
                if count == frozen.count {
                    if !settleAll(frozen, count, fence: plainSeen) { refused = true }
                    count = 0
                    plainSeen = false
                }
            }
        }
        if !settleAll(frozen, count, fence: plainSeen) { refused = true }
        return found && !refused || high.load() != word.high
    }

    /// A frozen gate as the collector saw it before its fence.
    @safe
    private struct Frozen {
        let gate: UInt64
        let writer: Writer
    }

    /// Freezes an open gate. The gate as it is now, or nil where it is tight; `plain`: a fence is needed.
    private func freeze(_ writer: Writer) -> (gate: UInt64, plain: Bool)? {
        var gate = writer.gate.load()
        var attempts = Attempts()
        while attempts.areLeft(self) {
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
        return nil
    }

    /// False: a fence was needed and refused.
    private func settleAll(_ frozen: borrowing InlineArray<128, Frozen>, _ count: Int, fence: Bool) -> Bool {
        // When somebody else has filled the pool meanwhile, the frozen ones stay: they count as loose, and their threads
        // or the next collector settle them.
        if count == 0 || loadPool().free > 0 { return true }
        if fence, !fenceEverybody() { return false }
        for index in 0..<count { settle(frozen[index].writer, gate: frozen[index].gate) }
        return true
    }

    /// False: the kernel refuses, which is written down for the keeper to tell of, and to collect in this process' place.
    private func fenceEverybody() -> Bool {
        let code = fpx_fence_everybody()
        if code == 0 { return true }
        guard slot < Limits.processes else { return false }
        memory.process(slot, Layout.processFenceError).store(UInt64(code))
        memory.header(Layout.headerCollects).insert(bits: 1 << UInt64(pool))
        return false
    }

    /// Gives the spare sessions of a writer back if its gate is still the one that was fenced.
    private func settle(_ writer: Writer, gate: UInt64) {
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let word = begin()
            let account = writer.account
            guard account.low == gate else { return }
            let spare = max(0, writer.spare(account))
            if transact(word, free: spare, loose: -1, .settle, target: writer.target, amount: spare) { return }
        }
    }

    /// Settles a frozen writer of this thread's own process. A lane's owner sees its own stores and locked stores are seen by
    /// all; a shard's may still be in another CPU's store buffer.
    ///
    /// - Returns: false where that needs a fence and it is refused.
    func thaw(_ writer: Writer, _ account: Account) -> Bool {
        if writer.kind == .shard, !fenceEverybody() { return false }
        settle(writer, gate: account.low)
        return true
    }

    /// What a process that may not fence has asked for. For who reaps: one that may not fence either asks again.
    func collectIfAsked() {
        let bit: UInt64 = 1 << UInt64(pool)
        let asked = memory.header(Layout.headerCollects)
        guard asked.load() & bit != 0 else { return }
        asked.remove(bits: bit)
        let word = begin()
        if word.loose > 0, word.free <= 0 { _ = collect(word) }
    }
}
