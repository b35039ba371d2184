import SeatSharing
import TestSupport
import Testing

@Suite struct RowTests {
    private var sample: Row {
        var sample = row("FPX1", .root, purchased: 40, preferences: Preferences(global: Seats(5), members: ["FPX2": Seats(9)]))
        sample.grants = [Grant(borrower: "FPX2", incarnation: 9, number: 4, seats: Seats(3), keep: .forever)]
        sample.holdings = [Holding(lender: "FPX3", through: 2, seats: .zero)]
        return sample
    }
    private let key = "pool/LIC1/m/FPX1"

    private func problem(_ change: (String) -> String, key: String? = nil, mode: SharingMode = .fabric) -> String? {
        let text = change(String(decoding: sample.encoded, as: UTF8.self))
        do throws(SharingError) {
            _ = try Row(key: key ?? self.key, value: Array(text.utf8), cluster: "LIC1", mode: mode)
            return nil
        } catch {
            return error.description
        }
    }

    @Test func comesBackAsItWas() throws {
        #expect(try Row(key: key, value: sample.encoded, cluster: "LIC1", mode: .fabric) == sample)
    }

    @Test func namesWhatIsWrong() {
        let name = "\"pool/LIC1/m/FPX1\": "
        #expect(problem({ $0 }) == nil)
        #expect(problem({ $0 }, key: "pool/LIC1/x") == "\"pool/LIC1/x\": no member's key, expected pool/LIC1/m/SERIAL")
        #expect(problem({ $0 }, key: "pool/LIC1/m/A/B") == "\"pool/LIC1/m/A/B\": no member's key, expected pool/LIC1/m/SERIAL")
        #expect(
            problem({ $0 }, key: "pool/LIC1/m/FPX2") == "\"pool/LIC1/m/FPX2\": a row of unit \"FPX1\", expected \"FPX2\"")
        #expect(problem({ $0 }, mode: .ha72) == name + "shares by fabric, expected ha-7.2")
        #expect(problem { $0.replacing("LIC1", with: "LIC2") } == name + "a row of pool \"LIC2\", expected \"LIC1\"")
        #expect(
            problem { $0.replacing("\"version\":3", with: "\"version\":2") } == name + "found protocol version 2, expected 3")
        #expect(
            problem { $0.replacing("\"version\":3", with: "\"version\":\"3\"") } == name
                + "found protocol version \"3\", expected 3")
        #expect(
            problem { $0.replacing("\"used\":[0,0,0]", with: "\"used\":[0,0,-1]") }
                == name + "used: found -1, expected a whole number from 0 to 1000000")
        #expect(
            problem { $0.replacing("\"used\":[0,0,0]", with: "\"used\":[0,0]") } == name
                + "used: found a list of 2, expected a list of 3 numbers")
        #expect(
            problem { $0.replacing("\"role\":\"root\"", with: "\"role\":\"king\"") } == name
                + "role: found \"king\", expected root, member, primary, secondary")
        #expect(
            problem { $0.replacing("\"entitled\"", with: "\"entitled2\"") } == name
                + "entitled: found nothing, expected true or false")
        #expect(
            problem { $0.replacing("{\"version\":3,", with: "{\"version\":3,\"more\":1,") } == name
                + "\"more\": found a member of that name, expected none")
        #expect(
            problem { $0.replacing("\"own\":[40,", with: "\"own\":[41,") } == name
                + "own: found 41/40/40, expected no more than purchased")
        #expect(problem { $0.replacing("\"own\":[40,", with: "\"own\":[4.5,") }?.hasSuffix("expected a whole number") == true)
        #expect(problem { _ in "" }?.hasSuffix("found the end at byte 0, expected a value") == true)
        #expect(problem { _ in "[]" } == name + "row: found a list of 0, expected an object")
        #expect(problem { _ in String(repeating: "[", count: 100) }?.hasSuffix("expected at most 8 levels") == true)
        #expect(problem { $0 + String(repeating: " ", count: 300_000) }?.hasSuffix("expected at most 262144") == true)
        #expect(
            problem { $0.replacing("[\"FPX3\",2,", with: "[\"FPX3\",1,[0,0,0]],[\"FPX3\",2,") } == name
                + "holdings: found \"FPX3\" twice, expected each unit once")
        #expect(
            problem { $0.replacing("{\"version\":3,", with: "{\"version\":3,\"version\":2,") }?.contains("\"version\" twice")
                == true)
    }

    /// Cut anywhere, or with any byte changed, it is refused or means a row; it never traps.
    @Test func damageNeverTraps() {
        let bytes = sample.encoded
        for count in 0..<bytes.count {
            #expect(throws: SharingError.self) {
                _ = try Row(key: key, value: Array(bytes[..<count]), cluster: "LIC1", mode: .fabric)
            }
        }
        let seed = testSeed()
        var random = SeededGenerator(seed: seed)
        for _ in 0..<5000 {
            var damaged = bytes
            for _ in 0...Int.random(in: 0..<3, using: &random) {
                damaged[Int.random(in: 0..<damaged.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            if let row = try? Row(key: key, value: damaged, cluster: "LIC1", mode: .fabric) {
                #expect(try! Row(key: key, value: row.encoded, cluster: "LIC1", mode: .fabric) == row, "seed \(seed)")
            }
        }
    }

    /// A Kelvin sign is equal to a K for Swift, and another key for etcd.
    @Test func aKeyThatOnlyLooksLikeOneTakesNobodysPlace() throws {
        var reader = PoolReader(cluster: "LIC1", mode: .fabric, term: 30 * .second, sessionsPerSeat: 25)
        var row = sample
        row.serial = "FPXK"
        let own = "pool/LIC1/m/FPXK", foreign = "pool/LIC1/m/FPX\u{212A}"
        let pool = try reader.read(
            [
                KeyValue(key: own, value: row.encoded, revision: 3, proof: proof("FPXK")),
                KeyValue(key: foreign, value: [], revision: 4, proof: proof("FPXK")),
            ], revision: 5, now: Instant(0))
        #expect(pool.rows == [row] && pool.revisions == ["FPXK": 3])
        #expect(pool.problems == [.foreignKey(key: foreign, expected: "pool/LIC1/m/SERIAL")])
    }

    @Test func lateAnswersAreRefused() throws {
        var reader = PoolReader(cluster: "LIC1", mode: .fabric, term: 30 * .second, sessionsPerSeat: 25)
        _ = try reader.read([], revision: 5, now: Instant(0))
        #expect(throws: SharingError.oldRevision(found: 4, expected: 5)) { try reader.read([], revision: 4, now: Instant(1)) }
    }

    @Test func whoDoesNotSpeakIsStale() throws {
        var reader = PoolReader(cluster: "LIC1", mode: .fabric, term: 30 * .second, sessionsPerSeat: 25)
        func value(_ sequence: Int, revision: Int) -> KeyValue {
            var row = sample
            row.sequence = sequence
            return KeyValue(key: key, value: row.encoded, revision: revision, proof: proof("FPX1"))
        }
        func isStale(_ value: KeyValue, revision: Int, seconds: Nanoseconds) throws -> [Bool] {
            try reader.read([value], revision: revision, now: Instant(seconds * .second)).isStale
        }
        #expect(try isStale(value(1, revision: 3), revision: 5, seconds: 0) == [false])
        #expect(try isStale(value(1, revision: 3), revision: 6, seconds: 15) == [false])
        #expect(try isStale(value(1, revision: 3), revision: 7, seconds: 16) == [true])
        // Somebody has put the same row there again.
        #expect(try isStale(value(1, revision: 8), revision: 8, seconds: 16) == [true])
        #expect(try isStale(value(2, revision: 9), revision: 9, seconds: 17) == [false])
    }

    @Test func policies() throws {
        #expect(try Policy("time") == .byTime)
        #expect(try Policy("ack-only") == .acknowledgedOnly)
        #expect(try Policy("recovery 14d") == .recovery(14 * 86400 * .second))
        for text in [
            "", "recovery", "recovery 0d", "recovery 366d", "recovery 14", "recovery d", "recovery  14d",
            "recovery 99999999999999999999d",
        ] {
            #expect(throws: SharingError.self) { try Policy(text) }
        }
    }
}
