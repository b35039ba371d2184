// A question for a lease: first licence, longer lease, changed hardware.

import AuthorityAPI
import ControlAPI
import Crypto
import Foundation
import GRDB
import Licensing

/// A question as it came, from a customer whose account key was checked.
package struct Question<Body: Sendable>: Sendable {
    package var customerID: Int64
    package var unitID: String
    /// Its Idempotency-Key.
    package var requestID: String
    /// Where it came from.
    package var address: String
    /// That it comes from the unit of a key; nil: none vouches for it.
    package var proof: UnitProof?
    package var body: Body
    /// The body's bytes, by which a question that comes again is known.
    package var bytes: Data

    package init(
        customerID: Int64, unitID: String, requestID: String, address: String, proof: UnitProof? = nil, body: Body, bytes: Data
    ) {
        self.customerID = customerID
        self.unitID = unitID
        self.requestID = requestID
        self.address = address
        self.proof = proof
        self.body = body
        self.bytes = bytes
    }
}

/// What goes over the wire, but for the seal.
package struct StoredAnswer: Equatable, Sendable {
    package var status: Int
    package var body: Data
}

/// What a rule comes to.
enum LeaseDecision: Equatable, Sendable {
    /// It was answered before.
    case again(StoredAnswer)
    case refused(AuthorityRefusal, String)
    /// Refused, and nothing is kept under its Idempotency-Key: it does not come from the unit that it names.
    case unproven(String)
    /// The same, and a person is to look at the key that it came with.
    case otherKey(LicenseRow, HardwareRow)
    /// Refused until a person has looked at this hardware.
    case held(LicenseRow, HardwareRow)
    /// Refused: the epoch that it holds was left behind.
    case cloned(LicenseRow, String)
    case granted(Grant)
}

/// A licence that is about to be issued.
struct Grant: Equatable, Sendable {
    /// `license.issued` ..., in the ledger.
    var kind: String
    var license: LicenseRow
    var isNew: Bool
    var claims: LicenseClaims
    var ring: KeyRing
    /// Of new or changed hardware.
    var assignment: HardwareRow?
    var reissuesLeft: Int
}

extension AuthorityStore {
    /// Answers a question for a lease, a refusal too; the answer is on disk when this returns.
    /// - Throws: `database`, `licensing`, `state`: what is the authority's own trouble.
    package func lease(_ question: Question<LeaseRequest>) async throws(AuthorityError) -> StoredAnswer {
        let now = now
        let newID = UUID().uuidString.lowercased()
        let digest = question.digest("lease")
        let who = "unit " + question.unitID
        let decide = { @Sendable [reissues] (database: Database) throws -> LeaseDecision in
            let rule = LeaseRule(database: database, question: question, now: now, newID: newID, reissues: reissues)
            return try rule.stranger() ?? Self.answer(to: question, digest, database) ?? rule.decide()
        }
        var decision = try await read(decide)
        while true {
            let answer = try await draft(decision, address: question.address)
            let decided = decision
            let outcome: LeaseDecision? = try await write { database in
                let again = try decide(database)
                if again != decided { return again }
                try Self.apply(decided, by: who, now: now, in: database)
                switch decided {
                case .again, .unproven, .otherKey: return nil
                default: break
                }
                try Self.keep(answer, to: question, digest, now: now, in: database)
                return nil
            }
            guard let outcome else { return answer }
            decision = outcome
        }
    }

    /// The answer that a decision would give. Signs, and changes nothing.
    private func draft(_ decision: LeaseDecision, address: String) async throws(AuthorityError) -> StoredAnswer {
        switch decision {
        case .again(let answer): return answer
        case .refused(let refusal, let message): return refusal.answer(message)
        case .unproven(let message): return AuthorityRefusal.unauthorized.answer(message)
        case .cloned(let license, let message): return AuthorityRefusal.cloned.answer("licence \(license.id): \(message)")
        case .held(_, let row), .otherKey(_, let row):
            return AuthorityRefusal.held.answer(
                "\(row.reason): waits for a person; it is answered with a lease once it is approved")
        case .granted(let grant):
            let license = LeaseAnswer(
                license: try await sign(grant.claims, by: grant.ring), externalAddress: address, keys: grant.ring.announced,
                reissuesLeft: grant.reissuesLeft, clonedAt: grant.license.clonedAt)
            return StoredAnswer(status: 200, body: Self.json(license))
        }
    }

    /// The token, without a newline.
    func sign(_ claims: LicenseClaims, by ring: KeyRing) async throws(AuthorityError) -> String {
        let key = try privateKey(ring.signing)
        do { return String(try await LicenseToken.sign(claims, with: key).dropLast()) } catch { throw .licensing(error) }
    }

