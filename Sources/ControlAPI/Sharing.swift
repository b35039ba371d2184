// How this unit shares seats with others.

package import SeatSharing

/// GET /v1/sharing. In mode `None` all else is empty.
package struct SharingReport: Codable, Equatable, Sendable {
    /// Another unit that seats were borrowed from or lent to.
    package struct Partner: Codable, Equatable, Sendable {
        package var serial: String
        package var seats: Seats
        /// When the loan ends by time, if it is not renewed; nil: only when it is given back.
        package var endsInSeconds: Int?
        package init(serial: String, seats: Seats, endsInSeconds: Int? = nil) {
            self.serial = serial
            self.seats = seats
            self.endsInSeconds = endsInSeconds
        }
    }
    package struct Endpoint: Codable, Equatable, Sendable {
        package var url: String
        /// A word or a sentence.
        package var state: String
        package init(url: String, state: String) {
            self.url = url
            self.state = state
        }
    }
    /// `None`, `HA`, `fabric`, `fabric-disconn`
    package var mode: String
    /// The pool's name.
    package var group: String
    package var serial: String
    /// `root`, `member`, `primary`, `secondary`
    package var role: String
    /// Whether this unit's licence is one that takes part.
    package var isEntitled: Bool
    /// Whether the pool was read lately.
    package var isConnected: Bool
    /// Another process writes this unit's row: it uses no seats.
    package var isFenced: Bool
    /// `time`, `ack-only`, `recovery 14d`
    package var policy: String
    /// How long it waits for lent seats that it needs: `10m`, `never`
    package var reclaimAfter: String
    /// The bound of what may be used twice under that policy, in a sentence.
    package var overUse: String
    /// How long a loan by time lasts, and how often this unit speaks.
    package var termSeconds: Int
    package var heartbeatMilliseconds: Int
    /// Units of the pool, and how many of them have been silent for long.
    package var members: Int
    package var staleMembers: Int
    package var lenders: [Partner]
    package var borrowers: [Partner]
    /// Purchased and not lent.
    package var own: Seats
    package var borrowed: Seats
    package var lent: Seats
    /// What is enforced.
    package var cap: Seats
    package var used: Seats
    /// What would be of use.
    package var demand: Seats
    /// In use here again, though the borrower may still use them: `recovery` only.
    package var usedTwice: Seats
    /// In use beyond own and borrowed seats: sessions on seats that were given back, or whose loan has ended. Nothing begins
    /// before as many have ended.
    package var debt: Seats
    /// What is wrong in the pool or on the way to it, a sentence each.
    package var problems: [String]
    package var endpoints: [Endpoint]
    /// Whether this unit shows etcd a password.
    package var hasPassword: Bool
    /// Of a fabric whose pool has been read.
    package var ledger: Ledger?
    /// Of an HA cluster whose pool has been read.
    package var ha: HASeats?
    package var sessionsPerSeat: Int
    /// Of the type that gates sessions, in use.
    package var sessions: Int

    package init(
        mode: String, group: String = "", serial: String = "", role: String = "", isEntitled: Bool = false,
        isConnected: Bool = false, isFenced: Bool = false, policy: String = "", reclaimAfter: String = "", overUse: String = "",
        termSeconds: Int = 0,
        heartbeatMilliseconds: Int = 0, members: Int = 0, staleMembers: Int = 0, lenders: [Partner] = [],
        borrowers: [Partner] = [], own: Seats = .zero, borrowed: Seats = .zero, lent: Seats = .zero, cap: Seats = .zero,
        used: Seats = .zero, demand: Seats = .zero, usedTwice: Seats = .zero, debt: Seats = .zero, problems: [String] = [],
        endpoints: [Endpoint] = [], hasPassword: Bool = false, ledger: Ledger? = nil, ha: HASeats? = nil,
        sessionsPerSeat: Int = 0, sessions: Int = 0
    ) {
        self.mode = mode
        self.group = group
        self.serial = serial
        self.role = role
        self.isEntitled = isEntitled
        self.isConnected = isConnected
        self.isFenced = isFenced
        self.policy = policy
        self.reclaimAfter = reclaimAfter
        self.overUse = overUse
        self.termSeconds = termSeconds
        self.heartbeatMilliseconds = heartbeatMilliseconds
        self.members = members
        self.staleMembers = staleMembers
        self.lenders = lenders
        self.borrowers = borrowers
        self.own = own
        self.borrowed = borrowed
        self.lent = lent
        self.cap = cap
        self.used = used
        self.demand = demand
        self.usedTwice = usedTwice
        self.debt = debt
        self.problems = problems
        self.endpoints = endpoints
        self.hasPassword = hasPassword
        self.ledger = ledger
        self.ha = ha
        self.sessionsPerSeat = sessionsPerSeat
        self.sessions = sessions
    }
}

/// DELETE /v1/sharing/members/SERIAL: whose row was taken away, and from which pool.
package struct MemberRemoved: Codable, Equatable, Sendable {
    package var serial: String
    package var group: String
    package init(serial: String, group: String) {
        self.serial = serial
        self.group = group
    }
}
