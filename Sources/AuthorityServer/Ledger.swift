// The ledger: what happened, in order, each entry bound to the one before it.
//
//     hash = ledger_mac(previous hash, SEQ, AT, KIND, SUBJECT, BODY)      the first entry's previous hash: 32 zeros (LedgerKey)
//
// BODY is JSON with sorted keys. Its member `row` is the row that the entry made or changed, as it was afterwards (of a
// licence: state, epoch and the end of its lease, and `mac` over all of it and its hardware), and `by` who did it: `unit
// UUID`, or the user of the operating system. So the ledger says what the tables must hold, and `verify` compares them: who
// changes a table behind the authority's back is found as well as who changes the ledger. Answers and reports, which come and
// go, have a `mac` of their own. Entries of before the ledger had a key have a plain SHA-256; the first with a key seals
// them, and tells of each row anew.
//
// A database put back whole, ledger and all, lacks the entry that was noted last beside the key. Where that is put back too,
// nothing tells: note the last hash elsewhere now and then.

import ControlAPI
import Crypto
import Foundation
import GRDB
import Licensing

/// A row that the ledger answers for.
protocol Ledgered: TableRow {
    /// `license:0f5c...`
    var subject: String { get }
    /// What must be as the ledger says.
    func ledgerMembers(_ database: Database) throws -> [String: JSONValue]
}

extension Ledgered {
    func ledgerMembers(_ database: Database) -> [String: JSONValue] {
        // All of it; data as base64. A row that cannot be written as JSON does not exist.
        (try? JSONValue.object(in: ControlJSON.encoder().encode(self))) ?? [:]
    }
}

extension Customer: Ledgered { var subject: String { "customer:\(id ?? 0)" } }
extension Subscription: Ledgered { var subject: String { "subscription:\(id ?? 0)" } }
extension KeyRow: Ledgered { var subject: String { "key:\(kid)" } }
extension RestorationRow: Ledgered { var subject: String { "restoration:\(id ?? 0)" } }
extension LicenseRow: Ledgered {
    var subject: String { "license:\(id)" }
    /// Written once a day and unit, so as little as will do.
    func ledgerMembers(_ database: Database) throws -> [String: JSONValue] {
        var members: [String: JSONValue] = [
            "epoch": .integer(epoch), "lease_expiry": .integer(leaseExpiry), "state": .string(state.rawValue),
        ]
        // Entries of before do not have these.
        if !unitKey.isEmpty { members["unit_key"] = .string(unitKey) }
        members["cloned_at"] = clonedAt.map(JSONValue.integer)
        let mac = try Data.fetchOne(try database.cachedStatement(sql: Self.macQuery), arguments: [id])
        // Half of it is as hard to come by, and is written once a day and unit.
        members["mac"] = .string((mac ?? Data()).prefix(16).hexadecimal)
        return members
    }

    private static let macQuery = """
        SELECT ledger_mac(id, subscription_id, unit_id, issuer_type, state, epoch, issued_at, lease_expiry, cpu_model,
            logical_cpus_number, total_memory_size, address_ipv4, unit_key, held_epoch, held_until, asked_at, cloned_by,
            cloned_at,
            (SELECT group_concat(mac) FROM (SELECT hex(ledger_mac(id, license_id, at, hardware, state, reason)) AS mac
            FROM hardware_assignment WHERE license_id = license.id ORDER BY id)))
        FROM license WHERE id = ?
        """
}

package struct LedgerEntry: TableRow {
    package static let databaseTableName = "ledger"
    package var seq: Int
    package var at: Int
    /// `license.renewed` ...
    package var kind: String
    package var subject: String
    package var body: String
    package var previous: Data
    package var hash: Data

    /// Of entries of before the ledger had a key.
    fileprivate var plainHash: Data {
        var hasher = SHA256()
        hasher.update(data: previous)
        hasher.update(data: Data("\(seq)\n\(at)\n\(kind)\n\(subject)\n\(body)".utf8))
        return Data(hasher.finalize())
    }
}

/// What `verify` found in order.
package struct LedgerSummary: Codable, Equatable, Sendable {
    package var entries: Int
    /// Hash of the last entry, hexadecimal.
    package var head: String
    /// The entry that was noted last beside the key, and when; nil: none was.
    package var notedEntry: Int?
    package var notedAt: Int?
}

enum Ledger {
    static let beginning = Data(count: 32)

