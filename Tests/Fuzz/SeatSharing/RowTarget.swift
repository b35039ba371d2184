// Rows of a pool as anybody may write them: a line each, under the keys of units U0, U1 and so on; the first byte is the mode.

private let cluster = "LIC1"
private let unitsMax = 8

func fuzzRows(_ bytes: [UInt8]) {
    guard let first = bytes.first else { return }
    let mode = SharingMode.allCases[Int(first) % SharingMode.allCases.count]
    let lines = bytes.dropFirst().split(separator: 0x0A, omittingEmptySubsequences: false).prefix(unitsMax).map(Array.init)
    let values = lines.enumerated().map { index, line in
        // Licences that give some of what rows may say, the last of another factor; the first byte's highest bit: they have ended.
        let proof = Proof(
            serial: "U\(index)", purchased: Seats(50), modelMax: Seats(5000), sessionsPerSeat: index == unitsMax - 1 ? 1 : 25,
            until: first < 128 ? .forever : Instant(0))
        return KeyValue(
            key: Row.key(cluster: cluster, serial: "U\(index)"), value: line, revision: index + 1, proof: .success(proof))
    }
    for value in values { checkRow(value, mode) }
    var reader = PoolReader(cluster: cluster, mode: mode, term: 30 * .second, sessionsPerSeat: 25)
    guard let pool = try? reader.read(values, revision: 100, now: Instant(0)) else { return }
    expect(pool.rows.count + pool.problems.count >= values.count, "found \(pool.rows.count) rows, no problem with the others")
    for row in pool.rows {
        let given = row.grants.reduce(row.own) { $0.raised(to: $1.seats) }
        expect(!row.isEntitled || Seats(50).covers(given), "found \(given) given by a licence of 50")
    }
    for problem in pool.problems { expect(isPlain("\(problem)"), "found what moves a terminal in \(problem)") }
    checkPlan(pool)
    checkLedger(pool)
    live(pool, mode)
}

/// What is read is written as the same row.
private func checkRow(_ value: KeyValue, _ mode: SharingMode) {
    do throws(SharingError) {
        let row = try Row(key: value.key, value: value.value, cluster: cluster, mode: mode)
        let again = try Row(key: value.key, value: row.encoded, cluster: cluster, mode: mode)
        expect(again == row, "found \(again), expected \(row)")
    } catch {
        expect(isPlain("\(error)"), "found what moves a terminal in \(error)")
    }
}

/// Nobody is to have more than there is, and lends no more than it owns.
private func checkPlan(_ pool: Pool) {
    for type in SeatType.allCases {
        let shares = zip(pool.plan.shares, zip(pool.rows, pool.isStale)).filter { $0.1.0.isEntitled && !$0.1.1 }
        let targets = shares.reduce(0) { $0 + $1.0.target[type] }
        expect(targets <= pool.plan.available[type], "found \(targets) seats planned of \(pool.plan.available[type])")
        for (index, row) in pool.rows.enumerated() {
            let lent = pool.plan.lending[index].reduce(0) { $0 + $1.seats[type] }
            expect(lent <= row.purchased[type], "found \(lent) seats lent of \(row.purchased[type])")
        }
    }
}

private func checkLedger(_ pool: Pool) {
    let ledger = Ledger(pool: pool, viewer: "U0", isDisconnected: false)
    for line in ledger.devices.flatMap(\.lines) {
        expect(line.allocated <= line.reserved, "found allocated \(line.allocated), expected at most \(line.reserved)")
    }
    for line in (ledger.text() + ledger.memberText()).split(separator: "\n") { expect(isPlain(String(line)), "found \(line)") }
    _ = HASeats(pool: pool).text(available: 1, sessionsPerSeat: 25, sessions: 1)
}

/// A unit that reads it enforces no more than it has bought and holds.
private func live(_ pool: Pool, _ mode: SharingMode) {
    let role: Role = mode.isHA ? .secondary : .member
    guard let configuration = try? UnitConfiguration(cluster: cluster, serial: "U0", mode: mode, role: role) else { return }
    let bought = Seats(furl: 40, fnbi: 3, fcas: 0)
    var now = Instant(1000 * .second)
    var unit = Unit(
        configuration, entitlement: Entitlement(purchased: bought, modelMax: Seats(500), until: .forever), incarnation: 7,
        former: .known(.nothing(id: 1)), now: now, unixTime: 0)
    for event in [Event.pool(pool), .tick(unixTime: 1), .pool(pool), .tick(unixTime: 2)] {
        _ = unit.step(event, now: now)
        let most = bought + unit.borrowed(at: now)
        expect(most.covers(unit.cap(at: now)), "found a cap of \(unit.cap(at: now)), expected at most \(most)")
        expect(unit.borrowed(at: now) == .zero, "found seats borrowed by a unit that has never asked")
        now = now + 3 * .second
    }
}
