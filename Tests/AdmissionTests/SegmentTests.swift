import Foundation
import TestSupport
import Testing

@testable import Admission

@Suite struct SegmentTests {
    @Test func attachTakesASlotAndDetachGivesItBack() throws {
        let file = try TemporarySegment()
        let first = try file.attach()
        let second = try file.attach()
        #expect(first.slot == 0)
        #expect(second.slot == 1)
        #expect(second.incarnation == first.incarnation + 1)
        first.detach()
        #expect(!first.isAttached)
        let third = try file.attach()
        #expect(third.slot == 0)
        #expect(try Segment.attachedProcesses(path: file.path) == 2)
    }

    @Test func processSlotsAreLimited() throws {
        let file = try TemporarySegment()
        let all = try (1..<Limits.processes).map { _ in try file.attach() }
        #expect(throws: SegmentError.exhausted(what: "process slots", limit: 511)) { try file.attach() }
        for segment in all { segment.detach() }
        #expect(try Segment.attachedProcesses(path: file.path) == 0)
    }

    @Test func createRefusesWhatItCannotMake() throws {
        let file = try TemporarySegment()
        #expect(throws: SegmentError.exists(path: file.path)) { try Segment.create(path: file.path) }
        for cpus in [0, -1, Limits.cpus + 1, .max] {
            #expect(throws: SegmentError.range(what: "CPUs of a segment", found: cpus, allowed: 1...Limits.cpus)) {
                try Segment.create(path: file.path + "x", cpus: cpus)
            }
        }
        #expect(throws: SegmentError.self) { try Segment.create(path: "/nonexistent/segment") }
    }

    @Test func aSegmentInUseIsNotReplaced() throws {
        let file = try TemporarySegment(cpus: 1)
        let segment = try file.attach()
        #expect(throws: SegmentError.inUse(path: file.path, processes: 1)) {
            try Segment.create(path: file.path, cpus: 2, replacing: true)
        }
        segment.detach()
        try Segment.create(path: file.path, cpus: 2, replacing: true)
        #expect(try file.attach().cpus == 2)
    }

    /// Every way in which a file can fail to be a segment of this version is a typed error that names the field.
    @Test(arguments: [
        (0, "magic"), (8, "version"), (16, "size"), (24, "CPUs"), (32, "pools"), (40, "fence mode"),
        (4096 + 128 + 8, "cap of pool 0"), (4096 + 4, "free sessions of pool 0"),
    ])
    func damagedSegmentsAreRefused(offset: Int, field: String) throws {
        let file = try TemporarySegment(cpus: 2)
        let handle = try #require(FileHandle(forUpdatingAtPath: file.path))
        try handle.seek(toOffset: UInt64(offset))
        try handle.write(contentsOf: Data([0xff, 0xff, 0xff, 0x7f]))
        try handle.close()
        let error = #expect(throws: SegmentError.self) { _ = try file.attach() }
        guard case .format(_, let found, _, _) = error else { throw CancellationError() }
        #expect(found == field)
    }

    @Test(arguments: [0, 1, 4095, 4096, 1 << 20])
    func truncatedFilesAreRefused(size: Int) throws {
        let path = TemporarySegment.newPath()
        defer { unlink(path) }
        try Data(count: size).write(to: URL(filePath: path))
        #expect(throws: SegmentError.self) { try Segment.attach(path: path) }
    }

    @Test func foreignFilesAreRefused() throws {
        let file = try TemporarySegment(cpus: 1)
        let data = try Data(contentsOf: URL(filePath: file.path))
        let path = TemporarySegment.newPath()
        defer { unlink(path) }
        try data.dropLast(4096).write(to: URL(filePath: path))
        #expect(
            throws: SegmentError.format(
                path: path, field: "size", found: UInt64(data.count - 4096), expected: UInt64(data.count))
        ) {
            try Segment.attach(path: path)
        }
        #expect(throws: SegmentError.self) { try Segment.attach(path: "/dev/null") }
        #expect(throws: SegmentError.self) { try Segment.attach(path: "/nonexistent") }
        #expect(throws: SegmentError.self) { try Segment.attach(path: "/dev/shm") }
    }

    /// Whatever a pool's memory holds, nothing traps and the process goes on.
    @Test func randomMemoryInAPoolHarmsNobody() throws {
        for seed in UInt64(0)..<200 {
            var random = SeededGenerator(seed: seed)
            let file = try TemporarySegment(cpus: 2)
            let segment = try file.attach()
            let pool = try segment.pool(0)
            try pool.setCap(10)
            pool.engine.low.store(random.next())
            pool.engine.high.store(random.next())
            _ = pool.admit().verdict
            _ = pool.snapshot()
            _ = pool.conservation()
            _ = segment.reap()
        }
    }

    @Test func memoryIsWithinItsBudget() throws {
        #expect(Segment.bytesTaken(processes: 64, cpus: 128) <= 64 << 20)
        #expect(Layout.writerBytes <= 256)
        let file = try TemporarySegment(cpus: 3)
        func taken() throws -> Int {
            var status = stat()
            try #require(stat(file.path, &status) == 0)
            return Int(status.st_blocks) * 512
        }
        #expect(try taken() <= Layout.processes)
        let keeper = try Segment.attachKeeper(path: file.path)
        var all = [keeper]
        for workers in 1...20 {
            all.append(try Segment.attach(path: file.path))
            #expect(try taken() <= Segment.bytesTaken(processes: workers + 1, cpus: 3))
        }
        let pool = try all[1].pool(0)
        try pool.setCap(100)
        let before = try taken()
        for _ in 0..<100 { pool.admit().end() }
        for segment in all { segment.detach() }
        #expect(try taken() == before)
    }

    @Test func cpusOutsideTheSegmentUseTheLockedShard() throws {
        // With one CPU in the segment, threads on the others still count exactly.
        let file = try TemporarySegment(cpus: 1)
        let segment = try file.attach()
        let pool = try segment.pool(0)
        try pool.setCap(8)
        pool.policy = .block
        let admitted = Counter()
        DispatchQueue.concurrentPerform(iterations: 64) { _ in
            let session = pool.admit()
            if session.verdict == .inspect {
                _ = try? segment.handle(session)
                admitted.add()
            }
        }
        #expect(admitted.value == 8)
        expectConsistent(pool, inUse: 8)
    }

    @Test func attachmentIsSafeAfterDetach() throws {
        let file = try TemporarySegment()
        let segment = try file.attach()
        let pool = try segment.pool(0)
        try pool.setCap(4)
        let lane = try segment.openLane(pool: 0)
        let session = lane.admit()
        let handle = try #require(try segment.handle(pool.admit()))
        segment.detach()
        let observer = try file.attach()
        expectConsistent(try observer.pool(0), inUse: 0)
        lane.release(session)
        #expect(pool.admit().verdict == .bypass)
        #expect(lane.admit().verdict == .bypass)
        #expect(throws: SegmentError.detached) { try segment.release(handle) }
        #expect(throws: SegmentError.detached) { try pool.setCap(9) }
        #expect(throws: SegmentError.detached) { _ = try segment.openLane(pool: 0) }
        expectConsistent(try observer.pool(0), inUse: 0)
    }
}

/// A count that several threads add to.
final class Counter: @unchecked Sendable {
    private let lock = NSLock()
    private var count = 0
    func add() { lock.withLock { count += 1 } }
    var value: Int { lock.withLock { count } }
}
