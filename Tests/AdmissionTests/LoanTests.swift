// Sessions beyond the cap that may be admitted until a deadline.

import CAdmission
import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Admission

@Suite struct LoanTests {
    private static func boottime() -> Int64 { Int64(fpx_boottime_milliseconds()) * 1_000_000 }

    private static func waitUntil(_ deadline: Int64) { while boottime() <= deadline { usleep(500) } }

    @Test(arguments: PoolTests.Way.allCases)
    func borrowedSessionsEndWithTheDeadline(way: PoolTests.Way) throws {
        try PoolTests.with(way, cap: 0) { pool, admit, end in
            pool.policy = .block
            let deadline = Self.boottime() + 150_000_000
            try pool.setCap(3, borrowed: 2, until: deadline)
            #expect(pool.cap == 5 && pool.snapshot().cap == 5 && pool.snapshot().free == 5)
            var held = Sessions()
            for _ in 0..<5 { held.push(admit()) }
            #expect(held.count == 5)
            #expect(admit().verdict == .block)
            expectConsistent(pool, inUse: 5)
            held.end(1, end)
            held.push(admit())
            #expect(admit().verdict == .block)
            Self.waitUntil(deadline)
            // Nobody has acted, and they count as excess.
            #expect(pool.cap == 3 && pool.snapshot().free == -2)
            #expect(admit().verdict == .block)
            held.end(2, end)
            #expect(admit().verdict == .block)
            held.end(1, end)
            held.push(admit())
            #expect(admit().verdict == .block)
            expectConsistent(pool, inUse: 3)
            held.endAll(end)
            expectConsistent(pool, inUse: 0)
        }
    }

    @Test(arguments: PoolTests.Way.allCases)
    func spareSessionsAreCollectedBeforeOneIsBorrowed(way: PoolTests.Way) throws {
        try PoolTests.with(way, cap: 1000) { pool, admit, end in
            pool.policy = .block
            let deadline = Self.boottime() + 300_000_000
            try pool.setCap(1000, borrowed: 100, until: deadline)
            var held = Sessions()
            for _ in 0..<1100 { held.push(admit()) }
            #expect(admit().verdict == .block)
            #expect(pool.snapshot().looseWriters == 0 && pool.snapshot().spare == 0 && pool.taken == 1100)
            expectConsistent(pool, inUse: 1100)
            Self.waitUntil(deadline)
            // Gates that open again hold nothing beyond the cap.
            held.end(600, end)
            for _ in 0..<500 { held.push(admit()) }
            #expect(admit().verdict == .block)
            expectConsistent(pool, inUse: 1000)
            held.endAll(end)
        }
    }

    @Test func aLoanChangesWithTheCap() throws {
        let file = try TemporarySegment()
        let pool = try file.attach().pool(0)
        pool.policy = .block
        let far = Self.boottime() + 3_600_000_000_000
        func room() -> Int {
            var held = Sessions()
            while true {
                let session = pool.admit()
                guard session.verdict == .inspect else { break }
                held.push(session)
            }
            defer { held.endAll { $0.end() } }
            return held.count
        }
        for (cap, borrowed) in [(2, 3), (5, 0), (0, 5), (4, 1), (4, 9), (0, 0), (1, 0)] {
            try pool.setCap(cap, borrowed: borrowed, until: far)
            #expect(room() == cap + borrowed && pool.cap == cap + borrowed)
        }
        try pool.setCap(2, borrowed: 3, until: Self.boottime() - 1_000_000)
        #expect(room() == 2 && pool.cap == 2)
        try pool.setCap(2, borrowed: 3, until: .max)
        #expect(room() == 5)
        try pool.setCap(2)
        #expect(room() == 2)
    }

