// Mutations: each leaves out one rule of the protocol. The simulator must find every one of them; nothing else sets them.

package struct Mutations: OptionSet, Hashable, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }

    /// A borrower counts a loan's time from the grant's arrival instead of from before it asked.
    package static let fromReceipt = Mutations(rawValue: 1 << 0)
    /// No margin for drift.
    package static let noMargin = Mutations(rawValue: 1 << 1)
    /// An owner that has restarted uses all that it has bought at once.
    package static let noLearning = Mutations(rawValue: 1 << 2)
    /// An owner grants before it has shrunk.
    package static let grantsFirst = Mutations(rawValue: 1 << 3)
    /// A borrower gives back before it has shrunk.
    package static let returnsFirst = Mutations(rawValue: 1 << 4)
    /// A borrower adopts grants that it has promised not to use.
    package static let oldGrants = Mutations(rawValue: 1 << 5)
    /// An owner honours a return that is older than its last grant.
    package static let oldReturns = Mutations(rawValue: 1 << 6)
    /// A borrower adopts what was granted to the process before it.
    package static let anyIncarnation = Mutations(rawValue: 1 << 7)
    /// An owner frees what it has lent to a process when another of that unit speaks.
    package static let restartFrees = Mutations(rawValue: 1 << 8)
    /// An owner renews without counting the time anew.
    package static let renewsUnrecorded = Mutations(rawValue: 1 << 9)
    /// Any completion of a shrink counts for the latest.
    package static let anyDrained = Mutations(rawValue: 1 << 10)
    /// An owner lends more than it has on record before the record is written.
    package static let noRecord = Mutations(rawValue: 1 << 11)
    /// Loans outlive the entitlement of their owner.
    package static let outlivesEntitlement = Mutations(rawValue: 1 << 12)
    /// A borrower that has missed time goes on.
    package static let noPauseDetector = Mutations(rawValue: 1 << 13)
    /// A unit whose row somebody else writes goes on.
    package static let noFence = Mutations(rawValue: 1 << 14)
    /// After a restart an owner that never takes back by time forgets what is lent.
    package static let forgetsLent = Mutations(rawValue: 1 << 15)
    /// A deadline counts only when the unit next looks.
    package static let noDeadline = Mutations(rawValue: 1 << 16)
    /// An owner that took back by time lends the same seats again before the borrower's time has passed.
    package static let lendsAgain = Mutations(rawValue: 1 << 17)
    /// A row counts though nothing vouches for it.
    package static let unproven = Mutations(rawValue: 1 << 18)
    /// A row gives what it says, however much its licence does.
    package static let unbounded = Mutations(rawValue: 1 << 19)
    /// A row gives also after its licence has ended, and for longer.
    package static let outlivesLicense = Mutations(rawValue: 1 << 20)
    /// Seats that stand for another number of sessions are borrowed.
    package static let anyFactor = Mutations(rawValue: 1 << 21)
    /// A row of an earlier process ends what was lent to a later one.
    package static let anyOrder = Mutations(rawValue: 1 << 22)
    /// What is on disk is taken for the latest, wherever it comes from.
    package static let oldRecord = Mutations(rawValue: 1 << 23)
    /// A borrower gives back by force without lowering its cap.
    package static let forcesNothing = Mutations(rawValue: 1 << 24)

    package static let all: [(name: String, mutation: Mutations)] = [
        ("fromReceipt", .fromReceipt), ("noMargin", .noMargin), ("noLearning", .noLearning), ("grantsFirst", .grantsFirst),
        ("returnsFirst", .returnsFirst), ("oldGrants", .oldGrants), ("oldReturns", .oldReturns),
        ("anyIncarnation", .anyIncarnation), ("restartFrees", .restartFrees), ("renewsUnrecorded", .renewsUnrecorded),
        ("anyDrained", .anyDrained), ("noRecord", .noRecord), ("outlivesEntitlement", .outlivesEntitlement),
        ("noPauseDetector", .noPauseDetector), ("noFence", .noFence), ("forgetsLent", .forgetsLent),
        ("noDeadline", .noDeadline), ("lendsAgain", .lendsAgain), ("unproven", .unproven), ("unbounded", .unbounded),
        ("outlivesLicense", .outlivesLicense), ("anyFactor", .anyFactor), ("anyOrder", .anyOrder), ("oldRecord", .oldRecord),
        ("forcesNothing", .forcesNothing),
    ]
}
