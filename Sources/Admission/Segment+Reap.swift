// The life of a process slot, and how what a dead process held comes back.
//
// A slot's byte in the file is locked by an open file description that lives as long as the process' mapping. When it is not
// locked, the process is dead: it will execute nothing more on this memory (a zombie has no memory). Its writers are folded
// into its balance one by one, and the balance goes back to the pool in one transaction: exactly once, whoever reaps, however
// many do it at the same time, and if a reaper dies halfway. All of this is lock-free.
//
// A reaper reads the incarnation first, then tests the lock, then works only while the slot is live in that incarnation,
// looking again in each transaction: one that was stopped for a while cannot touch the slot's next holder.

import CAdmission

extension PoolEngine {
    /// Gives back what a dead incarnation of a slot held.
    func reap(slot: Int, incarnation: UInt32) {
        func isCurrent() -> Bool {
            let account = balance(slot).account
            return account.phase == Account.live && account.bound == incarnation
        }
        guard isCurrent() else { return }
        gather(slot: slot, while: isCurrent)
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let word = begin()
            guard isCurrent() else { return }
            if transact(word, free: balance(slot).account.credit, .free, target: .balance(slot), amount: 0) { return }
        }
    }

    /// Settles a dead process' writers and folds them into its balance.
    func gather(slot: Int, while isCurrent: () -> Bool) {
        forEachWriter(of: slot) { writer in
            var attempts = Attempts()
            while attempts.areLeft(self) {
                let word = begin()
                guard isCurrent() else { return }
                let account = writer.account
                if account.phase != Phase.tight {
                    // Its spare sessions are nobody's, so they go back before its sessions do: no fence, its threads are gone.
                    let spare = max(0, writer.spare(account))
                    _ = transact(word, free: spare, loose: -1, .settle, target: writer.target, amount: spare)
                } else if account.credit != 0 {
                    _ = transact(word, .fold, target: writer.target, amount: account.credit)
                } else {
                    return
                }
            }
        }
    }

    /// Takes this process' slot into use: its balance is free, and its lock is held by us.
    func enter(incarnation: UInt32) {
        forEachWriter(of: slot) { writer in
            // In this order: who adds up meanwhile finds too little for a moment, never anything twice.
            formerBytesIn.count(writer.bytesIn.exchange(0))
            formerBytesOut.count(writer.bytesOut.exchange(0))
            for word in [
                writer.admitted, writer.released, writer.bypassed, writer.bypassedPeak, writer.refused, writer.cursor,
                writer.poolAdmissions,
            ] {
                word.store(0)
            }
            rewrite(writer.pair, bound: 0)
        }
        rewrite(balance(slot), bound: incarnation)
        var attempts = Attempts()
        while attempts.areLeft(self), !transact(begin(), .live, target: .balance(slot), amount: 0) {}
    }

    /// Sets a closed account's bound. The sequence stays: an operation that was applied to it stays applied.
    private func rewrite(_ pair: Pair, bound: UInt32) {
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let old = pair.account
            let new = Account(bound: bound, phase: 0, credit: 0, sequence: old.sequence)
            if pair.compareAndSwap((old.low, old.high), (new.low, new.high)) { return }
        }
    }
}

/// Who looks for the dead of a segment: an attachment, or one in the making.
struct Reaper {
    let memory: SegmentMemory
    /// The segment's pools.
    let engines: [PoolEngine]
    let file: SegmentFile

    /// Whether a process has a slot, alive or not reaped yet.
    func isTaken(_ slot: Int) -> Bool { engines.contains { $0.balance(slot).account.phase == Account.live } }

    func isLocked(_ slot: Int) -> Bool { file.isLocked(slot) }

    func reap() -> Int {
        guard file.isOpen else { return 0 }
        var dead: [(slot: Int, accounts: [Account])] = []
        memory.forEachSlot { slot in
            guard slot != Layout.keeperSlot, isTaken(slot) else { return }
            let accounts = engines.map { $0.balance(slot).account }
            if !isLocked(slot) { dead.append((slot, accounts)) }
        }
        // Once for all of them, and before any of their slots is free.
        if !dead.isEmpty { finishForeignReleases() }
        for (slot, accounts) in dead {
            for (engine, account) in zip(engines, accounts) where account.phase == Account.live {
                engine.reap(slot: slot, incarnation: account.bound)
            }
        }
        for engine in engines { engine.settleDebt() }
        return dead.count
    }
}

extension Segment {
    /// Gives back what dead processes held, finishes what a dead process left half done, and collects for processes that may
    /// not fence. Call it often (fpxd: each 25 ms).
    ///
    /// When it returns, nothing is left of who had died before the call, whoever found it: any attached process may reap.
    ///
    /// - Returns: how many processes this call has found dead; others may have found them before.
    @discardableResult
    public func reap() -> Int {
        guard isAttached else { return 0 }
        for engine in engines { engine.collectIfAsked() }
        return Reaper(memory: memory, engines: engines, file: file).reap()
    }
}
