import CAdmission
import Foundation
import Testing

@testable import Admission

extension Segment {
    /// Leaves as a killed process does: the memory and with it the lock are gone, and all descriptors; nothing is given back.
    func abandon() {
        guard isAttached else { return }
        file.close()
        fpx_unguard_memory(memory.base)
        _ = fpx_map_nothing(memory.base, Layout.size(cpus: cpus))
    }
}

@Suite struct ReapTests {
    @Test func theDeadGiveBackWhatTheyHeld() throws {
        let file = try TemporarySegment()
        let reaper = try file.attach()
        let pool = try reaper.pool(0)
        try pool.setCap(1000)
        for round in 1...20 {
            let victim = try file.attach()
            let lane = try victim.openLane(pool: 0)
            var held = Sessions()
            for _ in 0..<(round * 17) { held.push(lane.admit()) }
            for _ in 0..<(round * 5) { held.push(try victim.pool(0).admit()) }
            expectConsistent(pool, inUse: round * 22)
            #expect(reaper.reap() == 0)
            victim.abandon()
            #expect(reaper.reap() == 1)
            #expect(reaper.reap() == 0)
            expectConsistent(pool, inUse: 0)
            #expect(pool.snapshot().free == 1000)
            held.endAll { lane.release($0) }  // of a memory that is gone: changes nothing
            expectConsistent(pool, inUse: 0)
        }
    }

    @Test func attachingReapsTheLastHolderOfTheSlot() throws {
        let file = try TemporarySegment()
        let victim = try file.attach()
        try victim.pool(5).setCap(10)
        var held = Sessions()
        for _ in 0..<10 { held.push(try victim.pool(5).admit()) }
        victim.abandon()
        let next = try file.attach()
        #expect(next.slot == victim.slot)
        expectConsistent(try next.pool(5), inUse: 0)
        #expect(try next.pool(5).snapshot().free == 10)
    }

    /// A transaction whose publisher died before applying it is applied by the next one, exactly once: every operation.
    @Test func publishedOperationsAreFinishedByOthers() throws {
        for operation in [
            Operation.adjust, .refill, .refillAndOpen, .refillAndOpenLocked, .grow, .fold,
        ] {
            let file = try TemporarySegment()
            let segment = try file.attach()
            let victim = try file.attach()
            let pool = try segment.pool(0)
            try pool.setCap(100)
            let lane = try victim.openLane(pool: 0)
            let one = lane.admit()
            // Publish as the victim would, and die.
            let engine = try victim.pool(0).engine
            let word = engine.begin()
            let opens = operation == .refillAndOpen || operation == .refillAndOpenLocked
            let closed = PoolEngine.firstLaneIndex + 3
            engine.memory.process(victim.slot, Layout.processLanes).insert(bits: 1 << 4)
            let takes = operation == .fold ? 0 : 7
            let next = PoolWord(
                free: word.free - takes, loose: word.loose + (opens ? 1 : 0), amount: 7, sequence: word.sequence + 1,
                target: Target(slot: victim.slot, index: operation == .fold ? PoolEngine.firstLaneIndex : closed),
                operation: operation)
            let pair = Pair(engine.record, at: Layout.poolWord)
            #expect(pair.compareAndSwap((word.low, word.high), (next.low, next.high)))
            victim.abandon()
            #expect(pool.conservation()?.holds == true)
            #expect(segment.reap() == 1)
            let after = pool.snapshot()
            #expect(after.free == 100 && after.looseWriters == 0, "\(operation) \(after)")
            _ = one.verdict
        }
    }

    /// The publisher of an operation that opens a gate stopped before applying it: the pool says loose, the gate is still tight.
    /// Others must neither wait for it nor go round in circles.
    @Test func aGateThatWasNotOpenedYetIsCollected() throws {
        let file = try TemporarySegment()
        let segments = try (0..<2).map { _ in try file.attach() }
        let pool = try segments[0].pool(0)
        try pool.setCap(100)
        pool.policy = .block
        let engine = try segments[1].pool(0).engine
        let index = PoolEngine.firstLaneIndex
        engine.memory.process(segments[1].slot, Layout.processLanes).insert(bits: 1 << 1)
        let word = engine.begin()
        let target = Target(slot: segments[1].slot, index: index)
        #expect(
            engine.publish(word, free: -100, loose: 1, .refillAndOpen, target: target, amount: 100) != nil)
        let lane = try segments[0].openLane(pool: 0)
        for _ in 0..<99 { #expect(lane.admit().detach() == .inspect) }
        #expect(lane.admit().detach() == .block)
        expectConsistent(pool, inUse: 100)
    }

    /// A reaper that died halfway is finished by the next.
    @Test func reapingIsRestartable() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let victim = try file.attach()
        let pool = try segment.pool(0)
        try pool.setCap(300)
        let lane = try victim.openLane(pool: 0)
        var held = Sessions()
        for _ in 0..<50 { held.push(lane.admit()) }
        for _ in 0..<50 { held.push(try victim.pool(0).admit()) }
        victim.abandon()
        // Half of it: one writer folded into the balance.
        let engine = pool.engine
        let writer = try #require(
            engine.writer(slot: victim.slot, index: PoolEngine.firstLaneIndex, kind: .lane))
        let word = engine.begin()
        #expect(
            engine.transact(word, .fold, target: writer.target, amount: writer.account.credit))
        expectConsistent(pool, inUse: pool.snapshot().inUse)
        #expect(segment.reap() == 1)
        #expect(pool.snapshot().free == 300)
    }

    @Test func aDebtIsSettledByTheReaper() throws {
        // Whoever lowered the cap died before collecting: spare sessions are left beside a debt.
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        pool.policy = .block
        try pool.setCap(1000)
        let lane = try segment.openLane(pool: 0)
        lane.release(lane.admit())
        let engine = pool.engine
        let word = engine.begin()
        #expect(engine.transact(word, free: -999, .cap, target: .none, amount: 1))
        #expect(pool.snapshot().free < 0)
        segment.reap()
        #expect(pool.snapshot().free == 1)
        let one = lane.admit()
        let two = lane.admit().verdict
        #expect(one.verdict == .inspect && two == .block)
        lane.release(one)
    }

    @Test func processesAreListed() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let other = try file.attach()
        let listed = segment.processes()
        #expect(listed.map(\.processID) == [Int(getpid()), Int(getpid())])
        #expect(listed.allSatisfy { $0.isAlive && $0.startTime > 0 })
        other.abandon()
        #expect(segment.processes().map(\.isAlive) == [true, false])
    }

    /// A forked child finds an empty mapping: it is refused, and touches nothing of its parent's.
    @Test func aForkedChildIsDetached() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        try pool.setCap(10)
        let lane = try segment.openLane(pool: 0)
        let session = lane.admit()
        let child = testFork()
        if child == 0 {
            // Only what is safe after fork: the engine neither allocates nor locks.
            let verdict = lane.admit().verdict
            let attached = segment.isAttached
            _exit(attached || verdict == .inspect ? 1 : 0)
        }
        var status: Int32 = -1
        #expect(waitpid(child, &status, 0) == child && status == 0)
        expectConsistent(pool, inUse: 1)
        lane.release(session)
        expectConsistent(pool, inUse: 0)
    }
}

/// fork(2), which Swift does not import.
private func testFork() -> pid_t {
    typealias Fork = @convention(c) () -> pid_t
    return unsafeBitCast(dlsym(nil, "fork"), to: Fork.self)()
}
