// Pool: the rows of all units at one revision of etcd, and what follows from them. The reader checks what lies there: anybody
// may have written it.

/// A key of etcd as it was read.
package struct KeyValue: Sendable {
    package let key: String
    package let value: [UInt8]
    /// The revision that wrote it last (`mod_revision`).
    package let revision: Int

    package init(key: String, value: [UInt8], revision: Int) {
        self.key = key
        self.value = value
        self.revision = revision
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

    /// - Parameters:
    ///   - rows: sorted by serial, each serial once.
    ///   - term: how long loans by time last in a small pool.
    package init(
        revision: Int, rows: [Row], isStale: [Bool], revisions: [String: Int], problems: [SharingError] = [], term: Nanoseconds
    ) {
        self.revision = revision
        self.rows = rows
        self.isStale = isStale
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
    private struct Seen {
        var revision: Int
        var row: Result<Row, SharingError>
        /// When this revision was first read, by this unit's clock.
        var since: Instant
    }

    private let cluster: String
    private let mode: SharingMode
    private let term: Nanoseconds
    private var revision = 0
    private var seen: [String: Seen] = [:]

    package init(cluster: String, mode: SharingMode, term: Nanoseconds) {
        self.cluster = cluster
        self.mode = mode
        self.term = term
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
        for value in values {
            // Texts that are equal to people are equal to Swift: a Kelvin sign would take the place of a K.
            guard value.key.utf8.allSatisfy({ $0 < 0x80 }) else {
                problems.append(.foreignKey(key: value.key, expected: Row.prefix(cluster: cluster) + "SERIAL"))
                continue
            }
            if let known = seen[value.key], known.revision == value.revision {
                present[value.key] = known
            } else {
                present[value.key] = Seen(revision: value.revision, row: decoded(value), since: now)
            }
        }
        seen = present
        let staleAfter = Pace(term: term, members: present.count).staleAfter
        let prefix = Row.prefix(cluster: cluster)
        var rows: [(row: Row, isStale: Bool)] = []
        var revisions: [String: Int] = [:]
        for (key, entry) in present.sorted(by: { $0.key < $1.key }) {
            if key.hasPrefix(prefix) { revisions[String(key.dropFirst(prefix.count))] = entry.revision }
            switch entry.row {
            case .success(let row): rows.append((row, now - entry.since > staleAfter))
            case .failure(let problem): problems.append(problem)
            }
        }
        return Pool(
            revision: revision, rows: rows.map(\.row), isStale: rows.map(\.isStale), revisions: revisions, problems: problems,
            term: term)
    }

    private func decoded(_ value: KeyValue) -> Result<Row, SharingError> {
        do throws(SharingError) {
            return .success(try Row(key: value.key, value: value.value, cluster: cluster, mode: mode))
        } catch {
            return .failure(error)
        }
    }
}
