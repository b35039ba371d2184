// A JSON Web Token in compact form (RFC 7515, 7519), signed with Ed25519 (RFC 8037), `kid` in the header: what a licence and an
// authority's answer are.
//
// This file checks the form; the signature is made and checked in Signature.swift. Of what JWTKit leaves open: it reads base64url
// generously, so that several texts are the same token; here each token has one text, and a change of any bit is a change that is
// refused.

import Basics
import Foundation

package enum SignedToken {
    /// What a token is for: `typ` in its header. One is never taken for the other.
    package enum Kind: String, Sendable {
        case license = "JWT"
        case answer = "fpx-answer+jwt"
        /// By a unit: that a question is its own.
        case proof = "fpx-proof+jwt"
        /// By a unit: what it tells those that it shares seats with.
        case row = "fpx-row+jwt"
    }

    /// `{"` and a letter, in base64url: how the header of every token in use begins.
    private static let beginning = Array("eyJ".utf8)
    /// 64 bytes in base64url.
    private static let signatureLength = 86
    /// Some ten times a header. It is read before anybody vouches for it.
    private static let headerBytesMax = 1024

    /// What a token says before anybody vouches for it.
    package struct Parts: Equatable, Sendable {
        package let header: [String: JSONValue]
        /// JSON, by the look of a genuine token; not read here.
        package let payload: [UInt8]
        package let token: [UInt8]
    }

    /// Takes a token apart and checks its form, no signature.
    /// - Throws: `empty`, `truncated`, `malformed`.
    package static func split(_ token: [UInt8]) throws(LicensingError) -> Parts {
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
        guard header.count <= headerBytesMax else {
            throw .malformed(part: "header", found: "\(header.count) bytes", expected: "at most \(headerBytesMax)")
        }
        for (part, bytes) in [("header", header), ("payload", payload)] {
            do { try JSONText.check(bytes, nestingMax: JSONValue.nestingMax) } catch {
                throw .malformed(part: part, found: error.found, expected: error.expected)
            }
        }
        guard let fields = try? JSONValue.object(in: header) else {
            throw .malformed(part: "header", found: "\(header.count) bytes that are no JSON object", expected: "a JSON object")
        }
        return Parts(header: fields, payload: payload, token: token)
    }

    private static func decode(_ text: ArraySlice<UInt8>, _ part: String) throws(LicensingError) -> [UInt8] {
        guard let bytes = Base64URL.decode(text) else {
            throw .malformed(
                part: part, found: "\(text.count) characters that are not canonical base64url", expected: "RFC 4648, 5")
        }
        return bytes
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

    static func encode(_ bytes: [UInt8]) -> String {
        Data(bytes).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
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
