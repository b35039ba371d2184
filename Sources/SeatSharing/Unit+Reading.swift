// Unit+Reading: what the pool says: its own row, what it is granted, what its borrowers have given back.

extension Unit {
    mutating func read(_ pool: Pool) {
        // Late answers say nothing new.
        guard !isFenced, pool.revision >= max(ownRevision ?? 0, self.pool?.revision ?? 0) else { return }
        for problem in pool.problems where !problems.contains(problem) { effects.append(.notice(.problem(problem))) }
        problems = pool.problems
        self.pool = pool
        poolAt = now
        needsRead = false
        readOwnRow(pool)
        guard !isFenced else { return }
        noticeMissedTime(pool)
        hearBorrowers(pool)
        for (lender, grant) in pool.grants[configuration.serial] ?? [] {
            adopt(grant, from: pool.rows[lender], until: mutations.contains(.outlivesLicense) ? .forever : pool.ends[lender])
        }
    }

    private mutating func readOwnRow(_ pool: Pool) {
        let revision = pool.revisions[configuration.serial] ?? 0
        guard let row = pool.row(configuration.serial) else {
            // Not there, or nothing that counts: it is written anew.
            if !isEstablished {
                if revision != 0 { isNew = false }
                confirms = false
            }
            ownRevision = revision
            return
        }
        if row.incarnation != incarnation { isNew = false }
        if row.incarnation == incarnation, row.sequence <= sequence, sent[row.sequence].map({ $0 == row.clock }) ?? true {
            // Written by this process, whatever became of the answer.
            ownRevision = revision
            if inFlight == row.sequence { inFlight = nil }
            establish()
        } else if !isEstablished, row.incarnation != incarnation {
            // Of the process before this one. It is gone, and what it may still have sent fails at the revision.
            ownRevision = revision
            // The disk knows of what was on record when that row was written, so it is no old state of it.
            confirms = doubtful.map { row.record != 0 && row.record <= $0.id } ?? false
            // The wall clock was set back: those who have read that row must take ours for the later one.
            if row.incarnation > incarnation {
                incarnation = Incarnation.new(unixMilliseconds: 0, random: incarnation, after: row.incarnation)
            }
        } else if row.incarnation < incarnation {
            // Of a process that is gone: somebody has put it there again.
            ownRevision = revision
        } else if !mutations.contains(.noFence) {
            isFenced = true
            effects.append(
                .notice(
                    .problem(
                        .foreignRow(
                            serial: configuration.serial, found: "process \(Row.hexadecimal(row.incarnation))",
                            expected: Row.hexadecimal(incarnation)))))
        }
    }

    /// Nothing of an earlier process can appear any more: what was read before the first write is what that has replaced.
    mutating func establish() {
        guard !isEstablished else { return }
        isEstablished = true
        if confirms, let doubtful {
            know(doubtful)
            if learning == nil { effects.append(.notice(.learned)) }
        }
        guard let learning else { return }
        if isNew, learning.until == .forever {
            self.learning = nil
            effects.append(.notice(.learned))
        } else if isNew {
            self.learning?.keepUntil = learning.until
        } else if learning.keepUntil == .forever || learning.keepUntil > learning.until {
            effects.append(.notice(.lentUnknown(learning.seats.lowered(to: entitlement.purchased))))
        }
    }

    /// A hypervisor's pause is seen by no clock of the guest. But an owner's clock went on: if it shows more than can have
    /// passed here since before this unit asked it, this clock has stood still, and every deadline is worth nothing.
    private mutating func noticeMissedTime(_ pool: Pool) {
        guard !mutations.contains(.noPauseDetector) else { return }
        for (lender, holding) in held where holding.seats != .zero {
            guard let row = pool.row(lender), row.incarnation == holding.lenderIncarnation else { continue }
            let there = row.clock - holding.lenderClock
            guard there > Drift.most(now - holding.askedAt) else { continue }
            effects.append(.notice(.missedTime(lender: lender, nanoseconds: there - (now - holding.askedAt))))
            for lender in held.keys.sorted() {
                held[lender]?.seats = .zero
                held[lender]?.through = sequence
            }
            isDirty = true
            return
        }
    }

    /// Borrowers' promises, and their restarts.
    private mutating func hearBorrowers(_ pool: Pool) {
        for index in loans.indices {
            guard let row = pool.row(loans[index].borrower) else { continue }
            let isLater = row.incarnation > loans[index].incarnation || mutations.contains(.anyOrder)
            if row.incarnation != loans[index].incarnation {
                guard isLater else { continue }
                // The process that borrowed is gone. Its loan runs out; where it would not, or not soon, this is its end.
                if loans[index].until == .forever { loans[index].until = now }
                loans[index].keepUntil = min(loans[index].keepUntil, loans[index].until)
                if mutations.contains(.restartFrees) { loans[index].seats = .zero }
            } else if let holding = row.holdings.first(where: { $0.lender == configuration.serial }),
                holding.through >= loans[index].number || mutations.contains(.oldReturns)
            {
                loans[index].seats = loans[index].seats.lowered(to: holding.seats)
            }
        }
        loans.removeAll { $0.seats == .zero }
    }

    private mutating func adopt(_ grant: Grant, from row: Row, until end: Instant) {
        let lender = row.serial
        var holding = held[lender] ?? Held()
        guard lender != configuration.serial, isEntitled,
            grant.incarnation == incarnation || mutations.contains(.anyIncarnation), grant.number > holding.number,
            grant.number > holding.through || mutations.contains(.oldGrants), grant.seats.covers(holding.seats)
        else { return }
        guard let askedAt = sent[grant.number] ?? (mutations.contains(.anyIncarnation) ? now : nil) else { return }
        let margin = mutations.contains(.noMargin) ? 0 : Drift.margin(grant.keep)
        let from = mutations.contains(.fromReceipt) ? now : askedAt
        let deadline = min(end, grant.keep == .forever ? .forever : from + (grant.keep - margin))
        guard deadline > now else { return }
        // A grant answers a row once: whoever has got some and may get more asks again.
        if grant.seats != holding.seats { isDirty = true }
        holding.number = grant.number
        holding.seats = grant.seats
        holding.deadline = deadline
        holding.lenderClock = row.clock
        holding.lenderIncarnation = row.incarnation
        holding.askedAt = askedAt
        held[lender] = holding
    }
}
