// Usage reports: kept as they came, the newest of each licence.

import AuthorityAPI
import Foundation
import GRDB

extension AuthorityStore {
    /// Keeps a report; one that comes again is not kept again.
    /// - Throws: `database`.
    package func report(_ question: Question<UsageReport>) async throws(AuthorityError) -> StoredAnswer {
        let now = now
        let digest = question.digest("usage")
        return try await write { database in
            let license = try LicenseRow.latest(ofUnit: question.unitID, customerID: question.customerID, database)
            if let reason = question.isUnproven(license) { return AuthorityRefusal.unauthorized.answer(reason) }
            switch try Self.answer(to: question, digest, database) {
            case .again(let answer): return answer
            case .refused(let refusal, let message): return refusal.answer(message)
            default: break
            }
            let answer = try Self.keepReport(question, now: now, in: database)
            try Self.keep(answer, to: question, digest, now: now, in: database)
            return answer
        }
    }

    private static func keepReport(
        _ question: Question<UsageReport>, now: Int, in database: Database
    ) throws -> StoredAnswer {
        // Of a cancelled or suspended licence too: that is when it is of interest.
        guard let license = try LicenseRow.latest(ofUnit: question.unitID, customerID: question.customerID, database),
            let subscription = try Subscription.fetchOne(database, key: license.subscriptionId),
            subscription.customerId == question.customerID
        else {
            return AuthorityRefusal.noSubscription.answer(
                "unit \(question.unitID): found no licence, expected one to report on")
        }
        try database.execute(
            sql: "INSERT INTO usage_report (license_id, at, body, mac) VALUES (?1, ?2, ?3, ledger_mac(?1, ?2, ?3))",
            arguments: [license.id, now, String(decoding: question.bytes, as: UTF8.self)])
        try database.execute(
            sql: """
                DELETE FROM usage_report WHERE license_id = ?1 AND id <=
                (SELECT id FROM usage_report WHERE license_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)
                """, arguments: [license.id, usageReportsMax])
        let count = try Int.fetchOne(
            database, sql: "SELECT count(*) FROM usage_report WHERE license_id = ?", arguments: [license.id])
        return StoredAnswer(status: 200, body: json(UsageReceipt(reports: count ?? 0)))
    }

    /// The reports of a licence, oldest first; of all licences the newest one each.
    package func usage(license: String? = nil) async throws(AuthorityError) -> [UsageRow] {
        try await read { database in
            guard let license else {
                return try UsageRow.fetchAll(
                    database,
                    sql: """
                        SELECT * FROM usage_report
                        WHERE id IN (SELECT max(id) FROM usage_report GROUP BY license_id) ORDER BY id
                        """)
            }
            let _: LicenseRow = try Self.fetch(license, "licence", database)
            return try UsageRow.fetchAll(
                database, sql: "SELECT * FROM usage_report WHERE license_id = ? ORDER BY id", arguments: [license])
        }
    }
}
