// Collect: freeze, fence, settle (see PoolEngine.swift).

import CAdmission

extension PoolEngine {
    /// Takes the spare sessions of every open writer: freeze, fence, settle.
    ///
    /// - Parameter word: the pool with nothing pending and writers loose.
    /// - Returns: false where no loose writer was found and the pool is as it was: the memory is damaged.
    @inline(never)
    func collect(_ word: PoolWord) -> Bool {
        collects.add(1)
        var found = false
        unsafe withUnsafeTemporaryAllocation(of: Frozen.self, capacity: Frozen.batch) { frozen in
            var count = 0
            var plainSeen = false
            forEachSlot { slot in
                guard balance(slot).account.phase == Account.live else { return }
                forEachWriter(of: slot) { writer in
                    guard let seen = freeze(writer) else { return }
                    found = true
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
        return found || high.load() != word.high
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
        for index in frozen.indices {
            let entry = unsafe frozen[index]
            settle(entry.writer, gate: entry.gate)
        }
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
    func thaw(_ writer: Writer, _ account: Account) {
        if writer.kind == .shard { fpx_fence_everybody() }
        settle(writer, gate: account.low)
    }
}
