// A process that writes anywhere in the segment: nobody may die of it, or hang.

import CAdmission
import Foundation
import TestSupport
import Testing

@testable import Admission

@Suite(.serialized) struct FieldVandalTests {
    /// How long the slowest call of a kind took.
    private final class Watch {
        private(set) var slowest: (what: String, took: Duration) = ("nothing", .zero)

        func time<Result>(_ what: String, _ work: () throws -> Result) rethrows -> Result {
            let start = ContinuousClock.now
            defer {
                let took = ContinuousClock.now - start
                if took > slowest.took { slowest = (what, took) }
            }
            return try work()
        }
    }

    /// Everything that the daemon calls.
    private func look(_ keeper: Segment, _ settings: [PoolSettings], _ watch: Watch) throws -> Damage? {
        let pool = try keeper.pool(0)
        _ = watch.time("reap") { keeper.reap() }
        let damage = watch.time("audit") { keeper.audit(settings) }
        _ = watch.time("snapshot") { pool.snapshot() }
        _ = watch.time("conservation") { pool.conservation() }
        _ = watch.time("holdings") { pool.holdings() }
        _ = watch.time("writers") { pool.writers() }
        _ = watch.time("traffic") { pool.traffic() }
        _ = watch.time("processes") { keeper.processes() }
        _ = watch.time("claims") { keeper.claims(pool: 0) }
        _ = watch.time("claim") { (0..<Limits.processes).filter(keeper.holds).map { keeper.claim(pool: 0, slot: $0) } }
        _ = watch.time("taken") { pool.taken }
        _ = watch.time("handles") { keeper.handlesInUse() }
        watch.time("session") { pool.admit().end() }
        try watch.time("report") { if keeper.isAttached { try pool.report(bytesIn: 1, out: 1) } }
        if let handle = try? watch.time("handle", { try keeper.handle(pool.admit()) }) {
            try? watch.time("release") { try keeper.release(handle) }
        }
        return damage
    }

    private func comeAndGo(_ path: String, _ watch: Watch) {
        if let other = try? watch.time("attach", { try Segment.attach(path: path) }) { watch.time("leave") { other.detach() } }
    }

    /// - Parameter from: the vandal leaves what lies before it.
    private func round(
        _ seed: UInt64, from: Int, writes: Int, _ workers: [FieldWorker], _ watch: Watch
    ) throws -> (damage: Damage?, slowestWorker: Int) {
        let file = try TemporarySegment()
        let keeper = try file.attachKeeper()
        let pool = try keeper.pool(0)
        try pool.setCap(200)
        for worker in workers {
            try worker.say(file.path)
            #expect(try worker.line() == "attached")
        }
        for _ in 0..<40 { _ = try? keeper.handle(pool.admit()) }
        let vandal = try FieldWorker("vandal", file.path, "\(seed)", "\(writes)", "100", "\(from)")
        var damage: Damage?
        while vandal.child.status == nil {
            let found = try look(keeper, [PoolSettings(cap: 200)], watch)
            damage = damage ?? found
            comeAndGo(file.path, watch)
        }
        #expect(vandal.child.status == 0)
        // Marked as replaced, while others still write.
        let last = try FieldWorker("vandal", file.path, "\(seed)", "\(writes)", "100", "\(from)")
        watch.time("mark") { keeper.markReplaced(isSound: seed % 2 == 0) }
        watch.time("detach") { keeper.detach() }
        repeat {
            comeAndGo(file.path, watch)
            guard let next = try? watch.time("keeper", { try Segment.attachKeeper(path: file.path) }) else { continue }
            _ = try look(next, [], watch)
            watch.time("detach") { next.detach() }
        } while last.child.status == nil
        var slowest = 0
        for worker in workers {
            try worker.say("/nonexistent")
            let line = try worker.line()
            let numbers = line.split { !$0.isNumber }.compactMap { Int($0) }
            #expect(numbers.count == 2, "\(line)")
            slowest = max(slowest, numbers.first ?? 0)
            #expect(try worker.line().hasPrefix("failed"))
        }
        return (damage, slowest)
    }

    @Test(arguments: [0, Layout.pools, Layout.processes])
    func writesAnywhereStopNobody(from: Int) throws {
        let rounds = Int(ProcessInfo.processInfo.environment["FPX_VANDAL_ROUNDS"] ?? "") ?? 20
        let seed = UInt64.random(in: 0..<1_000_000)
        print("vandal: seed \(seed)")
        let workers = try (0..<2).map { _ in try FieldWorker("loop") }
        let watch = Watch()
        var slowestWorker = 0
        var seen: [String: Int] = [:]
        for number in 0..<rounds {
            let writes = [3, 30, 300][number % 3]
            let (damage, slowest) = try round(seed + UInt64(number), from: from, writes: writes, workers, watch)
            slowestWorker = max(slowestWorker, slowest)
            seen[damage.map { $0.word.prefix { !$0.isNumber }.description } ?? "none", default: 0] += 1
        }
        print("vandal from \(from): slowest \(watch.slowest), worker \(slowestWorker) us, damage \(seen)")
        #expect(workers.allSatisfy { $0.child.status == nil })
        #expect(
            Field.row(
                "audit.4", "random writes to all that lies behind byte \(from)",
                expected: "nobody dies, nobody hangs for 2 seconds",
                found: (workers.allSatisfy { $0.child.status == nil } ? "nobody dies" : "a worker died")
                    + (watch.slowest.took < .seconds(2) && slowestWorker < 2_000_000
                        ? ", nobody hangs for 2 seconds" : ", \(watch.slowest), worker \(slowestWorker) us")))
    }
}
