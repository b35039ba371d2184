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
            var configuration = Configuration()
            configuration.label = "authority"
            configuration.busyMode = .timeout(30)
            pool = try DatabasePool(path: path, configuration: configuration)
            // A pool begins with NORMAL, which loses the last answers with the power.
            try pool.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous = FULL") }
            if try pool.read(Migrations.migrator.hasBeenSuperseded) {
                throw AuthorityError.database(path: path, found: "it was made by a later version")
            }
            try Migrations.migrator.migrate(pool)
        } catch { throw .of(error, database: path) }
    }

    /// Seconds since 1970, by the store's clock.
    package var now: Int { Timestamp.seconds(clock()) }

    func read<Value: Sendable>(_ body: @escaping @Sendable (Database) throws -> Value) async throws(AuthorityError) -> Value {
        do { return try await pool.read(body) } catch { throw .of(error, database: path) }
    }

    func write<Value: Sendable>(_ body: @escaping @Sendable (Database) throws -> Value) async throws(AuthorityError) -> Value {
        do { return try await pool.write(body) } catch { throw .of(error, database: path) }
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

    /// Checks the ledger, and the tables against it.
    /// - Throws: `ledger`, `database`.
    package func verifyLedger() async throws(AuthorityError) -> LedgerSummary { try await read(Ledger.verify) }

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
            let copy = try DatabaseQueue(path: file)
            try pool.backup(to: copy)
            // One file, without a log beside it.
            try await copy.writeWithoutTransaction { try $0.execute(sql: "PRAGMA journal_mode = DELETE") }
            return try await copy.read { try Self.verifyAll($0, path: file) }
        } catch {
            // Half a copy would be taken for one.
            for suffix in ["", "-journal", "-wal", "-shm"] { unlink(file + suffix) }
            throw .of(error, database: file)
        }
    }

    /// Checks that the file is whole, and the ledger in it.
    static func verifyAll(_ database: Database, path: String) throws -> LedgerSummary {
        let damage = try String.fetchAll(database, sql: "PRAGMA integrity_check")
        if damage != ["ok"] { throw AuthorityError.database(path: path, found: damage.joined(separator: "; ")) }
        return try Ledger.verify(database)
    }
}
