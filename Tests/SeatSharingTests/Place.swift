// Place: one unit, step by step, and the pool that it reads.

@testable import SeatSharing

/// A unit, etcd's revision, and what it has written last.
struct Place {
    var unit: Unit
    var now = Instant(1000 * .second)
    var revision = 1
    var reader: PoolReader
    var others: [(row: Row, revision: Int)] = []
    var own: (row: Row, revision: Int)?
    var effects: [Effect] = []

    init(
        _ configuration: UnitConfiguration, purchased: Int, incarnation: UInt64 = 0xA00_0000, _ former: Former
    ) {
        let entitlement = Entitlement(purchased: Seats(purchased), modelMax: Seats(500), until: .forever)
        unit = Unit(
            configuration, entitlement: entitlement, incarnation: incarnation, former: former, now: now,
            unixTime: 1_800_000_000)
        reader = PoolReader(
            cluster: configuration.cluster, mode: configuration.mode, term: configuration.term, sessionsPerSeat: 25)
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
                key: Row.key(cluster: $0.row.cluster, serial: $0.row.serial), value: $0.row.encoded, revision: $0.revision,
                proof: proof($0.row.serial))
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
