// One unit, step by step, where the order of what it hears matters.

import Testing

@testable import SeatSharing

@Suite struct UnitTests {
    private static let nothing = Former.known(.nothing(id: 1))

    /// What is to be lent with the borrower's next row is not used meanwhile: workers would fill it again, and the borrower
    /// would wait for ever.
    @Test func whatWaitsForTheBorrowersNextRowStaysAway() throws {
        let configuration = try UnitConfiguration(
            cluster: "LIC1", serial: "A", mode: .ha72, role: .secondary, term: 30 * .second)
        var place = Place(configuration, purchased: 5, Self.nothing)
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

    private func configuration(_ policy: Policy) throws -> UnitConfiguration {
        try UnitConfiguration(cluster: "LIC1", serial: "A", mode: .fabric, role: .member, policy: policy, term: 30 * .second)
    }

    private static func listed(_ seats: Int, _ policy: Policy, id: UInt64 = 5) -> LentRecord {
        LentRecord(
            id: id, seats: Seats(seats), terms: policy.terms(30 * .second),
            grants: [Grant(borrower: "B", incarnation: 7, number: 3, seats: Seats(seats), keep: .forever)])
    }

    /// What is lent for longer than time is on record, so that whatever lies in etcd makes it neither more nor less.
    @Test func loansThatDoNotEndByTimeAreOnRecord() throws {
        var place = Place(try configuration(.acknowledgedOnly), purchased: 5, .known(Self.listed(4, .acknowledgedOnly)))
        try place.read()
        #expect(place.unit.cap(at: place.now) == Seats(1) && place.unit.learningEnd == nil)
        let first = try place.write()
        #expect(first.grants.map(\.seats) == [Seats(4)])
        place.accepted(first)
        // The borrower has promised; an earlier process of it tells nothing of this one.
        var borrower = row("B", .member, purchased: 2)
        for (incarnation, through, cap) in [(UInt64(6), 0, 1), (7, 2, 1), (7, 3, 5)] {
            borrower.incarnation = incarnation
            borrower.sequence += 1
            borrower.holdings = through == 0 ? [] : [Holding(lender: "A", through: through, seats: .zero)]
            place.revision += 1
            place.others = [(borrower, place.revision)]
            try place.read()
            #expect(place.unit.cap(at: place.now) == Seats(cap), "\(incarnation) \(through)")
        }
    }

    /// A later process of the borrower shows that the one that had borrowed is gone.
    @Test func anotherProcessOfTheBorrowerEndsALoan() throws {
        var place = Place(try configuration(.acknowledgedOnly), purchased: 5, .known(Self.listed(4, .acknowledgedOnly)))
        var borrower = row("B", .member, purchased: 2)
        borrower.incarnation = 8
        place.others = [(borrower, 1)]
        try place.read()
        #expect(place.unit.cap(at: place.now) == Seats(5))
    }

    /// Each loan is on record, by the row that it answers, before it is granted.
    @Test func nothingIsGrantedBeforeItIsOnRecord() throws {
        var unit = Unit(
            try configuration(.acknowledgedOnly),
            entitlement: Entitlement(purchased: Seats(4), modelMax: Seats(500), until: .forever),
            incarnation: 0xA00_0000, former: Self.nothing, now: Instant(0), unixTime: 0)
        var reader = PoolReader(cluster: "LIC1", mode: .fabric, term: 30 * .second, sessionsPerSeat: 25)
        var (now, revision, own) = (Instant(0), 1, Row?.none)
        var remembered: [LentRecord] = []
        var granted: [Grant] = []
        for _ in 0..<40 where granted.isEmpty {
            now = now + 100 * .millisecond
            var borrower = row("B", .member, purchased: 2, demand: 6)
            borrower.sequence = 3 + revision
            revision += 1
            let values = [borrower, own].compactMap { $0 }.map {
                KeyValue(
                    key: Row.key(cluster: "LIC1", serial: $0.serial), value: $0.encoded, revision: revision,
                    proof: proof($0.serial))
            }
            var effects = unit.step(.pool(try reader.read(values, revision: revision, now: now)), now: now)
            while !effects.isEmpty {
                switch effects.removeFirst() {
                case .write(let row, _):
                    if let grant = row.grants.first {
                        granted = row.grants
                        #expect(
                            remembered.last?.grants?.contains { $0.number >= grant.number && $0.seats.covers(grant.seats) }
                                == true)
                        #expect(row.record == remembered.last?.id)
                    }
                    own = row
                    revision += 1
                    effects += unit.step(.written(sequence: row.sequence, .accepted(revision: revision)), now: now)
                case .remember(let record):
                    remembered.append(record)
                    effects += unit.step(.remembered(record), now: now)
                case .drain(let type, let to, let number):
                    effects += unit.step(.drained(type, number: number, to: to), now: now)
                default: break
                }
            }
        }
        #expect(granted.map(\.seats) == [Seats(4)])
        #expect(remembered.map(\.id) == remembered.map(\.id).sorted())
    }

