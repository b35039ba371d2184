import SeatSharing

/// A row of a unit that has lent nothing.
func row(
    _ serial: String, _ role: Role, _ mode: SharingMode = .fabric, purchased: Int, demand: Int = 0, used: Int = 0,
    modelMax: Int = 5000, allocated: Int? = nil, own: Int? = nil, isEntitled: Bool = true, preferences: Preferences? = nil
) -> Row {
    Row(
        cluster: "LIC1", serial: serial, mode: mode, role: role, incarnation: 7, sequence: 3, record: 1,
        clock: Instant(5 * .second),
        ping: 1_765_000_000, isEntitled: isEntitled, purchased: Seats(purchased),
        own: Seats(own ?? purchased),
        used: Seats(used),
        demand: Seats(demand), allocated: Seats(allocated ?? purchased), modelMax: Seats(modelMax), grants: [], holdings: [],
        preferences: preferences)
}

func pool(_ rows: [Row], stale: Set<String> = []) -> Pool {
    let rows = rows.sorted { $0.serial < $1.serial }
    return Pool(
        revision: 9, rows: rows, isStale: rows.map { stale.contains($0.serial) },
        revisions: Dictionary(uniqueKeysWithValues: rows.map { ($0.serial, 9) }), term: 30 * .second)
}

extension Pool {
    func target(_ serial: String) -> Int? { places[serial].map { plan.shares[$0].target.furl } }
    func guaranteed(_ serial: String) -> Int? { places[serial].map { plan.shares[$0].guaranteed.furl } }
    var targets: [Int] { plan.shares.map(\.target.furl) }
    var guaranteeds: [Int] { plan.shares.map(\.guaranteed.furl) }
    func lent(_ serial: String) -> [String: Int] {
        guard let place = places[serial] else { return [:] }
        return Dictionary(uniqueKeysWithValues: plan.lending[place].map { (rows[$0.unit].serial, $0.seats.furl) })
    }
}

/// Of a licence of 40 seats.
func proof(
    _ serial: String, purchased: Int = 40, modelMax: Int = 5000, sessionsPerSeat: Int = 25, until: Instant = .forever
) -> Result<Proof, SharingError> {
    .success(
        Proof(
            serial: serial, purchased: Seats(purchased), modelMax: Seats(modelMax), sessionsPerSeat: sessionsPerSeat,
            until: until))
}
