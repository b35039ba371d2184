// Unit+Caps: what this unit may use, and what it tells the engine.

extension Unit {
    /// Lent, and not this unit's to use.
    var lent: Seats { loans.reduce(.zero) { $0 + (now < $1.until ? $1.seats : .zero) } }

    /// Lent, and not to be lent again.
    var committed: Seats {
        loans.reduce(.zero) { sum, loan in
            sum + (now < (mutations.contains(.lendsAgain) ? loan.until : loan.keepUntil) ? loan.seats : .zero)
        }
    }

    /// Purchased and neither lent nor possibly lent by a process before this one.
    var own: Seats {
        guard isEntitled, !isFenced else { return .zero }
        var away = lent
        if let learning, now < learning.until { away = away.raised(to: learning.seats) }
        return (entitlement.purchased - away).raised(to: .zero)
    }

    /// Borrowed, and not past its deadline.
    package func borrowed(at time: Instant) -> Seats {
        held.values.reduce(.zero) { $0 + (time < $1.deadline ? $1.seats : .zero) }
    }

    /// From whom this unit has borrowed, and their processes.
    package var lenders: [String: UInt64] { held.filter { $0.value.seats != .zero }.mapValues(\.lenderIncarnation) }

    /// The cap that the engine is to enforce at a time from the last step on: what it was told, less what deadlines have ended
    /// since. It only falls until the next step.
    package func cap(at time: Instant) -> Seats { told.lowered(to: limit(at: time)) }

    /// What deadlines leave of the unit's seats as they were when the engine was told.
    package func limit(at time: Instant) -> Seats {
        if mutations.contains(.noDeadline) { return Seats(Seats.limit) }
        guard !isFenced, time < entitlement.until else { return .zero }
        return falls.reduce(ownAtStep) { $0 + (time < $1.deadline ? $1.seats : .zero) }
    }

    /// When `cap` next falls without an event, and to what; nil if it does not.
    package func nextFall(after time: Instant) -> (at: Instant, cap: Seats)? {
        let ends = falls.map(\.deadline) + [entitlement.until]
        let now = cap(at: time)
        for end in ends.sorted() where end > time && end != .forever && cap(at: end) != now { return (end, cap(at: end)) }
        return nil
    }

    /// When a step is due though nothing happens: a deadline, a heartbeat, seats that come back.
    package var wake: Instant {
        var times = [isFenced ? .forever : lastWrite + pace.heartbeat, entitlement.until, learning?.until ?? .forever]
        if isDirty { times.append(lastWrite + pace.gap) }
        times.append(nextOverdue)
        times += loans.map(\.until) + held.values.map(\.deadline)
        return times.filter { $0 > now }.min() ?? .forever
    }

    /// Seats that the owner uses again though a borrower may still have them: what `recovery` may use twice.
    package var usedTwice: Seats {
        var lapsed = loans.reduce(Seats.zero) { $0 + (now >= $1.until && now < $1.keepUntil ? $1.seats : .zero) }
        if let learning, now >= learning.until { lapsed = lapsed.raised(to: learning.seats) }
        return lapsed.lowered(to: own)
    }

    /// What ends by time ends here.
    mutating func expire() {
        for (lender, var holding) in held where holding.seats != .zero && now >= holding.deadline {
            holding.seats = .zero
            holding.through = max(holding.through, holding.number)
            held[lender] = holding
            isDirty = true
        }
        loans.removeAll { now >= $0.until && now >= $0.keepUntil }
        // A promise is kept for as long as a grant that it excludes could still be taken.
        let oldest = sequence - Self.sentMax
        let lenders = Set((pool?.grants[configuration.serial] ?? []).compactMap { pool?.rows[$0.lender].serial })
        held = held.filter { $1.seats != .zero || $1.through >= oldest || lenders.contains($0) }
        if let learning, now >= learning.until, now >= learning.keepUntil {
            self.learning = nil
            effects.append(.notice(.learned))
        }
    }

    /// All that this unit may use now.
    var usable: Seats { isEntitled && !isFenced ? own + borrowed(at: now) : .zero }

