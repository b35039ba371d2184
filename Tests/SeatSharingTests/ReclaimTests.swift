// What long sessions keep comes home (R3), seen from the borrower.

import Testing

@testable import SeatSharing

@Suite struct ReclaimTests {
    /// A borrower of 20 seats beside 5 own ones, all in use; all are lent by A.
    private static func borrower(
        _ mode: SharingMode = .fabric, policy: Policy = .byTime, patience: Nanoseconds
    ) throws -> Place {
        let configuration = try UnitConfiguration(
            cluster: "LIC1", serial: "B", mode: mode, role: mode.isHA ? .primary : .member, policy: policy, term: 30 * .second)
        var place = Place(configuration, purchased: 5, .known(.nothing(id: 1)))
        place.others = [(lender(mode, patience: patience), 1)]
        place.step(.use(used: Seats(25), demand: Seats(25)))
        try place.read()
        let first = try place.write()
        place.accepted(first)
        place.revision += 1
        place.others[0].row.grants = [
            Grant(
                borrower: "B", incarnation: first.incarnation, number: first.sequence, seats: Seats(20),
                keep: policy.terms(30 * .second).keep)
        ]
        place.others[0].row.own = .zero
        place.others[0].revision = place.revision
        try place.read()
        settle(&place)
        return place
    }

    /// What it writes is in etcd.
    private static func settle(_ place: inout Place) {
        for case .write(let row, _) in place.effects {
            place.revision += 1
            place.own = (row, place.revision)
            place.accepted(row)
        }
    }

    private static func lender(_ mode: SharingMode, patience: Nanoseconds) -> Row {
        var lender = row("A", mode.isHA ? .secondary : .member, mode, purchased: 20)
        lender.reclaimAfter = patience
        return lender
    }

    /// Lets the lender write anew: it needs so many seats.
    private static func speak(_ place: inout Place, demand: Int) throws {
        place.revision += 1
        place.others[0].row.sequence += 1
        place.others[0].row.used = Seats(min(demand, 1))
        place.others[0].row.demand = Seats(demand)
        place.others[0].revision = place.revision
        try place.read()
    }

    /// Seconds until the borrower has given back, by the rows that it writes; nil: it has not.
    private static func seconds(_ place: inout Place, until returned: Int, demand: Int, within limit: Int) throws -> Int? {
        for second in 0...limit {
            if try answer(&place, until: returned) { return second }
            try speak(&place, demand: demand)
            if try answer(&place, until: returned) { return second }
            place.now = place.now + .second
            place.step(.tick(unixTime: 0))
        }
        return nil
    }

    /// What it has written is in etcd; the lender answers it, and has what was given back.
    ///
    /// - Returns: whether so many were.
    private static func answer(_ place: inout Place, until returned: Int) throws -> Bool {
        for case .write(let row, _) in place.effects {
            let cap = place.unit.cap(at: place.now)
            settle(&place)
            let holding = try #require(row.holdings.first)
            place.others[0].row.grants[0].number = row.sequence
            place.others[0].row.grants[0].seats = holding.seats
            place.others[0].row.own = Seats(20) - holding.seats
            guard holding.seats.furl <= 20 - returned else { continue }
            // Not before its cap has fallen.
            #expect(cap == Seats(25 - returned))
            return true
        }
        return false
    }

    /// Sessions on them never end: the owner has its seats within what it allows and a heartbeat, and not before.
    @Test(arguments: [Policy.byTime, .acknowledgedOnly])
    func whatIsAskedForTooLongIsGivenBack(policy: Policy) throws {
        var place = try Self.borrower(policy: policy, patience: 60 * .second)
        #expect(place.unit.cap(at: place.now) == Seats(25))
        let seconds = try Self.seconds(&place, until: 8, demand: 8, within: 100)
        #expect(seconds.map { (60...64).contains($0) } == true, "\(seconds.map(String.init) ?? "never")")
        #expect(place.unit.debt == Seats(8))
        // What is asked for later has its own time.
        let more = try Self.seconds(&place, until: 11, demand: 11, within: 100)
        #expect(more.map { (58...64).contains($0) } == true, "\(more.map(String.init) ?? "never")")
    }

    @Test func whoNeverLosesPatienceWaits() throws {
        var place = try Self.borrower(patience: .forever)
        #expect(try Self.seconds(&place, until: 1, demand: 8, within: 1000) == nil)
        #expect(place.unit.debt == .zero)
    }

    /// What is not asked for all the time begins anew.
    @Test func askingBeginsAnewAfterAPause() throws {
        var place = try Self.borrower(patience: 60 * .second)
        for demand in [8, 0, 8, 0] { #expect(try Self.seconds(&place, until: 1, demand: demand, within: 40) == nil) }
    }

    @Test func inAClusterNothingIsWaitedFor() throws {
        var place = try Self.borrower(.ha72, patience: .forever)
        #expect(place.unit.cap(at: place.now) == Seats(25))
        var configuration = place.unit.configuration
        configuration.role = .secondary
        place.step(.configure(configuration))
        Self.settle(&place)
        place.others[0].row.role = .primary
        let seconds = try Self.seconds(&place, until: 20, demand: 25, within: 10)
        #expect(seconds.map { $0 <= 4 } == true, "\(seconds.map(String.init) ?? "never"): \(place.unit.pool?.problems ?? [])")
        // Its own are in use, and not cut.
        #expect(place.unit.debt == Seats(20))
    }
}
