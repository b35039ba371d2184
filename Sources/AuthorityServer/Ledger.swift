// The ledger: what happened, in order, each entry bound to the one before it.
//
//     hash = SHA-256(previous hash, 32 bytes || "SEQ\nAT\nKIND\nSUBJECT\nBODY")      the first entry's previous hash: 32 zeros
//
// BODY is JSON with sorted keys and comes last, so that no text can be read in two ways; KIND and SUBJECT have no newline. Its
// member `row` is the row that the entry made or changed, as it was afterwards (of a licence: state, epoch and the end of its
// lease), and `by` who did it: `unit UUID`, or the user of the operating system. So the ledger says what the tables must hold,
// and `verify` compares them: who changes a table behind the authority's back is found as well as who changes the ledger. What
// it cannot find by itself is a database put back whole, ledger and all; for that, note the last hash elsewhere now and then.

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
    var ledgerMembers: [String: JSONValue] { get }
}

extension Ledgered {
    var ledgerMembers: [String: JSONValue] {
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
    var ledgerMembers: [String: JSONValue] {
        var members: [String: JSONValue] = [
            "epoch": .integer(epoch), "lease_expiry": .integer(leaseExpiry), "state": .string(state.rawValue),
        ]
        // Entries of before do not have these.
        if !unitKey.isEmpty { members["unit_key"] = .string(unitKey) }
        members["cloned_at"] = clonedAt.map(JSONValue.integer)
        return members
    }
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

    var expectedHash: Data {
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
        let members = details.merging(["by": .string(who), "row": .object(row.ledgerMembers)]) { _, own in own }
        let last = try Row.fetchOne(database, sql: "SELECT seq, hash FROM ledger ORDER BY seq DESC LIMIT 1")
        var entry = LedgerEntry(
            seq: (last?["seq"] ?? 0) + 1, at: now, kind: kind, subject: row.subject,
            body: String(decoding: try encoder.encode(members), as: UTF8.self), previous: last?["hash"] ?? beginning,
            hash: Data())
        entry.hash = entry.expectedHash
        try entry.insert(database)
    }

    /// Walks the chain, then compares the tables with its last word on each row.
    /// - Throws: `ledger`, naming the first row that is wrong.
    static func verify(_ database: Database) throws -> LedgerSummary {
        var head = beginning
        var count = 0
        var rows: [String: JSONValue] = [:]
        let entries = try LedgerEntry.fetchCursor(database, sql: "SELECT * FROM ledger ORDER BY seq")
        while let entry = try entries.next() {
            count += 1
            let name = "ledger entry \(entry.seq)"
            if entry.seq != count {
                throw AuthorityError.ledger(row: name, found: "seq \(entry.seq)", expected: "seq \(count)")
            }
            if entry.previous != head {
                throw AuthorityError.ledger(
                    row: name, found: "previous hash \(entry.previous.hexadecimal)", expected: head.hexadecimal)
            }
            if entry.hash != entry.expectedHash {
                throw AuthorityError.ledger(
                    row: name, found: "hash \(entry.hash.hexadecimal)", expected: entry.expectedHash.hexadecimal)
            }
            head = entry.hash
            rows[entry.subject] = try? JSONValue.object(in: entry.body.utf8)["row"]
        }
        for table in [LicenseRow.self, Subscription.self, Customer.self, KeyRow.self, RestorationRow.self]
            as [any Ledgered.Type]
        {
            try compare(table, with: &rows, database)
        }
        if let missing = rows.keys.min() {
            throw AuthorityError.ledger(row: missing, found: "nothing", expected: "the row that the ledger tells of")
        }
        return LedgerSummary(entries: count, head: head.hexadecimal)
    }

    private static func compare<Table: Ledgered>(
        _ table: Table.Type, with rows: inout [String: JSONValue], _ database: Database
    ) throws {
        let cursor = try table.fetchCursor(database, sql: "SELECT * FROM \(table.databaseTableName) ORDER BY 1")
        while let row = try cursor.next() {
            guard case .object(let told)? = rows.removeValue(forKey: row.subject) else {
                throw AuthorityError.ledger(row: row.subject, found: "a row", expected: "none: the ledger tells of none")
            }
            let members = row.ledgerMembers
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
