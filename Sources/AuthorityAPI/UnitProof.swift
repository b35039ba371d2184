// The proof of a question: a token by which a unit vouches that a question is its own, as DPoP does (RFC 9449).

import Foundation
import Licensing

/// What `Fpx-Proof` says: `aud` the authority, `sub` the unit, `jti` the Idempotency-Key, `sha256` of the body, `key` the public half of
/// the key that it is signed with.
package enum UnitProof {
    private static let audience = "fpx-authority"

    private static func members(unitID: String, requestID: String, body: [UInt8], key: String) -> [String: JSONValue] {
        [
            "aud": .string(audience), "sub": .string(unitID), "jti": .string(requestID),
            "sha256": .string(AnswerSeal.digest(of: body)), "key": .string(key),
        ]
    }

    package static func sign(
        unitID: String, requestID: String, body: [UInt8], with key: SigningKey
    ) async throws(LicensingError) -> String {
        try await SignedToken.sign(
            members(unitID: unitID, requestID: requestID, body: body, key: key.publicText), as: .proof, with: key)
    }

    /// Checks that a token vouches for this very question.
    /// - Returns: the public half of the key that it is signed with. Whose that is the caller must know.
    package static func verify(
        _ token: String, unitID: String, requestID: String, body: [UInt8]
    ) async throws(AnswerError) -> String {
        do throws(LicensingError) {
            guard token.utf8.count <= AnswerSeal.bytesMax else {
                throw .tooLarge(path: nil, bytes: token.utf8.count, limit: AnswerSeal.bytesMax)
            }
            let parts = try SignedToken.split(Array(token.utf8))
            guard case .string(let key)? = (try? JSONValue.object(in: parts.payload))?["key"], UnitKey.isPublic(key) else {
                throw .claim(name: "key", found: "none", expected: "an Ed25519 public key in base64url")
            }
            let found = try await SignedToken.verify(Array(token.utf8), as: .proof, with: TrustedKeys(unit: key)).members
            let expected = members(unitID: unitID, requestID: requestID, body: body, key: key)
            for (name, value) in expected.sorted(by: { $0.key < $1.key }) where found[name] != value {
                throw .claim(name: name, found: found[name]?.description ?? "nothing", expected: value.description)
            }
            return key
        } catch {
            throw .proof(error)
        }
    }
}
