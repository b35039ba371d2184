import Foundation
import Licensing
import TestSupport
import Testing

@Suite struct TokenTests {
    let unit: Unit
    let keys: TrustedKeys

    init() throws {
        unit = try Unit()
        keys = unit.trusted
    }

    private func token(_ claims: LicenseClaims = claims()) async throws -> [UInt8] {
        Array(try await LicenseToken.sign(claims, with: unit.key).utf8)
    }

    /// A token with a header of any kind over the usual claims; signed by the trusted key unless a signature is given.
    private func forge(header: String, signature: [UInt8]? = nil) async throws -> [UInt8] {
        let payload = try await token().split(separator: UInt8(ascii: "."))[1]
        let input = Data(header.utf8).base64URL + [UInt8(ascii: ".")] + payload
        let bytes = try signature ?? Array(unit.key.sign(input))
        return input + [UInt8(ascii: ".")] + Data(bytes).base64URL
    }

    @Test func whatWasSignedIsRead() async throws {
        let claims = claims(hardware: HardwareBinding(machine, binds: [.cpuModel, .addressIPv4]))
        let license = try await LicenseToken.verify(token(claims), with: keys)
        #expect(license.claims == claims)
        #expect(license.keyID == "k1")
        #expect(try await LicenseToken.verify(token(claims).dropLast(), with: keys) == license)
    }

    /// What a token says of itself moves no terminal, and is never long: a letter may bear any number of accents.
    @Test(arguments: ["\\u009b31m", "\\u202e", "\\u2028", "a" + String(repeating: "\\u0301", count: 500)])
    func whatIsShownIsPlain(_ text: String) async throws {
        let token = try await forge(header: #"{"alg":"EdDSA","kid":"k1","typ":"JWT","crit":"\#(text)"}"#)
        let error = await #expect(throws: LicensingError.self) { try await LicenseToken.verify(token, with: keys) }
        let shown = try #require(error?.description).unicodeScalars
        let categories: [Unicode.GeneralCategory] = [.control, .format, .lineSeparator]
        #expect(shown.allSatisfy { !categories.contains($0.properties.generalCategory) })
        #expect(shown.count < 1000)
    }

    @Test func everyBitCounts() async throws {
        let token = try await token()
        for index in token.indices {
            for bit in 0..<8 {
                var changed = token
                changed[index] ^= 1 << bit
                #expect(await refusal(changed, keys) != nil, "bit \(bit) of byte \(index) can be changed")
            }
        }
    }

    @Test func everyCutIsTold() async throws {
        let token = try await token()
        for count in 0..<token.count - 1 {
            let state = await refusal(Array(token[..<count]), keys)?.state
            #expect(state == (count == 0 ? .empty : .truncated), "\(count) bytes of \(token.count)")
        }
    }

    /// White space says nothing, wherever it stands, and the licence that is read is the one that was signed.
    @Test func whiteSpaceAndAMarkSayNothing() async throws {
        let token = Array(try await token().dropLast())
        let license = try await LicenseToken.verify(token, with: keys)
        let seed = testSeed()
        print("whiteSpaceAndAMarkSayNothing: seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        let gaps = [" ", "\t", "\n", "\r\n", "\n\n  ", " \r\n\t"]
        for round in 0..<100 {
            var file: [UInt8] = round % 2 == 0 ? [0xEF, 0xBB, 0xBF] : []
            let often = Int.random(in: 1...100, using: &generator)
            for byte in token {
                if Int.random(in: 0..<often, using: &generator) == 0 { file += gaps.randomElement(using: &generator)!.utf8 }
                file.append(byte)
            }
            #expect(try await LicenseToken.verify(file, with: keys) == license)
        }
        #expect(license.token == token)
    }

    @Test func whatFollowsTheTokenIsRefused() async throws {
        let token = try await token()
        for tail in [".", "A", "\u{0}", "\u{B}", "\u{A0}", "\u{FEFF}", "\nA"] {
            #expect(
                await refusal(token.dropLast() + Array(tail.utf8) + Array("\n".utf8), keys)?.state == .malformed,
                "\(tail.debugDescription)")
        }
    }

    @Test(arguments: [
        ("", "found an empty file, expected a licence"), ("\n", "found an empty file, expected a licence"),
        ("hello", "beginning: found \"hel\", expected \"eyJ\""),
        ("{\"a\":1}", "byte 1: found 0x7b, expected a letter, a digit, `-`, `_` or `.`"),
        ("eyJh", "the file is cut short: found 1 of 3 parts, expected header.payload.signature"),
        ("eyJh.e30.AA", "the file is cut short: found 2 characters of signature, expected 86"),
        ("eyJh.a.b.c", "token: found 4 parts, expected header.payload.signature"),
    ])
    func messagesOfForm(_ file: String, _ message: String) async {
        #expect(await refusal(Array(file.utf8), keys)?.description == message)
    }

    @Test func noiseIsRefused() async {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("noiseIsRefused: seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            let noise = (0..<Int.random(in: 1...400, using: &generator)).map { _ in UInt8.random(in: 0...255, using: &generator)
            }
            #expect(await refusal(noise, keys) != nil, "\(noise)")
            let digits = Array("eyJ.".utf8) + noise.map { Array("ABCabc019-_.".utf8)[Int($0) % 12] }
            #expect(await refusal(digits, keys) != nil, "\(digits)")
        }
    }

