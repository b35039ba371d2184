import Dispatch
import SeatSharing
import Synchronization
import Testing

@testable import Simulator

@Suite struct SimulationTests {
    /// What worlds found, run on all cores: each is one of its own.
    ///
    /// - Returns: of each its violation, or nil.
    private static func concurrently(_ count: Int, _ run: @Sendable (Int) throws -> Violation?) throws -> [String?] {
        let results = Mutex([Result<String?, any Error>](repeating: .success(nil), count: count))
        DispatchQueue.concurrentPerform(iterations: count) { index in
            let result = Result { try run(index).map { "\($0)" } }
            results.withLock { $0[index] = result }
        }
        return try results.withLock { try $0.map { try $0.get() } }
    }

    @Test func theInvariantHolds() throws {
        let lent = Atomic(0)
        let violations = try Self.concurrently(30) { index in
            let world = try World(seed: UInt64(index + 1), options: World.Options(seconds: 60))
            let violation = world.run()
            if world.peakShared > 0 { lent.add(1, ordering: .relaxed) }
            return violation
        }
        #expect(violations == Array(repeating: nil, count: 30))
        // Worlds in which nothing is lent would show nothing.
        #expect(lent.load(ordering: .relaxed) > 20)
    }

    @Test func aSeedReplays() throws {
        let worlds = try (0..<2).map { _ in
            let world = try World(seed: 77, options: World.Options(seconds: 60))
            _ = world.run()
            return world
        }
        #expect(worlds[0].digest == worlds[1].digest)
        #expect(worlds[0].events == worlds[1].events)
    }

    /// Each rule is needed: without it the simulator finds a seat used twice, in a world that is in order with it.
    @Test(arguments: Mutations.all.map(\.name))
    func everyRuleIsNeeded(name: String) throws {
        let mutation = try #require(Mutations.all.first { $0.name == name }?.mutation)
        // Where to begin looking: any seed would do, and most of them take longer.
        let first: [String: UInt64] = [
            "noMargin": 42, "returnsFirst": 10, "oldGrants": 117, "oldReturns": 11, "anyIncarnation": 5, "restartFrees": 110,
            "renewsUnrecorded": 11, "anyDrained": 9, "noPauseDetector": 323, "noFence": 3, "forgetsLent": 24, "lendsAgain": 12,
            "unbounded": 5, "outlivesLicense": 8, "anyFactor": 6, "anyOrder": 149, "oldRecord": 64, "forcesNothing": 4,
        ]
        let begin = first[name] ?? 1
        for seed in begin..<begin + 300 {
            // Without the rule, and with it.
            let violations = try Self.concurrently(2) { index in
                let mutations = index == 0 ? mutation : []
                return try World(seed: seed, options: World.Options(seconds: 90, mutations: mutations, usurpers: 1)).run()
            }
            guard violations[0] != nil else { continue }
            #expect(violations[1] == nil)
            return
        }
        Issue.record("\(name) was not found in 300 seeds from \(begin)")
    }

    /// Seats lent come back to their owner without a word from the borrower, and not before the borrower's time has passed.
    @Test func whatWasLentComesBack() throws {
        let world = try World(seed: 4, options: World.Options(seconds: 60, policy: .byTime, mode: .ha72, faultsFrom: -1))
        #expect(world.run() == nil)
        for node in world.nodes { #expect(node.unit?.isConnected == true) }
        let bought = world.nodes.reduce(0) { $0 + $1.entitlement.purchased.furl }
        let primary = try #require(world.nodes.first)
        let reachable = min(bought, primary.entitlement.modelMax.furl)
        #expect(primary.bound(world.real).furl == reachable)
    }
}
