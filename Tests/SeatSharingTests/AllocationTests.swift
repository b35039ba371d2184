import SeatSharing
import TestSupport
import Testing

@Suite struct AllocationTests {
    // The examples of Doorman's doc/algorithms.md: capacity 120; wants 1000, 50 and 10.
    let wants = [1000, 50, 10]

    @Test func doormansFairShare() {
        #expect(Allocation.fill(from: [0, 0, 0], to: wants, weights: [1, 1, 1], total: 120) == [60, 50, 10])
    }

    @Test func doormansProportionalShare() {
        let shares = Allocation.proportionalShares(wants: wants, total: 120)
        #expect(shares.map { ($0 * 100).rounded() / 100 } == [69.69, 40.31, 10])
        #expect(Allocation.proportional(from: [0, 0, 0], to: wants, total: 120) == [70, 40, 10])
    }

    @Test func largestRemainder() {
        #expect(Allocation.largestRemainder(10, weights: [1, 1, 1]) == [4, 3, 3])
        #expect(Allocation.largestRemainder(5, weights: [6, 1, 3]) == [3, 1, 1])
        #expect(Allocation.largestRemainder(7, weights: [0, 0]) == [0, 0])
        #expect(Allocation.largestRemainder(0, weights: [3, 4]) == [0, 0])
    }

    @Test func remaindersGoToTheFirst() {
        #expect(Allocation.fill(from: [0, 0, 0], to: [9, 9, 9], weights: [1, 1, 1], total: 11) == [4, 4, 3])
        #expect(Allocation.fill(from: [5, 0, 0], to: [9, 9, 9], weights: [1, 1, 1], total: 11) == [5, 3, 3])
    }

    /// Against the slow way: seat by seat to whoever has least for its weight.
    @Test func fillIsMaxMinFair() {
        let seed = testSeed()
        var random = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            let count = Int.random(in: 1...7, using: &random)
            let lower = (0..<count).map { _ in Int.random(in: 0...10, using: &random) }
            let upper = lower.map { $0 + Int.random(in: 0...30, using: &random) }
            let weights = (0..<count).map { _ in Int.random(in: 1...9, using: &random) }
            let total = Int.random(in: 0...120, using: &random)
            let result = Allocation.fill(from: lower, to: upper, weights: weights, total: total)
            for index in 0..<count { #expect((lower[index]...upper[index]).contains(result[index]), "seed \(seed)") }
            let given = lower.reduce(0, +)
            let expected = max(given, min(total, upper.reduce(0, +)))
            #expect(result.reduce(0, +) == expected, "seed \(seed)")
            // Nobody who got more than it had is a whole seat better off, by weight, than one who wants more.
            for a in 0..<count where result[a] > lower[a] {
                for b in 0..<count where result[b] < upper[b] {
                    let (better, worse) = ((result[a] - 1) * weights[b], (result[b] + 1) * weights[a])
                    #expect(better < worse, "seed \(seed)")
                }
            }
        }
    }

    @Test func proportionalStaysWithinWants() {
        let seed = testSeed()
        var random = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            let count = Int.random(in: 1...7, using: &random)
            let lower = (0..<count).map { _ in Int.random(in: 0...10, using: &random) }
            let upper = lower.map { $0 + Int.random(in: 0...30, using: &random) }
            let total = Int.random(in: 0...120, using: &random)
            let result = Allocation.proportional(from: lower, to: upper, total: total)
            for index in 0..<count { #expect((lower[index]...upper[index]).contains(result[index]), "seed \(seed)") }
            let expected = max(lower.reduce(0, +), min(total, upper.reduce(0, +)))
            #expect(result.reduce(0, +) == expected, "seed \(seed)")
        }
    }
}
