import Foundation
import TestSupport
import Testing

@testable import SPOE

/// Conversations of haproxy, kept in the folder Corpus, and what becomes of them when bytes are changed.
@Suite struct FuzzTests {
    static let corpus = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Corpus")

    static func seeds() throws -> [(name: String, bytes: [UInt8])] {
        try FileManager.default.contentsOfDirectory(at: corpus, includingPropertiesForKeys: nil)
            .sorted { $0.path < $1.path }.map { ($0.lastPathComponent, Array(try Data(contentsOf: $0))) }
    }

    static func mutate(_ bytes: [UInt8], with others: [[UInt8]], using random: inout SeededGenerator) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int.random(in: 1...8, using: &random) where !bytes.isEmpty {
            let place = Int.random(in: 0..<bytes.count, using: &random)
            switch Int.random(in: 0..<7, using: &random) {
            case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 1: bytes[place] = [0, 1, 3, 127, 128, 239, 240, 255].randomElement(using: &random) ?? 0
            case 2: bytes.remove(at: place)
            case 3: bytes.insert(.random(in: 0...255, using: &random), at: place)
            case 4: bytes.removeLast(bytes.count - place)
            case 5: bytes += bytes[place...]
            default: bytes += others.randomElement(using: &random) ?? []
            }
        }
        return bytes
    }

    /// A conversation ends with the protocol's own words or goes on; its output is always whole frames within the limit, and
    /// what it keeps is bounded.
    static func converse(_ bytes: [UInt8], cut: Int, _ context: String) {
        var connection = SPOPConnection(maxFrameSize: 1024)
        var output: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: cut) {
            output += connection.receive(Array(bytes[start..<min(start + cut, bytes.count)])) { message in
                message.name == "fpx-admit" ? [SPOPSetVariable(name: "verdict", value: .string("inspect"))] : []
            }
        }
        let frames = SPOPTestFrame.split(output)
        #expect(frames != nil, "\(context)")
        #expect(frames?.allSatisfy { $0.encoded.count <= 1024 + 4 } == true, "\(context)")
        if case .closed(let status) = connection.phase, !connection.isHealthcheck {
            #expect(frames?.last == SPOPFrame.disconnect(status), "\(context)")
        }
    }

    @Test func theCorpusItself() throws {
        let seeds = try Self.seeds()
        #expect(seeds.count >= 10)
        for (name, bytes) in seeds {
            for cut in [1, 7, 4096] { Self.converse(bytes, cut: cut, name) }
        }
    }

    @Test func mutations() throws {
        let seed = testSeed()
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let seeds = try Self.seeds()
        let all = seeds.map(\.bytes)
        for round in 0..<20_000 {
            let (name, bytes) = seeds[round % seeds.count]
            let mutant = Self.mutate(bytes, with: all, using: &random)
            Self.converse(mutant, cut: Int.random(in: 1...64, using: &random), "seed \(seed) round \(round) of \(name)")
        }
    }
}
