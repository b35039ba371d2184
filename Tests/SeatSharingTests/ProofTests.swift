import SeatSharing
import Testing

/// What a row is worth by what vouches for it.
@Suite struct ProofTests {
    /// A unit that has lent 4 of its 10 seats.
    private var lender: Row {
        var row = row("FPX1", .member, purchased: 10, modelMax: 500, own: 6)
        row.grants = [Grant(borrower: "FPX2", incarnation: 9, number: 4, seats: Seats(4), keep: 30 * .second)]
        row.holdings = [Holding(lender: "FPX3", through: 2, seats: .zero)]
        return row
    }

    private func read(_ row: Row, _ proof: Result<Proof, SharingError>, key: String? = nil, now: Instant = Instant(0)) throws
        -> Pool
    {
        var reader = PoolReader(cluster: "LIC1", mode: .fabric, term: 30 * .second, sessionsPerSeat: 25)
        let key = key ?? Row.key(cluster: "LIC1", serial: row.serial)
        return try reader.read([KeyValue(key: key, value: row.encoded, revision: 3, proof: proof)], revision: 5, now: now)
    }

    private func expectNothing(
        _ row: Row, _ proof: Result<Proof, SharingError>, now: Instant = Instant(0), _ problem: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let pool = try read(row, proof, now: now)
        #expect(pool.problems.map(\.description) == [problem], sourceLocation: sourceLocation)
        #expect(pool.grants.isEmpty && pool.plan.available == .zero, sourceLocation: sourceLocation)
        // A promise counts always.
        #expect(pool.rows.map(\.holdings) == [row.holdings], sourceLocation: sourceLocation)
    }

    @Test func whatALicenceVouchesForCounts() throws {
        let pool = try read(lender, proof("FPX1", purchased: 10, modelMax: 500))
        #expect(pool.rows == [lender] && pool.problems.isEmpty && pool.grants["FPX2"]?.count == 1)
        #expect(pool.plan.available == Seats(6), "what is lent to those who are not there is not to be planned with")
    }

    @Test func nothingVouchesForIt() throws {
        let error = SharingError.unproven(key: "pool/LIC1/m/FPX1", reason: "found no signature")
        let pool = try read(lender, .failure(error))
        #expect(pool.rows.isEmpty && pool.problems == [error] && pool.revisions == ["FPX1": 3])
    }

    @Test func anotherUnitsLicence() throws {
        let pool = try read(lender, proof("FPX8"))
        #expect(pool.rows.isEmpty)
        #expect(pool.problems.map(\.description) == ["\"pool/LIC1/m/FPX1\": a row of unit \"FPX8\", expected \"FPX1\""])
        let moved = try read(lender, proof("FPX1"), key: "pool/LIC1/m/FPX8")
        #expect(moved.rows.isEmpty)
        #expect(moved.problems.map(\.description) == ["\"pool/LIC1/m/FPX8\": a row of unit \"FPX1\", expected \"FPX8\""])
    }

    @Test func moreThanTheLicenceGives() throws {
        let key = "\"pool/LIC1/m/FPX1\": "
        try expectNothing(
            lender, proof("FPX1", purchased: 9), key + "purchased: found 10/10/10, expected at most the 9/9/9 of its licence")
        try expectNothing(
            lender, proof("FPX1", purchased: 10, modelMax: 499),
            key + "model_max: found 500/500/500, expected at most the 499/499/499 of its licence")
        var row = lender
        row.grants.append(Grant(borrower: "FPX4", incarnation: 9, number: 4, seats: Seats(7), keep: 30 * .second))
        try expectNothing(
            row, proof("FPX1", purchased: 10), key + "grants: found 11/11/11, expected at most the purchased 10/10/10")
    }

    @Test func aLicenceThatHasEnded() throws {
        let end = Instant(5 * .second)
        try expectNothing(
            lender, proof("FPX1", until: end), now: end,
            "\"pool/LIC1/m/FPX1\": entitled: found true, expected false, for its licence has ended")
        #expect(try read(lender, proof("FPX1", until: end), now: Instant(4 * .second)).ends == [end])
        // Who knows it himself is no trouble.
        var row = lender
        row.isEntitled = false
        #expect(try read(row, proof("FPX1", until: end), now: end).problems == [])
    }

    @Test func seatsOfAnotherFactor() throws {
        try expectNothing(
            lender, proof("FPX1", sessionsPerSeat: 1),
            "\"FPX1\": found 1 sessions a seat, expected 25 as here: no seats are shared with it")
    }

    /// Rows of a unit are in order, first by its processes.
    @Test func whatWasThereBeforeIsNoNews() throws {
        var reader = PoolReader(cluster: "LIC1", mode: .fabric, term: 30 * .second, sessionsPerSeat: 25)
        var revision = 1
        func read(_ incarnation: UInt64, _ sequence: Int) throws -> String {
            var row = lender
            (row.incarnation, row.sequence) = (incarnation, sequence)
            revision += 1
            let value = KeyValue(
                key: "pool/LIC1/m/FPX1", value: row.encoded, revision: revision, proof: proof("FPX1"))
            let pool = try reader.read([value], revision: revision, now: Instant(0))
            return pool.rows.isEmpty ? pool.problems.map(\.description).joined() : "counts"
        }
        let old = "\"pool/LIC1/m/FPX1\": found a row from before one that was read, expected what follows it"
        #expect(try read(7, 3) == "counts" && read(7, 4) == "counts" && read(7, 4) == "counts")
        #expect(try read(7, 3) == old && read(6, 100) == old)
        #expect(try read(8, 1) == "counts" && read(7, 5) == old && read(8, 2) == "counts")
    }

    @Test func processesAreInOrder() {
        let first = Incarnation.new(unixMilliseconds: 1_795_000_000_000, random: .max, after: 0)
        #expect(Incarnation.new(unixMilliseconds: 1_795_000_000_001, random: 0, after: first) > first)
        // The wall clock stands, or was set back.
        for time in [1_795_000_000_000, 5, -1] {
            let next = Incarnation.new(unixMilliseconds: time, random: 0, after: first)
            #expect(next > first && next - first < 1 << 22)
        }
        #expect(Incarnation.new(unixMilliseconds: .max, random: 3, after: 0) > first)
    }
}
