// The proof of a question: a token by which a unit vouches that a question is its own, as DPoP does (RFC 9449).

import Foundation
import Licensing

/// What `Fpx-Proof` says: `aud` the authority, `sub` the unit, `jti` the Idempotency-Key, `iat` when it is sent, `sha256` of
/// the body, `key` the public half of the key that it is signed with.
package struct UnitProof: Equatable, Sendable {
    /// The public half of the key that vouches. Whose that is the caller must know.
    package var key: String
    /// When the question was sent, by the unit's clock, seconds since 1970.
    package var time: Int

    package init(key: String, time: Int) {
        self.key = key
        self.time = time
    }

    private static let audience = "fpx-authority"

    private func members(unitID: String, requestID: String, body: [UInt8]) -> [String: JSONValue] {
        [
            "aud": .string(Self.audience), "iat": .integer(time), "sub": .string(unitID), "jti": .string(requestID),
            "sha256": .string(AnswerSeal.digest(of: body)), "key": .string(key),
        ]
    }

    package static func sign(
        unitID: String, requestID: String, body: [UInt8], at time: Int, with key: SigningKey
    ) async throws(LicensingError) -> String {
        try await SignedToken.sign(
            UnitProof(key: key.publicText, time: time).members(unitID: unitID, requestID: requestID, body: body), as: .proof,
            with: key)
    }

    /// Checks that a token vouches for this very question. Whether its time is to be believed is the caller's matter.
    package static func verify(
        _ token: String, unitID: String, requestID: String, body: [UInt8]
    ) async throws(AnswerError) -> UnitProof {
        do throws(LicensingError) {
            guard token.utf8.count <= AnswerSeal.bytesMax else {
                throw .tooLarge(path: nil, bytes: token.utf8.count, limit: AnswerSeal.bytesMax)
            }
            let parts = try SignedToken.split(Array(token.utf8))
            guard case .string(let key)? = (try? JSONValue.object(in: parts.payload))?["key"], UnitKey.isPublic(key) else {
                throw .claim(name: "key", found: "none", expected: "an Ed25519 public key in base64url")
            }
            let found = try await SignedToken.verify(Array(token.utf8), as: .proof, with: TrustedKeys(unit: key)).members
            guard case .integer(let time)? = found["iat"], Timestamp.range.contains(time) else {
                throw .claim(
                    name: "iat", found: found["iat"]?.description ?? "nothing", expected: "a time in seconds since 1970")
            }
            let proof = UnitProof(key: key, time: time)
            let expected = proof.members(unitID: unitID, requestID: requestID, body: body)
            for (name, value) in expected.sorted(by: { $0.key < $1.key }) where found[name] != value {
                throw .claim(name: name, found: found[name]?.description ?? "nothing", expected: value.description)
            }
            return proof
        } catch {
            throw .proof(error)
        }
    }
}
