// One unit, step by step, where the order of what it hears matters.

import Testing

@testable import SeatSharing

@Suite struct UnitTests {
    /// A unit, etcd's revision, and what it has written last.
    private struct Place {
        var unit: Unit
        var now = Instant(1000 * .second)
        var revision = 1
        var reader: PoolReader
        var others: [(row: Row, revision: Int)] = []
        var own: (row: Row, revision: Int)?
        var effects: [Effect] = []

        init(
            _ configuration: UnitConfiguration, purchased: Int, incarnation: UInt64 = 0xA, record: LentRecord?,
            isElsewhere: Bool = false, mutations: Mutations = []
        ) {
            let entitlement = Entitlement(purchased: Seats(purchased), modelMax: Seats(500), until: .forever)
            unit = Unit(
                configuration, entitlement: entitlement, incarnation: incarnation, record: record, isElsewhere: isElsewhere,
                now: now, mutations: mutations)
            reader = PoolReader(cluster: configuration.cluster, mode: configuration.mode, term: configuration.term)
        }

        mutating func step(_ event: Event) {
            effects = unit.step(event, now: now)
            // The disk is fast here.
            for case .remember(let record) in effects { effects += unit.step(.remembered(record), now: now) }
        }

        mutating func read() throws {
            let rows = others + (own.map { [$0] } ?? [])
            let values = rows.map {
                KeyValue(
                    key: Row.key(cluster: $0.row.cluster, serial: $0.row.serial), value: $0.row.encoded, revision: $0.revision)
            }
            step(.pool(try reader.read(values, revision: revision, now: now)))
        }

        /// Lets time pass until it writes.
        mutating func write() throws -> Row {
            for _ in 0..<100 {
                for case .write(let row, _) in effects {
                    revision += 1
                    own = (row, revision)
                    return row
                }
                now = now + 100 * .millisecond
                step(.tick(unixTime: 0))
            }
            throw SharingError.setting(name: "row", found: "none in 10 seconds", expected: "one")
        }

        mutating func accepted(_ row: Row) { step(.written(sequence: row.sequence, .accepted(revision: revision))) }
    }

    private static let nothing = LentRecord(seats: .zero, terms: Terms(takeBack: 0, keep: 0))

    /// What is to be lent with the borrower's next row is not used meanwhile: workers would fill it again, and the borrower
    /// would wait for ever.
    @Test func whatWaitsForTheBorrowersNextRowStaysAway() throws {
        let configuration = try UnitConfiguration(
            cluster: "LIC1", serial: "A", mode: .ha72, role: .secondary, term: 30 * .second)
        var place = Place(configuration, purchased: 5, record: Self.nothing)
        place.others = [(row("B", .primary, .ha72, purchased: 2, demand: 7), 1)]
        place.step(.use(used: Seats(3), demand: Seats(4)))
        try place.read()
        let first = try place.write()
        place.accepted(first)
        try place.read()
        // Three seats are in use: two are free to go at once.
        for type in SeatType.allCases {
            let drain = try #require(place.unit.drains[type])
            place.step(.drained(type, number: drain.number, to: 3))
        }
        let second = try place.write()
        #expect(second.grants.map(\.seats) == [Seats(2)])
        place.accepted(second)
        try place.read()
        for _ in 0..<20 {
            place.now = place.now + 50 * .millisecond
            place.step(.tick(unixTime: 0))
            #expect(place.unit.cap(at: place.now) == .zero)
        }
    }

