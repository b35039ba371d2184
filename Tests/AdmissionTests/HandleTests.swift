import Foundation
import TestSupport
import Testing

@testable import Admission

@Suite struct HandleTests {
    private func attached(_ count: Int, cap: Int) throws -> (TemporarySegment, [Segment]) {
        let file = try TemporarySegment()
        let segments = try (0..<count).map { _ in try file.attach() }
        try segments[0].pool(0).setCap(cap)
        return (file, segments)
    }

    @Test func aHandleIsReleasedOnce() throws {
        let (file, segments) = try attached(1, cap: 10)
        let pool = try segments[0].pool(0)
        let handle = try #require(try segments[0].handle(pool.admit()))
        expectConsistent(pool, inUse: 1)
        try segments[0].release(handle)
        expectConsistent(pool, inUse: 0)
        for _ in 0..<3 {
            #expect(throws: SegmentError.handle(found: handle.rawValue)) { try segments[0].release(handle) }
        }
        expectConsistent(pool, inUse: 0)
        withExtendedLifetime(file) {}
    }

    @Test func aReusedEntryHasAnotherHandle() throws {
        let (file, segments) = try attached(1, cap: 10)
        let pool = try segments[0].pool(0)
        var seen: Set<UInt64> = []
        for _ in 0..<1000 {
            let handle = try #require(try segments[0].handle(pool.admit()))
            #expect(seen.insert(handle.rawValue).inserted)
            try segments[0].release(handle)
        }
        for old in seen {
            #expect(throws: SegmentError.self) { try segments[0].release(SessionHandle(rawValue: old)) }
        }
        expectConsistent(pool, inUse: 0)
        withExtendedLifetime(file) {}
    }

    /// A helper of a release that is done comes back when the entry names a later session, which somebody is about to release.
    @Test func aLateHelperLeavesTheNextSessionOfAnEntryAlone() throws {
        let (file, segments) = try attached(2, cap: 10_000)
        let pool = try segments[0].pool(0)
        let first = try #require(try segments[0].handle(pool.admit()))
        let engine = segments[1].engine(0)
        try segments[1].release(first)
        let late = engine.loadPool()
        #expect(late.operation == .releaseHandle)

        // Far below the cap: a session that needs no operation of the pool.
        _ = pool.admit().detach()
        let entry = engine.memory.entry(first.entry, of: first.slot)
        let releasing = Entry.make(first.generation + 1, 0, bypassed: false, Entry.releasing)
        try #require(entry.load() == Entry.with(Entry.free, Entry.make(first.generation, 0, bypassed: false, 0)))
        entry.store(releasing)
        try #require(engine.loadPool().high == late.high)

        engine.freeEntry(first.entry, of: first.slot, by: late)
        #expect(entry.load() == releasing)
        engine.releaseForeign(first.entry, of: first.slot)
        #expect(Entry.state(entry.load()) == Entry.free)
        expectConsistent(pool, inUse: 0)
        withExtendedLifetime(file) {}
    }

