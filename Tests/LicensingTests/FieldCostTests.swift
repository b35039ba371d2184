import Basics
import Foundation
import Licensing
import TestSupport
import Testing

/// What is read before anybody vouches for it costs little, and no more than its length explains.
@Suite struct FieldCost {
    private static let factor = 8
    /// Proportional is 1, the square would be 8.
    private static let growthMax = 3.0

    private func forge(_ header: String, _ payload: String) -> [UInt8] {
        Array(
            [header, payload, String(repeating: "\0", count: 64)].map {
                String(decoding: Data($0.utf8).base64URL, as: UTF8.self)
            }
            .joined(separator: ".").utf8)
    }

    @Test(arguments: HostileJSON.families.indices)
    func tokensThatNobodyHasSigned(_ index: Int) async throws {
        let unit = try Unit()
        let (name, text) = HostileJSON.families[index]
        let header = #"{"alg":"EdDSA","kid":"k1","typ":"JWT"}"#
        // As large as a licence file and an answer's header may be.
        let headers = await Cost.seconds { _ = await refusal(forge(text(45_000), "{}"), unit.trusted) }
        let payloads = await Cost.seconds { _ = await refusal(forge(header, text(45_000)), unit.trusted) }
        #expect(
            Field.row(
                "daemon.8", "a forged token of 64 KiB, \(name) in its header", expected: "refused within 100 ms of CPU",
                found: headers < 0.1 ? "refused within 100 ms of CPU" : "\(headers) s"))
        #expect(
            Field.row(
                "daemon.8", "a forged token of 64 KiB, \(name) in its payload", expected: "refused within 100 ms of CPU",
                found: payloads < 0.1 ? "refused within 100 ms of CPU" : "\(payloads) s"))
        let growth = await Cost.growth(length: 5000, factor: Self.factor) { length in
            _ = await refusal(forge(header, text(length)), unit.trusted)
        }
        #expect(growth < Self.growthMax, "\(name)")
    }

    /// Where somebody vouches for it, or it is a file of our own, what is decoded costs no more than its length explains
    /// either.
    @Test(arguments: HostileJSON.families.indices)
    func objects(_ index: Int) async throws {
        let (name, text) = HostileJSON.families[index]
        let growth = await Cost.growth(length: 2000, factor: Self.factor) { _ = try? JSONValue.object(in: text($0).utf8) }
        #expect(growth < Self.growthMax, "\(name)")
    }

    @Test func nesting() throws {
        func check(_ text: String) -> String? {
            do throws(JSONText.Fault) {
                try JSONText.check(Array(text.utf8), nestingMax: 2)
                return nil
            } catch { return error.description }
        }
        #expect(check(#"{"a":[1]}"#) == nil && check("[][[]]{}") == nil)
        #expect(check(#"{"a":[[]]}"#) == "found JSON of more than 2 levels, expected at most 2")
        // Brackets in texts are none, whatever is escaped before.
        #expect(check(##"["[[[[{{{{\"[[[\\"]"##) == nil && check(##"["\\", [ [ ]"##) != nil)
        // In UTF-16 brackets could hide behind what looks like a quote.
        let hidden = Array("[\"\u{2200}\",[[[[".utf16).flatMap { [UInt8($0 & 255), UInt8($0 >> 8)] }
        #expect(throws: JSONText.Fault.self) { try JSONText.check(hidden, nestingMax: 2) }
    }

    @Test func pem() async throws {
        for line in ["-----BEGIN X-----\n", "-----END X-----\n", "-----BEGIN PUBLIC KEY-----\nAAAA\n", "\n", "\r\n", "-----"] {
            let growth = await Cost.growth(length: 8 << 10, factor: Self.factor) { length in
                _ = PEM(Array(String(repeating: line, count: length / line.utf8.count).utf8))
            }
            #expect(growth < Self.growthMax, "\(line.debugDescription)")
        }
    }
}