    /// A process that is killed before its first tick leaves a row that says when it spoke.
    @Test func theFirstRowTellsTheTime() throws {
        var place = Place(try configuration(.byTime), purchased: 5, Self.nothing)
        try place.read()
        let pings = place.effects.compactMap { if case .write(let row, _) = $0 { row.ping } else { nil } }
        #expect(pings == [1_800_000_000])
    }

    /// A unit that has no record and no row has never lent, as far as etcd is trusted not to forget. By time nobody is trusted.
    @Test(arguments: [Policy.byTime, .acknowledgedOnly, .recovery(86400 * .second)])
    func aFirstStartWaitsForATermAtMost(policy: Policy) throws {
        var place = Place(try configuration(policy), purchased: 5, .none)
        try place.read()
        #expect(place.unit.cap(at: place.now) == .zero)
        let row = try place.write()
        #expect(row.record == 0)
        place.accepted(row)
        try place.read()
        #expect(place.unit.cap(at: place.now) == (policy == .acknowledgedOnly ? Seats(5) : .zero))
        place.now = place.now + 30 * .second
        place.step(.tick(unixTime: 0))
        #expect(place.unit.learningEnd == nil && place.unit.cap(at: place.now) == Seats(5))
    }

    /// Without the record an empty pool is no proof: whoever can write to etcd can empty it.
    @Test(arguments: [Policy.byTime, .acknowledgedOnly])
    func aRecordThatIsLostIsNotReplacedByThePool(policy: Policy) throws {
        var place = Place(try configuration(policy), purchased: 5, .lost(Terms(takeBack: 0, keep: 0)))
        try place.read()
        let row = try place.write()
        place.accepted(row)
        #expect(place.effects.contains(.notice(.lentUnknown(Seats(5)))) == (policy == .acknowledgedOnly))
        #expect(place.unit.cap(at: place.now) == .zero)
        place.now = place.now + 3600 * .second
        place.step(.tick(unixTime: 0))
        #expect(place.unit.cap(at: place.now) == (policy == .byTime ? Seats(5) : .zero))
    }

    /// An old state of the disk: the unit's row in the pool tells of a later record.
    @Test(arguments: [(UInt64(5), true), (4, true), (6, false), (0, false)])
    func whichRecordIsTheLatestIsInThePool(told: UInt64, isTrusted: Bool) throws {
        let record = LentRecord(id: 5, seats: Seats(1), terms: Policy.byTime.terms(30 * .second))
        var place = Place(try configuration(.byTime), purchased: 5, .doubtful(record))
        var former = row("A", .member, purchased: 5)
        former.record = told
        place.own = (former, 1)
        try place.read()
        #expect(place.unit.cap(at: place.now) == .zero, "not before its first row has replaced that")
        let first = try place.write()
        #expect(first.record == (isTrusted ? 5 : 0))
        place.accepted(first)
        #expect(place.unit.cap(at: place.now) == (isTrusted ? Seats(4) : .zero))
        place.now = place.now + 30 * .second
        place.step(.tick(unixTime: 0))
        #expect(place.unit.cap(at: place.now) == Seats(5))
    }

    /// Who can write to etcd can put back what this unit has written before: that is no other process of it.
    @Test func anOldRowOfItsOwnIsWrittenOver() throws {
        var place = Place(try configuration(.byTime), purchased: 5, Self.nothing)
        try place.read()
        place.accepted(try place.write())
        var reader = PoolReader(cluster: "LIC1", mode: .fabric, term: 30 * .second, sessionsPerSeat: 25)
        for isKnown in [false, true] {
            place.revision += 1
            var former = row("A", .member, purchased: 5)
            former.incarnation = 9
            let value = KeyValue(
                key: "pool/LIC1/m/A", value: former.encoded, revision: place.revision, proof: proof("A"))
            // As one reads it who has read later ones, and one who has not.
            let pool =
                isKnown
                ? try place.reader.read([value], revision: place.revision, now: place.now)
                : try reader.read([value], revision: place.revision, now: place.now)
            place.step(.pool(pool))
            #expect(!place.unit.isFenced && place.unit.cap(at: place.now) == Seats(5))
            place.accepted(try place.write())
            try place.read()
        }
    }

    /// A process that begins by a wall clock that was set back is the later one all the same.
    @Test func aProcessIsLaterThanTheOneBefore() throws {
        var place = Place(try configuration(.byTime), purchased: 5, Self.nothing)
        var former = row("A", .member, purchased: 5)
        former.incarnation = 0xB00_0000
        place.own = (former, 1)
        try place.read()
        let first = try place.write()
        #expect(first.incarnation > former.incarnation && first.incarnation == place.unit.incarnation)
        place.accepted(first)
        // From now on a later one is another.
        former.incarnation = first.incarnation + 1
        place.revision += 1
        place.own = (former, place.revision)
        try place.read()
        #expect(place.unit.isFenced && place.unit.cap(at: place.now) == .zero)
    }
}
