// AuthorityStore: what the authority knows, in one SQLite file, and its rules.
//
// Each rule is one transaction: it changes the rows, appends to the ledger, and keeps the answer under its idempotency key. So
// a crash at any instruction leaves all of it or nothing, and a question that is asked again after one gains nothing twice.
// WAL, and synchronous FULL: what was answered is on disk.
//
// A licence is signed outside of the transaction, because signing is asynchronous and need not keep other writers waiting: a
// rule decides, what it decided is signed, and inside the transaction it decides again. Where that gives something else, it
// starts over.
//
// Several processes may have the file open: the server and any command of an operator. Nothing is cached but private keys,
// whose bytes never change.

import ControlAPI
import Foundation
import GRDB
import Licensing
import Synchronization

/// Thread safety: all of it may be used at any time, from any task.
package final class AuthorityStore: Sendable {
    package static let leaseSeconds = 14 * 86_400
    /// Over how long re-issues on changed hardware are counted.
    package static let reissueSeconds = 7 * 86_400
    /// How long an answer is kept for a question that comes again.
    package static let answerSeconds = 48 * 3600
    /// Of one licence, the newest; a week of them at one an hour.
    package static let usageReportsMax = 24 * 7

    package let path: String
    /// The folder of KID.key and KID.pem.
    package let keysFolder: String
    /// How often changed hardware is accepted without a person in `reissueSeconds`.
    package let reissues: Int
    /// Who acts where no unit does, for the ledger.
    let user = SystemUser.current
    let ledgerKey: LedgerKey
    /// When the ledger's head was noted last by this process; nil: never.
    private let headNoted = Mutex<Int?>(nil)
    static let headSeconds = 60
    let pool: DatabasePool
    private let clock: @Sendable () -> Date
    private let privateKeys = Mutex<[String: SigningKey]>([:])

    /// Opens the database and brings its tables up to date.
    ///
    /// - Parameters:
    ///   - creates: whether to make one where there is none.
    ///   - clock: what all rules take for the time.
    /// - Throws: `database`, `licensing`.
    package init(
        path: String, keysFolder: String, reissues: Int = 3, creates: Bool = false,
        clock: @escaping @Sendable () -> Date = { Date() }
    ) throws(AuthorityError) {
        self.path = path
        self.keysFolder = keysFolder
        ledgerKey = LedgerKey(folder: keysFolder, database: path)
        self.reissues = reissues
        self.clock = clock
        if access(path, F_OK) != 0 {
            guard creates else { throw .database(path: path, found: "there is no such database; `customer add` makes one") }
            do {
                try StoredFile.makeFolder((path as NSString).deletingLastPathComponent)
                // With its mode from the first moment: SQLite makes its other files as readable as this one.
                try StoredFile.create([], at: path, mode: 0o600)
            } catch { throw .licensing(error) }
        }
        do {
            var configuration = ledgerKey.configuration()
            configuration.label = "authority"
            configuration.busyMode = .timeout(30)
            pool = try DatabasePool(path: path, configuration: configuration)
            // A pool begins with NORMAL, which loses the last answers with the power.
            try pool.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous = FULL") }
            if try pool.read(Migrations.migrator.hasBeenSuperseded) {
                throw AuthorityError.database(path: path, found: "it was made by a later version")
            }
            try Self.migrate(pool, ledgerKey)
        } catch { throw .of(error, database: path) }
    }

    /// Seconds since 1970, by the store's clock.
    package var now: Int { Timestamp.seconds(clock()) }

    func read<Value: Sendable>(_ body: @escaping @Sendable (Database) throws -> Value) async throws(AuthorityError) -> Value {
        do { return try await pool.read(body) } catch { throw .of(error, database: path) }
    }

    func write<Value: Sendable>(_ body: @escaping @Sendable (Database) throws -> Value) async throws(AuthorityError) -> Value {
        do {
            let value = try await pool.write(body)
            await noteHead()
            return value
        } catch { throw .of(error, database: path) }
    }

    /// Brings the tables up to date. A database whose ledger has no key yet gets one.
    static func migrate(_ database: some DatabaseWriter, _ key: LedgerKey) throws {
        let applied = try database.read { try Migrations.migrator.appliedIdentifiers($0) }
        if !applied.contains(Migrations.keyedLedger) { try key.make() }
        try Migrations.migrator.migrate(database)
    }

    /// Once a minute, and after what a command has done. What cannot be noted, `ledger verify` tells by the age of what is.
    private func noteHead() async {
        let now = now
        let isDue = headNoted.withLock { last in
            if let last, abs(now - last) < Self.headSeconds { return false }
            last = now
            return true
        }
        guard isDue, let head = try? await pool.read(Self.head) else { return }
        try? ledgerKey.note(.init(seq: head.seq, hash: head.hash, at: now))
    }

    private static func head(_ database: Database) throws -> (seq: Int, hash: String)? {
        try Row.fetchOne(database, sql: "SELECT seq, hash FROM ledger ORDER BY seq DESC LIMIT 1").map {
            ($0["seq"], ($0["hash"] as Data).hexadecimal)
        }
    }

    /// The private half of a key, read once.
    func privateKey(_ kid: String) throws(AuthorityError) -> SigningKey {
        if let key = privateKeys.withLock({ $0[kid] }) { return key }
        do {
            let key = try SigningKey(path: "\(keysFolder)/\(kid).key")
            privateKeys.withLock { $0[kid] = key }
            return key
        } catch { throw .licensing(error) }
    }

    /// Checks the file, the ledger, the tables against it, and that the entry which was noted last is there.
    /// - Throws: `ledger`, `database`, `licensing` for the ledger's key.
    package func verifyLedger() async throws(AuthorityError) -> LedgerSummary {
        try await read { [path, ledgerKey] database in
            var summary = try Self.verifyAll(database, path: path, ledgerKey)
            guard let head = try ledgerKey.head() else { return summary }
            let hash = try Data.fetchOne(database, sql: "SELECT hash FROM ledger WHERE seq = ?", arguments: [head.seq])
            if hash?.hexadecimal != head.hash {
                throw AuthorityError.ledger(
                    row: "ledger", found: "\(summary.entries) entries\(hash == nil ? "" : ", with another entry \(head.seq)")",
                    expected: "entry \(head.seq) as it was noted at \(Timestamp.text(head.at))")
            }
            (summary.notedEntry, summary.notedAt) = (head.seq, head.at)
            return summary
        }
    }

    /// The ledger's entries, oldest first.
    /// - Parameters:
    ///   - subject: `license:ID`, `customer:ID` ...; nil: all.
    ///   - limit: the newest so many.
    package func ledger(subject: String? = nil, limit: Int = 1000) async throws(AuthorityError) -> [LedgerEntry] {
        try await read { database in
            try LedgerEntry.fetchAll(
                database, sql: "SELECT * FROM ledger WHERE ?1 IS NULL OR subject = ?1 ORDER BY seq DESC LIMIT ?2",
                arguments: [subject, limit]
            ).reversed()
        }
    }

    /// Copies the database as it is at one moment, while others go on, and verifies the copy's ledger.
    /// - Parameter file: must not be there yet; after an error there is none.
    /// - Throws: `licensing` for a file that is there, `database`, `ledger`.
    package func backup(to file: String) async throws(AuthorityError) -> LedgerSummary {
        do { try StoredFile.create([], at: file, mode: 0o600) } catch { throw .licensing(error) }
        do {
            let copy = try DatabaseQueue(path: file, configuration: ledgerKey.configuration())
            try pool.backup(to: copy)
            // One file, without a log beside it.
            try await copy.writeWithoutTransaction { try $0.execute(sql: "PRAGMA journal_mode = DELETE") }
            return try await copy.read { [ledgerKey] in try Self.verifyAll($0, path: file, ledgerKey) }
        } catch {
            // Half a copy would be taken for one.
            for suffix in ["", "-journal", "-wal", "-shm"] { unlink(file + suffix) }
            throw .of(error, database: file)
        }
    }

    /// Checks that the file is whole, the ledger in it and the tables by it, and that these are the tables of this version.
    static func verifyAll(_ database: Database, path: String, _ key: LedgerKey) throws -> LedgerSummary {
        let damage = try String.fetchAll(database, sql: "PRAGMA integrity_check")
        if damage != ["ok"] { throw AuthorityError.database(path: path, found: damage.joined(separator: "; ")) }
        if let row = try Row.fetchOne(database, sql: "PRAGMA foreign_key_check") {
            throw AuthorityError.database(path: path, found: "a row of \(row[0] as String) that belongs to none")
        }
        let summary = try Ledger.verify(database)
        let expected = try DatabaseQueue(configuration: key.configuration())
        try Migrations.migrator.migrate(expected)
        for query in [
            "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 2",
            "SELECT identifier FROM grdb_migrations ORDER BY 1",
        ] {
            let (found, right) = (
                try Row.fetchAll(database, sql: query), try expected.read { try Row.fetchAll($0, sql: query) }
            )
            if found != right {
                let other = Set(found).symmetricDifference(right).map(\.description).min() ?? "another order"
                throw AuthorityError.database(path: path, found: "tables that are not those of this version: \(other)")
            }
        }
        // Ids are given once: a number that went back would give one again.
        for (table, last) in try Row.fetchAll(database, sql: "SELECT name, seq FROM sqlite_sequence").map({
            ($0["name"] as String, $0["seq"] as Int)
        }) {
            let found = try Int.fetchOne(database, sql: "SELECT max(id) FROM \(table.quotedDatabaseIdentifier)") ?? 0
            if found != last {
                throw AuthorityError.ledger(row: table, found: "\(found) as its last id", expected: "\(last)")
            }
        }
        return summary
    }
}
