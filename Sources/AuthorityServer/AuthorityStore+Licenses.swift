// Licences and hardware, as a person sees and changes them.

import ControlAPI
import Foundation
import GRDB
import Licensing

/// A licence with what there is to know of it.
package struct LicenseDetails: Codable, Equatable, Sendable {
    package var license: LicenseRow
    package var subscription: Subscription
    package var customer: String
    /// Newest last.
    package var hardware: [HardwareRow]
    package var lastUsageReport: Date?
}

extension AuthorityStore {
    /// All licences, or one customer's, in the order in which they were issued.
    package func licenses(customerID: Int64? = nil) async throws(AuthorityError) -> [LicenseRow] {
        try await read { database in
            try LicenseRow.fetchAll(
                database,
                sql: """
                    SELECT license.* FROM license JOIN subscription ON subscription.id = subscription_id
                    WHERE ?1 IS NULL OR customer_id = ?1 ORDER BY issued_at, license.rowid
                    """, arguments: [customerID])
        }
    }

    /// - Throws: `absent`, `database`.
    package func license(_ id: String) async throws(AuthorityError) -> LicenseDetails {
        try await read { database in
            let license: LicenseRow = try Self.fetch(id, "licence", database)
            let subscription: Subscription = try Self.fetch(license.subscriptionId, "subscription", database)
            let customer: Customer = try Self.fetch(subscription.customerId, "customer", database)
            let reported = try Int.fetchOne(
                database, sql: "SELECT max(at) FROM usage_report WHERE license_id = ?", arguments: [id])
            return LicenseDetails(
                license: license, subscription: subscription, customer: customer.name,
                hardware: try HardwareRow.fetchAll(
                    database, sql: "SELECT * FROM hardware_assignment WHERE license_id = ? ORDER BY id", arguments: [id]),
                lastUsageReport: reported.map(Timestamp.date))
        }
    }

    /// Refuses new leases; the one in hand ends when the unit hears of it.
    package func suspend(_ id: String, reason: String) async throws(AuthorityError) -> LicenseRow {
        try await change(id, from: [.active], to: .suspended, "license.suspended", reason)
    }

    /// For good, because its place in the subscription goes to another unit.
    package func cancel(_ id: String, reason: String) async throws(AuthorityError) -> LicenseRow {
        try await change(id, from: [.active, .suspended], to: .cancelled, "license.cancelled", reason)
    }

    package func reinstate(_ id: String, reason: String) async throws(AuthorityError) -> LicenseRow {
        try await change(id, from: [.suspended], to: .active, "license.reinstated", reason)
    }

    /// Ends the dispute about a copied unit: the next one that asks with the unit's key is the unit, whatever epoch it holds.
    package func resolve(_ id: String, reason: String) async throws(AuthorityError) -> LicenseRow {
        let now = now
        return try await write { database in
            var row: LicenseRow = try Self.fetch(id, "licence", database)
            guard row.clonedAt != nil else {
                throw AuthorityError.state(what: "licence \(id)", found: "one that no copy asked for", expected: "a cloned one")
            }
            (row.clonedAt, row.clonedBy, row.heldEpoch, row.askedAt) = (nil, "", -1, 0)
            try row.update(database)
            try Ledger.append("license.resolved", row, ["reason": .string(reason)], by: self.user, at: now, in: database)
            return row
        }
    }

    private func change(
        _ id: String, from: [LicenseRowState], to state: LicenseRowState, _ kind: String, _ reason: String
    ) async throws(AuthorityError) -> LicenseRow {
        let now = now
        return try await write { database in
            var row: LicenseRow = try Self.fetch(id, "licence", database)
            guard from.contains(row.state) else {
                throw AuthorityError.state(
                    what: "licence \(id)", found: row.state.rawValue, expected: from.map(\.rawValue).joined(separator: " or "))
            }
            row.state = state
            try row.update(database)
            try Ledger.append(kind, row, ["reason": .string(reason)], by: self.user, at: now, in: database)
            return row
        }
    }

    // MARK: Hardware

    /// What waits for a person; or all that ever was.
    package func hardware(all: Bool = false) async throws(AuthorityError) -> [HardwareRow] {
        try await read {
            try HardwareRow.fetchAll(
                $0, sql: "SELECT * FROM hardware_assignment WHERE ? OR state = 'held' ORDER BY id", arguments: [all])
        }
    }

    /// Makes held hardware that of the licence: the next question gets a lease.
    /// - Throws: `absent`, `state`, `database`.
    package func approveHardware(_ id: Int64) async throws(AuthorityError) -> HardwareRow {
        let now = now
        return try await write { database in
            var row: HardwareRow = try Self.fetch(id, "hardware assignment", database)
            guard row.state == .held else {
                throw AuthorityError.state(what: "hardware assignment \(id)", found: row.state.rawValue, expected: "held")
            }
            row.state = .approved
            try row.update(database)
            var license: LicenseRow = try Self.fetch(row.licenseId, "licence", database)
            // Another unit on this hardware gets a licence of its own.
            if row.hardware.unitId == nil {
                let machine = Hardware(row.hardware)
                let stays = machine.addresses.isEmpty || machine.addresses.contains(license.address)
                license.set(machine, address: stays ? license.address : machine.addresses.first ?? "")
                license.unitKey = machine.unitKey
                try license.update(database)
            }
            try Ledger.append(
                "hardware.approved", license, ["changed": .string(row.reason)], by: self.user, at: now, in: database)
            return row
        }
    }

