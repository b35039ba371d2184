// A backup in the place of the database: what units that know more than it get.

import AuthorityServer
import Foundation
import GRDB
import Licensing
import TestSupport
import Testing

@Suite struct RestoreTests {
    private static let lease = AuthorityStore.leaseSeconds

    private func backUp(_ authority: TestAuthority, _ name: String = "backup.db") async throws -> String {
        let file = authority.folder.path + "/" + name
        _ = try await authority.store.backup(to: file)
        return file
    }

    /// The backup, put in a place of its own: the first database stays in use.
    private func restore(
        _ file: String, _ authority: TestAuthority, hold: Int = lease, name: String = "restored.db"
    ) async throws -> AuthorityStore {
        let path = authority.folder.path + "/" + name
        let keys = authority.folder.path + "/keys"
        _ = try await AuthorityStore.restore(file, to: path, keysFolder: keys, holdSeconds: hold, now: authority.now)
        return try AuthorityStore(
            path: path, keysFolder: keys, clock: { [authority] in Date(timeIntervalSince1970: Double(authority.now)) })
    }

    @Test func aUnitLicensedAfterTheBackupGoesOn() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe(units: 1)
        let file = try await backUp(authority)
        let (unit, other) = (newID(), newID())
        var held = try #require(try await authority.ask(unit).claims)
        for _ in 1...3 { held = try #require(try await authority.ask(unit).claims) }
        authority.now += 3600
        let store = try await restore(file, authority)
        // The place seems free, and is not.
        let refused = try await authority.ask(other, of: store)
        #expect(refused.status == 503 && refused.error?.code == "unavailable", "\(refused)")
        #expect(refused.error?.message.contains("gets its first one from 2026-12-05T01:00:00Z on") == true)
        // Nor is it one for who asks for no licence, for one that cannot be ours, or for no epoch of it.
        for name in [(nil, 4), (held.licenseID, nil), ("test", 4)] as [(String?, Int?)] {
            #expect(try await authority.ask(other, of: store, holding: name).status == 503)
        }
        let again = try #require(
            try await authority.ask(unit, of: store, holding: (held.licenseID, held.epoch)).claims)
        #expect(again.licenseID == held.licenseID && again.epoch == 5 && again.seats == held.seats)
        // Another unit that names it has it not.
        #expect(try await authority.ask(other, of: store, holding: (held.licenseID, held.epoch)).status == 503)
        #expect(try await authority.ask(unit, of: store, holding: (held.licenseID, 5)).claims?.epoch == 6)
        authority.now += Self.lease
        #expect(try await authority.ask(other, of: store).error?.code == "no_subscription")
        #expect(try await store.licenses().map(\.unitId) == [unit])
        let kinds = try await store.ledger(subject: "license:\(held.licenseID)").map(\.kind)
        #expect(kinds == ["license.taken_up_again", "license.renewed"])
        _ = try await store.verifyLedger()
    }

    /// Units that the backup knows: no renewal is in vain, whatever has happened since.
    @Test func epochsGoOn() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe(units: 2)
        let (unit, idle) = (newID(), newID())
        for unit in [unit, idle] { _ = try await authority.ask(unit) }
        let file = try await backUp(authority)
        var held = try #require(try await authority.ask(unit).claims)
        for _ in 1...4 { held = try #require(try await authority.ask(unit).claims) }
        #expect(held.epoch == 6)
        let store = try await restore(file, authority)
        let ahead = try #require(try await authority.ask(unit, of: store, holding: (held.licenseID, 6)).claims)
        #expect(ahead.licenseID == held.licenseID && ahead.epoch == 7)
        // One that is behind is a copy of it. One that has had nothing yet may name whatever it likes.
        #expect(try await authority.ask(unit, of: store, holding: (held.licenseID, 3)).error?.code == "cloned")
        #expect(try await authority.ask(idle, of: store, holding: (newID(), 99)).claims?.epoch == 2)
        _ = try await store.verifyLedger()
    }

    @Test func theWaitEnds() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe(units: 4)
        let file = try await backUp(authority)
        let lost = try #require(try await authority.ask(newID()).claims)
        let atOnce = try await restore(file, authority, hold: 0)
        #expect(try await authority.ask(newID(), of: atOnce).claims?.epoch == 1)
        #expect(try await atOnce.holdsUntil() == nil)

        let store = try await restore(file, authority, name: "waits.db")
        let unit = newID()
        #expect(try await authority.ask(unit, of: store).status == 503)
        #expect(try await store.holdsUntil() == authority.now + Self.lease)
        _ = try await store.hold(seconds: 0)
        #expect(try await authority.ask(unit, of: store).claims?.epoch == 1)
        _ = try await store.hold(seconds: Self.lease)
        authority.now += Self.lease - 1
        #expect(try await authority.ask(newID(), of: store).status == 503)
        authority.now += 1
        // By now each lost lease is over, and its unit takes any licence.
        let new = try #require(try await authority.ask(newID(), of: store, holding: (lost.licenseID, 1)).claims)
        #expect(new.licenseID != lost.licenseID && new.epoch == 1)
        _ = try await store.verifyLedger()
        await #expect(throws: AuthorityError.self) { _ = try await authority.store.hold(seconds: 0) }
    }

    /// Offline licences are a person's: they are issued again at once, and take their places.
    @Test func offlineLicencesAreIssuedAgain() async throws {
        let authority = try await TestAuthority()
        let id = try #require(try await authority.subscribe(units: 1).id)
        let store = try await restore(try await backUp(authority), authority)
        _ = try await store.issueOffline(Hardware(machine), subscription: id, unitID: newID())
        authority.now += Self.lease
        #expect(try await authority.ask(newID(), of: store).error?.code == "no_subscription")
    }

    @Test func keysThatTheBackupDoesNotKnow() async throws {
        let authority = try await TestAuthority()
        let file = try await backUp(authority)
        let new = try await authority.store.rotateKey(overlapSeconds: 0).kid
        let restored = try await AuthorityStore.restore(
            file, to: authority.folder.path + "/restored.db", keysFolder: authority.folder.path + "/keys", now: authority.now)
        #expect(restored.unknownKeys == [new])
        let store = try AuthorityStore(
            path: authority.folder.path + "/restored.db", keysFolder: authority.folder.path + "/keys")
        #expect(try await store.rotateKey(kid: new, overlapSeconds: 0).kid == new)
    }

    /// What was made by a version before this one has no table of restorations.
    @Test func anOlderBackup() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let file = try await backUp(authority)
        try await DatabaseQueue(path: file).write {
            try $0.execute(
                sql: "DROP TABLE restoration; DELETE FROM grdb_migrations WHERE identifier = '2 restorations'")
        }
        let store = try await restore(file, authority)
        #expect(try await store.verifyLedger().entries == 4)
        #expect(try await store.ledger().last?.kind == "authority.restored")
    }

    @Test func whatIsNoBackup() async throws {
        let authority = try await TestAuthority()
        let folder = authority.folder
        try folder.write("this is a letter to my aunt, and not a database at all, however long it may be", "letter.db")
        try await DatabaseQueue(path: folder.path + "/other.db").write { try $0.execute(sql: "CREATE TABLE t (x)") }
        try await DatabaseQueue(path: try await backUp(authority, "tampered.db")).write {
            try $0.execute(sql: "UPDATE customer SET name = 'other'")
        }
        try await DatabaseQueue(path: try await backUp(authority, "future.db")).write {
            try $0.execute(sql: "INSERT INTO grdb_migrations VALUES ('9 of the future')")
        }
        let path = folder.path + "/restored.db"
        for (name, text) in [
            ("none.db", "none.db: there is no such file"), ("letter.db", "letter.db: file is not a database"),
            ("other.db", "other.db: it is not a database of the authority"),
            ("tampered.db", "customer:1: found name \"other\""), ("future.db", "future.db: it was made by a later version"),
        ] {
            do {
                _ = try await AuthorityStore.restore(
                    folder.path + "/" + name, to: path, keysFolder: authority.folder.path + "/keys", now: authority.now)
                Issue.record("\(name) was restored")
            } catch { #expect(error.description.contains(text), "\(name): \(error)") }
            let left = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasPrefix("restored") }
            #expect(left.isEmpty)
        }
    }

    @Test func theDatabaseInPlace() async throws {
        let authority = try await TestAuthority()
        let folder = authority.folder.path
        let file = try await backUp(authority)
        // Somebody has it open.
        let inUse = AuthorityError.state(
            what: authority.databasePath, found: "a database that is in use",
            expected: "one that nobody has open; stop `serve` first")
        await #expect(throws: inUse) {
            _ = try await AuthorityStore.restore(
                file, to: authority.databasePath, keysFolder: authority.folder.path + "/keys", now: authority.now)
        }
        _ = try await authority.store.verifyLedger()
        #expect(access(authority.databasePath + ".restoring", F_OK) != 0)
        // Nobody has: it is kept.
        let path = folder + "/restored.db"
        let before = try await restore(file, authority).verifyLedger()
        _ = try await AuthorityStore.restore(
            file, to: path, keysFolder: authority.folder.path + "/keys", now: authority.now + 1)
        let previous = try AuthorityStore(path: path + ".previous", keysFolder: authority.folder.path + "/keys")
        #expect(try await previous.verifyLedger() == before)
        // One that is damaged, with a log that must not be replayed into the new one.
        let letter = String(repeating: "a letter, not a database\n", count: 1000)
        for name in ["damaged.db", "damaged.db-wal"] { try authority.folder.write(letter, name) }
        _ = try await restore(file, authority, name: "damaged.db").verifyLedger()
        #expect(try String(contentsOfFile: folder + "/damaged.db.previous", encoding: .utf8) == letter)
        #expect(access(folder + "/damaged.db-wal", F_OK) != 0)
        let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        #expect(mode == 0o600)
    }
}
