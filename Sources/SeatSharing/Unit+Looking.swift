// Unit+Looking: what a unit stands on, for the engine that enforces it and for people.

extension Unit {
    /// Seats of one type that the engine is to enforce: for good, and borrowed ones until the first of them ends. Wherever the
    /// daemon is then, whoever admits must stop.
    package struct Enforcement: Equatable, Sendable {
        package let own: Int
        package let borrowed: Int
        package let until: Instant
    }

    /// As of the last step.
    package func enforcement(of type: SeatType) -> Enforcement {
        let cap = cap(at: now)[type]
        let own = min(cap, ownAtStep[type])
        let ends = falls.filter { $0.seats[type] > 0 && now < $0.deadline }.map(\.deadline)
        return Enforcement(own: own, borrowed: cap - own, until: min(ends.min() ?? now, entitlement.until))
    }

    /// Another unit, what it lends to this one or has from it, and until when.
    package struct Partner: Equatable, Sendable {
        package let serial: String
        package let seats: Seats
        package let end: Instant
    }

    package var partnersLending: [Partner] {
        held.filter { $0.value.seats != .zero && now < $0.value.deadline }.sorted { $0.key < $1.key }
            .map { Partner(serial: $0.key, seats: $0.value.seats, end: $0.value.deadline) }
    }

    /// A borrower that has been started again stands here once for each of its processes.
    package var partnersBorrowing: [Partner] {
        loans.filter { now < $0.until }.sorted { $0.borrower < $1.borrower }
            .map { Partner(serial: $0.borrower, seats: $0.seats, end: $0.until) }
    }

    /// What it owns and has not lent, what it has lent, and what it has borrowed.
    package var balance: (own: Seats, lent: Seats, borrowed: Seats) { (own, lent, borrowed(at: now)) }

    /// Seats that a process before this one may have lent, and until when they stay away.
    package var learningEnd: (seats: Seats, until: Instant)? {
        learning.map { ($0.seats.lowered(to: entitlement.purchased), $0.until) }
    }

    /// Nothing is lent, nor may be by a process before this one.
    package var isAllHome: Bool { learning == nil && loans.isEmpty }
}