    static func apply(_ decision: LeaseDecision, by who: String, now: Int, in database: Database) throws {
        switch decision {
        case .again, .refused, .unproven: break
        case .cloned(let license, let message):
            // The same unit that asks each hour is one line in the ledger.
            if try LicenseRow.fetchOne(database, key: license.id)?.clonedBy == license.clonedBy { return }
            try license.update(database)
            try Ledger.append(
                "license.cloned", license, ["asked": .string(license.clonedBy), "found": .string(message)], by: who, at: now,
                in: database)
        case .held(let license, let row), .otherKey(let license, let row):
            try hold(row, of: license, by: who, now: now, in: database)
        case .granted(let grant):
            if grant.isNew { try grant.license.insert(database) } else { try grant.license.update(database) }
            try grant.assignment?.insert(database)
            try database.execute(
                sql: "UPDATE hardware_assignment SET state = 'withdrawn' WHERE license_id = ? AND state = 'held'",
                arguments: [grant.license.id])
            if database.changesCount > 0 {
                try Ledger.append("hardware.withdrawn", grant.license, by: who, at: now, in: database)
            }
            try Ledger.append(grant.kind, grant.license, grant.details, by: who, at: now, in: database)
        }
    }

    /// Puts hardware before a person, once for each change: the same question every day is one line in the ledger.
    private static func hold(
        _ row: HardwareRow, of license: LicenseRow, by who: String, now: Int, in database: Database
    ) throws {
        let pending = try HardwareRow.fetchOne(
            database, sql: "SELECT * FROM hardware_assignment WHERE license_id = ? AND state = 'held'", arguments: [license.id])
        if var pending {
            if pending.hardware == row.hardware, pending.reason == row.reason { return }
            (pending.at, pending.hardware, pending.reason) = (row.at, row.hardware, row.reason)
            try pending.update(database)
        } else {
            try row.insert(database)
        }
        try Ledger.append("hardware.held", license, ["changed": .string(row.reason)], by: who, at: now, in: database)
    }

    // MARK: Questions that come again

    static func answer<Body>(to question: Question<Body>, _ digest: Data, _ database: Database) throws -> LeaseDecision? {
        let row = try AnswerRow.fetchOne(
            database, key: ["unit_id": question.unitID, "idempotency_key": question.requestID])
        guard let row else { return nil }
        if row.question != digest {
            return .refused(
                .idempotencyConflict,
                "\(AuthorityHeader.idempotencyKey): found one that another question had, expected a new one for each question")
        }
        return .again(StoredAnswer(status: row.status, body: row.body))
    }

    static func keep<Body>(
        _ answer: StoredAnswer, to question: Question<Body>, _ digest: Data, now: Int, in database: Database
    ) throws {
        // Of a conflict the first answer stays.
        try database.cachedStatement(
            sql: """
                INSERT OR IGNORE INTO answer (unit_id, idempotency_key, question, status, body, at, mac)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ledger_mac(?1, ?2, ?3, ?4, ?5, ?6))
                """
        ).execute(
            arguments: [question.unitID, question.requestID, digest, answer.status, answer.body, now])
        try database.execute(sql: "DELETE FROM answer WHERE at < ?", arguments: [now - answerSeconds])
    }

    static func json(_ value: some Encodable) -> Data {
        // Structs of texts and numbers: writing them cannot fail.
        (try? ControlJSON.encoder().encode(value)) ?? Data()
    }
}

extension Question {
    /// The public half of the key that vouches for it; nil: none does.
    var unitKey: String? { proof?.key }

    /// Why a question does not come from the unit that has the licence; nil: it does, or the unit has no key yet.
    func isUnproven(_ license: LicenseRow?) -> String? {
        guard let license, !license.unitKey.isEmpty, license.unitKey != unitKey else { return nil }
        return "\(AuthorityHeader.proof): found \(unitKey.map { "one by key \($0)" } ?? "none"), expected one by the key "
            + "\(license.unitKey) of unit \(unitID)"
    }

    /// Who asks what.
    func digest(_ path: String) -> Data {
        var hasher = SHA256()
        hasher.update(data: Data("\(customerID)\n\(path)\n".utf8))
        hasher.update(data: bytes)
        return Data(hasher.finalize())
    }
}

extension Grant {
    /// For the ledger.
    var details: [String: JSONValue] {
        var details: [String: JSONValue] = ["kid": .string(ring.signing)]
        if isNew {
            details["unit"] = .string(license.unitId)
            details["subscription"] = .integer(Int(license.subscriptionId))
            details["issuer_type"] = .string(license.issuerType.rawValue)
        }
        if let assignment {
            details["hardware"] = claims.members["hardware"]
            if !assignment.reason.isEmpty { details["changed"] = .string(assignment.reason) }
        }
        return details
    }
}

extension AuthorityRefusal {
    package var status: Int {
        switch self {
        case .badRequest: 400
        case .unauthorized: 401
        case .noSubscription, .paidUntilPassed, .suspended, .cancelled, .cloned: 403
        case .notFound: 404
        case .methodNotAllowed: 405
        case .timeout: 408
        case .held, .offline: 409
        case .tooLarge: 413
        case .invalidValue, .idempotencyConflict: 422
        case .rateLimited: 429
        case .internal: 500
        case .unavailable: 503
        }
    }

    func answer(_ message: String) -> StoredAnswer {
        StoredAnswer(status: status, body: AuthorityStore.json(APIError(code: rawValue, message: message)))
    }
}
