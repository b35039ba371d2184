// The slow ways: admissions and releases that the gate does not let through (see PoolEngine.swift).

import CAdmission

extension PoolEngine {
    /// Free sessions that a gate opens for: near the limit spare ones would only have to be collected again, at the price of a
    /// fence. In all, as a share of the cap, and for each writer that is open already.
    static let openAt = 32
    static let openAtShareOfCap = 16
    static let openAtEach = 16
    /// Sessions that a writer takes at once, at most.
    static let batchMax = 64
    /// Credit that is folded into the balance.
    static let foldAt = 1 << 20

    enum Outcome {
        case admitted
        case refused
        /// The gate is open again: try the fast path.
        case retry
    }

    /// What came of the fast path.
    enum Attempt {
        /// It went through.
        case done
        /// A claim or release is stored, and then its writer's gate was found changed.
        case changed(Writer)
        /// Nothing is stored.
        case closed

        @inline(__always)
        init(_ step: fpx_step, _ writer: Writer?) {
            switch (step, writer) {
            case (FPX_STEP_DONE, _): self = .done
            case (FPX_STEP_CHANGED, let writer?): self = .changed(writer)
            default: self = .closed
            }
        }
    }

    /// Admits where the fast path did not, and tries that again when the gate is open.
    ///
    /// - Parameters:
    ///   - first: what came of it.
    ///   - writer: by whom to admit now.
    @inline(__always)
    func admitSlowly(_ first: Attempt, by writer: () -> Writer, again: () -> Attempt) -> Verdict {
        var attempt = first
        var attempts = Attempts()
        while true {
            switch attempt {
            case .done: return .inspect
            case .changed(let writer): return resolveAdmit(writer) ? .inspect : overLimit(writer)
            case .closed: break
            }
            let writer = writer()
            guard attempts.areLeft(self) else { return overLimit(writer) }
            if writer.kind == .locked || !plain { return admitLocked(writer) ? .inspect : overLimit(writer) }
            switch admitSlow(writer) {
            case .admitted: return .inspect
            case .refused: return overLimit(writer)
            case .retry: attempt = again()
            }
        }
    }

    /// The same for a release.
    @inline(__always)
    func releaseSlowly(_ first: Attempt, by writer: () -> Writer, again: () -> Attempt) {
        var attempt = first
        var attempts = Attempts()
        while true {
            switch attempt {
            case .done: return
            case .changed(let writer): return resolveRelease(writer)
            case .closed: break
            }
            guard isAttached, attempts.areLeft(self) else { return }
            let writer = writer()
            if writer.kind == .locked || !plain { return releaseLocked(writer) }
            if releaseSlow(writer) { return }
            attempt = again()
        }
    }

    /// Whether every licensed session is in use, exact (f): the loan is the same before and after the pool is looked at. A loan
    /// whose time is over, and which nobody has taken away yet, looks as if there were room.
    @inline(__always)
    var isFull: Bool {
        let loan = loanWord.load()
        let word = PoolWord(low: low.load(), high: 0)
        return word.free <= 0 &- Loan(rawValue: loan).sessions && word.loose == 0 && loanWord.load() == loan
    }

    /// Whether there are enough free sessions for one more writer to keep spare ones.
    private func opens(_ word: PoolWord) -> Bool {
        word.free >= Self.openAt + Self.openAtEach * word.loose && word.free * Self.openAtShareOfCap >= cap
    }

    /// How many sessions a writer may take at once.
    private func batch(_ word: PoolWord) -> Int {
        let free = UInt32(truncatingIfNeeded: word.free), writers = UInt32(truncatingIfNeeded: word.loose + 1)
        return max(1, min(Int(free / (4 * writers)), Self.batchMax))
    }