    /// What should be given away: new loans, and what is to be given back. Both need seats that nobody here may use any more.
    func intents() -> (gives: [(unit: Int, seats: Seats, isDue: Bool)], returns: [(lender: String, seats: Seats)]) {
        guard isEntitled else {
            return ([], held.filter { $0.value.seats != .zero }.sorted { $0.key < $1.key }.map { ($0.key, $0.value.seats) })
        }
        guard let pool, let place else { return ([], []) }
        var returns: [(lender: String, seats: Seats)] = []
        var planned: [String: Seats] = [:]
        for loan in pool.plan.borrowing[place] { planned[pool.rows[loan.unit].serial] = loan.seats }
        for (lender, holding) in held where holding.seats != .zero {
            let excess = (holding.seats - (planned[lender] ?? .zero)).raised(to: .zero)
            if excess != .zero { returns.append((lender, excess)) }
        }
        returns.sort { $0.lender < $1.lender }
        return (learning == nil ? newLoans(pool, place) : [], returns)
    }

    private func newLoans(_ pool: Pool, _ place: Int) -> [(unit: Int, seats: Seats, isDue: Bool)] {
        guard isEstablished, isRecorded else { return [] }
        var left = (entitlement.purchased - pool.plan.shares[place].floor).lowered(to: recordedLimit) - committed
        var gives: [(unit: Int, seats: Seats, isDue: Bool)] = []
        for loan in pool.plan.lending[place] {
            let borrower = pool.rows[loan.unit]
            let before = loans.filter { $0.borrower == borrower.serial }
            guard before.count < 4, loans.count < Row.entriesMax - 4 else { continue }
            // A grant answers a row once: what waits for the next row stays away from use all the same.
            let isDue = !before.contains { $0.incarnation == borrower.incarnation && $0.number >= borrower.sequence }
            // What was taken back by time is lent anew as a whole.
            if let lapsed = before.first(where: { $0.incarnation == borrower.incarnation && now >= $0.until }) {
                gives.append((loan.unit, lapsed.seats, isDue))
                continue
            }
            let has = before.reduce(Seats.zero) { $0 + (now < $1.until ? $1.seats : .zero) }
            let more = (loan.seats - has).lowered(to: left).raised(to: .zero)
            guard more != .zero else { continue }
            left -= more
            gives.append((loan.unit, more, isDue))
        }
        return gives
    }

    /// Whether loans of the present terms are on record.
    var isRecorded: Bool {
        if mutations.contains(.noRecord) { return true }
        guard let record else { return false }
        return record.terms.takeBack >= terms.takeBack && record.terms.keep >= terms.keep
            && (!terms.areListed || record.grants != nil)
    }

    /// The most that may be lent: what is on record, and will still be when the record being written is there. Where each loan
    /// is on record, `due` looks for it there.
    private var recordedLimit: Seats {
        guard let record, record.grants == nil, !mutations.contains(.noRecord) else { return entitlement.purchased }
        return recordPending.map { record.seats.lowered(to: $0.seats) } ?? record.seats
    }

    /// What can be granted by a row that is composed now, if it is on record: nobody here may use it any more.
    func grantable() -> [(unit: Int, seats: Seats)] {
        let (gives, _) = intents()
        var left = giveableRoom(returning: false)
        var result: [(unit: Int, seats: Seats)] = []
        for (unit, seats, isDue) in gives where isDue {
            let seats = seats.lowered(to: left)
            guard seats != .zero else { continue }
            left -= seats
            result.append((unit, seats))
        }
        return result
    }

    /// The same, as far as it is on record.
    func due() -> [(unit: Int, seats: Seats)] {
        grantable().filter { unit, seats in
            guard !mutations.contains(.noRecord), let borrower = pool?.rows[unit], !lapsed(borrower) else { return true }
            let all = seats + lentNow(borrower)
            // The record that is being written may be there already.
            return [record, recordPending].compactMap { $0?.grants }.allSatisfy { grants in
                // By this row of the borrower: after a restart what it has given back before must not count against what it got
                // then.
                grants.contains {
                    $0.borrower == borrower.serial && $0.incarnation == borrower.incarnation && $0.seats.covers(all)
                        && $0.number >= borrower.sequence
                }
            }
        }
    }

    private func lentNow(_ borrower: Row) -> Seats {
        loans.reduce(.zero) {
            $0 + ($1.borrower == borrower.serial && $1.incarnation == borrower.incarnation && now < $1.until ? $1.seats : .zero)
        }
    }

    /// It was taken back by time, and is lent anew: on record it still is.
    private func lapsed(_ borrower: Row) -> Bool {
        loans.contains { $0.borrower == borrower.serial && $0.incarnation == borrower.incarnation && now >= $0.until }
    }

