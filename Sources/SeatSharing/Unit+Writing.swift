// Unit+Writing: this unit's row. What it gives away is given by the row being composed: the seats are this unit's until then.

extension Unit {
    /// How many rows back a grant may answer.
    static let sentMax = 64

    mutating func written(_ sequence: Int, _ outcome: WriteOutcome) {
        guard sequence == inFlight else { return }
        inFlight = nil
        switch outcome {
        case .accepted(let revision):
            ownRevision = max(ownRevision ?? 0, revision)
            establish()
        case .refused, .unknown: needsRead = true
        }
    }

    mutating func write() {
        guard !isFenced else { return }
        // An outcome that never comes is an unknown one.
        if inFlight != nil, now - lastWrite > 2 * pace.heartbeat {
            inFlight = nil
            needsRead = true
        }
        guard let ownRevision, !needsRead, inFlight == nil else {
            if inFlight == nil, now - lastRead >= pace.gap {
                lastRead = now
                effects.append(.read)
            }
            return
        }
        guard now - lastWrite >= pace.heartbeat || (now - lastWrite >= pace.gap && (isDirty || canGive)) else { return }
        effects.append(.write(compose(), ifRevision: ownRevision))
    }

    private var canGive: Bool {
        let back = giveableRoom(returning: true)
        return !due().isEmpty || intents().returns.contains { $0.seats.lowered(to: back) != .zero }
    }

    func giveableRoom(returning: Bool) -> Seats {
        mutations.contains(returning ? .returnsFirst : .grantsFirst) ? Seats(Seats.limit) : room
    }

    private mutating func compose() -> Row {
        giveBack()
        // What the borrower has not been answered yet: `renew` answers the same rows.
        let gives = due()
        renew()
        for (unit, seats) in gives { give(seats, to: unit) }
        sequence += 1
        sent[sequence] = now
        sent[sequence - Self.sentMax] = nil
        inFlight = sequence
        lastWrite = now
        isDirty = false
        demandWritten = demand
        return Row(
            cluster: configuration.cluster, serial: configuration.serial, mode: configuration.mode, role: configuration.role,
            incarnation: incarnation, sequence: sequence, record: record?.id ?? (confirms ? doubtful?.id : nil) ?? 0,
            clock: now, ping: unixTime, isEntitled: isEntitled,
            purchased: isEntitled ? entitlement.purchased : .zero, own: own, used: used, demand: demand,
            allocated: Seats { cap($0) }, modelMax: entitlement.modelMax,
            grants: granted,
            holdings: held.sorted { $0.key < $1.key }.map {
                Holding(lender: $0.key, through: max($0.value.through, $0.value.number), seats: $0.value.seats)
            },
            preferences: configuration.preferences, term: configuration.term,
            reclaimAfter: configuration.reclaimAfter)
    }

    /// What is lent, as rows and the record tell it.
    var granted: [Grant] {
        // Who lends the same seats again must not say so: others would see that it is more than it has.
        loans.filter { now < $0.until || !mutations.contains(.lendsAgain) }.map {
            Grant(borrower: $0.borrower, incarnation: $0.incarnation, number: $0.number, seats: $0.seats, keep: $0.keep)
        }
    }

    private func cap(_ type: SeatType) -> Int { min(told[type], usable[type]) }

    /// What a grant that is given now lasts: no grant outlives the entitlement.
    private var keep: Nanoseconds {
        if entitlement.until == .forever || mutations.contains(.outlivesEntitlement) { return terms.keep }
        return min(terms.keep, entitlement.until - now)
    }

    private mutating func give(_ seats: Seats, to unit: Int) {
        guard seats != .zero, let borrower = pool?.rows[unit], keep > Drift.margin(keep) else { return }
        let known = loans.firstIndex { $0.borrower == borrower.serial && $0.incarnation == borrower.incarnation }
        if let known, now >= loans[known].until {
            // Lent anew, in whole or not at all.
            if seats.covers(loans[known].seats) { answer(known, borrower) }
        } else if let known {
            // `renew` has just answered the same row.
            if loans[known].number == borrower.sequence { loans[known].seats += seats }
        } else {
            loans.append(
                Loan(
                    borrower: borrower.serial, incarnation: borrower.incarnation, number: borrower.sequence, seats: seats,
                    keep: keep,
                    until: now + terms.takeBack, keepUntil: now + terms.keep))
        }
    }

    /// Every loan whose borrower has spoken anew. A loan never shrinks by a grant: the borrower gives back, or it runs out.
    private mutating func renew() {
        guard let pool, place != nil, isEstablished, learning == nil, keep > Drift.margin(keep), isRecorded,
            // Of a licence that was taken away nothing is renewed: what is lent of it runs out.
            entitlement.purchased.covers(committed)
        else { return }
        for index in loans.indices where now < loans[index].until {
            guard let row = pool.row(loans[index].borrower), row.incarnation == loans[index].incarnation,
                row.sequence > loans[index].number, row.isEntitled
            else { continue }
            answer(index, row)
        }
    }

    private mutating func answer(_ index: Int, _ row: Row) {
        loans[index].number = row.sequence
        loans[index].keep = keep
        if mutations.contains(.renewsUnrecorded) { return }
        loans[index].until = max(loans[index].until, now + terms.takeBack)
        loans[index].keepUntil = max(loans[index].keepUntil, now + terms.keep)
    }
}
