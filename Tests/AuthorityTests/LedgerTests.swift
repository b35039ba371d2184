import Foundation
import GRDB
import Licensing
import Testing

@testable import AuthorityServer

@Suite struct LedgerTests {
    /// Changes the database as a stranger would, with the triggers out of the way.
    private func tamper(_ authority: TestAuthority, _ sql: String) throws {
        let database = try DatabaseQueue(path: authority.databasePath)
        try database.write { database in
            try database.execute(
                sql: "DROP TRIGGER IF EXISTS ledger_no_update; DROP TRIGGER IF EXISTS ledger_no_delete; " + sql)
        }
    }

    private func life() async throws -> TestAuthority {
        let authority = try await TestAuthority()
        try await authority.subscribe(units: 3)
        for unit in ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"] {
            for _ in 1...3 { _ = try await authority.ask(unit) }
        }
        #expect(try await authority.store.verifyLedger().entries == 9)
        return authority
    }

    @Test func theLedgerCannotBeChangedByTheWay() async throws {
        let authority = try await life()
        let database = try DatabaseQueue(path: authority.databasePath)
        for sql in [
            "UPDATE ledger SET at = 0 WHERE seq = 4", "DELETE FROM ledger WHERE seq = 4",
            "UPDATE license SET subscription_id = 99", "DELETE FROM customer",
        ] {
            await #expect(throws: DatabaseError.self) { try await database.write { try $0.execute(sql: sql) } }
        }
        _ = try await authority.store.verifyLedger()
    }

    @Test(arguments: [
        ("UPDATE ledger SET at = at + 1 WHERE seq = 4", "ledger entry 4"),
        ("UPDATE ledger SET kind = 'license.cancelled' WHERE seq = 1", "ledger entry 1"),
        ("UPDATE ledger SET subject = 'license:x' WHERE seq = 9", "ledger entry 9"),
        ("UPDATE ledger SET body = replace(body, '\"epoch\":1', '\"epoch\":9') WHERE seq = 4", "ledger entry 4"),
        ("UPDATE ledger SET previous = zeroblob(32) WHERE seq = 5", "ledger entry 5"),
        ("UPDATE ledger SET hash = zeroblob(32) WHERE seq = 9", "ledger entry 9"),
        ("DELETE FROM ledger WHERE seq = 4", "ledger entry 5"),
        ("DELETE FROM ledger WHERE seq = 9", "license:"),
        ("DELETE FROM ledger", "license:"),
        ("INSERT INTO ledger SELECT seq + 1, at, kind, subject, body, hash, hash FROM ledger WHERE seq = 9", "ledger entry 10"),
        ("UPDATE license SET lease_expiry = lease_expiry + 86400", "license:"),
        ("UPDATE license SET epoch = 2", "license:"),
        ("UPDATE license SET state = 'suspended'", "license:"),
        ("DELETE FROM hardware_assignment; DELETE FROM license", "license:"),
        ("UPDATE subscription SET paid_until = paid_until + 1", "subscription:1"),
        ("UPDATE subscription SET seats_furl = 4000", "subscription:1"),
        ("UPDATE customer SET account_key_hash = zeroblob(32)", "customer:1"),
        ("UPDATE signing_key SET pem = 'x'", "key:"),
        ("INSERT INTO signing_key VALUES ('rogue', 'x', 0, 0, NULL)", "key:rogue"),
    ])
    func tamperingIsFound(_ sql: String, _ row: String) async throws {
        let authority = try await life()
        try tamper(authority, sql)
        do {
            _ = try await authority.store.verifyLedger()
            Issue.record("\(sql) was not found")
        } catch {
            guard case .ledger(let name, let found, let expected) = error else { throw error }
            #expect(name.hasPrefix(row), "\(sql): \(error)")
            #expect(found != expected)
        }
        // A backup of it says so too.
        await #expect(throws: AuthorityError.self) {
            _ = try await authority.store.backup(to: authority.folder.path + "/copy.db")
        }
    }

    @Test func aBackupWhileItGoesOn() async throws {
        let authority = try await life()
        let file = authority.folder.path + "/copy.db"
        async let renewals: Void = {
            for _ in 1...50 { _ = try await authority.ask("00000000-0000-4000-8000-000000000001") }
        }()
        let summary = try await authority.store.backup(to: file)
        try await renewals
        #expect((9...59).contains(summary.entries))
        let copy = try AuthorityStore(path: file, keysFolder: authority.folder.path + "/keys")
        let verified = try await copy.verifyLedger()
        #expect(verified.entries == summary.entries && verified.head == summary.head && verified.notedEntry == nil)
        #expect(try await authority.store.verifyLedger().entries == 59)
        await #expect(throws: AuthorityError.licensing(.exists(path: file))) { _ = try await authority.store.backup(to: file) }
        #expect(try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int == 0o600)
    }

    @Test func theDatabaseIsAsSafeAsCanBe() async throws {
        let authority = try await life()
        let mode = try FileManager.default.attributesOfItem(atPath: authority.databasePath)[.posixPermissions] as? Int
        #expect(mode == 0o600)
        let other = try DatabaseQueue(path: authority.databasePath)
        #expect(try await other.read { try String.fetchOne($0, sql: "PRAGMA journal_mode") } == "wal")
        let writer = try await authority.store.pool.write { database in
            try ["synchronous", "foreign_keys"].map { try Int.fetchOne(database, sql: "PRAGMA \($0)") }
        }
        #expect(writer == [2, 1], "synchronous FULL, foreign keys on")
    }

    @Test func whatIsNoDatabaseOfOursIsRefused() async throws {
        let folder = try Folder()
        #expect(
            throws: AuthorityError.database(
                path: folder.path + "/none.db", found: "there is no such database; `customer add` makes one")
        ) {
            _ = try AuthorityStore(path: folder.path + "/none.db", keysFolder: "")
        }
        try folder.write("this is a letter to my aunt, and not a database at all, however long it may be", "letter.db")
        #expect(throws: AuthorityError.database(path: folder.path + "/letter.db", found: "file is not a database")) {
            _ = try AuthorityStore(path: folder.path + "/letter.db", keysFolder: "")
        }
        let authority = try await life()
        try tamper(authority, "INSERT INTO grdb_migrations VALUES ('9 of the future')")
        #expect(throws: AuthorityError.database(path: authority.databasePath, found: "it was made by a later version")) {
            _ = try AuthorityStore(path: authority.databasePath, keysFolder: "")
        }
    }
}
