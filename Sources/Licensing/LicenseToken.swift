// license.lic: a JSON Web Token in compact form (RFC 7515, 7519), signed with Ed25519 (RFC 8037), `kid` in the header.
//
// JWTKit makes and checks the signature. Before it sees a token, this file makes sure of what JWTKit leaves open:
//  - it takes another key when it has none of the id that the token names; here a token is checked against the one key it names;
//  - it does not look at `alg`; here nothing but EdDSA passes, so neither `none` nor an HMAC over the public key can;
//  - it reads base64url generously, so that several texts are the same token; here each token has one text, and a change of any bit
//    of the file is a change that is refused.

import Foundation
import JWTKit

/// A licence whose signature was checked, and whose claims are in range. Whether it holds now and here, `check` tells.
package struct License: Equatable, Sendable {
    package let claims: LicenseClaims
    package let keyID: String
    /// The token, without the newline that may end the file.
    package let token: [UInt8]
}

package enum LicenseToken {
    /// The largest file that is read: some 50 times a licence.
    package static let bytesMax = 64 << 10
    /// Every object in JSON begins with `{"`; this is how base64url writes that.
    private static let beginning = Array("eyJ".utf8)
    /// 64 bytes in base64url.
    private static let signatureLength = 86

    /// What a token says before anybody vouches for it.
    package struct Parts: Equatable, Sendable {
        package let header: [String: JSONValue]
        /// JSON, by the look of a genuine token; not read here.
        package let payload: [UInt8]
        /// Without the newline that may end the file.
        package let token: [UInt8]
    }

    /// Takes a file apart and checks its form, no signature.
    /// - Throws: `empty`, `tooLarge`, `truncated`, `malformed`.
    package static func split(_ file: [UInt8]) throws(LicensingError) -> Parts {
        if file.count > bytesMax { throw .tooLarge(path: nil, bytes: file.count, limit: bytesMax) }
        let token = file.last == UInt8(ascii: "\n") ? Array(file.dropLast()) : file
        if token.isEmpty { throw .empty }
        if let index = token.firstIndex(where: { $0 != UInt8(ascii: ".") && !Base64URL.isDigit($0) }) {
            throw .malformed(
                part: "byte \(index + 1)", found: "0x" + String(token[index], radix: 16),
                expected: "a letter, a digit, `-`, `_` or `.`")
        }
        guard token.starts(with: beginning) || beginning.starts(with: token) else {
            throw .malformed(
                part: "beginning", found: JSONValue.quote(String(decoding: token.prefix(3), as: UTF8.self)), expected: "\"eyJ\""
            )
        }
        let parts = token.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        if parts.count < 3 { throw .truncated(found: "\(parts.count) of 3 parts", expected: "header.payload.signature") }
        if parts.count > 3 {
            throw .malformed(part: "token", found: "\(parts.count) parts", expected: "header.payload.signature")
        }
        if parts[2].count < signatureLength {
            throw .truncated(found: "\(parts[2].count) characters of signature", expected: "\(signatureLength)")
        }
        if parts[2].count > signatureLength {
            throw .malformed(part: "signature", found: "\(parts[2].count) characters", expected: "\(signatureLength)")
        }
        let header = try decode(parts[0], "header")
        let payload = try decode(parts[1], "payload")
        _ = try decode(parts[2], "signature")
        guard let fields = try? JSONDecoder().decode([String: JSONValue].self, from: Data(header)) else {
            throw .malformed(part: "header", found: "\(header.count) bytes that are no JSON object", expected: "a JSON object")
        }
        return Parts(header: fields, payload: payload, token: token)
    }

    /// Checks form, key, signature, version and claims, in this order; not the time and not the hardware.
    /// - Throws: what `split` does, `algorithm`, `unknownKey`, `signature`, `version`, `claim`.
    package static func verify(_ file: [UInt8], with keys: TrustedKeys) async throws(LicensingError) -> License {
        let parts = try split(file)
        guard parts.header["alg"] == .string("EdDSA") else {
            throw .algorithm(found: parts.header["alg"]?.description ?? "nothing")
        }
        if let type = parts.header["typ"], type != .string("JWT") {
            throw .malformed(part: "typ", found: type.description, expected: "\"JWT\"")
        }
        // RFC 7515: who does not understand what is critical must refuse.
        if let critical = parts.header["crit"] {
            throw .malformed(part: "crit", found: critical.description, expected: "nothing")
        }
        guard case .string(let keyID)? = parts.header["kid"], let key = keys[keyID] else {
            throw .unknownKey(found: parts.header["kid"]?.description ?? "nothing", trusted: keys.ids)
        }
        let payload: Payload
        do {
            payload = try await JWTKeyCollection().add(eddsa: key).verify(parts.token)
        } catch let error as JWTError where error.errorType == .malformedToken {
            throw .malformed(
                part: "payload", found: "\(parts.payload.count) bytes that are no JSON object", expected: "a JSON object")
        } catch {
            throw .signature(keyID: keyID)
        }
        return License(claims: try LicenseClaims(payload.members), keyID: keyID, token: parts.token)
    }

    /// The text of a licence with a newline at its end.
    ///
    /// The same claims and key give the same text.
    /// - Throws: `claim`, for claims that `verify` would refuse: such a licence is not made.
    package static func sign(_ claims: LicenseClaims, with key: SigningKey) async throws(LicensingError) -> String {
        let payload = Payload(members: claims.members)
        _ = try LicenseClaims(payload.members)
        return try await sign(payload, with: key)
    }

    /// Signs any members; tests make tokens with it that `sign(_:with:)` refuses to make.
    package static func sign(_ members: [String: JSONValue], with key: SigningKey) async throws(LicensingError) -> String {
        try await sign(Payload(members: members), with: key)
    }

    private static func sign(_ payload: Payload, with key: SigningKey) async throws(LicensingError) -> String {
        do {
            let keys = await JWTKeyCollection().add(
                eddsa: key.privateKey, kid: JWKIdentifier(string: key.id),
                serializer: DefaultJWTSerializer(jsonEncoder: JSONValue.encoder))
            return try await keys.sign(payload, kid: JWKIdentifier(string: key.id)) + "\n"
        } catch {
            throw .key(path: key.id, found: "a key that does not sign: \(error)", expected: "an Ed25519 private key")
        }
    }

    private static func decode(_ text: ArraySlice<UInt8>, _ part: String) throws(LicensingError) -> [UInt8] {
        guard let bytes = Base64URL.decode(text) else {
            throw .malformed(
                part: part, found: "\(text.count) characters that are not canonical base64url", expected: "RFC 4648, 5")
        }
        return bytes
    }

    private struct Payload: JWTPayload {
        let members: [String: JSONValue]

        init(members: [String: JSONValue]) { self.members = members }
        init(from decoder: any Decoder) throws { members = try [String: JSONValue](from: decoder) }
        func encode(to encoder: any Encoder) throws { try members.encode(to: encoder) }
        // The claims are checked by LicenseClaims, which can say more than a thrown JWTError.
        func verify(using algorithm: some JWTAlgorithm) {}
    }
}

/// base64url without padding (RFC 4648, 5), in its canonical form only.
enum Base64URL {
    static func isDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    /// nil for a text that `encode` would not write, such as one with bits set that no byte uses.
    static func decode(_ text: ArraySlice<UInt8>) -> [UInt8]? {
        var standard = text.map { byte in
            switch byte {
            case UInt8(ascii: "-"): UInt8(ascii: "+")
            case UInt8(ascii: "_"): UInt8(ascii: "/")
            default: byte
            }
        }
        standard += [UInt8](repeating: UInt8(ascii: "="), count: (4 - text.count % 4) % 4)
        guard let bytes = Data(base64Encoded: Data(standard)), bytes.base64EncodedData() == Data(standard) else { return nil }
        return Array(bytes)
    }
}
