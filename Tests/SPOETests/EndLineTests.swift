import Foundation
import TestSupport
import Testing

@testable import SPOE

@Suite struct EndLineTests {
    private func lines(_ input: String, cut: Int? = nil) -> (lines: [String], garbage: Int) {
        var parser = EndLineParser()
        let bytes = Array(input.utf8)
        let parts = cut.map { [Array(bytes.prefix($0)), Array(bytes.dropFirst($0))] } ?? [bytes]
        let lines = parts.flatMap { parser.receive($0) }.map { String(decoding: $0, as: UTF8.self) }
        return (lines, parser.garbage)
    }

    @Test func octetCountedLines() {
        let cases: [(String, [String], Int)] = [
            ("8 END a --", ["END a --"], 0), ("9 END a --\n8 END b --", ["END a --", "END b --"], 0),
            ("17 END a --\nEND b --", ["END a --", "END b --"], 0), ("3 \n\n\n5 END c", ["END c"], 0), ("", [], 0),
            ("12", [], 0),
            ("5 END", [], 0), ("garbage", [], 1), ("garbage\n5 END a", ["END a"], 1), ("0 x\n5 END a", ["END a"], 1),
            ("99999 x\n5 END a", ["END a"], 1), ("1234567 x\n5 END a", ["END a"], 1), (" 5 END b\n5 END a", ["END a"], 1),
            ("<134>1 END a\nEND b\n5 END c", ["END c"], 2), ("5END a\n", [], 1), ("65535 x", [], 0), ("65536 x\n", [], 1),
            ("05 END a\n", [], 1), ("022226 x\n", [], 1),
        ]
        for (input, expected, garbage) in cases {
            for cut in [nil] + Array(0...input.utf8.count) {
                // Garbage is skipped to the end of its line or of what has come, so there a cut makes a difference.
                guard cut == nil || garbage == 0 else { continue }
                let found = lines(input, cut: cut)
                #expect(found.lines == expected, "\(input) cut at \(cut ?? -1)")
                #expect(found.garbage == garbage, "\(input)")
            }
        }
    }

    /// Six digits are refused whether they come alone or with what follows.
    @Test func aLengthHasNoZerosBeforeIt() {
        for cut in [nil, 6] { #expect(lines("022226 x", cut: cut).garbage >= 1) }
    }

    @Test func endLines() throws {
        func line(_ text: String) -> EndLine? { EndLine(Array(text.utf8)) }
        let plain = try #require(line("END 1:2:3"))
        #expect(plain.id == Array("1:2:3".utf8) && plain.verdict == nil)
        #expect(line("END a --")?.verdict == nil)
        #expect(line("END a -- inspect")?.verdict == "inspect")
        #expect(line("END a CD -")?.verdict == "-")
        let metered = try #require(line("END a -- inspect 12 0"))
        #expect(metered.verdict == "inspect" && metered.bytesIn == 12 && metered.bytesOut == 0)
        for (text, bytesIn, bytesOut) in [
            ("END a -- bypass", nil, nil), ("END a -- bypass - 7", nil, 7), ("END a -- bypass 1e3 0x7", nil, nil),
            ("END a -- bypass -1 \(Int.max)", -1, Int.max), ("END a -- bypass 9223372036854775808 \u{0}", nil, nil),
        ] as [(String, Int?, Int?)] {
            let found = try #require(line(text), "\(text)")
            #expect(found.verdict == "bypass" && found.bytesIn == bytesIn && found.bytesOut == bytesOut, "\(text)")
        }
        for bad in ["", "END", "end a", "ENDa", "END a b c 1", "END a b c 1 2 3", "START a --", "GET / HTTP/1.1"] {
            #expect(line(bad) == nil)
        }
    }

    /// Whatever comes: no trap, bounded memory, and whole lines behind garbage are found again.
    @Test func anyBytes() {
        let seed = testSeed()
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let alphabet = Array("0123456789 \nEND ab-".utf8) + [0, 255]
        for _ in 0..<2000 {
            var parser = EndLineParser()
            for _ in 0..<Int.random(in: 1...5, using: &random) {
                let bytes = (0..<Int.random(in: 0...60, using: &random)).map { _ in alphabet.randomElement(using: &random) ?? 0
                }
                _ = parser.receive(bytes)
            }
            // A line end, and the longest message that the parser can be in the middle of.
            _ = parser.receive([UInt8](repeating: UInt8(ascii: "\n"), count: EndLineParser.messageBytes + 8))
            let found = parser.receive(Array("\n5 END z".utf8)).map { String(decoding: $0, as: UTF8.self) }
            #expect(found == ["END z"], "seed \(seed)")
        }
    }
}
