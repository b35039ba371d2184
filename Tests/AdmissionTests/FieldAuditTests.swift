// What the keeper's audit says: nothing of a healthy segment, whatever its processes do, and the truth of a damaged one.

import CAdmission
import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Admission

@Suite(.serialized) struct FieldAuditTests {
    /// Threads that admit on one writer and end on another, while a flag is set.
    private func load(_ segments: [Segment], until isOver: borrowing Atomic<Bool>) {
        DispatchQueue.concurrentPerform(iterations: 2) { thread in
            let segment = segments[thread]
            guard let pool = try? segment.pool(0), let lane = try? segment.openLane(pool: 0),
                let other = try? segment.openLane(pool: 0)
            else { return }
            var random = SeededGenerator(seed: UInt64(thread))
            while !isOver.load(ordering: .relaxed) {
                let count = Int(random.next() % 100)
                switch random.next() % 4 {
                case 0:
                    for _ in 0..<count { other.release(lane.admit().detach()) }
                case 1:
                    for _ in 0..<count { lane.release(pool.admit().detach()) }
                case 2:
                    let verdicts = (0..<count).map { _ in lane.admit().detach() }
                    for verdict in verdicts { pool.release(verdict) }
                default:
                    for _ in 0..<count {
                        if let handle = try? segment.handle(other.admit()) { try? segments[1 - thread].release(handle) }
                    }
                }
            }
        }
    }