    /// A borrower of 20 seats beside 5 own ones, all in use; its lender then needs `asked` of them.
    private static func borrower(
        _ mode: SharingMode = .fabric, policy: Policy = .byTime, patience: Nanoseconds, mutations: Mutations = []
    ) throws -> Place {
        let configuration = try UnitConfiguration(
            cluster: "LIC1", serial: "B", mode: mode, role: mode.isHA ? .primary : .member, policy: policy, term: 30 * .second)
        var place = Place(configuration, purchased: 5, record: nothing, mutations: mutations)
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

    /// The pool may be read before the answer to the first write comes.
    @Test(arguments: [false, true]) func theFormerRowsLoansAreKnownWhateverComesFirst(readFirst: Bool) throws {
        let configuration = try UnitConfiguration(
            cluster: "LIC1", serial: "A", mode: .fabric, role: .member, policy: .acknowledgedOnly, term: 30 * .second)
        var before = Place(configuration, purchased: 5, record: Self.nothing)
        try before.read()
        let former = try before.write()
        let terms = Policy.acknowledgedOnly.terms(30 * .second)
        var place = Place(
            configuration, purchased: 5, incarnation: 0xB, record: LentRecord(seats: Seats(4), terms: terms))
        place.own = (former, 2)
        place.revision = 2
        try place.read()
        #expect(place.unit.cap(at: place.now) == Seats(1))
        let row = try place.write()
        #expect(!row.isLearning)
        if readFirst { try place.read() }
        place.accepted(row)
        if !readFirst { try place.read() }
        #expect(place.unit.learningEnd == nil && place.unit.cap(at: place.now) == Seats(5))
    }

    /// A unit that has no record and no row has never lent, as far as etcd is trusted not to forget. By time nobody is trusted.
    @Test(arguments: [Policy.byTime, .acknowledgedOnly, .recovery(86400 * .second)])
    func aFirstStartWaitsForATermAtMost(policy: Policy) throws {
        let configuration = try UnitConfiguration(
            cluster: "LIC1", serial: "A", mode: .fabric, role: .member, policy: policy, term: 30 * .second)
        var place = Place(configuration, purchased: 5, record: nil)
        try place.read()
        #expect(place.unit.cap(at: place.now) == .zero)
        let row = try place.write()
        place.accepted(row)
        try place.read()
        #expect(place.unit.cap(at: place.now) == (policy == .acknowledgedOnly ? Seats(5) : .zero))
        place.now = place.now + 30 * .second
        place.step(.tick(unixTime: 0))
        #expect(place.unit.learningEnd == nil && place.unit.cap(at: place.now) == Seats(5))
    }

    /// With a record of loans that do not end by time, a pool without this unit's row has forgotten.
    @Test func aPoolThatHasForgottenIsNoProof() throws {
        let configuration = try UnitConfiguration(
            cluster: "LIC1", serial: "A", mode: .fabric, role: .member, policy: .acknowledgedOnly, term: 30 * .second)
        let record = LentRecord(seats: Seats(4), terms: Policy.acknowledgedOnly.terms(30 * .second))
        var place = Place(configuration, purchased: 5, record: record)
        try place.read()
        #expect(place.effects.contains(.notice(.lentUnknown(Seats(4)))))
        place.accepted(try place.write())
        place.now = place.now + 3600 * .second
        place.step(.tick(unixTime: 0))
        #expect(place.unit.cap(at: place.now) == Seats(1))
    }

    /// A unit that has come from another pool may have been in this one before: its old row says nothing of what is lent there.
    @Test(arguments: [Policy.acknowledgedOnly, .recovery(60 * .second)])
    func anotherPoolsLoansAreNotInThisOnesRow(policy: Policy) throws {
        let configuration = try UnitConfiguration(
            cluster: "LIC1", serial: "A", mode: .fabric, role: .member, policy: policy, term: 30 * .second)
        var before = Place(configuration, purchased: 5, record: Self.nothing)
        try before.read()
        let former = try before.write()
        var place = Place(
            configuration, purchased: 5, incarnation: 0xB,
            record: LentRecord(seats: Seats(4), terms: policy.terms(30 * .second)), isElsewhere: true)
        place.own = (former, 2)
        place.revision = 2
        try place.read()
        #expect(place.effects.contains(.notice(.lentUnknown(Seats(4)))))
        let row = try place.write()
        #expect(row.isLearning && row.grants.isEmpty)
        place.accepted(row)
        try place.read()
        #expect(place.unit.cap(at: place.now) == Seats(1))
        // As without any row: by time where there is one.
        place.now = place.now + 30 * .second
        place.step(.tick(unixTime: 0))
        #expect(place.unit.cap(at: place.now) == (policy == .acknowledgedOnly ? Seats(1) : Seats(5)))
        place.now = place.now + 3600 * .second
        place.step(.tick(unixTime: 0))
        #expect((place.unit.learningEnd == nil) == (policy != .acknowledgedOnly))
    }

    /// That a loan is of this pool is on record before it is given, also where the seats on record would do.
    @Test func whichPoolIsOnRecordFirst() throws {
        let configuration = try UnitConfiguration(
            cluster: "LIC1", serial: "A", mode: .fabric, role: .member, policy: .recovery(60 * .second), term: 30 * .second)
        let record = LentRecord(seats: Seats(4), terms: configuration.policy.terms(30 * .second))
        var place = Place(configuration, purchased: 4, record: record, isElsewhere: true)
        place.others = [(row("B", .member, purchased: 2, demand: 6), 1)]
        try place.read()
        place.accepted(try place.write())
        try place.read()
        place.now = place.now + 61 * .second
        #expect(!place.effects.contains(.remember(record)) && !place.unit.isRecorded)
        // Everybody has spoken again, so that there is a plan.
        let again = try place.write()
        place.others[0].revision = place.revision + 1
        place.revision += 1
        place.accepted(again)
        try place.read()
        #expect(place.unit.learningEnd == nil)
        #expect(place.effects.contains(.remember(record)) && place.unit.isRecorded)
    }
}
