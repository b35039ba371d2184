import CAdmission
import Foundation
import Testing

@testable import Admission

@Suite struct TrafficTests {
    /// Threads of several attachments report at the same time, and all of it is there.
    @Test(arguments: [FenceMode.locked, .membarrier]) func sumsAreExact(mode: FenceMode) throws {
        guard mode == .locked || FenceMode.best == .membarrier else { return }
        let file = try TemporarySegment(fenceMode: mode)
        let segments = try (0..<3).map { _ in try file.attach() }
        let pools = try segments.map { try $0.pool(1) }
        let (threads, rounds) = (6, 20_000)
        DispatchQueue.concurrentPerform(iterations: threads) { thread in
            for round in 1...rounds { try? pools[thread % 3].report(bytesIn: round, out: thread) }
        }
        let bytesIn = UInt64(rounds * (rounds + 1) / 2)
        let all = Traffic(bytesIn: bytesIn * UInt64(threads), bytesOut: UInt64(rounds * threads * (threads - 1) / 2))
        #expect(pools[0].traffic() == all)
        // Threads t and t + 3 reported to one attachment.
        let each = (0..<3).map { Traffic(bytesIn: bytesIn * 2, bytesOut: UInt64(rounds * (2 * $0 + 3))) }
        #expect(pools[0].holdings().map(\.traffic) == each)
        for slot in 0..<3 {
            var sum = Traffic()
            for writer in pools[0].writers() where writer.slot == slot { sum.add(writer.traffic) }
            #expect(sum == each[slot])
        }
        #expect(try segments[0].pool(0).traffic() == Traffic())
        #expect(pools[0].conservation()?.holds == true)
    }

    /// Bytes of processes that have died and been reaped stay in the sum, also when their slots have new holders.
    @Test func theSumOutlivesWhoReported() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        var sum: UInt64 = 0
        var before = Traffic()
        for round in 1...10 {
            let other = try file.attach()
            // The slot is the last round's, and clean.
            #expect(other.slot == 1)
            #expect(pool.holdings().first { $0.slot == 1 }?.traffic == Traffic())
            try other.pool(0).report(bytesIn: round, out: 2 * round)
            sum += UInt64(round)
            if round % 2 == 0 { other.abandon() } else { other.detach() }
            #expect(segment.reap() == (round % 2 == 0 ? 1 : 0))
            let now = pool.traffic()
            #expect(now == Traffic(bytesIn: sum, bytesOut: 2 * sum))
            #expect(now.growth(since: before) == Traffic(bytesIn: UInt64(round), bytesOut: UInt64(2 * round)))
            before = now
        }
    }

    /// Somebody who looks all the time while slots change hands never sees more than was reported.
    @Test func neverTooMuch() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        let rounds = 300
        DispatchQueue.concurrentPerform(iterations: 2) { thread in
            if thread == 0 {
                for _ in 0..<rounds {
                    guard let other = try? file.attach() else { continue }
                    try? other.pool(0).report(bytesIn: 1000, out: 0)
                    other.detach()
                }
            } else {
                for _ in 0..<2000 { #expect(pool.traffic().bytesIn <= UInt64(rounds * 1000)) }
            }
        }
        #expect(pool.traffic() == Traffic(bytesIn: UInt64(rounds * 1000)))
    }

    @Test func theKeepersSuccessorGoesOnCounting() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        for round in 1...3 {
            let keeper = try file.attachKeeper()
            try keeper.pool(0).report(bytesIn: 5, out: 7)
            keeper.abandon()
            #expect(try segment.pool(0).traffic() == Traffic(bytesIn: UInt64(5 * round), bytesOut: UInt64(7 * round)))
        }
    }

    @Test(arguments: [(-1, 0, "bytes in: found -1"), (0, .min, "bytes out: found"), (Limits.report + 1, 0, "bytes in: found")])
    func absurdReports(bytesIn: Int, out: Int, text: String) throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        let error = #expect(throws: SegmentError.self) { try pool.report(bytesIn: bytesIn, out: out) }
        #expect(error?.description.hasPrefix(text) == true && error?.description.hasSuffix("0 to 1125899906842624") == true)
        #expect(pool.traffic() == Traffic())
        segment.detach()
        #expect(throws: SegmentError.detached) { try pool.report(bytesIn: 1, out: 1) }
    }

    /// A counter that wraps has grown; one that fell (a process is attaching) has not.
    @Test func growthWraps() {
        let low = Traffic(bytesIn: 5, bytesOut: .max - 4)
        let high = Traffic(bytesIn: 12, bytesOut: 10)
        #expect(high.growth(since: low) == Traffic(bytesIn: 7, bytesOut: 15))
        #expect(low.growth(since: high) == Traffic())
        #expect(low.growth(since: low) == Traffic())
        var sum = low
        sum.add(high)
        #expect(sum == Traffic(bytesIn: 17, bytesOut: 5))
    }

    @Test func countersWrapInTheSegment() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        pool.engine.currentWriter().bytesIn.store(.max)
        try pool.report(bytesIn: 3, out: 4)
        pool.engine.forEachWriter(of: segment.slot) { _ in }
        let traffic = pool.traffic()
        // Reported on this CPU or, after a migration, on another: the sum wraps all the same.
        #expect(traffic == Traffic(bytesIn: 2, bytesOut: 4))
    }
}