    @Test func absurdLoansAreRefused() throws {
        let file = try TemporarySegment()
        let pool = try file.attach().pool(0)
        try pool.setCap(7)
        for borrowed in [-1, .min, .max, Limits.cap - 99] {
            #expect(
                throws: SegmentError.range(what: "borrowed", found: borrowed, allowed: 0...(Limits.cap - 100))
            ) { try pool.setCap(100, borrowed: borrowed, until: .max) }
        }
        #expect(pool.cap == 7)
        try pool.setCap(0, borrowed: Limits.cap, until: .max)
        #expect(pool.admit().verdict == .inspect && pool.cap == Limits.cap)
        try pool.setCap(1, borrowed: 1, until: .min)
        #expect(pool.cap == 1)
    }

    @Test func damagedLoansAreRefused() throws {
        let file = try TemporarySegment()
        let engine = try file.attach().pool(4).engine
        engine.loanWord.store(Loan(sessions: Limits.cap + 1, deadline: 1).rawValue)
        #expect(
            throws: SegmentError.format(
                path: file.path, field: "borrowed sessions of pool 4", found: UInt64(Limits.cap + 1),
                expected: UInt64(Limits.cap))
        ) { _ = try file.attach() }
    }

    /// A session that was taken in time, and whose clock is read when the time is over, is given back unless the cap covers it.
    @Test func whoIsLateGivesBack() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        let writer = pool.engine.currentWriter()
        pool.policy = .block
        try pool.setCap(2, borrowed: 2, until: .max)
        var held = Sessions()
        for _ in 0..<3 { held.push(pool.admit()) }
        let past = Loan(sessions: 2, deadline: 1)
        pool.engine.loanWord.store(past.rawValue)
        #expect(!pool.engine.isInTime(past, writer))
        expectConsistent(pool, inUse: 2)
        // What is left is covered.
        #expect(pool.engine.isInTime(past, writer))
        held.end(1) { _ = $0.detach() }
        held.endAll { $0.end() }
        expectConsistent(pool, inUse: 0)
    }

    /// Threads that admit and release at the limit while loans come, go and run out: never more than was allowed at the latest
    /// change, and never fewer in the end.
    @Test(arguments: [true, false]) func neverMoreThanIsLent(lanes: Bool) throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        pool.policy = .block
        let cap = 4, most = 12
        try pool.setCap(cap)
        let inUse = Atomic<Int>(0)
        let over = Atomic<Int>(0)
        let borrowed = Atomic<Int>(0)
        let stop = Atomic<Bool>(false)
        let threads = (0..<4).map { index in
            Thread {
                let lane = lanes ? try? segment.openLane(pool: 0) : nil
                var random = SeededGenerator(seed: UInt64(index))
                var held = Sessions()
                func end(_ session: consuming Session) {
                    // Counted after it was admitted and until before it ends: never more than are in use.
                    inUse.subtract(1, ordering: .sequentiallyConsistent)
                    if lane == nil { session.end() } else { lane!.release(session) }
                }
                while !stop.load(ordering: .relaxed) {
                    let session = lane == nil ? pool.admit() : lane!.admit()
                    if session.verdict == .inspect {
                        held.push(session)
                        let count = inUse.add(1, ordering: .sequentiallyConsistent).newValue
                        if count > cap + most { over.add(1, ordering: .relaxed) }
                        if count > cap { borrowed.add(1, ordering: .relaxed) }
                    }
                    let few = random.next() % 6
                    while held.count > few { held.end(1, end) }
                    if few == 0 { sched_yield() }
                }
                held.endAll(end)
            }
        }
        for thread in threads { thread.start() }
        var random = SeededGenerator(seed: 7)
        for _ in 0..<400 {
            try pool.setCap(
                cap, borrowed: Int(random.next() % UInt64(most + 1)),
                until: Self.boottime() + Int64(random.next() % 3) * 1_000_000)
            usleep(500)
        }
        // All that was lent is over: as soon as no more than the cap are in use nobody admits beyond it.
        try pool.setCap(cap)
        while inUse.load(ordering: .sequentiallyConsistent) > cap { sched_yield() }
        for _ in 0..<2000 where inUse.load(ordering: .sequentiallyConsistent) > cap { over.add(1, ordering: .relaxed) }
        stop.store(true, ordering: .sequentiallyConsistent)
        while threads.contains(where: { !$0.isFinished }) { usleep(1000) }
        #expect(over.load(ordering: .relaxed) == 0)
        #expect(borrowed.load(ordering: .relaxed) > 0)
        expectConsistent(pool, inUse: 0)
    }
}
