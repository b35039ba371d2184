import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Admission

/// Threads at the limit. The oracle is a count that each thread raises after it was admitted and lowers before it releases: at
/// no instant may it pass the cap. `make tsan` runs the locked ones under the thread sanitizer.
@Suite(.serialized) struct ConcurrencyTests {
    private final class Shadow: Sendable {
        let inUse = Atomic<Int>(0)
        let worst = Atomic<Int>(0)
        func admitted() {
            let now = inUse.add(1, ordering: .sequentiallyConsistent).newValue
            worst.max(now, ordering: .relaxed)
        }
        func releasing() { inUse.subtract(1, ordering: .sequentiallyConsistent) }
    }

    /// Handles on their way from one thread to another, behind a lock that the thread sanitizer knows.
    private final class Mailbox: @unchecked Sendable {
        private let lock = NSLock()
        private var handles: [SessionHandle] = []
        func put(_ handle: SessionHandle) { lock.withLock { handles.append(handle) } }
        func take() -> SessionHandle? { lock.withLock { handles.popLast() } }
    }

    @Test(arguments: [FenceMode.locked, .membarrier], [1, 3, 40, 2000])
    func neverOverTheCap(mode: FenceMode, cap: Int) throws {
        guard mode == .locked || FenceMode.best == .membarrier else { return }
        let file = try TemporarySegment(fenceMode: mode)
        let segments = try (0..<2).map { _ in try file.attach() }
        let pool = try segments[0].pool(0)
        try pool.setCap(cap)
        pool.policy = .block
        let shadow = Shadow()
        DispatchQueue.concurrentPerform(iterations: 4) { thread in
            let segment = segments[thread & 1]
            guard let own = try? segment.pool(0), let lane = try? segment.openLane(pool: 0) else { return }
            var random = SeededGenerator(seed: UInt64(thread))
            var held = 0
            for _ in 0..<40_000 {
                if random.next() >> 54 < 563 {
                    let session = thread < 2 ? lane.admit() : own.admit()
                    if session.verdict == .inspect {
                        held += 1
                        shadow.admitted()
                    }
                    _ = session.detach()
                } else if held > 0 {
                    held -= 1
                    shadow.releasing()
                    if thread < 2 { lane.release(.inspect) } else { own.release(.inspect) }
                }
            }
            for _ in 0..<held {
                shadow.releasing()
                own.release(.inspect)
            }
        }
        #expect(shadow.worst.load(ordering: .relaxed) <= cap)
        #expect(shadow.worst.load(ordering: .relaxed) > cap * 3 / 4)
        expectConsistent(pool, inUse: 0)
        for segment in segments { segment.detach() }
    }

    @Test(arguments: [FenceMode.locked, .membarrier])
    func handlesMoveBetweenThreads(mode: FenceMode) throws {
        guard mode == .locked || FenceMode.best == .membarrier else { return }
        let file = try TemporarySegment(fenceMode: mode)
        let segments = try (0..<2).map { _ in try file.attach() }
        let pool = try segments[0].pool(0)
        try pool.setCap(64)
        pool.policy = .block
        let mailbox = Mailbox()
        let failures = Atomic<Int>(0)
        DispatchQueue.concurrentPerform(iterations: 4) { thread in
            let segment = segments[thread & 1]
            guard let own = try? segment.pool(0) else { return }
            for _ in 0..<10_000 {
                if let handle = try? segment.handle(own.admit()) { mailbox.put(handle) }
                guard let other = mailbox.take() else { continue }
                // Once it works, twice it does not, whoever does it.
                if (try? segment.release(other)) == nil { failures.add(1, ordering: .relaxed) }
                if (try? segments[1 - (thread & 1)].release(other)) != nil { failures.add(1, ordering: .relaxed) }
            }
        }
        while let handle = mailbox.take() { try segments[0].release(handle) }
        #expect(failures.load(ordering: .relaxed) == 0)
        expectConsistent(pool, inUse: 0)
        for segment in segments { segment.detach() }
    }

    @Test(arguments: [FenceMode.locked, .membarrier])
    func capChangesWhileThreadsRun(mode: FenceMode) throws {
        guard mode == .locked || FenceMode.best == .membarrier else { return }
        let file = try TemporarySegment(fenceMode: mode)
        let segment = try file.attach()
        let pool = try segment.pool(0)
        pool.policy = .block
        try pool.setCap(1000)
        DispatchQueue.concurrentPerform(iterations: 3) { thread in
            if thread == 0 {
                for step in 0..<400 { try? pool.setCap(step % 2 == 0 ? 1 : 2000) }
            } else {
                for _ in 0..<60_000 { pool.admit().end() }
            }
        }
        try pool.setCap(5)
        expectConsistent(pool, inUse: 0)
        #expect(pool.snapshot().free + pool.snapshot().spare == 5)
        segment.detach()
    }

    /// The law can be looked at while everything moves: whoever sees it at one moment sees it hold.
    @Test func conservationHoldsUnderLoad() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        pool.policy = .block
        try pool.setCap(100)
        let seen = Atomic<Int>(0)
        let broken = Atomic<Int>(0)
        DispatchQueue.concurrentPerform(iterations: 3) { thread in
            if thread == 0 {
                for _ in 0..<300 {
                    guard let conservation = pool.conservation() else { continue }
                    seen.add(1, ordering: .relaxed)
                    if !conservation.holds { broken.add(1, ordering: .relaxed) }
                }
            } else {
                guard let lane = try? segment.openLane(pool: 0) else { return }
                for _ in 0..<2000 {
                    for _ in 0..<60 { _ = lane.admit().detach() }
                    for _ in 0..<60 { lane.release(.inspect) }
                }
            }
        }
        #expect(broken.load(ordering: .relaxed) == 0)
        #expect(seen.load(ordering: .relaxed) > 0)
        segment.detach()
    }
}
