import Foundation
import Licensing
import TestSupport
import Testing

@Suite struct ClaimsTests {
    @Test(arguments: [
        ("ver", JSONValue.integer(2), "ver: found 2, expected 1"),
        ("ver", .string("1"), "ver: found \"1\", expected 1"),
        ("sub", .integer(7), "sub: found 7, expected a text of one character or more"),
        ("jti", .string(""), "jti: found \"\", expected a text of one character or more"),
        ("exp", .integer(-1), "exp: found -1, expected a whole number from 0 to 253402300799"),
        ("exp", .number(1e300), "exp: found 1e+300, expected a whole number from 0 to 253402300799"),
        ("exp", .integer(start), "exp: found 2026-11-21T00:00:00Z, expected later than nbf, which is 2026-11-21T00:00:00Z"),
        ("iat", .bool(true), "iat: found true, expected a whole number from 0 to 253402300799"),
        ("epoch", .integer(.max), "epoch: found 9223372036854775807, expected a whole number from 0 to 4294967295"),
        ("sessions_per_seat", .integer(0), "sessions_per_seat: found 0, expected a whole number from 1 to 4194303"),
        ("seats", .array([]), "seats: found a list of 0, expected an object"),
        ("seats", .object(["furl": .integer(-1)]), "seats.furl: found -1, expected a whole number from 0 to 4294967295"),
        ("seats", .object(["furl": .integer(1)]), "seats.fnbi: found nothing, expected a whole number from 0 to 4294967295"),
        ("business_type", .string("free"), "business_type: found \"free\", expected production or evaluation"),
        ("issuer_type", .null, "issuer_type: found null, expected automatic or offline"),
        ("licensed_bandwidth_unit", .string("gbits"), "licensed_bandwidth_unit: found \"gbits\", expected mbits"),
        (
            "hardware", .object(["binds": .array([.string("cpu_model")])]),
            "hardware.cpu_model: found nothing, expected a text"
        ),
        (
            "hardware", .object(["binds": .array([.string("serial")])]),
            "hardware.binds: found a list of 1, expected only cpu_model, logical_cpus_number, total_memory_size, address_ipv4, "
                + "unit_id, and not \"serial\""
        ),
        ("hardware", .object(["binds": .array([.integer(1)])]), "hardware.binds: found 1 in the list, expected texts only"),
    ])
    func everyClaimIsChecked(_ name: String, _ value: JSONValue, _ message: String) async throws {
        let unit = try Unit()
        var members = claims().members
        members[name] = value
        // A genuine signature over a wrong claim: the claim is at fault, and is named.
        let file = Array(try await LicenseToken.sign(members, with: unit.key).utf8)
        let error = await refusal(file, unit.trusted)
        #expect(error?.description == message)
        #expect(error?.state == (name == "ver" ? .unsupportedVersion : .invalidClaims))
    }

    @Test func noClaimCanBeLeftOut() {
        for name in claims().members.keys.sorted() {
            var members = claims().members
            members[name] = nil
            #expect(throws: LicensingError.self, "\(name)") { _ = try LicenseClaims(members) }
        }
    }

    @Test func claimsThatAreNotKnownAreLeftAlone() throws {
        var members = claims().members
        members["later"] = .string("x")
        #expect(try LicenseClaims(members) == claims())
    }

