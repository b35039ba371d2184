import Foundation
import Testing

@testable import Admission

@Suite(.serialized) struct PoolTests {
    /// Each kind of writer behind one closure pair, so that each law is tested for all of them.
    enum Way: CaseIterable, Sendable { case lane, shard, lockedLane, lockedShard }

    /// Runs `body` with a pool and functions that admit and end sessions by a way.
    static func with(
        _ way: Way, cap: Int, _ body: (Pool, () -> Session, (consuming Session) -> Void) throws -> Void
    ) throws {
        let locked = way == .lockedLane || way == .lockedShard
        let file = try TemporarySegment(fenceMode: locked ? .locked : .best)
        let segment = try file.attach()
        let pool = try segment.pool(0)
        try pool.setCap(cap)
        if way == .lane || way == .lockedLane {
            let lane = try segment.openLane(pool: 0)
            try body(pool, { lane.admit() }, { lane.release($0) })
        } else {
            try body(pool, { pool.admit() }, { $0.end() })
        }
    }

    @Test(arguments: Way.allCases, [0, 1, 2, 3, 5, 16, 100, 1000])
    func admitsExactlyTheCap(way: Way, cap: Int) throws {
        try Self.with(way, cap: cap) { pool, admit, end in
            pool.policy = .block
            for _ in 0..<3 {
                var held = Sessions()
                for number in 1...(cap + 5) {
                    let session = admit()
                    #expect(session.verdict == (number <= cap ? .inspect : .block))
                    if session.verdict == .inspect { held.push(session) }
                }
                expectConsistent(pool, inUse: cap)
                held.endAll(end)
                expectConsistent(pool, inUse: 0)
            }
        }
    }

    @Test(arguments: Way.allCases)
    func policyDecidesTheVerdictOverTheLimit(way: Way) throws {
        try Self.with(way, cap: 1) { pool, admit, end in
            let first = admit()
            #expect(first.verdict == .inspect)
            let second = admit()
            #expect(second.verdict == .bypass)
            #expect(pool.snapshot().bypassed == 1)
            pool.policy = .block
            #expect(admit().verdict == .block)
            end(second)
            #expect(pool.snapshot().bypassed == 0)
            #expect(pool.snapshot().bypassedPeak == 1)
            end(first)
            let third = admit()
            #expect(third.verdict == .inspect)
            end(third)
            #expect(pool.snapshot().refused == 2)
        }
    }

