import Foundation
import Testing

@testable import Admission

@Suite struct KeeperTests {
    private func segment(cap: Int) throws -> (TemporarySegment, observer: Segment, pool: Pool) {
        let file = try TemporarySegment()
        let observer = try file.attach()
        let pool = try observer.pool(0)
        try pool.setCap(cap)
        return (file, observer, pool)
    }

    @Test func aSegmentHasOneKeeper() throws {
        let (file, observer, _) = try segment(cap: 10)
        let keeper = try file.attachKeeper()
        #expect(keeper.slot == 511)
        #expect(throws: SegmentError.keeper(path: file.path, processID: Int(getpid()))) {
            try file.attachKeeper()
        }
        keeper.detach()
        #expect(try file.attachKeeper().slot == 511)
        withExtendedLifetime(observer) {}
    }

    @Test func namedSessionsOutliveTheKeeperAndNothingElseDoes() throws {
        let (file, observer, pool) = try segment(cap: 1000)
        var named: Set<SessionHandle> = []
        for round in 0..<20 {
            let keeper = try file.attachKeeper()
            #expect(Set(keeper.handlesInUse()) == named)
            expectConsistent(pool, inUse: named.count)
            let own = try keeper.pool(0)
            for _ in 0..<(10 + round) { named.insert(try #require(try keeper.handle(own.admit()))) }
            for handle in named.shuffled().prefix(7) {
                try keeper.release(handle)
                named.remove(handle)
            }
            // What a death between admission and handle leaves, and one between a handle's end and its session's.
            var lost = Sessions()
            for _ in 0..<round { lost.push(own.admit()) }
            let victims = named.prefix(round % 3)
            for handle in victims {
                let entry = keeper.memory.entry(handle.entry, of: keeper.slot)
                entry.store(Entry.with(Entry.free, entry.load()))
                named.remove(handle)
            }
            if round % 2 == 0 { keeper.abandon() } else { keeper.detach() }
            #expect(observer.reap() == 0)
            // Until the next keeper comes nothing is lost, and what is free is free.
            #expect(pool.snapshot().inUse == named.count + round + victims.count)
            #expect(pool.conservation()?.holds == true)
            lost.endAll { $0.end() }  // of a memory that is gone: changes nothing
        }
        let last = try file.attachKeeper()
        for handle in last.handlesInUse() { try last.release(handle) }
        expectConsistent(pool, inUse: 0)
        #expect(pool.snapshot().free + pool.snapshot().spare == 1000)
    }

    @Test func othersUseWhatADeadKeeperHadSpare() throws {
        let (file, observer, pool) = try segment(cap: 200)
        let keeper = try file.attachKeeper()
        let handle = try #require(try keeper.handle(try keeper.pool(0).admit()))
        keeper.abandon()
        var held = Sessions()
        for _ in 0..<199 { held.push(pool.admit()) }
        #expect(pool.snapshot().inUse == 200)
        #expect(pool.admit().verdict == .bypass)
        // A session of the dead keeper can be ended by anybody.
        try observer.release(handle)
        held.push(pool.admit())
        expectConsistent(pool, inUse: 200)
        let next = try file.attachKeeper()
        #expect(next.handlesInUse() == [])
        expectConsistent(pool, inUse: 200)
        held.endAll { $0.end() }
        expectConsistent(pool, inUse: 0)
    }

    @Test func theBypassGaugeIsWhatTheHandlesSay() throws {
        let (file, _, pool) = try segment(cap: 2)
        var keeper = try file.attachKeeper()
        var handles: [SessionHandle] = []
        for _ in 0..<7 { handles.append(try #require(try keeper.handle(try keeper.pool(0).admit()))) }
        _ = try keeper.pool(0).admit().detach()  // bypassed, and lost
        keeper.abandon()
        keeper = try file.attachKeeper()
        #expect(pool.snapshot().inUse == 2)
        #expect(pool.snapshot().bypassed == 5)
        for handle in handles { try keeper.release(handle) }
        #expect(pool.snapshot().inUse == 0)
        #expect(pool.snapshot().bypassed == 0)
    }

    @Test func aReleaseCutShortIsFinishedByTheNextKeeper() throws {
        let (file, observer, pool) = try segment(cap: 10)
        let keeper = try file.attachKeeper()
        let handles = try (0..<4).map { _ in try #require(try keeper.handle(try keeper.pool(0).admit())) }
        keeper.abandon()
        let entry = observer.memory.entry(handles[1].entry, of: handles[1].slot)
        entry.store(Entry.with(Entry.releasing, entry.load()))  // its releaser died here
        let next = try file.attachKeeper()
        expectConsistent(pool, inUse: 3)
        #expect(Set(next.handlesInUse()) == [handles[0], handles[2], handles[3]])
        #expect(!next.isInUse(handles[1]))
        #expect(next.isInUse(handles[2]))
    }

    /// Handles are released by another process all the while the slot changes hands.
    @Test func takingOverUnderForeignReleases() throws {
        let (file, observer, pool) = try segment(cap: 50_000)
        let keeper = try file.attachKeeper()
        let handles = try (0..<20_000).map { _ in try #require(try keeper.handle(try keeper.pool(0).admit())) }
        var lost = Sessions()
        for _ in 0..<50 { lost.push(try keeper.pool(0).admit()) }
        keeper.abandon()
        let releaser = Thread {
            for handle in handles.prefix(15_000) { try? observer.release(handle) }
        }
        releaser.start()
        for _ in 0..<10 { try file.attachKeeper().abandon() }
        while !releaser.isFinished { usleep(1000) }
        let last = try file.attachKeeper()
        expectConsistent(pool, inUse: 5000)
        #expect(Set(last.handlesInUse()) == Set(handles.dropFirst(15_000)))
        lost.endAll { $0.end() }  // of a memory that is gone: changes nothing
    }
}