    @Test func theEnginesLimitHolds() async throws {
        let unit = try Unit()
        var claims = claims()
        claims.modelMax.furl = 4_000_000_000
        claims.seats.furl = 167_772  // x 25 = 4,194,300
        _ = try await LicenseToken.sign(claims, with: unit.key)
        claims.seats.furl = 167_773
        do {
            _ = try await LicenseToken.sign(claims, with: unit.key)
            Issue.record("a licence over the limit was made")
        } catch {
            #expect(
                error.description
                    == "seats.furl: found 167773 active seats x 25 sessions = 4194325, expected at most 4194303 sessions, "
                    + "which is the engine's limit")
        }
    }

    @Test func capsAgreeWithArithmetic() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("capsAgreeWithArithmetic: seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        /// Small, large and absurd in equal parts.
        func number() -> Int {
            switch Int.random(in: 0..<4, using: &generator) {
            case 0: Int.random(in: -2...3, using: &generator)
            case 1: Int.random(in: 0...5000, using: &generator)
            case 2: Int.random(in: 0...5_000_000_000, using: &generator)
            default: [Int.max, Int.min, 4_194_303, 4_194_304].randomElement(using: &generator)!
            }
        }
        var accepted = 0
        for _ in 0..<20_000 {
            let (seats, ceiling, sessions) = (number(), number(), number())
            var members = claims().members
            let zero = JSONValue.integer(0)
            members["seats"] = .object(["furl": .integer(seats), "fnbi": zero, "fcas": zero])
            members["model_max"] = .object(["furl": .integer(ceiling), "fnbi": zero, "fcas": zero])
            members["sessions_per_seat"] = .integer(sessions)
            let wide = min(seats, ceiling).multipliedFullWidth(by: sessions)
            let fits = wide.high == 0 && wide.low <= 4_194_303
            let inRange =
                seats >= 0 && ceiling >= 0 && sessions >= 1 && max(seats, ceiling) <= 4_294_967_295 && sessions <= 4_194_303
            let read = try? LicenseClaims(members)
            #expect((read != nil) == (inRange && fits), "seats \(seats), model_max \(ceiling), sessions_per_seat \(sessions)")
            if let read {
                accepted += 1
                #expect(read.cap(of: .furl) == Int(wide.low))
                #expect(read.activeSeats(of: .furl) == min(seats, ceiling))
            }
        }
        #expect(accepted > 500)
    }

    @Test func typesHaveTheirPools() {
        #expect(LicenseType.allCases.map(\.poolIndex) == [0, 1, 2])
        #expect(LicenseType.allCases.map(\.rawValue) == ["furl", "fnbi", "fcas"])
    }

    @Test(arguments: [
        ("2027-01-31", 1_801_353_600), ("2027-01-31T12:00:01Z", 1_801_396_801), ("9999-12-31", Timestamp.never),
        ("1970-01-01", 0),
    ])
    func timesAreRead(_ text: String, _ seconds: Int) { #expect(Timestamp.parse(text) == seconds) }

    /// An end is shown as it was written, and its day is included.
    @Test(arguments: [
        ("2026-11-29", 1_795_996_800, "2026-11-29"), ("2026-11-29T00:00:00Z", 1_795_910_400, "2026-11-28"),
        ("2026-11-29T12:00:00Z", 1_795_953_600, "2026-11-29"), ("9999-12-31", Timestamp.never, "9999-12-31"),
        ("1970-01-01", 86_400, "1970-01-01"), ("2028-02-29", 1_835_481_600, "2028-02-29"),
    ])
    func ends(_ text: String, _ seconds: Int, _ lastDay: String) {
        #expect(Timestamp.parseEnd(text) == seconds)
        #expect(Timestamp.lastDay(before: seconds) == lastDay)
        #expect(Timestamp.endText(seconds) == (text == "2026-11-29T00:00:00Z" ? "2026-11-28" : text))
    }

    @Test(arguments: [
        "", "2027-02-29", "2027-1-31", "2027-01-31 12:00:00", "2027-01-31T12:00:00+01:00", "1969-12-31", "tomorrow",
    ])
    func otherTimesAreNot(_ text: String) { #expect(Timestamp.parse(text) == nil) }

    @Test func aClockCanSayAnything() {
        for seconds in [-1.0, .infinity, -.infinity, .nan, 1e300] {
            #expect(Timestamp.range.contains(Timestamp.seconds(Date(timeIntervalSince1970: seconds))), "\(seconds)")
        }
    }
}