    @Test func absurdHandlesChangeNothing() throws {
        let (file, segments) = try attached(2, cap: 10)
        let pool = try segments[0].pool(0)
        let handle = try #require(try segments[0].handle(pool.admit()))
        var random = SeededGenerator(seed: 7)
        var absurd: [UInt64] = [0, 1, .max, 1 << 63, handle.rawValue ^ 1, handle.rawValue & ~(1 << 63)]
        absurd.append(handle.rawValue ^ (1 << 49))  // another pool
        absurd.append(handle.rawValue ^ (1 << 53))  // another process
        for _ in 0..<10_000 { absurd.append(random.next()) }
        for value in absurd {
            #expect(throws: SegmentError.handle(found: value)) {
                try segments[1].release(SessionHandle(rawValue: value))
            }
        }
        expectConsistent(pool, inUse: 1)
        try segments[1].release(handle)
        expectConsistent(pool, inUse: 0)
        withExtendedLifetime(file) {}
    }

    @Test func anotherProcessMayRelease() throws {
        let (file, segments) = try attached(2, cap: 4)
        let pool = try segments[0].pool(0)
        pool.policy = .block
        for _ in 0..<100 {
            var handles: [SessionHandle] = []
            for _ in 0..<4 { handles.append(try #require(try segments[0].handle(pool.admit()))) }
            let over = pool.admit().verdict
            #expect(over == .block)
            for handle in handles {
                try segments[1].release(handle)
                #expect(throws: SegmentError.self) { try segments[0].release(handle) }
            }
            expectConsistent(pool, inUse: 0)
        }
        withExtendedLifetime(file) {}
    }

    @Test func bypassedSessionsHaveHandlesAndBlockedOnesHaveNone() throws {
        let (file, segments) = try attached(2, cap: 0)
        let pool = try segments[0].pool(0)
        let own = try #require(try segments[0].handle(pool.admit()))
        let foreign = try #require(try segments[0].handle(pool.admit()))
        #expect(pool.snapshot().bypassed == 2)
        try segments[0].release(own)
        try segments[1].release(foreign)
        #expect(pool.snapshot().bypassed == 0)
        #expect(throws: SegmentError.self) { try segments[1].release(foreign) }
        pool.policy = .block
        let none = try segments[0].handle(pool.admit())
        #expect(none == nil)
        withExtendedLifetime(file) {}
    }

    @Test func theTableIsLimited() throws {
        let (file, segments) = try attached(1, cap: Limits.handles + 10)
        let pool = try segments[0].pool(0)
        var handles: [SessionHandle] = []
        for _ in 0..<Limits.handles { handles.append(try #require(try segments[0].handle(pool.admit()))) }
        #expect(Set(handles).count == Limits.handles)
        let full = SegmentError.exhausted(what: "session handles of this process", limit: Limits.handles)
        #expect(throws: full) { _ = try segments[0].handle(pool.admit()) }
        expectConsistent(pool, inUse: Limits.handles)
        for handle in handles { try segments[0].release(handle) }
        expectConsistent(pool, inUse: 0)
        withExtendedLifetime(file) {}
    }

    @Test func handlesOfTheDeadAreStale() throws {
        let (file, segments) = try attached(2, cap: 4)
        let handle = try #require(try segments[1].handle(try segments[1].pool(0).admit()))
        segments[1].abandon()
        #expect(segments[0].reap() == 1)
        let pool = try segments[0].pool(0)
        expectConsistent(pool, inUse: 0)
        // Released late: the session is gone already, and nothing is given back twice.
        try? segments[0].release(handle)
        expectConsistent(pool, inUse: 0)
        let next = try file.attach()
        #expect(next.slot == 1)
        #expect(throws: SegmentError.self) { try segments[0].release(handle) }
        expectConsistent(pool, inUse: 0)
    }

    /// The releaser dies after it has claimed the entry: whoever reaps it, or takes its slot, finishes what it began.
    @Test(arguments: [true, false])
    func aForeignReleaseThatWasCutShortIsFinished(byReaper: Bool) throws {
        let (file, segments) = try attached(3, cap: 4)
        let pool = try segments[0].pool(0)
        let handle = try #require(try segments[0].handle(pool.admit()))
        let entry = pool.engine.memory.entry(handle.entry, of: handle.slot)
        let claimed = entry.compareExchange(entry.load(), entry.load() & ~3 | 2)
        #expect(claimed.exchanged)
        expectConsistent(pool, inUse: 1)
        segments[1].abandon()
        if byReaper { #expect(segments[2].reap() == 1) } else { _ = try file.attach() }
        expectConsistent(pool, inUse: 0)
        #expect(throws: SegmentError.self) { try segments[0].release(handle) }
        withExtendedLifetime(file) {}
    }
}