    @Test func aLargeFileIsNotRead() async throws {
        try unit.folder.write(String(repeating: "eyJ", count: 10 << 20 / 3), "license.lic")
        let (_, report) = await unit.load()
        #expect(report.status.state == .tooLarge)
        #expect(
            report.status.reason?.hasSuffix("license.lic: found 10485759 bytes, expected at most 65536") == true, "\(report)")
        #expect(await refusal([UInt8](repeating: 65, count: 65_537), keys)?.state == .tooLarge)
    }

    @Test func anotherKeyDoesNotVerify() async throws {
        let stranger = try SigningKey(id: "k2")
        let unknown = Array(try await LicenseToken.sign(claims(), with: stranger).utf8)
        #expect(await refusal(unknown, keys) == .unknownKey(found: "\"k2\"", trusted: ["k1"]))
        #expect(await refusal(unknown, keys)?.description == "kid: found \"k2\", expected one of k1")
        #expect(
            await refusal(unknown, TrustedKeys(paths: []))?.description
                == "kid: found \"k2\", expected a trusted key, and there are none")
        // The id of a trusted key in the token of another one.
        let folder = try Folder()
        try folder.write(stranger.privatePEM, "k1.key")
        let impostor = try SigningKey(path: folder.path + "/k1.key")
        let file = Array(try await LicenseToken.sign(claims(), with: impostor).utf8)
        #expect(await refusal(file, keys) == .signature(keyID: "k1"))
        #expect(await refusal(file, keys)?.state == .invalidSignature)
    }

    @Test func onlyEdDSACounts() async throws {
        let none = try await forge(header: #"{"alg":"none","kid":"k1"}"#, signature: [UInt8](repeating: 0, count: 64))
        #expect(await refusal(none, keys) == .algorithm(found: "\"none\""))
        #expect(await refusal(none, keys)?.description == "alg: found \"none\", expected \"EdDSA\"")
        // Signed as it should be and called otherwise: what the header says counts, not what would fit.
        for name in ["HS256", "HS512", "ES256", "eddsa", "NONE", ""] {
            let file = try await forge(header: #"{"alg":"\#(name)","kid":"k1"}"#)
            #expect(await refusal(file, keys)?.state == .invalidSignature, "\(name)")
        }
        let bare = try await forge(header: #"{"kid":"k1"}"#)
        #expect(await refusal(bare, keys) == .algorithm(found: "nothing"))
        // `alg: none` as RFC 7519 writes it has no signature at all.
        let unsigned = try await forge(header: #"{"alg":"none"}"#, signature: [])
        #expect(await refusal(unsigned, keys)?.state == .truncated)
    }

    @Test func headersAreReadWithCare() async throws {
        #expect(await refusal(try await forge(header: #"{"alg":"EdDSA","kid":"k1"}"#), keys) == nil)
        // A whole number that is no Int.
        #expect(await refusal(try await forge(header: #"{"alg":"EdDSA","kid":"k1","x":1e300}"#), keys) == nil)
        #expect(await refusal(try await forge(header: #"{"alg":"EdDSA","kid":1e300}"#), keys)?.state == .unknownKey)
        #expect(await refusal(try await forge(header: #"{"alg":"EdDSA"}"#), keys)?.state == .unknownKey)
        #expect(await refusal(try await forge(header: #"{"alg":"EdDSA","kid":"../k1"}"#), keys)?.state == .unknownKey)
        #expect(
            await refusal(try await forge(header: #"{"alg":"EdDSA","kid":"k1","crit":["b64"],"b64":false}"#), keys)?.state
                == .malformed)
        #expect(
            await refusal(try await forge(header: #"{"alg":"EdDSA","kid":"k1","typ":"at+jwt"}"#), keys)?.state == .malformed)
        let nested = "{\"a\":" + String(repeating: "[", count: 20_000) + String(repeating: "]", count: 20_000) + "}"
        #expect(await refusal(try await forge(header: nested), keys)?.state == .malformed)
    }
}

extension Data {
    var base64URL: [UInt8] {
        Array(base64EncodedString().utf8).compactMap {
            switch $0 {
            case UInt8(ascii: "+"): UInt8(ascii: "-")
            case UInt8(ascii: "/"): UInt8(ascii: "_")
            case UInt8(ascii: "="): nil
            default: $0
            }
        }
    }
}
