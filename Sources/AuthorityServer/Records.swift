// The rows of the tables.

import ControlAPI
import Foundation
import GRDB
import Licensing

extension IssuerType: Codable {}
extension BusinessType: Codable {}

/// Rows are named in Swift's way here and in SQL's way in the database.
protocol TableRow: Codable, Equatable, Sendable, FetchableRecord, PersistableRecord {}

extension TableRow {
    package static var databaseColumnDecodingStrategy: DatabaseColumnDecodingStrategy { .convertFromSnakeCase }
    package static var databaseColumnEncodingStrategy: DatabaseColumnEncodingStrategy { .convertToSnakeCase }
    package static func databaseJSONDecoder(for column: String) -> JSONDecoder { ControlJSON.decoder() }
    package static func databaseJSONEncoder(for column: String) -> JSONEncoder { ControlJSON.encoder() }
}

package struct Customer: TableRow {
    package static let databaseTableName = "customer"
    package var id: Int64?
    package var name: String
    package var accountKeyHash: Data
}

package enum Plan: String, CaseIterable, Codable, Sendable { case monthly, annual }

package struct Subscription: TableRow {
    package static let databaseTableName = "subscription"
    package var id: Int64?
    package var customerId: Int64
    package var plan: Plan
    package var paidUntil: Int
    /// How many units have a licence under it at most.
    package var units: Int
    /// Seats of each unit.
    package var seatsFurl: Int
    package var seatsFnbi: Int
    package var seatsFcas: Int
    /// Seats that the unit's model can use at most; 0: as many as are sold, now and whenever more are.
    package var modelMaxFurl: Int
    package var modelMaxFnbi: Int
    package var modelMaxFcas: Int
    package var sessionsPerSeat: Int
    package var bandwidth: Int
    package var businessType: BusinessType

    /// - Parameter modelMax: nil: as many as are sold.
    package init(
        customerID: Int64, plan: Plan, paidUntil: Int, units: Int = 1, seats: PerType<Int>, modelMax: PerType<Int>? = nil,
        sessionsPerSeat: Int = 25, bandwidth: Int = 0, businessType: BusinessType = .production
    ) {
        customerId = customerID
        self.plan = plan
        self.paidUntil = paidUntil
        self.units = units
        (seatsFurl, seatsFnbi, seatsFcas) = (seats.furl, seats.fnbi, seats.fcas)
        let modelMax = modelMax ?? PerType(furl: 0, fnbi: 0, fcas: 0)
        (modelMaxFurl, modelMaxFnbi, modelMaxFcas) = (modelMax.furl, modelMax.fnbi, modelMax.fcas)
        self.sessionsPerSeat = sessionsPerSeat
        self.bandwidth = bandwidth
        self.businessType = businessType
    }
}

package enum LicenseRowState: String, CaseIterable, Codable, Sendable { case active, suspended, cancelled }

package struct LicenseRow: TableRow {
    package static let databaseTableName = "license"
    package var id: String
    package var subscriptionId: Int64
    package var unitId: String
    package var issuerType: IssuerType
    package var state: LicenseRowState
    package var epoch: Int
    package var issuedAt: Int
    package var leaseExpiry: Int
    package var cpuModel: String
    package var logicalCpusNumber: Int
    package var totalMemorySize: Int
    /// One of the machine's, of either family; empty: it had none.
    package var addressIpv4: String
    /// The public half of the unit's key; empty: it has told none yet.
    package var unitKey = ""
    /// The epoch that the unit said it holds, last: it holds this one or the one that was given since. -1: whatever it says
    /// next.
    package var heldEpoch = 0
    /// When the first lease ends that was given on what it held last; later ones on the same epoch end with it.
    package var heldUntil = 0
    /// When the unit sent the question that was decided last, by its own clock: what it sent before comes late.
    package var askedAt = 0
    /// Who asked with an epoch that the unit does not hold any more, last, and when first; empty and nil: nobody.
    package var clonedBy = ""
    package var clonedAt: Int?

    package var address: String { addressIpv4 }
}

package struct HardwareRow: TableRow {
    package enum State: String, Codable, Sendable { case first, accepted, held, approved, withdrawn }
    package static let databaseTableName = "hardware_assignment"
    package var id: Int64?
    package var licenseId: String
    package var at: Int
    package var hardware: HardwareReport
    package var state: State
    /// What is different: `total_memory_size 16005 -> 32010; ...`
    package var reason: String
}

struct AnswerRow: TableRow {
    static let databaseTableName = "answer"
    var unitId: String
    var idempotencyKey: String
    var question: Data
    var status: Int
    var body: Data
    var at: Int
}

package struct UsageRow: TableRow {
    package static let databaseTableName = "usage_report"
    package var id: Int64?
    package var licenseId: String
    package var at: Int
    /// JSON, as it came.
    package var body: String
}

package struct KeyRow: TableRow {
    package static let databaseTableName = "signing_key"
    package var kid: String
    package var pem: String
    package var createdAt: Int
    /// It signs from here on, until one signs that begins later.
    package var signsFrom: Int
    package var retiredAt: Int?
}

/// That a backup was put in the place of the database.
package struct RestorationRow: TableRow {
    package static let databaseTableName = "restoration"
    package var id: Int64?
    package var at: Int
    /// Of the last entry in the backup's ledger: what was done later is lost.
    package var backupAt: Int
    /// Until then no unit gets a first licence.
    package var holdsUntil: Int
}
