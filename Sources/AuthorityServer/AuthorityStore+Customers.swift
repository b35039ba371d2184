// Customers, their account keys and subscriptions.
//
// An account key is `ID.SECRET`: the id finds the row, so that the secret, of which only a hash is kept, is compared and never
// looked up.

import Crypto
import Foundation
import GRDB
import Licensing

extension AuthorityStore {
    /// - Returns: the account key too, which is kept nowhere.
    /// - Throws: `invalid`, `state` for a name that is taken, `database`.
    package func addCustomer(name: String) async throws(AuthorityError) -> (customer: Customer, accountKey: String) {
        guard (1...256).contains(name.utf8.count), name.unicodeScalars.allSatisfy({ !$0.properties.isControl }) else {
            throw .invalid(
                name: "name", found: "\(name.utf8.count) bytes", expected: "1 to 256 bytes of text without control codes")
        }
        let now = now
        let secret = Self.newSecret()
        let customer = try await write { database in
            if try Bool.fetchOne(database, sql: "SELECT 1 FROM customer WHERE name = ?", arguments: [name]) == true {
                throw AuthorityError.state(what: "customer \(name)", found: "one of that name", expected: "a new name")
            }
            var row = Customer(id: nil, name: name, accountKeyHash: Self.hash(ofSecret: secret))
            try row.insert(database)
            row.id = database.lastInsertedRowID
            try Ledger.append("customer.added", row, by: self.user, at: now, in: database)
            return row
        }
        return (customer, "\(customer.id ?? 0).\(secret)")
    }

    /// A new account key; the old one counts no more.
    package func rotateAccountKey(ofCustomer id: Int64) async throws(AuthorityError) -> String {
        let now = now
        let secret = Self.newSecret()
        try await write { database in
            var row: Customer = try Self.fetch(id, "customer", database)
            row.accountKeyHash = Self.hash(ofSecret: secret)
            try row.update(database)
            try Ledger.append("customer.key_rotated", row, by: self.user, at: now, in: database)
        }
        return "\(id).\(secret)"
    }

    package func customers() async throws(AuthorityError) -> [Customer] {
        try await read { try Customer.fetchAll($0, sql: "SELECT * FROM customer ORDER BY id") }
    }

    /// The customer whose account key this is; nil for any other text. Takes as long for a wrong secret as for the right one.
    package func customerID(ofAccountKey key: String) async throws(AuthorityError) -> Int64? {
        let parts = key.split(separator: ".", maxSplits: 1)
        guard key.utf8.count <= 128, parts.count == 2, let id = Int64(parts[0]) else { return nil }
        let expected = try await read {
            try Data.fetchOne($0, sql: "SELECT account_key_hash FROM customer WHERE id = ?", arguments: [id])
        }
        let found = Self.hash(ofSecret: String(parts[1]))
        let differences = zip(expected ?? Data(count: 32), found).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) }
        return expected != nil && differences == 0 ? id : nil
    }

    private static func newSecret() -> String {
        SymmetricKey(size: .bits256).withUnsafeBytes { Data($0).base64EncodedString() }
            .replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
    }

    private static func hash(ofSecret secret: String) -> Data { Data(SHA256.hash(data: Data(secret.utf8))) }

    // MARK: Subscriptions

    /// - Throws: `absent` for the customer, `invalid`, `database`.
    package func addSubscription(_ subscription: Subscription) async throws(AuthorityError) -> Subscription {
        try subscription.check()
        let now = now
        if subscription.paidUntil <= now {
            throw .invalid(
                name: "paid until", found: Timestamp.endText(subscription.paidUntil), expected: "a date that has not passed")
        }
        return try await write { database in
            let _: Customer = try Self.fetch(subscription.customerId, "customer", database)
            var row = subscription
            try row.insert(database)
            row.id = database.lastInsertedRowID
            try Ledger.append("subscription.added", row, by: self.user, at: now, in: database)
            return row
        }
    }

    /// Changes a subscription; the units learn of it with their next renewal, of fewer seats too.
    /// - Throws: `absent`, `invalid`, `database`.
    package func changeSubscription(
        _ id: Int64, _ change: @escaping @Sendable (inout Subscription) -> Void
    ) async throws(AuthorityError) -> Subscription {
        let now = now
        return try await write { database in
            let old: Subscription = try Self.fetch(id, "subscription", database)
            var row = old
            change(&row)
            try row.check()
            if row != old {
                try row.update(database)
                try Ledger.append("subscription.changed", row, by: self.user, at: now, in: database)
            }
            return row
        }
    }

    package func subscriptions() async throws(AuthorityError) -> [Subscription] {
        try await read { try Subscription.fetchAll($0, sql: "SELECT * FROM subscription ORDER BY id") }
    }

    /// - Throws: `absent`.
    static func fetch<Table: TableRow>(_ id: some DatabaseValueConvertible & Sendable, _ what: String, _ database: Database)
        throws -> Table
    {
        guard
            let row = try Table.fetchOne(
                database, sql: "SELECT * FROM \(Table.databaseTableName) WHERE id = ?", arguments: [id])
        else { throw AuthorityError.absent(what: what, found: "\(id)") }
        return row
    }
}

extension Subscription {
    /// Whether a licence with these numbers would be one: no unit must get what it would refuse.
    func check() throws(AuthorityError) {
        for (name, number, range) in [
            ("units", units, 1...1_000_000), ("paid until", paidUntil, 1...Timestamp.never),
        ] where !range.contains(number) {
            throw .invalid(name: name, found: "\(number)", expected: "\(range.lowerBound) to \(range.upperBound)")
        }
        let claims = LicenseClaims(
            issuer: "fpx-authority", customer: "check", licenseID: "check", issuedAt: 0, notBefore: 0, leaseExpiry: paidUntil,
            paidUntil: paidUntil, seats: seats, modelMax: modelMax, sessionsPerSeat: sessionsPerSeat,
            licensedBandwidth: bandwidth,
            businessType: businessType)
        do { _ = try LicenseClaims(claims.members) } catch { throw .licensing(error) }
    }
}

extension Unicode.Scalar.Properties {
    fileprivate var isControl: Bool { generalCategory == .control || generalCategory == .format }
}