    /// Appends an entry, within the transaction that does what it says.
    static func append(
        _ kind: String, _ row: some Ledgered, _ details: [String: JSONValue] = [:], by who: String, at now: Int,
        in database: Database
    ) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let members = details.merging(["by": .string(who), "row": .object(try row.ledgerMembers(database))]) { _, own in own }
        let last = try Row.fetchOne(database, sql: "SELECT seq, hash FROM ledger ORDER BY seq DESC LIMIT 1")
        let body = String(decoding: try encoder.encode(members), as: UTF8.self)
        try database.cachedStatement(
            sql: """
                INSERT INTO ledger (seq, at, kind, subject, body, previous, hash)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ledger_mac(?6, ?1, ?2, ?3, ?4, ?5))
                """
        ).execute(
            arguments: [(last?["seq"] ?? 0) + 1, now, kind, row.subject, body, last?["hash"] ?? beginning])
    }

    /// Tells of each row anew: what was written before the ledger had a key, or could be told.
    static func takeIn(by who: String, at now: Int, in database: Database) throws {
        func take<Table: Ledgered>(_ table: Table.Type) throws {
            for row in try table.fetchAll(database, sql: "SELECT * FROM \(table.databaseTableName)") {
                try append("ledger.baseline", row, by: who, at: now, in: database)
            }
        }
        for table in tables { try take(table) }
    }

    private static let tables: [any Ledgered.Type] = [
        LicenseRow.self, Subscription.self, Customer.self, KeyRow.self, RestorationRow.self,
    ]

    /// Walks the chain, then compares the tables with its last word on each row.
    /// - Throws: `ledger`, naming the first row that is wrong.
    static func verify(_ database: Database) throws -> LedgerSummary {
        var head = beginning
        var count = 0
        var rows: [String: JSONValue] = [:]
        var isKeyed = false
        let entries = try Row.fetchCursor(
            database,
            sql: "SELECT *, ledger_mac(previous, seq, at, kind, subject, body) AS mac FROM ledger ORDER BY seq")
        while let row = try entries.next() {
            let entry = try LedgerEntry(row: row)
            let mac: Data = row["mac"]
            count += 1
            let name = "ledger entry \(entry.seq)"
            if entry.seq != count {
                throw AuthorityError.ledger(row: name, found: "seq \(entry.seq)", expected: "seq \(count)")
            }
            if entry.previous != head {
                throw AuthorityError.ledger(
                    row: name, found: "previous hash \(entry.previous.hexadecimal)", expected: head.hexadecimal)
            }
            if entry.hash != mac, isKeyed || entry.hash != entry.plainHash {
                throw AuthorityError.ledger(
                    row: name, found: "hash \(entry.hash.hexadecimal)", expected: "the one that the ledger's key makes of it")
            }
            isKeyed = isKeyed || entry.hash == mac
            head = entry.hash
            rows[entry.subject] = try? JSONValue.object(in: entry.body.utf8)["row"]
        }
        if count > 0, !isKeyed {
            throw AuthorityError.ledger(
                row: "ledger entry \(count)", found: "none by the ledger's key", expected: "one at the end")
        }
        for table in tables { try compare(table, with: &rows, database) }
        if let missing = rows.keys.min() {
            throw AuthorityError.ledger(row: missing, found: "nothing", expected: "the row that the ledger tells of")
        }
        for (table, query) in [("answer", answerQuery), ("usage_report", usageQuery)] {
            if let row = try String.fetchOne(database, sql: query) {
                throw AuthorityError.ledger(
                    row: "\(table) \(row)", found: "a row that is not as it was written",
                    expected: "one that the ledger's key has made")
            }
        }
        return LedgerSummary(entries: count, head: head.hexadecimal)
    }

    private static let answerQuery = """
        SELECT unit_id || ' ' || idempotency_key FROM answer
        WHERE mac <> ledger_mac(unit_id, idempotency_key, question, status, body, at)
        """
    private static let usageQuery =
        "SELECT id FROM usage_report WHERE mac <> ledger_mac(license_id, at, body)"

    private static func compare<Table: Ledgered>(
        _ table: Table.Type, with rows: inout [String: JSONValue], _ database: Database
    ) throws {
        let cursor = try table.fetchCursor(database, sql: "SELECT * FROM \(table.databaseTableName) ORDER BY 1")
        while let row = try cursor.next() {
            guard case .object(let told)? = rows.removeValue(forKey: row.subject) else {
                throw AuthorityError.ledger(row: row.subject, found: "a row", expected: "none: the ledger tells of none")
            }
            let members = try row.ledgerMembers(database)
            for name in Set(members.keys).union(told.keys).sorted() where members[name] != told[name] {
                throw AuthorityError.ledger(
                    row: row.subject, found: "\(name) \(members[name]?.description ?? "none")",
                    expected: "\(told[name]?.description ?? "none"), as the ledger says")
            }
        }
    }
}

extension Sequence<UInt8> {
    package var hexadecimal: String {
        reduce(into: "") { text, byte in
            if byte < 16 { text += "0" }
            text += String(byte, radix: 16)
        }
    }
}
