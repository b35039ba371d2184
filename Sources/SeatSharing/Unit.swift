// Unit: what one unit does to lend and borrow seats, as one function step(event, now) -> effects without clock or network.
//
// A seat belongs to the unit that bought it. Its owner alone lends it, for a time that the borrower measures from before it
// asked and the owner from when it granted; so the borrower has always stopped before the owner begins, whatever the network
// does. docs/SHARING.md has the protocol, its rules by letter, and the bounds.

/// What a unit is told by its settings. The mode and the names hold for its life.
package struct UnitConfiguration: Equatable, Sendable {
    package var cluster: String
    package var serial: String
    package var mode: SharingMode
    package var role: Role
    package var policy: Policy
    /// Of a root.
    package var preferences: Preferences?
    /// How long loans by time last in a small pool.
    package var term: Nanoseconds
    /// For how long a borrower may keep what this unit asks back, while sessions are on it.
    package var reclaimAfter: Nanoseconds

    /// - Throws: `setting` for what is out of range.
    package init(
        cluster: String, serial: String, mode: SharingMode, role: Role, policy: Policy = .byTime,
        preferences: Preferences? = nil,
        term: Nanoseconds = 30 * .second, reclaimAfter: Nanoseconds = .forever
    ) throws(SharingError) {
        for (name, text) in [("cluster", cluster), ("serial", serial)] where !Row.isName(text) {
            throw .setting(name: name, found: text, expected: "1 to 64 letters, digits, dots, dashes and underscores")
        }
        let roles: [Role] = mode.isHA ? [.primary, .secondary] : [.root, .member]
        guard roles.contains(role) else {
            throw .setting(
                name: "role", found: role.rawValue,
                expected: roles.map(\.rawValue).joined(separator: " or ") + " for \(mode.rawValue)")
        }
        guard preferences == nil || role == .root else {
            throw .setting(name: "preferred-seats", found: "on a \(role.rawValue)", expected: "on the root alone")
        }
        guard (3 * .second...3600 * .second).contains(term) else {
            throw .setting(name: "term", found: "\(term) ns", expected: "from 3 seconds to 1 hour")
        }
        self.cluster = cluster
        self.serial = serial
        self.mode = mode
        self.role = role
        self.policy = policy
        self.preferences = preferences
        guard reclaimAfter >= .second else {
            throw .setting(name: "reclaim-after", found: "\(reclaimAfter) ns", expected: "at least 1 second")
        }
        self.term = term
        self.reclaimAfter = reclaimAfter
    }
}

/// What the licence gives.
package struct Entitlement: Equatable, Sendable {
    package var purchased: Seats
    package var modelMax: Seats
    /// From here on the licence is not valid.
    package var until: Instant

    package static let none = Entitlement(purchased: .zero, modelMax: .zero, until: Instant(0))

    /// More than `Seats.limit` of a type is taken for the limit.
    package init(purchased: Seats, modelMax: Seats, until: Instant) {
        self.purchased = purchased.lowered(to: Seats(Seats.limit)).raised(to: .zero)
        self.modelMax = modelMax.lowered(to: Seats(Seats.limit)).raised(to: .zero)
        self.until = until
    }
}

/// What must outlast the process: what may still be lent after it is gone, and for how long.
package struct LentRecord: Equatable, Sendable {
    /// Later records have higher ones.
    package var id: UInt64
    /// At no time were more lent.
    package var seats: Seats
    /// For no longer.
    package var terms: Terms
    /// Where loans do not end by time, each of them; nobody else has anything. It is no less than what was granted last.
    package var grants: [Grant]?

    package init(id: UInt64, seats: Seats, terms: Terms, grants: [Grant]? = nil) {
        self.id = id
        self.seats = seats
        self.terms = terms
        self.grants = grants
    }

    /// Nothing was ever lent.
    package static func nothing(id: UInt64) -> LentRecord {
        LentRecord(id: id, seats: .zero, terms: Terms(takeBack: 0, keep: 0))
    }

    /// The same but for the id.
    func says(_ other: LentRecord) -> Bool {
        (seats, terms.takeBack, terms.keep) == (other.seats, other.terms.takeBack, other.terms.keep) && grants == other.grants
    }
}

/// What is known, when a process begins, of what those before it may have lent.
package enum Former: Equatable, Sendable {
    /// It is on record, and nothing has been put on record since.
    case known(LentRecord)
    /// It is on record, or was before: an old state of the disk may have been put back. The unit's own row in the pool tells.
    case doubtful(LentRecord)
    /// No record, and no trace that this unit has ever shared.
    case none
    /// It has shared, and the record is lost or an old one, which said that loans last so long.
    case lost(Terms)

    /// The highest id of a record that is known; a process after it has a higher one.
    package var latestID: UInt64? {
        switch self {
        case .known(let record), .doubtful(let record): record.id
        case .none, .lost: nil
        }
    }
}

package enum WriteOutcome: Equatable, Sendable {
    /// The row is there, at this revision.
    case accepted(revision: Int)
    /// The row in etcd was not at the expected revision.
    case refused
    /// Nobody can say: time has run out, or the connection broke. It may still take effect.
    case unknown
}