    /// Admits with nothing stored yet.
    func admitSlow(_ writer: Writer) -> Outcome {
        if isFull { return .refused }
        markUsed(writer)
        poolPair.prefetchForWrite()
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let word = loadPool()
            if word.free > 0 {
                if let done = adjust(word, writer, by: 1) {
                    if done { return counted(writer) }
                } else if let outcome = take(word, writer) {
                    return outcome
                }
            } else if word.loose > 0 {
                complete(word)
                if !collect(word) { return .refused }
            } else if let outcome = borrow(word, writer) {
                return outcome
            }
        }
        return .refused
    }

    /// Admits with no spare or free session left. Nil: try again.
    @inline(never)
    private func borrow(_ word: PoolWord, _ writer: Writer) -> Outcome? {
        let loan = Loan(rawValue: loanWord.load())
        guard loan.sessions > 0 &- word.free else { return isFull ? .refused : nil }
        if let done = adjust(word, writer, by: 1) {
            guard done else { return nil }
            return isInTime(loan, writer) ? counted(writer) : .refused
        }
        _ = foldIfLarge(word, writer, writer.account)
        return nil
    }

    /// Whether a session that was taken on a loan was so in time. If not, the loan is taken away, and the session is given back
    /// unless the cap or another loan covers it by now.
    func isInTime(_ loan: Loan, _ writer: Writer) -> Bool {
        var loan = loan
        var attempts = Attempts()
        while isOver(loan) {
            guard attempts.areLeft(self) else { return false }
            _ = loanWord.compareExchange(loan.rawValue, Loan.none.rawValue)
            let word = loadPool()
            if word.free >= 0 { return true }
            if word.loose > 0 {
                complete(word)
                if !collect(word) { return false }
                continue
            }
            let now = Loan(rawValue: loanWord.load())
            if now.sessions >= 0 &- word.free {
                if high.load() == word.high { loan = now }
            } else if let done = adjust(word, writer, by: -1) {
                if done { return false }
            } else {
                _ = foldIfLarge(word, writer, writer.account)
            }
        }
        return true
    }

    /// Releases with nothing stored yet. False: the gate is open again, try the fast path.
    func releaseSlow(_ writer: Writer) -> Bool {
        markUsed(writer)
        poolPair.prefetchForWrite()
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let word = loadPool()
            if let done = adjust(word, writer, by: -1) {
                if done { return true }
            } else if let released = keep(word, writer) {
                return released
            }
        }
        return true
    }

    /// One session more or less of a tight writer, the most frequent operation near the limit.
    ///
    /// The operation names the credit that results. So on top of one for the same writer it need not wait for that one to be
    /// applied: the last says all. (One that a helper applies late, while the next is pending, is overwritten by it.) The first
    /// of a run is applied at once: where writers take turns the next one would have to do it, on a line that it does not have.
    ///
    /// - Returns: whether it was published; nil where the writer is not tight or should not stay so, and nothing is pending
    ///   in `word`.
    @inline(__always)
    private func adjust(_ word: PoolWord, _ writer: Writer, by change: Int) -> Bool? {
        let follows = word.operation == .adjust && word.target == writer.target
        if !follows { complete(word) }
        let account = writer.account
        let credit = follows ? word.amount : account.credit
        if account.phase == Phase.tight && Self.isSmall(credit) && !opens(word) {
            guard let next = publish(word, free: 0 &- change, .adjust, target: writer.target, amount: credit &+ change)
            else { return false }
            if !follows { complete(next) }
            return true
        }
        if follows { complete(word) }
        return nil
    }

    /// Takes sessions in advance with the one that is asked for. Nil: try again.
    @inline(never)
    private func take(_ word: PoolWord, _ writer: Writer) -> Outcome? {
        let account = writer.account
        if foldIfLarge(word, writer, account) { return nil }
        let count = batch(word)
        var operation = Operation.refill
        var loose = 0
        switch account.phase {
        case Phase.tight, Phase.frozen:
            if !opens(word) { return account.phase == Phase.frozen && !thaw(writer, account) ? .refused : nil }
            operation = opening(writer) == Phase.loose ? .refillAndOpen : .refillAndOpenLocked
            loose = account.phase == Phase.frozen ? 0 : 1
        default:
            if writer.spare(account) > 0 { return .retry }
        }
        return transact(word, free: -count, loose: loose, operation, target: writer.target, amount: count)
            ? counted(writer) : nil
    }

    @inline(__always)
    private func counted(_ writer: Writer) -> Outcome {
        writer.poolAdmissions.store(writer.poolAdmissions.load() &+ 1)
        return .admitted
    }

    /// Keeps the session that is released as a spare one. Nil: try again; false: the gate is open.
    @inline(never)
    private func keep(_ word: PoolWord, _ writer: Writer) -> Bool? {
        let account = writer.account
        if foldIfLarge(word, writer, account) { return nil }
        switch account.phase {
        case Phase.frozen:
            if thaw(writer, account) { return nil }
            // As behind a tight gate, and the spare sessions stay for a collector that can fence.
            return transact(word, free: 1, .adjust, target: writer.target, amount: account.credit &- 1) ? true : nil
        case Phase.tight:
            if !opens(word) { return nil }
            let operation: Operation = opening(writer) == Phase.loose ? .open : .openLocked
            return transact(word, loose: 1, operation, target: writer.target, amount: 0) ? true : nil
        default: return false
        }
    }

    /// Credit drifts where sessions end on another writer than they began. It is moved to the balance before it outgrows the
    /// pool word's amount.
    private func foldIfLarge(_ word: PoolWord, _ writer: Writer, _ account: Account) -> Bool {
        if Self.isSmall(account.credit) { return false }
        _ = transact(word, .fold, target: writer.target, amount: account.credit)
        return true
    }

    @inline(__always)
    private static func isSmall(_ credit: Int) -> Bool {
        UInt(bitPattern: credit &+ foldAt) <= UInt(2 * foldAt)
    }

    /// My claim is in A, and the gate changed under it (c). Whether it became a session.
    @inline(never)
    func resolveAdmit(_ writer: Writer) -> Bool {
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let word = begin()
            let account = writer.account
            let covered = writer.spare(account) >= 0
            switch account.phase {
            case Phase.frozen:
                if thaw(writer, account) { continue }
                // What is spare behind this gate only a collector that can fence may take.
                if word.free > 0 {
                    if transact(word, free: -1, .grow, target: writer.target, amount: 1) { return true }
                } else if transact(word, .withdraw, target: writer.target, amount: 0) {
                    return false
                }
            case Phase.tight where covered:
                if transact(word, .grow, target: writer.target, amount: 0) { return true }
            case _ where covered:
                return true
            case _ where word.free > 0:
                if transact(word, free: -1, .grow, target: writer.target, amount: 1) { return true }
            case Phase.tight where word.loose == 0:
                let loan = Loan(rawValue: loanWord.load())
                if loan.sessions > 0 &- word.free {
                    if transact(word, free: -1, .grow, target: writer.target, amount: 1) { return isInTime(loan, writer) }
                } else if transact(word, .withdraw, target: writer.target, amount: 0) {
                    return false
                }
            default:
                if !collect(word), transact(word, .withdraw, target: writer.target, amount: 0) { return false }
            }
        }
        return false
    }

    /// My release is in R, and the gate changed under it.
    @inline(never)
    func resolveRelease(_ writer: Writer) {
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let word = begin()
            let account = writer.account
            switch account.phase {
            case Phase.frozen: if !thaw(writer, account) { return }  // it is in R: who settles the writer gives it back
            case Phase.tight:
                // With nothing to give back somebody has done it, or a claim has taken it. The transaction is made all the
                // same: it makes one fail that was decided before R counted this release (a claim withdrawn, or paid for).
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
    @inline(__always)
    func markUsed(_ writer: Writer) {
        // A gate that was ever the target of an operation has its sequence.
        if writer.gate.load() == 0 { markFirstUse(writer) }
    }

    @inline(never)
    private func markFirstUse(_ writer: Writer) {
        let index = writer.target.index
        let (word, bit) =
            index < Self.lockedIndex
            ? (Layout.processCPUs + index / 64 * 8, UInt64(1) << UInt64(index & 63))
            : (Layout.processLanes, UInt64(1) << UInt64(index - Self.lockedIndex))
        let used = memory.process(slot, word)
        used.insert(bits: bit)
        var attempts = Attempts()
        while writer.gate.load() == 0, attempts.areLeft(self) {
            _ = transact(begin(), .grow, target: writer.target, amount: 0)
        }
    }
}

// MARK: - Locked claims

extension PoolEngine {
    /// Admits by locked stores, for threads without restartable sequences and on machines without membarrier.
    func admitLocked(_ writer: Writer) -> Bool {
        var attempts = Attempts()
        while attempts.areLeft(self) {
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
        return false
    }

    func releaseLocked(_ writer: Writer) {
        var attempts = Attempts()
        while attempts.areLeft(self) {
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