    /// All loans, with those that can be granted now.
    private func listed() -> [Grant] {
        var grants = granted
        for (unit, seats) in grantable() {
            guard let borrower = pool?.rows[unit], !lapsed(borrower) else { continue }
            let known = grants.firstIndex { $0.borrower == borrower.serial && $0.incarnation == borrower.incarnation }
            if let known {
                grants[known].seats += seats
                grants[known].number = borrower.sequence
            } else {
                grants.append(
                    Grant(
                        borrower: borrower.serial, incarnation: borrower.incarnation, number: borrower.sequence, seats: seats,
                        keep: terms.keep))
            }
        }
        return grants
    }

    /// Keeps the record a little above what is lent or planned to be: raised before more is lent, and lowered when less has
    /// been for a while. What is on record, a successor of this process does without for a term.
    mutating func adjustRecord() {
        guard recordPending == nil, learning == nil, let pool, let place else { return }
        var wantedTerms = terms
        if !loans.isEmpty, let record { wantedTerms = wantedTerms.raised(to: record.terms) }
        if wantedTerms.areListed { return adjustList(wantedTerms) }
        let planned = pool.plan.lending[place].reduce(Seats.zero) { $0 + $1.seats }
        let most = (entitlement.purchased - pool.plan.shares[place].floor).raised(to: committed)
        let needed = planned.raised(to: committed).lowered(to: most)
        let seats = Seats { needed[$0] + needed[$0] / 4 }.lowered(to: most)
        let isEnough = record.map { $0.seats.covers(needed) && $0.terms == wantedTerms && $0.grants == nil } ?? false
        put(seats, wantedTerms, nil, isEnough: isEnough)
    }

    /// The same where each loan is on record: it is there before more is granted.
    private mutating func adjustList(_ terms: Terms) {
        let grants = listed()
        let isEnough =
            record.map { record in
                record.terms == terms
                    && grants.allSatisfy { grant in
                        record.grants?.contains {
                            $0.borrower == grant.borrower && $0.incarnation == grant.incarnation && $0.seats.covers(grant.seats)
                        } ?? false
                    }
            } ?? false
        let isDue = isEnough && due().count == grantable().count
        put(grants.reduce(.zero) { $0 + $1.seats }, terms, grants, isEnough: isDue)
    }

    private mutating func put(_ seats: Seats, _ terms: Terms, _ grants: [Grant]?, isEnough: Bool) {
        let wanted = LentRecord(id: incarnation &+ recordsWritten &+ 1, seats: seats, terms: terms, grants: grants)
        guard !isEnough || record?.says(wanted) != true && now - recordedAt >= pace.term / 3 else { return }
        recordsWritten += 1
        recordPending = wanted
        recordedAt = now
        effects.append(.remember(wanted))
    }

    /// Seats that this unit may use, and does not: what it can give away without shrinking.
    var room: Seats {
        let room = (own + borrowed(at: now) - ceiling).raised(to: .zero)
        guard mutations.contains(.forcesNothing) else { return room }
        return room.raised(to: overdue.reduce(.zero) { $0 + $1.seats })
    }

    /// Tells the engine: down at once where time or the licence has ended something, down by draining for what is to be given
    /// away, up when nothing is.
    mutating func adjustCaps() {
        let all = usable
        ownAtStep = own
        falls = held.values.filter { $0.seats != .zero }.map { ($0.deadline, $0.seats) }
        let (gives, returns) = intents()
        let away = gives.reduce(Seats.zero) { $0 + $1.seats } + returns.reduce(Seats.zero) { $0 + $1.seats }
        let forced = mutations.contains(.forcesNothing) ? .zero : overdue.reduce(Seats.zero) { $0 + $1.seats }
        for type in SeatType.allCases {
            let most = min(isFenced ? 0 : entitlement.modelMax[type], max(0, all[type] - forced[type]))
            if ceiling[type] > most { setCap(type, most) }
            let target = min(most, max(0, all[type] - away[type]))
            if target >= ceiling[type] {
                if told[type] != target { setCap(type, target) }
            } else if drains[type]?.to != target {
                drainNumber += 1
                drains[type] = Drain(to: target, number: drainNumber)
                told[type] = target
                effects.append(.drain(type, to: target, number: drainNumber))
            }
        }
    }

    private mutating func setCap(_ type: SeatType, _ cap: Int) {
        drains[type] = nil
        told[type] = cap
        ceiling[type] = cap
        effects.append(.setCap(type, cap))
    }
}