    @Test func theBypassGaugeFollowsSessionsToOtherWriters() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        let one = try segment.openLane(pool: 0)
        let two = try segment.openLane(pool: 0)
        one.admit().end()
        #expect(pool.snapshot().bypassed == 0)
        two.release(pool.admit())
        #expect(pool.snapshot().bypassed == 0)
        #expect(pool.snapshot().bypassedPeak == 1)
    }

    @Test(arguments: Way.allCases)
    func capChangesTakeEffectAtOnce(way: Way) throws {
        try Self.with(way, cap: 10) { pool, admit, end in
            pool.policy = .block
            var held = Sessions()
            for _ in 0..<8 { held.push(admit()) }
            try pool.setCap(5)
            #expect(pool.snapshot().free == -3)
            #expect(admit().verdict == .block)
            expectConsistent(pool, inUse: 8)
            for _ in 0..<3 {
                held.end(1, end)
                #expect(admit().verdict == .block)
            }
            held.end(1, end)
            let session = admit()
            #expect(session.verdict == .inspect)
            held.push(session)
            #expect(admit().verdict == .block)
            try pool.setCap(7)
            held.push(admit())
            held.push(admit())
            #expect(admit().verdict == .block)
            expectConsistent(pool, inUse: 7)
            try pool.setCap(0)
            held.endAll(end)
            #expect(admit().verdict == .block)
            expectConsistent(pool, inUse: 0)
        }
    }

    @Test func absurdCapsAreRefused() throws {
        let file = try TemporarySegment()
        let pool = try file.attach().pool(3)
        for cap in [-1, Limits.cap + 1, .max, .min] {
            #expect(throws: SegmentError.range(what: "cap", found: cap, allowed: 0...Limits.cap)) { try pool.setCap(cap) }
        }
        try pool.setCap(Limits.cap)
        #expect(pool.snapshot().free == Limits.cap)
        #expect(pool.admit().verdict == .inspect)
    }

    @Test func poolsAreIndependent() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        var held = Sessions()
        for index in 0..<Limits.pools {
            let pool = try segment.pool(index)
            try pool.setCap(index)
            pool.policy = .block
            for _ in 0..<index { held.push(pool.admit()) }
            #expect(pool.admit().verdict == .block)
        }
        for index in 0..<Limits.pools { expectConsistent(try segment.pool(index), inUse: index) }
        held.endAll { $0.end() }
        for index in [-1, 16] {
            #expect(throws: SegmentError.range(what: "pool", found: index, allowed: 0...15)) { _ = try segment.pool(index) }
        }
    }

    @Test func lanesAreLimitedAndReused() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        try segment.pool(0).setCap(100)
        func open(_ count: Int) throws {
            if count == 0 {
                #expect(throws: SegmentError.exhausted(what: "lanes of this process in pool 0", limit: 16)) {
                    _ = try segment.openLane(pool: 0)
                }
                return
            }
            let lane = try segment.openLane(pool: 0)
            let session = lane.admit()
            #expect(session.verdict == .inspect)
            try open(count - 1)
            lane.release(session)
        }
        try open(Limits.lanes)
        try open(Limits.lanes)
        expectConsistent(try segment.pool(0), inUse: 0)
    }

    /// A session may end anywhere: on a shard, on another lane, in another attachment's memory it is only a count.
    @Test func sessionsEndOnOtherWriters() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        try pool.setCap(50)
        pool.policy = .block
        let one = try segment.openLane(pool: 0)
        let two = try segment.openLane(pool: 0)
        for round in 0..<2000 {
            var held = Sessions()
            for _ in 0..<50 { held.push(one.admit()) }
            #expect(two.admit().verdict == .block)
            if round % 3 == 0 { held.endAll { $0.end() } } else { held.endAll { two.release($0) } }
        }
        expectConsistent(pool, inUse: 0)
    }

    @Test func creditThatDriftsIsFolded() throws {
        // One writer only admits, the other only releases: their credits drift apart and must stay within their fields.
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        try pool.setCap(1_000_000)
        let one = try segment.openLane(pool: 0)
        let two = try segment.openLane(pool: 0)
        for _ in 0..<8_000_000 { two.release(one.admit()) }
        for writer in pool.writers() { #expect(abs(writer.held) > 7_000_000) }
        expectConsistent(pool, inUse: 0)
        segment.detach()
        let after = try file.attach().pool(0).snapshot()
        #expect(after.free == 1_000_000)
    }

    @Test func anotherAttachmentsSpareSessionsAreFound() throws {
        let file = try TemporarySegment()
        let one = try file.attach()
        let two = try file.attach()
        let pool = try one.pool(0)
        try pool.setCap(1000)
        pool.policy = .block
        let rich = try one.openLane(pool: 0)
        rich.release(rich.admit())
        #expect(pool.snapshot().spare > 0)
        let poor = try two.openLane(pool: 0)
        var held = Sessions()
        for _ in 0..<1000 {
            let session = poor.admit()
            #expect(session.verdict == .inspect)
            held.push(session)
        }
        #expect(poor.admit().verdict == .block)
        #expect(rich.admit().verdict == .block)
        #expect(pool.snapshot().looseWriters == 0)
        held.endAll { poor.release($0) }
        expectConsistent(pool, inUse: 0)
    }
}

/// Sessions in progress; Swift's arrays hold no noncopyable values yet.
struct Sessions: ~Copyable {
    private final class Box {
        var session: Session?
        init(_ session: consuming Session) { self.session = consume session }
    }
    private var boxes: [Box] = []

    mutating func push(_ session: consuming Session) { boxes.append(Box(session)) }

    mutating func end(_ count: Int, _ end: (consuming Session) -> Void) {
        for _ in 0..<count {
            if let session = boxes.removeLast().session.take() { end(session) }
        }
    }

    mutating func endAll(_ end: (consuming Session) -> Void) { self.end(boxes.count, end) }

    var count: Int { boxes.count }
}
