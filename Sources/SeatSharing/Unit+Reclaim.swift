// Unit+Reclaim: what is asked back for longer than its owner allows is given back by force.
//
// Seats that are asked back are drained: the borrower's cap falls, and each seat is given back when no session is on it.
// Sessions may last for days, so an owner says in its row for how long it waits (`reclaimAfter`). After that the borrower's
// cap is lowered at once, as at the end of a loan by time, and the seats are given back by the next row, as after a drain
// (R3). Sessions are not cut: those in excess count against what the unit has left, so that none begins before as many have
// ended.
//
// The borrower does it, and not the owner by not renewing, because a loan ends as a whole and what is asked back may be a
// part of it; and because an owner that waits for a promise (`ack-only`) has no other way. A borrower that does not hear is
// one whose loans end by time. In a cluster nothing is waited for: who has become primary uses at least its own seats as soon
// as the other unit has read its row.

extension Unit {
    /// So many more seats are asked back since then.
    struct Ask {
        var since: Instant
        var seats: Int
    }

    /// Beyond so many entries of a type the latest two are one.
    private static let asksMax = 64

    /// Follows what is asked back: what comes last goes first when less is.
    mutating func noteAsked() {
        guard place != nil || !isEntitled else {
            // Whether it is still asked for is not known.
            asked = asked.filter { held[$0.key].map { $0.seats != .zero } ?? false }
            return
        }
        let returns = Dictionary(uniqueKeysWithValues: intents().returns.map { ($0.lender, $0.seats) })
        asked = asked.filter { returns[$0.key] != nil }
        for (lender, seats) in returns {
            for type in SeatType.allCases { follow(lender, type, seats[type]) }
        }
    }

    private mutating func follow(_ lender: String, _ type: SeatType, _ seats: Int) {
        var asks = asked[lender]?[type] ?? []
        var sum = asks.reduce(0) { $0 + $1.seats }
        while sum > seats, let last = asks.last {
            let less = min(last.seats, sum - seats)
            asks[asks.count - 1].seats -= less
            sum -= less
            if less == last.seats { asks.removeLast() }
        }
        if sum < seats {
            if asks.count >= Self.asksMax {
                asks[asks.count - 1].seats += seats - sum
            } else {
                asks.append(Ask(since: now, seats: seats - sum))
            }
        }
        asked[lender, default: [:]][type] = asks
    }

    private func patience(_ lender: String) -> Nanoseconds {
        configuration.mode.isHA ? 0 : pool?.row(lender)?.reclaimAfter ?? .forever
    }

    /// Asked back for longer than their owners allow.
    var overdue: [(lender: String, seats: Seats)] {
        asked.sorted { $0.key < $1.key }.compactMap { lender, asks in
            let patience = patience(lender)
            let seats = Seats { type in
                (asks[type] ?? []).reduce(0) { $0 + (now >= $1.since + patience ? $1.seats : 0) }
            }
            return seats == .zero ? nil : (lender, seats)
        }
    }

    /// When the next of it is.
    var nextOverdue: Instant {
        var next = Instant.forever
        for (lender, asks) in asked {
            let patience = patience(lender)
            for ask in asks.values.joined() where ask.since + patience > now { next = min(next, ask.since + patience) }
        }
        return next
    }

    /// Gives back what nobody here may use any more: what is overdue first.
    mutating func giveBack() {
        let (overdue, before) = (overdue, debt)
        giveBack(overdue)
        // In a cluster most of it comes back without a session on it.
        var kept = debt - before
        for (lender, seats) in overdue {
            let seats = seats.lowered(to: kept)
            kept -= seats
            if seats != .zero { effects.append(.notice(.forced(lender: lender, seats: seats))) }
        }
        giveBack(intents().returns)
    }

    private mutating func giveBack(_ returns: [(lender: String, seats: Seats)]) {
        for (lender, seats) in returns {
            let seats = seats.lowered(to: giveableRoom(returning: true))
            guard seats != .zero else { continue }
            held[lender]?.seats -= seats
            // All that has been asked for so far was asked for before this.
            held[lender]?.through = sequence
            for type in SeatType.allCases {
                var left = seats[type]
                while left > 0, let first = asked[lender]?[type]?.first {
                    let less = min(left, first.seats)
                    left -= less
                    if less == first.seats {
                        asked[lender]?[type]?.removeFirst()
                    } else {
                        asked[lender]?[type]?[0].seats -= less
                    }
                }
            }
        }
    }

    /// In use beyond what this unit has: sessions on seats that it has given back by force, or that have ended.
    package var debt: Seats { (used - own - borrowed(at: now)).raised(to: .zero) }
}
