import AuthorityAPI
import ControlAPI
import Crypto
import Foundation
import GRDB
import Licensing
import TestSupport
import Testing

@testable import AuthorityServer

/// Who can write the database's file, and a disk that errs: `ledger verify` finds what they have changed.
@Suite struct FieldLedgerTests {
    private static let units = (1...3).map { "00000000-0000-4000-8000-00000000000\($0)" }

    /// An authority with all that decides something: renewals, changed and held hardware, a restoration, a retired key,
    /// reports.
    private func life() async throws -> TestAuthority {
        let authority = try await TestAuthority(reissues: 1)
        try await authority.subscribe(units: 5)
        for unit in Self.units { for _ in 1...2 { _ = try await authority.ask(unit) } }
        for cpus in [3, 4] { _ = try await authority.ask(Self.units[0], machine.with { $0.logicalCpusNumber = cpus }) }
        #expect(try await authority.store.hardware().count == 1)
        let new = try await authority.store.rotateKey(overlapSeconds: 0)
        _ = try await authority.store.retireKey(try #require(authority.store.keys().first { $0.kid != new.kid }).kid)
        let report = Examples.usageReport
        _ = try await authority.store.report(
            Question(
                customerID: authority.customer.id!, unitID: Self.units[0], requestID: newID(), address: "192.0.2.1",
                body: report,
                bytes: try ControlJSON.encoder().encode(report)))
        authority.now += 61
        _ = try await authority.ask(Self.units[1])
        return authority
    }

    /// Changes the database as a stranger would, who knows how the ledger is made but not its key.
    private func tamper(_ path: String, _ sql: String) throws {
        var configuration = Configuration()
        configuration.foreignKeysEnabled = false
        let database = try DatabaseQueue(path: path, configuration: configuration)
        try database.writeWithoutTransaction { database in
            let triggers = try Row.fetchAll(database, sql: "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
            for trigger in triggers { try database.execute(sql: "DROP TRIGGER \(trigger["name"] as String)") }
            try database.execute(sql: sql)
            for trigger in triggers { try database.execute(sql: trigger["sql"]) }
        }
    }

    private func found(_ authority: TestAuthority, _ path: String? = nil) async -> String {
        do {
            let path = path ?? authority.databasePath
            let store = try AuthorityStore(path: path, keysFolder: authority.folder.path + "/keys")
            _ = try await store.verifyLedger()
            return "nothing"
        } catch { return error.description.isEmpty ? "nothing" : "it" }
    }

    @Test(arguments: [
        ("a licence's subscription", "UPDATE license SET subscription_id = 2 WHERE rowid = 1"),
        ("a licence's unit", "UPDATE license SET unit_id = '00000000-0000-4000-8000-000000000009' WHERE rowid = 1"),
        ("a licence's hardware", "UPDATE license SET logical_cpus_number = 64 WHERE rowid = 1"),
        ("a licence's address", "UPDATE license SET address_ipv4 = '' WHERE rowid = 1"),
        ("a licence's key", "UPDATE license SET unit_key = 'x' WHERE rowid = 1"),
        ("a licence's held epoch", "UPDATE license SET held_epoch = -1 WHERE rowid = 1"),
        ("a licence's time of asking", "UPDATE license SET asked_at = 1 WHERE rowid = 1"),
        ("a licence's type", "UPDATE license SET issuer_type = 'offline' WHERE rowid = 1"),
        ("held hardware is approved", "UPDATE hardware_assignment SET state = 'approved' WHERE state = 'held'"),
        ("accepted hardware is forgotten", "DELETE FROM hardware_assignment WHERE state = 'accepted'"),
        ("accepted hardware is of long ago", "UPDATE hardware_assignment SET at = 1 WHERE state = 'accepted'"),
        ("hardware of no licence", "UPDATE hardware_assignment SET license_id = 'x' WHERE id = 1"),
        ("an answer", "UPDATE answer SET body = x'7b7d' WHERE rowid = 1"),
        (
            "an answer that nobody gave",
            "INSERT INTO answer SELECT unit_id, 'x', question, status, body, at, mac FROM answer LIMIT 1"
        ),
        ("a report", "UPDATE usage_report SET body = '{}'"),
        ("a retired key comes back", "UPDATE signing_key SET retired_at = NULL"),
        ("a restoration", "INSERT INTO restoration VALUES (1, 1, 1, 1)"),
        ("an index is dropped", "DROP INDEX license_unit"),
        ("a table besides", "CREATE TABLE other (id INTEGER)"),
        ("ids are given again", "UPDATE sqlite_sequence SET seq = 0 WHERE name = 'hardware_assignment'"),
    ])
    func aChangedRow(_ what: String, _ sql: String) async throws {
        let authority = try await life()
        #expect(await found(authority) == "nothing")
        try tamper(authority.databasePath, sql)
        #expect(Field.row("licence.7", "behind the authority's back: \(what)", expected: "it", found: await found(authority)))
    }

    /// Whoever knows the chain but not the key.
    @Test func aForgedEntryAndACutTail() async throws {
        let authority = try await life()
        let file = authority.folder.path + "/before.db"
        _ = try await authority.store.backup(to: file)
        let last = try #require(try await authority.store.ledger(limit: 1).first)
        let text = "\(last.seq + 1)\n\(last.at)\nlicense.renewed\n\(last.subject)\n\(last.body)"
        let plain = LedgerEntry(
            seq: last.seq + 1, at: last.at, kind: "license.renewed", subject: last.subject, body: last.body,
            previous: last.hash,
            hash: Data(SHA256.hash(data: last.hash + Data(text.utf8))))
        try await DatabaseQueue(path: file).write { try plain.insert($0) }
        #expect(
            Field.row("licence.7", "an entry is forged at the end", expected: "it", found: await found(authority, file)))

        // The tail is cut, and all that it told of is put back: an older copy of the file in its place.
        let summary = try await authority.store.verifyLedger()
        #expect(summary.notedEntry == summary.entries && summary.notedAt == authority.now)
        let old = authority.folder.path + "/old.db"
        _ = try await authority.store.backup(to: old)
        #expect(await found(authority, old) == "nothing")
        authority.now += 61
        _ = try await authority.ask(Self.units[2])
        #expect(await found(authority) == "nothing")
        let entries = try await authority.store.ledger()
        for suffix in ["", "-wal", "-shm"] { unlink(authority.databasePath + suffix) }
        try FileManager.default.copyItem(atPath: old, toPath: authority.databasePath)
        #expect(
            Field.row("licence.7", "an older copy of the database in its place", expected: "it", found: await found(authority)))
        // All of it anew, without the key.
        let plainAll = authority.folder.path + "/plain.db"
        try FileManager.default.copyItem(atPath: old, toPath: plainAll)
        var previous = Data(count: 32)
        var sql = "DELETE FROM ledger;"
        for entry in entries.prefix(summary.entries) {
            let text = "\(entry.seq)\n\(entry.at)\n\(entry.kind)\n\(entry.subject)\n\(entry.body)"
            let hash = Data(SHA256.hash(data: previous + Data(text.utf8)))
            sql +=
                "INSERT INTO ledger VALUES (\(entry.seq), \(entry.at), '\(entry.kind)', '\(entry.subject)', "
                + "'\(entry.body.replacing("'", with: "''"))', x'\(previous.hexadecimal)', x'\(hash.hexadecimal)');"
            previous = hash
        }
        try tamper(plainAll, sql)
        #expect(
            Field.row(
                "licence.7", "the whole ledger is written anew without its key", expected: "it",
                found: await found(authority, plainAll)))
    }

    /// Of the rows of all tables and the entries of all indexes.
    @Test func sixtyFlippedBits() async throws {
        let authority = try await life()
        let file = authority.folder.path + "/copy.db"
        _ = try await authority.store.backup(to: file)
        let whole = [UInt8](try Data(contentsOf: URL(filePath: file)))
        let used = Self.usedBytes(whole)
        #expect(used.count > 10_000)
        let seed = testSeed()
        var random = SeededGenerator(seed: seed)
        var missed: [Int] = []
        let flips = ProcessInfo.processInfo.environment["FPX_FLIPS"].flatMap { Int($0) } ?? 60
        for _ in 1...flips {
            let place = try #require(used.randomElement(using: &random))
            var bytes = whole
            bytes[place] ^= 1 << UInt8.random(in: 0...7, using: &random)
            let flipped = authority.folder.path + "/flipped.db"
            for suffix in ["", "-wal", "-shm"] { unlink(flipped + suffix) }
            try Data(bytes).write(to: URL(filePath: flipped))
            // The number of a row in SQLite's own tables is in no index, and nothing reads it.
            if await found(authority, flipped) == "nothing", try Self.contents(flipped) != Self.contents(file) {
                missed.append(place)
            }
        }
        #expect(
            Field.row(
                "licence.7", "\(flips) random bits of the database's rows are flipped", expected: "\(flips) found",
                found: "\(flips - missed.count) found"),
            "missed at \(missed), seed \(seed)")
    }

    /// All rows of all tables.
    private static func contents(_ path: String) throws -> [String: [Row]] {
        try DatabaseQueue(path: path).read { database in
            let names =
                try String.fetchAll(database, sql: "SELECT name FROM sqlite_schema WHERE type = 'table'") + ["sqlite_schema"]
            return try Dictionary(
                uniqueKeysWithValues: names.map {
                    ($0, try Row.fetchAll(database, sql: "SELECT * FROM \($0.quotedDatabaseIdentifier)"))
                })
        }
    }

    /// Where cells lie in the leaves of tables and indexes (SQLite's file format, "B-tree Pages").
    private static func usedBytes(_ file: [UInt8]) -> [Int] {
        func number(_ place: Int) -> Int { Int(file[place]) << 8 | Int(file[place + 1]) }
        let size = number(16) == 1 ? 65536 : number(16)
        var used: [Int] = []
        for page in 0..<file.count / size {
            let (start, header) = (page * size, page * size + (page == 0 ? 100 : 0))
            guard [0x0A, 0x0D].contains(file[header]), number(header + 3) > 0 else { continue }
            var isFree = Set<Int>()
            var block = number(header + 1)
            while block != 0 {
                isFree.formUnion(start + block..<start + block + number(start + block + 2))
                block = number(start + block)
            }
            let begin = number(header + 5) == 0 ? 65536 : number(header + 5)
            used += (start + begin..<start + size).filter { !isFree.contains($0) }
        }
        return used
    }

    /// A database of before the ledger had a key.
    @Test func aLedgerWithoutAKeyGetsOne() async throws {
        let authority = try await life()
        let file = authority.folder.path + "/old.db"
        _ = try await authority.store.backup(to: file)
        let entries = try await authority.store.ledger()
        var previous = Data(count: 32)
        var sql =
            "DELETE FROM ledger; DELETE FROM grdb_migrations WHERE identifier LIKE '4%';"
            + "ALTER TABLE answer DROP COLUMN mac; ALTER TABLE usage_report DROP COLUMN mac;"
        for entry in entries {
            let text = "\(entry.seq)\n\(entry.at)\n\(entry.kind)\n\(entry.subject)\n\(entry.body)"
            let hash = Data(SHA256.hash(data: previous + Data(text.utf8)))
            sql +=
                "INSERT INTO ledger VALUES (\(entry.seq), \(entry.at), '\(entry.kind)', '\(entry.subject)', "
                + "'\(entry.body.replacing("'", with: "''"))', x'\(previous.hexadecimal)', x'\(hash.hexadecimal)');"
            previous = hash
        }
        try tamper(file, sql)
        let keys = authority.folder.path + "/other-keys"
        let store = try AuthorityStore(path: file, keysFolder: keys)
        let summary = try await store.verifyLedger()
        let told = try await store.ledger().filter { $0.kind == "ledger.baseline" }.count
        #expect(
            Field.row(
                "licence.7", "a database of before the ledger had a key", expected: "verifies, each row told of anew",
                found: summary.entries == entries.count + told && told >= 7 ? "verifies, each row told of anew" : "\(summary)"))
        #expect(try FileManager.default.attributesOfItem(atPath: keys + "/ledger.secret")[.posixPermissions] as? Int == 0o600)
        // Its key is lost.
        try FileManager.default.removeItem(atPath: keys + "/ledger.secret")
        let without = try AuthorityStore(path: file, keysFolder: keys)
        do {
            _ = try await without.verifyLedger()
            Issue.record("it verified")
        } catch { #expect(error.description.contains("ledger.secret: found no such file"), "\(error)") }
    }
}
