// Signatures: JWTKit makes and checks them, over a form that SignedToken has checked. What it leaves open besides the form:
//  - it takes another key when it has none of the id that the token names; here a token is checked against the one key it names;
//  - it does not look at `alg`; here nothing but EdDSA passes, so neither `none` nor an HMAC over the public key can.

import JWTKit

extension SignedToken {
    /// What a key vouches for.
    package struct Verified: Equatable, Sendable {
        package let members: [String: JSONValue]
        package let keyID: String
        package let token: [UInt8]
    }

    /// Checks form, key and signature, in this order.
    ///
    /// A licence may have no `typ`: RFC 7519 leaves it out where it is clear.
    /// - Throws: what `split` does, `algorithm`, `unknownKey`, `signature`.
    package static func verify(_ token: [UInt8], as kind: Kind, with keys: TrustedKeys) async throws(LicensingError) -> Verified
    {
        let parts = try split(token)
        guard parts.header["alg"] == .string("EdDSA") else {
            throw .algorithm(found: parts.header["alg"]?.description ?? "nothing")
        }
        guard parts.header["typ"] == .string(kind.rawValue) || kind == .license && parts.header["typ"] == nil else {
            throw .malformed(
                part: "typ", found: parts.header["typ"]?.description ?? "nothing", expected: "\"\(kind.rawValue)\"")
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
        return Verified(members: payload.members, keyID: keyID, token: token)
    }

    /// The same members, kind and key give the same text.
    package static func sign(
        _ members: [String: JSONValue], as kind: Kind, with key: SigningKey
    ) async throws(LicensingError) -> String {
        do {
            let keys = await JWTKeyCollection().add(
                eddsa: key.privateKey, kid: JWKIdentifier(string: key.id),
                serializer: DefaultJWTSerializer(jsonEncoder: JSONValue.encoder))
            return try await keys.sign(
                Payload(members: members), kid: JWKIdentifier(string: key.id), header: ["typ": .string(kind.rawValue)])
        } catch {
            throw .key(path: key.id, found: "a key that does not sign: \(error)", expected: "an Ed25519 private key")
        }
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

extension LicenseToken {
    /// Checks form, key, signature, version and claims, in this order; not the time and not the hardware.
    /// - Throws: what `split` does, `algorithm`, `unknownKey`, `signature`, `version`, `claim`.
    package static func verify(_ file: [UInt8], with keys: TrustedKeys) async throws(LicensingError) -> License {
        let verified = try await SignedToken.verify(try token(in: file), as: .license, with: keys)
        return License(claims: try LicenseClaims(verified.members), keyID: verified.keyID, token: verified.token)
    }

    /// The text of a licence with a newline at its end.
    ///
    /// The same claims and key give the same text.
    /// - Throws: `claim`, for claims that `verify` would refuse: such a licence is not made.
    package static func sign(_ claims: LicenseClaims, with key: SigningKey) async throws(LicensingError) -> String {
        _ = try LicenseClaims(claims.members)
        return try await sign(claims.members, with: key)
    }

    /// Signs any members; tests make tokens with it that `sign(_:with:)` refuses to make.
    package static func sign(_ members: [String: JSONValue], with key: SigningKey) async throws(LicensingError) -> String {
        try await SignedToken.sign(members, as: .license, with: key) + "\n"
    }
}
