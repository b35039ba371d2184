// The seal of an answer: a token by which the authority vouches for status and body, and for whom and what they answer.

import Crypto
import Foundation
import Licensing

/// What `Fpx-Answer` says.
package struct AnswerSeal: Equatable, Sendable {
    /// `iat`: the authority's time, seconds since 1970.
    package var serverTime: Int
    /// `aud`: the unit that asked, empty where it did not say.
    package var unitID: String
    /// `jti`: the question's Idempotency-Key, empty where it had none.
    package var requestID: String
    package var status: Int
    /// SHA-256 of the body, in hexadecimal digits.
    package var sha256: String

    package init(serverTime: Int, unitID: String, requestID: String, status: Int, body: [UInt8]) {
        self.serverTime = serverTime
        self.unitID = unitID
        self.requestID = requestID
        self.status = status
        sha256 = Self.digest(of: body)
    }

    /// The longest token that is read: some eight times a seal.
    package static let bytesMax = 4096

    package static func digest(of body: [UInt8]) -> String {
        SHA256.hash(data: body).map { String(format: "%02x", $0) }.joined()
    }

    package func sign(with key: SigningKey) async throws(LicensingError) -> String {
        try await SignedToken.sign(
            [
                "iat": .integer(serverTime), "aud": .string(unitID), "jti": .string(requestID), "status": .integer(status),
                "sha256": .string(sha256),
            ], as: .answer, with: key)
    }

    /// Checks that a trusted key vouches for this very answer to this very question.
    ///
    /// Whether its time is to be believed is the caller's matter.
    package static func verify(
        _ token: String, status: Int, body: [UInt8], unitID: String, requestID: String, with keys: TrustedKeys
    ) async throws(AnswerError) -> (seal: AnswerSeal, keyID: String) {
        guard token.utf8.count <= bytesMax else {
            throw .token(.tooLarge(path: nil, bytes: token.utf8.count, limit: bytesMax))
        }
        let verified: SignedToken.Verified
        do { verified = try await SignedToken.verify(Array(token.utf8), as: .answer, with: keys) } catch { throw .token(error) }
        let members = verified.members
        guard case .integer(let time)? = members["iat"], Timestamp.range.contains(time) else {
            throw .claim(name: "iat", found: text(members["iat"]), expected: "a time in seconds since 1970")
        }
        let seal = AnswerSeal(serverTime: time, unitID: unitID, requestID: requestID, status: status, body: body)
        let expected: [(String, JSONValue)] = [
            ("aud", .string(seal.unitID)), ("jti", .string(seal.requestID)), ("status", .integer(seal.status)),
            ("sha256", .string(seal.sha256)),
        ]
        for (name, value) in expected where members[name] != value {
            throw .claim(name: name, found: text(members[name]), expected: value.description)
        }
        return (seal, verified.keyID)
    }

    private static func text(_ value: JSONValue?) -> String { value?.description ?? "nothing" }
}

/// Why an answer is not believed.
package enum AnswerError: Error, Equatable, CustomStringConvertible {
    case token(LicensingError)
    /// Of a question: its proof is none.
    case proof(LicensingError)
    /// It is genuine, but not the answer to this question.
    case claim(name: String, found: String, expected: String)

    package var description: String {
        switch self {
        case .token(let error): "\(AuthorityHeader.answer): \(error)"
        case .proof(let error): "\(AuthorityHeader.proof): \(error)"
        case .claim(let name, let found, let expected):
            "\(AuthorityHeader.answer): \(name): found \(found), expected \(expected)"
        }
    }
}
