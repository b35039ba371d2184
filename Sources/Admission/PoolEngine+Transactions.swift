// Transactions: operations are published in the pool word, then applied to their target (see PoolEngine.swift).

import CAdmission

extension PoolEngine {
    func loadPool() -> PoolWord {
        var upper = high.load()
        var lower = low.load()
        for _ in 0..<Attempts.limit {
            let after = high.load()
            if after == upper { break }  // else only a vandal writes so often
            upper = after
            lower = low.load()
        }
        return PoolWord(low: lower, high: upper)
    }

    /// The pool with nothing pending: what a transaction may be built on.
    func begin() -> PoolWord {
        let word = loadPool()
        complete(word)
        return word
    }

    /// Publishes one operation on top of `word` and applies it. False: something else came first, and nothing was done.
    func transact(
        _ word: PoolWord, free: Int = 0, loose: Int = 0, _ operation: Operation, target: Target, amount: Int
    ) -> Bool {
        guard let next = publish(word, free: free, loose: loose, operation, target: target, amount: amount) else {
            return false
        }
        complete(next)
        return true
    }

    /// Publishes one operation on top of `word`, with which it is done: whoever comes next applies it.
    @inline(__always)
    func publish(
        _ word: PoolWord, free: Int, loose: Int = 0, _ operation: Operation, target: Target, amount: Int
    ) -> PoolWord? {
        let next = PoolWord(
            free: word.free &+ free, loose: word.loose &+ loose, amount: amount, sequence: word.sequence &+ 1,
            target: target, operation: operation)
        if poolPair.compareAndSwap((word.low, word.high), (next.low, next.high)) { return next }
        fpx_back_off()
        return nil
    }

    /// Applies the operation that `word` names, unless that has been done.
    @inline(__always)
    func complete(_ word: PoolWord) {
        if done.load() != word.sequence { help(word) }
    }

    @inline(never)
    private func help(_ word: PoolWord) {
        let slot = word.target.slot
        guard let operation = word.knownOperation, operation == .none || operation == .cap || memory.isUsed(slot: slot) else {
            return markDamaged()
        }
        switch operation {
        case .none: return
        case .cap: apply(word, operation, to: capAccount)
        case .free, .live: apply(word, operation, to: balance(slot))
        case .releaseHandle:
            // The entry first: as long as the balance lacks the operation, nobody is releasing a later session of that entry.
            if (0..<Limits.handles).contains(word.amount) { freeEntry(word.amount, of: slot, by: word) }
            apply(word, operation, to: balance(slot))
        default:
            let index = word.target.index
            if index == Self.balanceIndex {
                apply(word, operation, to: balance(slot))
            } else if let writer = writer(slot: slot, index: index, kind: .locked) {
                apply(word, operation, to: writer.pair)
                if operation == .fold { apply(word, operation, to: balance(slot), atBalance: true) }
            } else {
                markDamaged()
            }
        }
        done.store(word.sequence)
    }

    @inline(__always)
    private func apply(_ word: PoolWord, _ operation: Operation, to pair: Pair, atBalance: Bool = false) {
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let account = pair.account
            if account.sequence == word.sequence || high.load() != word.high { return }
            let next = Self.result(of: word, operation, on: account, atBalance: atBalance)
            if pair.compareAndSwap((account.low, account.high), (next.low, next.high)) { return }
        }
    }

    @inline(__always)
    private static func result(
        of word: PoolWord, _ operation: Operation, on account: Account, atBalance: Bool
    ) -> Account {
        let n = word.amount
        var credit = account.credit
        var bound = account.bound
        var phase = account.phase
        switch operation {
        case .none: break
        case .adjust: credit = n
        case .refill, .refillAndOpen, .refillAndOpenLocked:
            credit &+= n
            bound &+= UInt32(truncatingIfNeeded: n &- 1)
            if operation == .refillAndOpen { phase = Phase.loose }
            if operation == .refillAndOpenLocked { phase = Phase.looseLocked }
        case .grow:
            credit &+= n
            bound &+= UInt32(truncatingIfNeeded: n)
        case .settle:
            credit &-= n
            bound &-= UInt32(truncatingIfNeeded: n)
            phase = Phase.tight
        case .open, .openLocked:
            bound &+= 1
            phase = operation == .open ? Phase.loose : Phase.looseLocked
        case .withdraw: bound &+= 1
        case .fold: credit = atBalance ? credit &+ n : credit &- n
        case .free:
            credit = 0
            phase = 0
        case .live: phase = Account.live
        case .cap: credit = n
        case .releaseHandle: credit &-= max(1, n &- (Limits.handles - 1))
        }
        return Account(bound: bound, phase: phase, credit: credit, sequence: word.sequence)
    }
}

// MARK: - Cap

extension PoolEngine {
    var cap: Int { capAccount.account.credit }

    func isOver(_ loan: Loan) -> Bool { fpx_boottime_milliseconds() >= loan.deadline }

    /// Sessions that the loan allows now.
    var lent: Int {
        let loan = Loan(rawValue: loanWord.load())
        return loan.sessions == 0 || isOver(loan) ? 0 : loan.sessions
    }

    /// With what the loan allows now.
    var enforcedCap: Int { cap + lent }

    /// Cap and `free` of one moment.
    var taken: Int {
        var attempts = Attempts()
        while true {
            let word = begin()
            let cap = self.cap
            if high.load() == word.high || !attempts.areLeft(self) { return cap - word.free }
        }
    }

    /// Changes cap and loan; only the keeper does. When this returns, no admission succeeds while as many sessions or more are
    /// in use, and at no moment were more allowed than before or after.
    ///
    /// A transaction follows each change of the loan, so that what was decided on the former one and is not published yet
    /// fails: an admission on a larger loan; a late session that is given back though the new loan covers it, and for which
    /// another one would have been refused meanwhile.
    func setCap(_ cap: Int, loan: Loan) {
        let before = Loan(rawValue: loanWord.load())
        let lesser = Loan(
            sessions: min(before.sessions, loan.sessions), deadline: min(before.deadline, loan.deadline))
        loanWord.store(lesser.rawValue)
        publish(cap: cap)
        settleDebt()
        if loan != lesser {
            loanWord.store(loan.rawValue)
            publish(cap: cap)
        }
    }

    private func publish(cap: Int) {
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let word = begin()
            let delta = cap - capAccount.account.credit
            if transact(word, free: delta, .cap, target: .none, amount: cap) { return }
        }
    }

    /// While there is a debt no writer may keep spare sessions.
    func settleDebt() {
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let word = begin()
            if word.free >= 0 || word.loose == 0 || !collect(word) { return }
        }
    }
}