package enum Event: Sendable {
    /// Time has passed. Seconds since 1970, for people only.
    case tick(unixTime: Int)
    /// Sessions in use, in seats, rounded up; and the seats that would be of use now (`Unit.demand`).
    case use(used: Seats, demand: Seats)
    case pool(Pool)
    /// What became of a `write`, by the row's sequence.
    case written(sequence: Int, WriteOutcome)
    /// The shrink of that number has come so far: no more than so many seats are in use, and none above is spare.
    case drained(SeatType, number: Int, to: Int)
    case configure(UnitConfiguration)
    case entitle(Entitlement)
    /// A `remember` has reached the disk.
    case remembered(LentRecord)
}

/// What is to be done, in this order: each takes effect before the next is begun.
package enum Effect: Equatable, Sendable {
    /// The engine's cap, in seats, at once. When it returns, no spare session is left above it.
    case setCap(SeatType, Int)
    /// The same, and `drained` is to follow when no more than so many seats are in use (and may come before, with how many
    /// are).
    case drain(SeatType, to: Int, number: Int)
    /// Puts the row if this unit's key is at that revision still (0: is not there), and reads the pool in the same transaction.
    case write(Row, ifRevision: Int)
    /// Reads the pool.
    case read
    /// Writes it to disk; `remembered` follows when it cannot be lost any more.
    case remember(LentRecord)
    case notice(Notice)
}

/// What people are told.
package enum Notice: Equatable, Sendable {
    case problem(SharingError)
    /// This unit's clock has stood still while another's went on: what was borrowed is dropped.
    case missedTime(lender: String, nanoseconds: Nanoseconds)
    /// What a process before this one may have lent is in use by its owner again.
    case learned
    /// What is lent for longer than time is not known: so many seats stay unused.
    case lentUnknown(Seats)
    /// Its owner has asked for so many seats for longer than it allows: they are given back though sessions are on them.
    case forced(lender: String, seats: Seats)
}