    // MARK: Offline

    /// Issues a licence for a unit without a connection, valid as long as its annual subscription is paid.
    ///
    /// A unit that has an offline licence of the same subscription gets the next epoch of it, on any hardware: a person has
    /// asked.
    /// - Parameters:
    ///   - machine: with its unit's id the licence is bound to that unit, without it to the hardware alone.
    ///   - unitID: by which it is known here; nil: one made from the machine's data, the same for the same data.
    /// - Returns: the token, as it goes into `license.lic`.
    /// - Throws: `absent`, `invalid`, `state`, `licensing`, `database`.
    package func issueOffline(
        _ machine: Hardware, subscription id: Int64, unitID: String?
    ) async throws(AuthorityError) -> (token: String, license: LicenseRow) {
        let now = now
        let unitID = unitID ?? Self.unitID(of: machine)
        guard UnitID.isOne(unitID) else {
            throw .invalid(name: "unit", found: "\"\(unitID)\"", expected: "a UUID in small letters")
        }
        let newID = UUID().uuidString.lowercased()
        let decide = { @Sendable (database: Database) throws -> Grant in
            let subscription: Subscription = try Self.fetch(id, "subscription", database)
            let what = "subscription \(id)"
            guard subscription.plan == .annual else {
                throw AuthorityError.state(what: what, found: "a \(subscription.plan.rawValue) one", expected: "an annual one")
            }
            if subscription.paidUntil <= now {
                throw AuthorityError.state(
                    what: what, found: "paid until \(Timestamp.endText(subscription.paidUntil))",
                    expected: "one that is paid for now")
            }
            var license = try LicenseRow.latest(ofUnit: unitID, customerID: subscription.customerId, database)
            if license?.state == .cancelled { license = nil }
            if let license, license.issuerType != .offline || license.subscriptionId != id || license.state != .active {
                throw AuthorityError.state(
                    what: "unit \(unitID)",
                    found: "licence \(license.id) (\(license.issuerType.rawValue), \(license.state.rawValue), subscription "
                        + "\(license.subscriptionId))",
                    expected: "none, or an active offline one of subscription \(id)")
            }
            if try license == nil && subscription.freeUnits(database) <= 0 {
                throw AuthorityError.state(
                    what: what, found: "\(subscription.units) of \(subscription.units) units with a licence",
                    expected: "one to spare")
            }
            var row =
                license
                ?? LicenseRow(
                    id: newID, subscriptionId: id, unitId: unitID, issuerType: .offline, state: .active, epoch: 0,
                    issuedAt: now,
                    leaseExpiry: 0, machine: machine, address: machine.addresses.first ?? "")
            row.set(machine, address: machine.addresses.first ?? "")
            row.unitKey = machine.unitKey
            let assignment = HardwareRow(
                id: nil, licenseId: row.id, at: now, hardware: HardwareReport(machine),
                state: license == nil ? .first : .approved,
                reason: license.map {
                    HardwareBinding.usual($0.machine, .offline).mismatches(with: machine).map(\.description).joined(
                        separator: "; ")
                } ?? "")
            return try Grant(
                kind: "license.issued_offline", license: row, isNew: license == nil, subscription: subscription,
                leaseExpiry: subscription.paidUntil,
                assignment: assignment, reissuesLeft: 0, now: now, unitID: machine.unitID, database)
        }
        var grant = try await read(decide)
        while true {
            let token = try await sign(grant.claims, by: grant.ring)
            let decided = grant
            let outcome: Grant? = try await write { database in
                let again = try decide(database)
                if again != decided { return again }
                try Self.apply(.granted(decided), by: self.user, now: now, in: database)
                return nil
            }
            guard let outcome else { return (token + "\n", decided.license) }
            grant = outcome
        }
    }

    /// The id of a unit that has told none: a UUID (version 8, RFC 9562) from all its data.
    static func unitID(of machine: Hardware) -> String {
        if !machine.unitKey.isEmpty { return UnitIdentity.id(of: machine.unitKey) }
        let data = [
            machine.cpuModel, String(machine.logicalCPUsNumber), String(machine.totalMemorySize),
            machine.addressesIPv4.joined(separator: ","), machine.hostname,
        ].joined(separator: "\n")
        return UnitIdentity.id(of: data)
    }
}

extension HardwareReport {
    init(_ machine: Hardware) {
        self.init(
            cpuModel: machine.cpuModel, logicalCpusNumber: machine.logicalCPUsNumber, totalMemorySize: machine.totalMemorySize,
            addressesIpv4: machine.addressesIPv4, hostname: machine.hostname,
            unitKey: machine.unitKey.isEmpty ? nil : machine.unitKey, addressesIpv6: machine.addressesIPv6)
    }
}
