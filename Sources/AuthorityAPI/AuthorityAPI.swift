// AuthorityAPI: what units and the authority say to one another, version 1.
//
// HTTP/1.1 with JSON over TLS. A unit sends with each question:
//
//     Authorization: Bearer KEY       the account key of its customer
//     Fpx-Unit: UUID                  who it is
//     Idempotency-Key: UUID           new for each question: one that is asked again under its key gets the first answer again
//     Fpx-Proof: TOKEN                by the unit's key: that this very question is its own (UnitProof)
//
// Every answer, a refusal too, carries `Fpx-Answer`: a token by which the authority vouches for it (AnswerSeal). The document of it
// all is served at /v1/openapi.json.

import ControlAPI
import Licensing

package enum AuthorityPath {
    package static let lease = "/v1/lease"
    package static let usage = "/v1/usage"
    package static let document = "/v1/openapi.json"
}

package enum AuthorityHeader {
    package static let unit = "Fpx-Unit"
    package static let idempotencyKey = "Idempotency-Key"
    package static let answer = "Fpx-Answer"
    package static let proof = "Fpx-Proof"
}

/// POST /v1/lease: a first licence, a longer lease, or a licence for changed hardware.
package struct LeaseRequest: Codable, Equatable, Sendable {
    package var hardware: HardwareReport
    /// The licence that the unit holds; nil: none.
    package var licenseId: String?
    package var epoch: Int?
    /// Of fpxd.
    package var version: String

    package init(hardware: HardwareReport, licenseId: String?, epoch: Int?, version: String) {
        self.hardware = hardware
        self.licenseId = licenseId
        self.epoch = epoch
        self.version = version
    }
}

package struct LeaseAnswer: Codable, Equatable, Sendable {
    /// A public key whose signatures count, or soon will.
    package struct Key: Codable, Equatable, Sendable {
        package var kid: String
        package var pem: String

        package init(kid: String, pem: String) {
            self.kid = kid
            self.pem = pem
        }
    }

    /// The token; what goes into `license.lic`, without the newline.
    package var license: String
    /// The address that the question came from.
    package var externalAddress: String
    /// All keys of the authority: a unit that trusts the one that vouches for this answer trusts these from now on.
    package var keys: [Key]
    /// How often changed hardware is still accepted without a person, in the days to come.
    package var reissuesLeft: Int
    /// Since when another process has asked with this unit's key, seconds since 1970; nil: none has.
    package var clonedAt: Int?

    package init(license: String, externalAddress: String, keys: [Key], reissuesLeft: Int, clonedAt: Int? = nil) {
        self.license = license
        self.externalAddress = externalAddress
        self.keys = keys
        self.reissuesLeft = reissuesLeft
        self.clonedAt = clonedAt
    }
}

/// Why the authority refuses: `code` of the `APIError` that it answers.
package enum AuthorityRefusal: String, CaseIterable, Sendable {
    // The question is wrong.
    case badRequest = "bad_request"
    case invalidValue = "invalid_value"
    case notFound = "not_found"
    case methodNotAllowed = "method_not_allowed"
    case tooLarge = "too_large"
    case timeout
    /// The Idempotency-Key was used for another question.
    case idempotencyConflict = "idempotency_conflict"
    // The customer is not known, or has nothing for this unit.
    case unauthorized
    case noSubscription = "no_subscription"
    case paidUntilPassed = "paid_until_passed"
    // The licence is not to be had for the time being.
    case suspended
    case cancelled
    /// Another process goes on with the unit's key and licence: this one's epoch was left behind.
    case cloned
    /// Hardware or address have changed, and a person must look at it.
    case held
    /// The unit has an offline licence.
    case offline
    // Later.
    case rateLimited = "rate_limited"
    case unavailable
    case `internal`

    /// How a lease in hand ends with it; nil: it does not.
    package var endsLease: AuthorityRecord.Refusal.Kind? {
        switch self {
        case .suspended: .suspended
        case .cancelled: .cancelled
        case .cloned: .cloned
        default: nil
        }
    }
}

/// POST /v1/usage. It is shown over the control socket too, so it is declared there.
package typealias UsageReport = ControlAPI.UsageReport

package struct UsageReceipt: Codable, Equatable, Sendable {
    /// Of reports kept of this unit.
    package var reports: Int

    package init(reports: Int) { self.reports = reports }
}
