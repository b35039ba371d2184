// Node: one host: its unit, its clock, its disk, and its sessions.

import SeatSharing

final class Node {
    let serial: String
    var clock: Clock
    var configuration: UnitConfiguration
    var entitlement: Entitlement
    /// The daemon; nil while it is down.
    var unit: Unit?
    /// The daemon that crashed, while its workers go on within the caps and deadlines that it left.
    var remains: Unit?
    var reader: PoolReader
    /// Of its licence.
    let sessionsPerSeat: Int
    /// On disk, what was there before, and a copy in memory that a boot does away with.
    var record: LentRecord? = LentRecord.nothing(id: 1)
    var former: [LentRecord] = []
    var copy: LentRecord? = LentRecord.nothing(id: 1)
    /// Counts starts, so that what was sent to an earlier process is not delivered to this one.
    var life = 0
    var isPartitioned = false
    var isPaused = false
    var inbox: [(life: Int, event: Inbound)] = []
    var wish = Seats.zero
    var used = Seats.zero
    /// The engine: its cap, and the most that may be in use or spare, which comes down to the cap as sessions end.
    var engineCap = Seats.zero
    var most = Seats.zero
    var drains: [SeatType: (to: Int, number: Int)] = [:]
    var watchIsPending = false
    var wakeAt: Nanoseconds = .max
    var notices: [Notice] = []

    // What the check needs to know.
    /// Seats lent of a licence that was taken away without notice, and until when they may be in use.
    var withdrawn: (seats: Seats, until: Nanoseconds)?
    /// The revision after which the owners' rows tell that this clock has stood still.
    var missedSince: Int?
    /// Another process of the same identity has written this unit's row; from when the unit has read that, the other uses what
    /// was bought and is not lent.
    var usurper: (incarnation: UInt64, life: Int)?
    var isUsurped = false

    init(serial: String, clock: Clock, configuration: UnitConfiguration, entitlement: Entitlement, sessionsPerSeat: Int) {
        self.serial = serial
        self.clock = clock
        self.configuration = configuration
        self.entitlement = entitlement
        self.sessionsPerSeat = sessionsPerSeat
        reader = PoolReader(
            cluster: configuration.cluster, mode: configuration.mode, term: configuration.term,
            sessionsPerSeat: sessionsPerSeat)
    }

    /// What fpxd would make of disk and memory.
    var known: Former {
        guard let record else { return .lost(Terms(takeBack: 0, keep: 0)) }
        if let copy { return copy == record ? .known(record) : .lost(record.terms) }
        return .doubtful(record)
    }

    /// It has reached the disk.
    func put(_ record: LentRecord) {
        if let before = self.record { former = Array((former + [before]).suffix(8)) }
        self.record = record
        copy = record
    }

    /// The most seats that are in use within the rules: what the engine admits up to, or still drains from, and what deadlines
    /// leave.
    func bound(_ real: Nanoseconds) -> Seats { most.lowered(to: limit(real)) }

    /// What the engine admits up to.
    func cap(_ real: Nanoseconds) -> Seats { engineCap.lowered(to: limit(real)) }

    private func limit(_ real: Nanoseconds) -> Seats {
        let now = clock.reading(real)
        return unit?.limit(at: now) ?? remains?.limit(at: now) ?? .zero
    }
}

/// What reaches a unit.
enum Inbound {
    case event(Event)
    case answer(revision: Int, values: [Stored])
}
