// Pool: the rows of all units at one revision of etcd, and what follows from them. The reader checks what lies there: anybody
// may have written it.

/// A key of etcd as it was read.
package struct KeyValue: Sendable {
    package let key: String
    package let value: [UInt8]
    /// The revision that wrote it last (`mod_revision`).
    package let revision: Int
    /// What vouches for it, or why nothing does.
    package let proof: Result<Proof, SharingError>

    package init(key: String, value: [UInt8], revision: Int, proof: Result<Proof, SharingError>) {
        self.key = key
        self.value = value
        self.revision = revision
        self.proof = proof
    }
}

/// The pool at one revision.
package struct Pool: Sendable {
    package let revision: Int
    /// Sorted by serial.
    package let rows: [Row]
    /// As the rows: has not spoken for long.
    package let isStale: [Bool]
    /// What was ignored, and why.
    package let problems: [SharingError]
    package let plan: Plan
    package let pace: Pace
    /// The revision of each key of a member, also of those whose value cannot be read.
    package let revisions: [String: Int]
    /// By borrower, the lender's index and its grant.
    package let grants: [String: [(lender: Int, grant: Grant)]]
    /// The place of each serial among the rows.
    package let places: [String: Int]
    /// As the rows: when the licence ends, by the reader's clock. Nothing that a unit gives outlasts it.
    package let ends: [Instant]

    /// - Parameters:
    ///   - rows: sorted by serial, each serial once.
    ///   - ends: as the rows; nil: never.
    ///   - term: how long loans by time last in a small pool.
    package init(
        revision: Int, rows: [Row], isStale: [Bool], revisions: [String: Int], problems: [SharingError] = [],
        ends: [Instant]? = nil, term: Nanoseconds
    ) {
        self.revision = revision
        self.rows = rows
        self.isStale = isStale
        self.ends = ends ?? rows.map { _ in .forever }
        self.revisions = revisions
        let takesPart = zip(rows, isStale).map { $0.isEntitled && !$1 }
        var problems = problems
        let roots = rows.filter { $0.role == .root }.map(\.serial)
        if roots.count > 1 { problems.append(.twoRoots(roots)) }
        let primaries = zip(rows, takesPart).filter { $0.0.role == .primary && $0.1 }.map(\.0.serial)
        if primaries.count > 1 { problems.append(.twoPrimaries(primaries)) }
        self.problems = problems
        let preferences = roots.count == 1 ? rows.first { $0.role == .root }?.preferences : nil
        plan = Plan(
            rows: rows, takesPart: takesPart, preferences: preferences ?? Preferences(),
            isDecided: rows.first?.mode.isHA != true || primaries.count == 1)
        pace = Pace(term: term, members: rows.count)
        var grants: [String: [(lender: Int, grant: Grant)]] = [:]
        var places = [String: Int](minimumCapacity: rows.count)
        for (index, row) in rows.enumerated() {
            places[row.serial] = index
            for grant in row.grants { grants[grant.borrower, default: []].append((index, grant)) }
        }
        self.grants = grants
        self.places = places
    }

    package func row(_ serial: String) -> Row? { places[serial].map { rows[$0] } }
}

