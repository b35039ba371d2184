import Foundation
import LicenseClient
import Licensing
import TestSupport
import Testing

/// What may become of an answer on its way: bytes changed, lost, doubled, moved.
@Suite struct SpoiltAnswerTests {
    /// An answer is taken whole or not at all. `ROUNDS=5000 SEED=1` for more of them.
    @Test func spoiltAnswers() async throws {
        let rounds = ProcessInfo.processInfo.environment["ROUNDS"].flatMap { Int($0) } ?? 150
        let seed = testSeed()
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let station = try await Station(answerSeconds: 1)
        var epoch = try await station.renew(epoch: 1)
        var taken = 0
        for round in 0..<rounds {
            let forge = Forge(station, epoch: epoch + 1)
            let spoil = Spoil(using: &random)
            station.server.react { question in
                guard let bytes = try? await forge.bytes(for: question) else { return .silence }
                return .send(spoil.apply(to: bytes))
            }
            let before = station.everything
            switch await station.renewal.renew() {
            case .success(let renewal):
                // What was spoilt did not matter: a letter of the reason phrase, the name of a header that nobody reads.
                #expect(renewal.epoch == epoch + 1, "round \(round) of seed \(seed): \(spoil)")
                epoch += 1
                taken += 1
            case .failure(let error):
                #expect(station.everything == before, "round \(round) of seed \(seed): \(spoil)")
                let text = "\(error)".unicodeScalars
                #expect(text.allSatisfy { $0.properties.generalCategory != .control }, "round \(round) of seed \(seed)")
            }
            #expect(station.keeper.status().state == .active && station.keeper.status().claims?.epoch == epoch)
        }
        #expect(taken < rounds / 2)
    }

    private struct Spoil {
        enum Kind: CaseIterable { case flip, cut, double, drop, zeros, digit }
        let kind: Kind
        /// Of the whole, 0 to 1.
        let place: Double
        let length: Int
        let bit: UInt8

        init(using random: inout SeededGenerator) {
            kind = Kind.allCases.randomElement(using: &random) ?? .flip
            place = .random(in: 0..<1, using: &random)
            length = .random(in: 1...40, using: &random)
            bit = 1 << UInt8.random(in: 0...7, using: &random)
        }

        func apply(to bytes: [UInt8]) -> [UInt8] {
            var bytes = bytes
            let start = Int(place * Double(bytes.count))
            let range = start..<min(start + length, bytes.count)
            switch kind {
            case .flip: bytes[start] ^= bit
            case .cut: bytes.removeSubrange(start...)
            case .double: bytes.insert(contentsOf: bytes[range], at: start)
            case .drop: bytes.removeSubrange(range)
            case .zeros: for index in range { bytes[index] = 0 }
            case .digit: bytes[start] = UInt8(ascii: "9")
            }
            return bytes
        }
    }
}
