// Row: what a unit tells the pool. Each unit writes one row, its own, and reads all.
//
// A row is request, answer and receipt in one. Its `sequence` is the number that lenders grant to; `grants` is what this unit
// lends; `holdings` is what it holds, and at the same time its promise of what it will never use. What a row gives counts as
// far as its licence vouches for it (Proof.swift).

/// How the units of a pool share.
package enum SharingMode: String, CaseIterable, Sendable, Codable {
    /// High availability before 7.2: the primary may use half of what each secondary unit has bought.
    case haBefore72 = "ha-pre-7.2"
    /// High availability from 7.2 on: the active unit may use all.
    case ha72 = "ha-7.2"
    /// A fabric of a root and members: by demand.
    case fabric

    package var isHA: Bool { self != .fabric }
}

package enum Role: String, CaseIterable, Sendable, Codable {
    /// The fabric's root: its settings hold for the pool. It decides nothing.
    case root
    case member
    /// The unit of an HA cluster that has the traffic.
    case primary
    case secondary
}

/// How seats beyond guarantee and preference are divided when there are too few.
package enum Division: String, CaseIterable, Sendable, Codable {
    /// Max-min fair, weighted by purchased seats.
    case maxMin = "max-min"
    /// Doorman's proportional share.
    case proportional
}

/// What the root says for the pool.
package struct Preferences: Equatable, Sendable {
    /// `preferred-seats` of each member that has no entry of its own.
    package var global = Seats.zero
    /// By serial.
    package var members: [String: Seats] = [:]
    package var division = Division.maxMin

    package init(global: Seats = .zero, members: [String: Seats] = [:], division: Division = .maxMin) {
        self.global = global
        self.members = members
        self.division = division
    }
}

/// A loan as its owner tells it.
package struct Grant: Equatable, Sendable, Codable {
    package var borrower: String
    /// The borrower's process that asked. Another one does not take it.
    package var incarnation: UInt64
    /// The borrower's row that this answers.
    package var number: Int
    /// All that is lent to this borrower, not what is added.
    package var seats: Seats
    /// For how long after the borrower wrote that row; `forever` where the policy says so.
    package var keep: Nanoseconds

    package init(borrower: String, incarnation: UInt64, number: Int, seats: Seats, keep: Nanoseconds) {
        self.borrower = borrower
        self.incarnation = incarnation
        self.number = number
        self.seats = seats
        self.keep = keep
    }
}

/// A loan as its borrower tells it: of grants numbered `through` or lower it will never use more than `seats`.
package struct Holding: Equatable, Sendable {
    package var lender: String
    package var through: Int
    package var seats: Seats

    package init(lender: String, through: Int, seats: Seats) {
        self.lender = lender
        self.through = through
        self.seats = seats
    }
}

package struct Row: Equatable, Sendable {
    /// Of the protocol. Rows of another are not read.
    package static let version = 3
    /// The longest row that is read, in bytes, and the most grants or holdings in one.
    package static let bytesMax = 262_144
    package static let entriesMax = 1024

    package var cluster: String
    package var serial: String
    package var mode: SharingMode
    package var role: Role
    /// The process that writes; a later one has a higher number (`Incarnation`).
    package var incarnation: UInt64
    /// Counts the rows that this process has written, from 1.
    package var sequence: Int
    /// The `LentRecord` that was on disk then; 0: none that tells of what is lent.
    package var record: UInt64
    /// The writer's CLOCK_BOOTTIME when it wrote.
    package var clock: Instant
    /// Seconds since 1970, for people only.
    package var ping: Int
    package var isEntitled: Bool
    package var purchased: Seats
    /// Purchased and neither lent nor, after a restart, possibly lent.
    package var own: Seats
    package var used: Seats
    package var demand: Seats
    /// What the unit enforces: its cap in seats.
    package var allocated: Seats
    package var modelMax: Seats
    package var grants: [Grant]
    package var holdings: [Holding]
    /// Only a root's.
    package var preferences: Preferences?
    /// How long loans by time last, as this unit is set: for people, who mean it to be the same on all.
    package var term: Nanoseconds
    /// For how long a borrower may keep what this unit asks back, while sessions are on it; `forever`: as long as they last.
    package var reclaimAfter: Nanoseconds

    package init(
        cluster: String, serial: String, mode: SharingMode, role: Role, incarnation: UInt64, sequence: Int, record: UInt64,
        clock: Instant, ping: Int, isEntitled: Bool, purchased: Seats, own: Seats, used: Seats, demand: Seats,
        allocated: Seats,
        modelMax: Seats,
        grants: [Grant], holdings: [Holding], preferences: Preferences?, term: Nanoseconds = 30 * .second,
        reclaimAfter: Nanoseconds = .forever
    ) {
        self.cluster = cluster
        self.serial = serial
        self.mode = mode
        self.role = role
        self.incarnation = incarnation
        self.sequence = sequence
        self.record = record
        self.clock = clock
        self.ping = ping
        self.isEntitled = isEntitled
        self.purchased = purchased
        self.own = own
        self.used = used
        self.demand = demand
        self.allocated = allocated
        self.modelMax = modelMax
        self.grants = grants
        self.holdings = holdings
        self.preferences = preferences
        self.term = term
        self.reclaimAfter = reclaimAfter
    }

    /// `pool/LICENCE/m/`: below it lie the rows of the members.
    package static func prefix(cluster: String) -> String { "pool/\(cluster)/m/" }
    package static func key(cluster: String, serial: String) -> String { prefix(cluster: cluster) + serial }

    /// The same unit, which tells what it holds and gives nothing.
    var givingNothing: Row {
        var row = self
        (row.isEntitled, row.purchased, row.own, row.grants) = (false, .zero, .zero, [])
        return row
    }

    /// Letters, digits, dot, dash and underscore, 1 to 64: what may stand in a key, in a row and on a terminal as it is.
    package static func isName(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
                default: false
                }
            }
    }
}

/// Numbers of processes, in the order in which they began: milliseconds since 1970, and 22 random bits.
package enum Incarnation {
    private static let randomBits: UInt64 = 22

    /// A new one.
    ///
    /// - Parameter last: the highest that is known of this unit. A wall clock that was set back does not make an earlier
    ///   process.
    package static func new(unixMilliseconds: Int, random: UInt64, after last: UInt64) -> UInt64 {
        let most = UInt64.max >> randomBits
        let time = max(min(UInt64(clamping: unixMilliseconds), most), min((last >> randomBits) + 1, most))
        return time << randomBits | random & (1 << randomBits - 1)
    }
}
