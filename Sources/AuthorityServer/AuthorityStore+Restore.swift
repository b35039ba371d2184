// Restoring: a backup in the place of the database, and what the authority must know of it afterwards.
//
// A restored database does not know what was done after the backup. Units have licences of that time, which run on for as
// long as a lease does, and their epochs are ahead. LeaseRule has the rules for them; they need to know when the backup was
// put in place, so that is a row of its own, in the ledger as all others.
//
// The copy is made beside the database, checked, brought up to date and marked, and put in place by a rename. A crash before
// that leaves the database as it is; the next attempt overwrites `.restoring`.

import Foundation
import GRDB
import Licensing

/// What `restore` has put in place.
package struct Restoration: Equatable, Sendable {
    package var row: RestorationRow
    /// Of the ledger, with the entry of the restoration.
    package var summary: LedgerSummary
    /// Pairs in the folder of keys that the backup does not know.
    package var unknownKeys: [String]
}

extension AuthorityStore {
    /// Puts a backup in the place of a database that nobody has open; what was there is `PATH.previous` afterwards.
    ///
    /// - Parameters:
    ///   - holdSeconds: how long no unit gets a first licence from now on.
    /// - Throws: `licensing` for a backup that is not there, `database`, `ledger`, `state` for a database in use.
    package static func restore(
        _ backup: String, to path: String, keysFolder: String, holdSeconds: Int = leaseSeconds, now: Int
    ) async throws(AuthorityError) -> Restoration {
        let copy = path + ".restoring"
        do {
            guard access(backup, F_OK) == 0 else { throw LicensingError.absent(path: backup) }
            try StoredFile.makeFolder((path as NSString).deletingLastPathComponent)
            remove(copy)
            try StoredFile.create([], at: copy, mode: 0o600)
            let restoration = try await fill(
                copy, from: backup, keysFolder: keysFolder, holdSeconds: holdSeconds, now: now)
            try await vacate(path)
            // What was noted is of the database that goes.
            try LedgerKey(folder: keysFolder, database: path).forgetHead()
            try StoredFile.putInPlace(copy, at: path)
            return restoration
        } catch {
            remove(copy)
            throw .of(error, database: backup)
        }
    }

    private static func remove(_ database: String) {
        for suffix in ["", "-journal", "-wal", "-shm"] { unlink(database + suffix) }
    }

    private static func fill(
        _ copy: String, from backup: String, keysFolder: String, holdSeconds: Int, now: Int
    ) async throws -> Restoration {
        var configuration = Configuration()
        configuration.readonly = true
        let key = LedgerKey(folder: keysFolder, database: copy)
        let database = try DatabaseQueue(path: copy, configuration: key.configuration())
        try DatabaseQueue(path: backup, configuration: configuration).backup(to: database)
        guard try await database.read({ try $0.tableExists("ledger") }) else {
            throw AuthorityError.database(path: backup, found: "it is not a database of the authority")
        }
        if try await database.read(Migrations.migrator.hasBeenSuperseded) {
            throw AuthorityError.database(path: backup, found: "it was made by a later version")
        }
        try migrate(database, key)
        let restoration = try await database.write { database in
            let before = try verifyAll(database, path: backup, key)
            let last = try Int.fetchOne(database, sql: "SELECT at FROM ledger ORDER BY seq DESC LIMIT 1")
            var row = RestorationRow(id: nil, at: now, backupAt: last ?? 0, holdsUntil: now + holdSeconds)
            try row.insert(database)
            row.id = database.lastInsertedRowID
            try Ledger.append(
                "authority.restored", row, ["head": .string(before.head)], by: SystemUser.current, at: now, in: database)
            let known = try String.fetchSet(database, sql: "SELECT kid FROM signing_key")
            let keys = (try? FileManager.default.contentsOfDirectory(atPath: keysFolder)) ?? []
            return Restoration(
                row: row, summary: try Ledger.verify(database),
                unknownKeys: keys.filter { $0.hasSuffix(".key") }.map(KeyFile.id).filter { !known.contains($0) }.sorted())
        }
        // One file, without a log beside it.
        try await database.writeWithoutTransaction { try $0.execute(sql: "PRAGMA journal_mode = DELETE") }
        try database.close()
        return restoration
    }

    /// Takes the log of the database in place away: it would be replayed into the file that comes there.
    private static func vacate(_ path: String) async throws {
        guard access(path, F_OK) == 0 else {
            remove(path)
            return
        }
        do {
            var configuration = Configuration()
            configuration.busyMode = .immediateError
            let database = try DatabaseQueue(path: path, configuration: configuration)
            // SQLite does this for the only process that has the file open, and writes the log into the file.
            try await database.writeWithoutTransaction { try $0.execute(sql: "PRAGMA journal_mode = DELETE") }
            try database.close()
        } catch let error as DatabaseError where error.resultCode == .SQLITE_BUSY || error.resultCode == .SQLITE_LOCKED {
            throw AuthorityError.state(
                what: path, found: "a database that is in use", expected: "one that nobody has open; stop `serve` first")
        } catch {
            // A database that cannot be read is a reason to restore. What SQLite has left of its log goes with it.
            for suffix in ["-wal", "-shm"] where access(path + suffix, F_OK) == 0 {
                rename(path + suffix, StoredFile.previous(of: path) + suffix)
            }
        }
    }

    /// Until when no unit gets a first licence; nil: they do.
    package func holdsUntil() async throws(AuthorityError) -> Int? {
        let now = now
        return try await read { try RestorationRow.latest($0) }.flatMap { $0.holdsUntil > now ? $0.holdsUntil : nil }
    }

    /// Changes for how long after the last restoration no unit gets a first licence.
    /// - Throws: `state` where none was restored, `database`.
    package func hold(seconds: Int) async throws(AuthorityError) -> RestorationRow {
        let now = now
        return try await write { database in
            guard var row = try RestorationRow.latest(database) else {
                throw AuthorityError.state(
                    what: self.path, found: "a database that was never restored", expected: "a backup to restore")
            }
            row.holdsUntil = row.at + seconds
            try row.update(database)
            try Ledger.append("authority.hold_changed", row, by: self.user, at: now, in: database)
            return row
        }
    }
}

extension RestorationRow {
    static func latest(_ database: Database) throws -> RestorationRow? {
        try fetchOne(database, sql: "SELECT * FROM restoration ORDER BY id DESC LIMIT 1")
    }
}