/// Makes pools of what etcd answers. One for each unit; not safe for several threads at once.
package struct PoolReader {
    /// A value as it was read last.
    private struct Seen {
        var value: [UInt8]
        var row: Result<Row, SharingError>
    }

    /// The latest row of a unit.
    private struct Latest {
        var incarnation: UInt64
        var sequence: Int
        /// When it was first read, by this unit's clock.
        var since: Instant
    }

    private let cluster: String
    private let mode: SharingMode
    private let term: Nanoseconds
    private let sessionsPerSeat: Int
    private let mutations: Mutations
    private var revision = 0
    private var seen: [String: Seen] = [:]
    /// By serial, of units that a licence vouches for, so that nobody can fill it.
    private var latest: [String: Latest] = [:]

    /// - Parameters:
    ///   - term: how long loans by time last in a small pool.
    ///   - sessionsPerSeat: of this unit's licence.
    package init(
        cluster: String, mode: SharingMode, term: Nanoseconds, sessionsPerSeat: Int, mutations: Mutations = []
    ) {
        self.cluster = cluster
        self.mode = mode
        self.term = term
        self.sessionsPerSeat = sessionsPerSeat
        self.mutations = mutations
    }

    /// Rows that have not changed since the last reading are not decoded again.
    ///
    /// - Throws: `oldRevision` for an answer that is older than another before it: late ones say nothing new.
    package mutating func read(_ values: [KeyValue], revision: Int, now: Instant) throws(SharingError) -> Pool {
        guard revision >= self.revision else { throw .oldRevision(found: revision, expected: self.revision) }
        self.revision = revision
        var present: [String: Seen] = [:]
        present.reserveCapacity(values.count)
        var problems: [SharingError] = []
        var rows: [(row: Row, since: Instant, end: Instant)] = []
        var revisions: [String: Int] = [:]
        let prefix = Row.prefix(cluster: cluster)
        for value in values.sorted(by: { $0.key < $1.key }) {
            // Texts that are equal to people are equal to Swift: a Kelvin sign would take the place of a K.
            guard value.key.utf8.allSatisfy({ $0 < 0x80 }) else {
                problems.append(.foreignKey(key: value.key, expected: prefix + "SERIAL"))
                continue
            }
            if value.key.hasPrefix(prefix) { revisions[String(value.key.dropFirst(prefix.count))] = value.revision }
            do throws(SharingError) {
                let proof = try vouched(value)
                let known = seen[value.key].flatMap { $0.value == value.value ? $0 : nil }
                let entry = known ?? Seen(value: value.value, row: decoded(value))
                present[value.key] = entry
                let row = try entry.row.get()
                guard let proof else {
                    rows.append((row, now, .forever))
                    continue
                }
                let since = try follow(row, value.key, proof, now)
                let (judged, problem) = judge(row, value.key, proof, now)
                if let problem { problems.append(problem) }
                rows.append((judged, since, proof.until))
            } catch {
                problems.append(error)
            }
        }
        seen = present
        let staleAfter = Pace(term: term, members: values.count).staleAfter
        return Pool(
            revision: revision, rows: rows.map(\.row), isStale: rows.map { now - $0.since > staleAfter }, revisions: revisions,
            problems: problems, ends: rows.map(\.end), term: term)
    }

    /// - Returns: nil, where it does not matter by mutation.
    private func vouched(_ value: KeyValue) throws(SharingError) -> Proof? {
        if mutations.contains(.unproven), (try? value.proof.get()) == nil { return nil }
        return try value.proof.get()
    }

    /// Whoever can write to etcd can put back what a unit has written before: that is no news, and it has not spoken.
    ///
    /// - Returns: when the row was first read.
    private mutating func follow(
        _ row: Row, _ key: String, _ proof: Proof, _ now: Instant
    ) throws(SharingError) -> Instant {
        guard row.serial == proof.serial else { throw .serial(key: key, found: proof.serial, expected: row.serial) }
        guard let known = latest[row.serial], (known.incarnation, known.sequence) >= (row.incarnation, row.sequence) else {
            latest[row.serial] = Latest(incarnation: row.incarnation, sequence: row.sequence, since: now)
            return now
        }
        if (known.incarnation, known.sequence) == (row.incarnation, row.sequence) { return known.since }
        guard mutations.contains(.anyOrder) else { throw .old(key: key) }
        return now
    }

    /// What a row is worth by its licence. What it holds counts always: that is a promise, and who has no licence any more gives back.
    private func judge(_ row: Row, _ key: String, _ proof: Proof, _ now: Instant) -> (row: Row, problem: SharingError?) {
        func problem(_ name: String, _ found: String, _ expected: String) -> SharingError {
            .field(key: key, name: name, found: found, expected: expected)
        }
        guard row.isEntitled else { return (row.givingNothing, nil) }
        if now >= proof.until, !mutations.contains(.outlivesLicense) {
            return (row.givingNothing, problem("entitled", "true", "false, for its licence has ended"))
        }
        if proof.sessionsPerSeat != sessionsPerSeat, !mutations.contains(.anyFactor) {
            return (
                row.givingNothing,
                .factor(serial: row.serial, found: proof.sessionsPerSeat, expected: sessionsPerSeat)
            )
        }
        if mutations.contains(.unbounded) { return (row, nil) }
        guard proof.purchased.covers(row.purchased) else {
            return (
                row.givingNothing, problem("purchased", "\(row.purchased)", "at most the \(proof.purchased) of its licence")
            )
        }
        guard proof.modelMax.covers(row.modelMax) else {
            return (
                row.givingNothing, problem("model_max", "\(row.modelMax)", "at most the \(proof.modelMax) of its licence")
            )
        }
        let granted = row.grants.reduce(Seats.zero) { $0 + $1.seats }
        guard row.purchased.covers(granted) else {
            return (row.givingNothing, problem("grants", "\(granted)", "at most the purchased \(row.purchased)"))
        }
        return (row, nil)
    }

    private func decoded(_ value: KeyValue) -> Result<Row, SharingError> {
        do throws(SharingError) {
            return .success(try Row(key: value.key, value: value.value, cluster: cluster, mode: mode))
        } catch {
            return .failure(error)
        }
    }
}