    /// One thread of the keeper audits without a pause, and changes caps and loans; processes are killed, stopped and forbidden
    /// to fence meanwhile.
    @Test func aHealthySegmentIsNeverDamaged() throws {
        let file = try TemporarySegment()
        let keeper = try file.attachKeeper()
        let segments = try (0..<2).map { _ in try file.attach() }
        let pool = try keeper.pool(0)
        let isOver = Atomic(false)
        let done = DispatchSemaphore(value: 0)
        Thread {
            load(segments, until: isOver)
            done.signal()
        }.start()
        Thread {
            while !isOver.load(ordering: .relaxed) { keeper.reap() }
            done.signal()
        }.start()
        var workers = try (0..<2).map { _ in try runningWorker(file.path) }
        let forbidden = try FieldWorker("forbidden", file.path, "1")
        var random = SeededGenerator(seed: 7)
        var settings = PoolSettings()
        var audits = 0
        var found: Damage?
        let end = ContinuousClock.now + .seconds(6)
        while ContinuousClock.now < end, found == nil {
            found = keeper.audit([settings])
            audits += 1
            if audits % 20 == 0 { try change(pool, &settings, &random) }
            if audits % 50 == 0 { try disturb(&workers, &random, file.path) }
            if audits % 30 == 0 {
                _ = try forbidden.line()
                try forbidden.say()
            }
        }
        isOver.store(true, ordering: .relaxed)
        for _ in 0..<2 { done.wait() }
        #expect(audits > 500)
        #expect(
            Field.row(
                "audit.1", "audits under load, kills, stops, changed caps and loans, frozen gates", expected: "no damage",
                found: found.map { "\($0)" } ?? "no damage"))
        workers = []
        #expect(try forbidden.end() == 0)
        keeper.reap()
        expectConsistent(pool, inUse: 0)
    }

    private func runningWorker(_ path: String) throws -> FieldWorker {
        let worker = try FieldWorker("loop")
        try worker.say(path)
        #expect(try worker.line() == "attached")
        return worker
    }

    private func change(_ pool: Pool, _ settings: inout PoolSettings, _ random: inout SeededGenerator) throws {
        settings.cap = [1, 10, 100, 1000, 5000].randomElement(using: &random)!
        settings.borrowed = [0, 0, 5, 300].randomElement(using: &random)!
        settings.deadline = Int64(fpx_boottime_milliseconds() + random.next() % 10) * 1_000_000
        settings.policy = Bool.random(using: &random) ? .block : .bypass
        pool.policy = settings.policy
        try pool.setCap(settings.cap, borrowed: settings.borrowed, until: settings.deadline)
    }

    private func disturb(_ workers: inout [FieldWorker], _ random: inout SeededGenerator, _ path: String) throws {
        let index = Int(random.next() % UInt64(workers.count))
        let process = workers[index].child.processID
        if Bool.random(using: &random) {
            kill(process, SIGSTOP)
            usleep(UInt32(random.next() % 2000))
            kill(process, SIGCONT)
        } else {
            kill(process, SIGKILL)
            workers[index] = try runningWorker(path)
        }
    }

    /// Sessions that begin on one lane and end on others: their credit gathers in the balance until it has been folded back.
    @Test func creditThatDriftsIsNoDamage() throws {
        let file = try TemporarySegment()
        let keeper = try file.attachKeeper()
        let worker = try file.attach()
        let pool = try keeper.pool(0)
        try pool.setCap(Limits.cap)
        let settings = [PoolSettings(cap: Limits.cap)]
        let engine = try worker.pool(0).engine
        func drift(_ lane: Int, by change: Int) throws -> Writer {
            let writer = try #require(
                engine.writer(slot: worker.slot, index: PoolEngine.firstLaneIndex + lane, kind: .lane))
            engine.markUsed(writer)
            #expect(engine.transact(engine.begin(), free: -change, .grow, target: writer.target, amount: change))
            return writer
        }
        // Each ends just less than what would be folded, as many as the first one begins meanwhile.
        for lane in 1...12 {
            let first = try drift(0, by: PoolEngine.foldAt - 64)
            let folded = first.account.credit
            #expect(engine.transact(engine.begin(), .fold, target: first.target, amount: folded))
            _ = try drift(lane, by: 64 - PoolEngine.foldAt)
        }
        #expect(engine.balance(worker.slot).account.credit > 3 * Limits.cap / 2)
        let found = keeper.audit(settings)
        #expect(
            Field.row(
                "audit.2", "12 million sessions begin on one lane and end on others", expected: "no damage",
                found: found.map { "\($0)" } ?? "no damage"))
    }

    /// Sessions that were never admitted end: one write of a writer's word gives more than the cap.
    @Test func eachKindOfDamageIsNamed() throws {
        func found(_ damage: (Victim) -> Void) throws -> String {
            let file = try TemporarySegment()
            let keeper = try file.attachKeeper()
            let worker = try file.attach()
            let pool = try keeper.pool(0)
            try pool.setCap(1000)
            let lane = try worker.openLane(pool: 0)
            for _ in 0..<100 { _ = lane.admit().detach() }
            #expect(keeper.audit([PoolSettings(cap: 1000)]) == nil)
            let engine = try worker.pool(0).engine
            let writer = try #require(
                engine.writer(slot: worker.slot, index: PoolEngine.firstLaneIndex + lane.index, kind: .lane))
            damage(Victim(engine: engine, writer: writer))
            return keeper.audit([PoolSettings(cap: 1000)]).map { "\($0)" } ?? "no damage"
        }
        func row(_ what: String, _ expected: String, _ damage: (Victim) -> Void) throws {
            let text = try found(damage)
            #expect(
                Field.row("audit.3", what, expected: expected, found: text.contains(expected) ? expected : text), "\(text)")
        }
        func credit(_ pair: Pair, _ change: Int) {
            let old = pair.account
            let new = Account(bound: old.bound, phase: old.phase, credit: old.credit + change, sequence: old.sequence)
            #expect(pair.compareAndSwap((old.low, old.high), (new.low, new.high)))
        }
        try row("a mark that no pool has", "mark of pool 9223372036854775807") {
            $0.engine.memory.header(Layout.headerDamage).store(1 << 63)
        }
        try row("more free sessions than the cap", "free sessions of pool 0 5000") {
            $0.engine.low.store($0.engine.low.load() &+ UInt64(5000 - $0.engine.loadPool().free) << 41)
        }
        try row("a few free sessions more", "free and granted sessions of pool 0") {
            $0.engine.low.store($0.engine.low.load() &+ 3 << 41)
        }
        try row("a writer's credit", "free and granted sessions of pool 0") { credit($0.writer.pair, -7) }
        try row("releases that nobody made", "spare sessions beyond all that were granted of pool 0") {
            $0.writer.released.add(500)
        }
        try row("releases beyond reason", "spare sessions of a writer of pool 0") { $0.writer.released.add(1 << 30) }
        try row("a gate's phase", "phase 7 and credit of writer") { $0.writer.gate.insert(bits: 7) }
        try row("the cap", "cap of pool 0 2000, expected 1000") { credit($0.engine.capAccount, 1000) }
        try row("the policy", "policy of pool 0 9") { $0.engine.policy.store(9) }
        try row("a loan that nobody gave", "borrowed sessions of pool 0 77") {
            $0.engine.loanWord.store(Loan(sessions: 77, deadline: Loan.latest).rawValue)
        }
        try row("an operation that there is not", "operation of pool 0") { $0.engine.high.insert(bits: 15) }
        try row("the count of loose writers", "number of open gates of pool 0") {
            $0.engine.low.store($0.engine.low.load() &+ 5 << 23)
        }
        try row("the header", "version") { $0.engine.memory.header(Layout.headerVersion).store(9) }
        try row("a mark of who gave up", "mark of pool 0") { $0.engine.markDamaged() }
    }

    private struct Victim {
        let engine: PoolEngine
        let writer: Writer
    }
}