package struct Unit: Sendable {
    /// Seats of this unit that another has, or may have.
    struct Loan: Sendable {
        var borrower: String
        var incarnation: UInt64
        /// The last row of the borrower that was answered.
        var number: Int
        var seats: Seats
        var keep: Nanoseconds
        /// When they are this unit's own to use again, and when they may be lent to somebody else.
        var until: Instant
        var keepUntil: Instant
    }

    /// Seats of another unit that this one has; with none it is still the promise `through`.
    struct Held: Sendable {
        var number = 0
        var through = 0
        var seats = Seats.zero
        var deadline = Instant(.min)
        /// The owner's clock in the row that was adopted, its process, and when this unit had asked.
        var lenderClock = Instant(0)
        var lenderIncarnation: UInt64 = 0
        var askedAt = Instant(0)
    }

    struct Drain: Sendable {
        var to: Int
        var number: Int
    }

    /// Greater than that of each process of this unit that is known.
    package internal(set) var incarnation: UInt64
    package internal(set) var configuration: UnitConfiguration
    package internal(set) var entitlement: Entitlement
    let mutations: Mutations

    // Of the row in etcd.
    var sequence = 0
    /// When this unit read its clock for each of its last rows; grants to others are not taken.
    var sent: [Int: Instant] = [:]
    var ownRevision: Int?
    package internal(set) var isEstablished = false
    var inFlight: Int?
    var lastWrite: Instant
    var lastRead: Instant
    var needsRead = true
    var isDirty = false
    package internal(set) var isFenced = false

    // What is lent.
    var loans: [Loan] = []
    /// What is on record, and what is being written there; nil: nothing that tells of all that may be lent.
    package internal(set) var record: LentRecord?
    var recordPending: LentRecord?
    var recordsWritten: UInt64 = 0
    /// What is on record, as long as it is in doubt.
    var doubtful: LentRecord?
    /// The row that the first write of this process replaces shows that it is no old one.
    var confirms = false
    /// When it was changed last.
    var recordedAt = Instant(.min)
    /// What an earlier process may have lent, until when it counts against own use and against lending.
    var learning: (seats: Seats, until: Instant, keepUntil: Instant)?
    /// There is no trace that this unit has ever lent.
    var isNew: Bool

    // What is borrowed.
    var held: [String: Held] = [:]
    /// What lenders ask back.
    var asked: [String: [SeatType: [Ask]]] = [:]

    // The engine.
    /// The cap that was told last, and the most that may still be in use or spare: larger only while a shrink is not complete.
    var told = Seats(Seats.limit + 1)
    var ceiling = Seats(Seats.limit + 1)
    var drains: [SeatType: Drain] = [:]
    var drainNumber = 0
    /// What the cap stands on, as it was when the engine was told: own seats, and what ends when.
    var ownAtStep = Seats.zero
    var falls: [(deadline: Instant, seats: Seats)] = []

    // What is known.
    package internal(set) var pool: Pool?
    var poolAt: Instant
    package internal(set) var used = Seats.zero
    package internal(set) var demand = Seats.zero
    var demandWritten = Seats.zero
    var unixTime: Int
    var now: Instant
    var problems: [SharingError] = []
    var effects: [Effect] = []

    /// - Parameters:
    ///   - incarnation: new for each process, and for each unit that follows another within it.
    ///   - unixTime: seconds, which its rows tell until the first tick.
    package init(
        _ configuration: UnitConfiguration, entitlement: Entitlement, incarnation: UInt64, former: Former, now: Instant,
        unixTime: Int, mutations: Mutations = []
    ) {
        self.configuration = configuration
        self.entitlement = entitlement
        self.incarnation = incarnation
        self.mutations = mutations
        self.now = now
        self.unixTime = max(0, unixTime)
        isNew = former == .none
        lastWrite = Instant(.min)
        lastRead = Instant(.min)
        poolAt = Instant(.min)
        var terms = configuration.policy.terms(configuration.term)
        switch former {
        case .known(let record):
            know(record)
            return
        case .doubtful(let record):
            if mutations.contains(.oldRecord) {
                know(record)
                return
            }
            doubtful = record
            terms = terms.raised(to: record.terms)
        case .none: break
        case .lost(let told): terms = terms.raised(to: told)
        }
        if mutations.contains(.noLearning) { return }
        learning = (Seats(Seats.limit), now + terms.takeBack, now + terms.keep)
    }

    /// Goes on from what is on record.
    mutating func know(_ record: LentRecord) {
        self.record = record
        doubtful = nil
        learning = nil
        if let grants = record.grants, !mutations.contains(.forgetsLent) {
            loans = grants.map { grant in
                Loan(
                    borrower: grant.borrower, incarnation: grant.incarnation, number: grant.number, seats: grant.seats,
                    keep: grant.keep, until: now + record.terms.takeBack, keepUntil: now + record.terms.keep)
            }
        } else if record.seats != .zero, !mutations.contains(.noLearning) {
            let longest = mutations.contains(.forgetsLent) ? configuration.term : .forever
            learning = (
                record.seats, now + min(record.terms.takeBack, longest), now + min(record.terms.keep, longest)
            )
        }
    }

    /// The seats that would be of use: those in use, and an eighth more to grow into, at least one. Of an idle unit it is one
    /// in advance, which gives way to whatever others want (`Plan`).
    package static func demand(used: Seats) -> Seats {
        Seats { used[$0] == 0 ? 1 : min(Seats.limit, used[$0] + max(1, used[$0] / 8)) }
    }

    /// One step. Events may be late, doubled or out of order, also the outcomes of this unit's own effects.
    ///
    /// - Parameter now: this unit's clock, read after the event happened. It never goes back; if it does, it stands.
    package mutating func step(_ event: Event, now: Instant) -> [Effect] {
        self.now = max(self.now, now)
        effects = []
        handle(event)
        expire()
        adjustRecord()
        noteAsked()
        adjustCaps()
        write()
        defer { effects = [] }
        return effects
    }

    private mutating func handle(_ event: Event) {
        switch event {
        case .tick(let unixTime): self.unixTime = max(0, unixTime)
        case .use(let used, let demand):
            self.used = used.raised(to: .zero).lowered(to: Seats(Seats.limit))
            self.demand = demand.raised(to: .zero).lowered(to: Seats(Seats.limit))
            if self.demand != demandWritten { isDirty = true }
        case .pool(let pool): read(pool)
        case .written(let sequence, let outcome): written(sequence, outcome)
        case .drained(let type, let number, let level):
            guard let drain = drains[type], drain.number == number || mutations.contains(.anyDrained) else { return }
            ceiling[type] = min(ceiling[type], max(drain.to, mutations.contains(.anyDrained) ? drain.to : level))
        case .configure(let configuration):
            // Who it is and how it shares is fixed: a change of that is another unit's life.
            for (name, found, expected) in [
                ("cluster", configuration.cluster, self.configuration.cluster),
                ("serial", configuration.serial, self.configuration.serial),
                ("mode", configuration.mode.rawValue, self.configuration.mode.rawValue),
            ] where found != expected {
                effects.append(
                    .notice(.problem(.setting(name: name, found: found, expected: "\(expected) until the next start"))))
                return
            }
            if configuration != self.configuration { isDirty = true }
            self.configuration = configuration
        case .entitle(let entitlement):
            if entitlement != self.entitlement { isDirty = true }
            self.entitlement = entitlement
        case .remembered(let record):
            guard record == recordPending else { return }
            self.record = record
            recordPending = nil
        }
    }

    package var isEntitled: Bool { now < entitlement.until }
    package var pace: Pace { pool?.pace ?? Pace(term: configuration.term, members: 1) }
    var terms: Terms { configuration.policy.terms(pace.term) }

    /// Whether the pool as it was last read is worth acting upon.
    package var isConnected: Bool { !isFenced && pool != nil && now - poolAt <= pace.staleAfter }

    /// This unit's place in the plan, while it takes part in it.
    package var place: Int? {
        guard isConnected, isEntitled, let pool, let place = pool.places[configuration.serial], !pool.isStale[place],
            pool.rows[place].isEntitled
        else { return nil }
        return place
    }
}
