// Memory that is not there, processes in numbers, and slow ways: with real file systems, processes and signals.

import CAdmission
import Foundation
import TestSupport
import Testing

@testable import Admission

@Suite(.serialized) struct FieldMemoryTests {
    private static let mayMount = ConditionTrait.enabled(
        if: TemporaryFileSystem.isPermitted, "mounting a tmpfs takes root: run this as root")

    /// A segment with a cap in pool 0, and an attachment that looks at it.
    private func segment(_ path: String, cap: Int) throws -> (observer: Segment, pool: Pool) {
        try Segment.create(path: path)
        let observer = try Segment.attach(path: path)
        let pool = try observer.pool(0)
        try pool.setCap(cap)
        return (observer, pool)
    }

    private func temporary(cap: Int) throws -> (file: TemporarySegment, observer: Segment, pool: Pool) {
        let file = try TemporarySegment()
        let observer = try file.attach()
        let pool = try observer.pool(0)
        try pool.setCap(cap)
        return (file, observer, pool)
    }

    private func memoryTaken(_ path: String) throws -> Int {
        var status = stat()
        try #require(stat(path, &status) == 0)
        return Int(status.st_blocks) * 512
    }

    private func error<Success>(_ work: () throws(SegmentError) -> Success) -> String {
        do {
            _ = try work()
            return "no error"
        } catch {
            return error.description
        }
    }

    // MARK: A full file system

    @Test(mayMount) func nothingIsMadeOnAFullFileSystem() throws {
        let disk = try TemporaryFileSystem(bytes: 1 << 20)
        try disk.fill()
        let path = "\(disk.path)/segment"
        let found = error { () throws(SegmentError) in try Segment.create(path: path) }
        #expect(
            Field.row(
                "memory.1", "a segment is made on a full tmpfs", expected: "found no room, no file is left",
                found: (found.contains("found no room for 8192 bytes (ENOSPC)") ? "found no room" : found)
                    + (try FileManager.default.contentsOfDirectory(atPath: disk.path) == ["filler"] ? ", no file is left" : ""))
        )
    }

    @Test(mayMount) func nobodyAttachesOnAFullFileSystem() throws {
        let disk = try TemporaryFileSystem(bytes: 1 << 20)
        let path = "\(disk.path)/segment"
        let (observer, pool) = try segment(path, cap: 10)
        defer { observer.detach() }
        try disk.fill()
        let worker = try FieldWorker("herd", path, "1", "1", "0")
        let line = try worker.line()
        #expect(
            Field.row(
                "memory.2", "a worker attaches to a segment on a full tmpfs", expected: "an error that says so",
                found: line.hasPrefix("attached 0") && line.contains("found no room for 36864 bytes")
                    ? "an error that says so" : line))
        let keeper = error { () throws(SegmentError) in try Segment.attachKeeper(path: path) }
        #expect(
            Field.row(
                "memory.3", "the daemon attaches to a segment on a full tmpfs", expected: "found no room",
                found: keeper.contains("found no room for 36864 bytes (ENOSPC)") ? "found no room" : keeper))
        disk.makeRoom()
        // What they have tried leaves nothing behind.
        try Segment.attachKeeper(path: path).detach()
        expectConsistent(pool, inUse: 0)
        #expect(pool.snapshot().processes == 2)
    }

    @Test(mayMount) func handlesNeedRoomAndLanesDoNot() throws {
        let disk = try TemporaryFileSystem(bytes: 1 << 20)
        let (observer, pool) = try segment("\(disk.path)/segment", cap: 10)
        defer { observer.detach() }
        let lane = try observer.openLane(pool: 0)
        try disk.fill()
        let handle = error { () throws(SegmentError) in try observer.handle(pool.admit()) }
        #expect(
            Field.row(
                "memory.4", "the first session handle of a process on a full tmpfs", expected: "found no room, not counted",
                found: (handle.contains("found no room for 4096 bytes (ENOSPC)") ? "found no room" : handle)
                    + (pool.snapshot().inUse == 0 ? ", not counted" : ", \(pool.snapshot().inUse) counted")))
        for _ in 0..<5 { #expect(lane.admit().detach() == .inspect && pool.admit().detach() == .inspect) }
        #expect(lane.admit().verdict == .bypass)
        expectConsistent(pool, inUse: 10)
        for _ in 0..<10 { lane.release(.inspect) }
        disk.makeRoom()
        #expect(try observer.handle(pool.admit()) != nil)
    }

    @Test(mayMount) func aFileSystemFillsUpUnderRunningProcesses() throws {
        let disk = try TemporaryFileSystem(bytes: 4 << 20)
        let path = "\(disk.path)/segment"
        let (observer, pool) = try segment(path, cap: 100)
        defer { observer.detach() }
        let keeper = try Segment.attachKeeper(path: path)
        defer { keeper.detach() }
        let workers = try (0..<2).map { _ in try FieldWorker("loop") }
        for worker in workers {
            try worker.say(path)
            #expect(try worker.line() == "attached")
        }
        try disk.fill()
        let before = pool.snapshot().poolAdmissions + pool.snapshot().fastAdmissions
        let late = try FieldWorker("loop")
        try late.say(path)
        #expect(try late.line().contains("found no room"))
        while pool.snapshot().poolAdmissions + pool.snapshot().fastAdmissions < before + 10_000 {}
        #expect(keeper.processes().count == 4)
        // One is killed with sessions and handles in its hands, the other one ends by itself.
        kill(workers[0].child.processID, SIGKILL)
        workers[0].child.wait()
        // The other one reaps too, and may have been first: after a reap the dead one is gone, whoever found it.
        keeper.reap()
        #expect(!keeper.processes().contains { $0.processID == Int(workers[0].child.processID) })
        let ended = try workers[1].end()
        #expect(
            Field.row(
                "memory.5", "a tmpfs fills up under workers and keeper, one worker is killed", expected: "exit 0, 0 in use",
                found: "exit \(ended), \(pool.snapshot().inUse) in use"))
        expectConsistent(pool, inUse: 0)
    }

    // MARK: Memory that goes away

    @Test(arguments: [0, 4096, 8192 + 36864, 1 << 24]) func aFileThatIsCutDetachesItsProcesses(bytes: Int) throws {
        let (file, observer, _) = try temporary(cap: 100)
        let worker = try FieldWorker("loop")
        try worker.say(file.path)
        #expect(try worker.line() == "attached")
        try #require(truncate(file.path, bytes) == 0)
        let line = try worker.line()
        #expect(
            Field.row(
                "memory.6", "truncate -s \(bytes) while a worker runs", expected: "detached, exit 0",
                found: "\(line.prefix { $0 != "," }), exit \(try worker.end())"))
        #expect(observer.place == .cut(bytes: bytes))
        _ = observer.reap()
        if bytes == 0 { #expect(observer.audit([PoolSettings(cap: 100)]) != nil && !observer.isAttached) }
    }

    /// Who punches a hole into the file makes memory anew that is zero: closed gates.
    @Test func aHoleDetachesItsProcesses() throws {
        let (file, observer, _) = try temporary(cap: 100)
        let worker = try FieldWorker("loop")
        try worker.say(file.path)
        #expect(try worker.line() == "attached")
        let size = Segment.byteCount(cpus: observer.cpus)
        let punch = try ChildProcess.run(["fallocate", "--punch-hole", "--offset", "0", "--length", "\(size)", file.path])
        try #require(punch.status == 0, "\(punch.text)")
        #expect(try worker.line().hasPrefix("detached"))
        #expect(try worker.end() == 0)
        #expect(observer.audit([PoolSettings(cap: 100)])?.word == "magic")
    }

    @Test(arguments: ["fork", "_Fork", "clone"]) func aChildIsDetached(how: String) throws {
        let (file, _, pool) = try temporary(cap: 100)
        let worker = try FieldWorker("children", file.path, how)
        let line = try worker.line()
        let status = try worker.end()
        #expect(
            Field.row(
                "memory.7", "a child made by \(how) uses its parent's lane, pool and handles", expected: "detached",
                found: line == "ok" && status == 0 ? "detached" : line))
        expectConsistent(pool, inUse: 0)
    }

    @Test func otherSignalsGoWhereTheyWent() throws {
        let (file, _, _) = try temporary(cap: 100)
        let worker = try FieldWorker("signals", file.path)
        let line = try worker.line()
        #expect(
            Field.row(
                "memory.8", "SIGSEGV and SIGBUS at other addresses go to the program's own handler", expected: "ok",
                found: line))
        #expect(try worker.end() == 0)
    }

    // MARK: Processes in numbers

    @Test func fiveHundredProcessesAreExact() throws {
        let (file, observer, pool) = try temporary(cap: 1000)
        let herd = try FieldWorker("herd", file.path, "510", "2", "1")
        #expect(
            Field.row(
                "memory.9", "510 processes ask for 3 sessions each, cap 1000",
                expected: "attached 510 inspected 1000 bypassed 530 handles 510 failed 0 error 0 ", found: try herd.line()))
        expectConsistent(pool, inUse: 1000)
        #expect(pool.snapshot().processes == 511)
        let pages = 510 * 4096  // one of handles for each
        let taken = try memoryTaken(file.path)
        #expect(
            Field.row(
                "memory.10", "memory of 511 processes", expected: "as said",
                found: taken <= Segment.bytesTaken(processes: 511, cpus: observer.cpus) + pages ? "as said" : "\(taken) bytes"))
        let late = try FieldWorker("herd", file.path, "1", "1", "0")
        #expect(
            Field.row(
                "memory.11", "the 512th process", expected: "all 511 process slots are taken, counted",
                found: (try late.line().contains("all 511 process slots are taken") ? "all 511 process slots are taken" : "")
                    + (observer.refusedProcesses == 1 ? ", counted" : "")))
        try herd.say()
        _ = try herd.line()
        expectConsistent(pool, inUse: 0)
        #expect(pool.snapshot().free == 1000 && pool.snapshot().processes == 1)
        #expect(try herd.end() == 0)
    }

    // MARK: Slow ways

    @Test(arguments: [20, 60]) func theDeadAreReapedAtOnce(processes: Int) throws {
        let (file, observer, pool) = try temporary(cap: 1 << 20)
        // The keeper's table counts as well.
        let keeper = try file.attachKeeper()
        let herd = try FieldWorker("herd", file.path, "\(processes)", "10", "1000")
        #expect(try herd.line().hasPrefix("attached \(processes) inspected \(processes * 1010) "))
        try herd.say()
        let microseconds = try herd.numbers()
        #expect(
            Field.row(
                "memory.12", "\(processes) workers with 1000 handles each die; the next one attaches",
                expected: "within \(processes * 2) ms, 0 in use",
                found: (microseconds[0] < processes * 2000 ? "within \(processes * 2) ms" : "within \(microseconds[0]) us")
                    + ", \(pool.snapshot().inUse) in use"))
        print("reaping \(processes) dead workers with 1000 handles: \(microseconds) us")
        #expect(observer.reap() == 0)
        withExtendedLifetime(keeper) {}
    }

    @Test func aFullTableIsRefusedQuickly() throws {
        let (file, _, _) = try temporary(cap: 1 << 20)
        let worker = try FieldWorker("full", file.path)
        let nanoseconds = try worker.numbers()
        print("an admission by handle: \(nanoseconds) ns, table a quarter full, all taken")
        #expect(
            Field.row(
                "memory.13", "all 65,536 handles are taken: a further admission", expected: "at most 100 times one of before",
                found: nanoseconds[1] <= 100 * nanoseconds[0] ? "at most 100 times one of before" : "\(nanoseconds) ns"))
        #expect(try worker.end() == 0)
    }

    @Test func aCollectorThatMayNotFenceGivesUp() throws {
        guard FenceMode.best == .membarrier else { return }
        let (file, observer, pool) = try temporary(cap: 1000)
        let keeper = try file.attachKeeper()
        let lane = try observer.openLane(pool: 0)
        for _ in 0..<10 { #expect(lane.admit().detach() == .inspect) }
        let spare = pool.snapshot().spare
        #expect(spare > 0)
        let worker = try FieldWorker("forbidden", file.path)
        let first = try worker.numbers()
        #expect(first[0] == 1000 - 10 - spare)
        let listed = observer.processes().first { $0.processID == Int(worker.child.processID) }
        #expect(keeper.reap() == 0)
        try worker.say()
        let second = try worker.numbers()
        #expect(
            Field.row(
                "memory.14", "membarrier is forbidden after attach, the last free sessions are spare with another",
                expected: "refused within 100 ms, EPERM shown, \(spare) more after a reap",
                found: (first[1] < 100_000 ? "refused within 100 ms" : "refused after \(first[1]) us")
                    + (listed?.fenceError == EPERM ? ", EPERM shown" : ", error \(listed?.fenceError ?? -1)")
                    + ", \(second[0]) more after a reap"))
        print("a collector that may not fence is refused in \(first[1]) us")
        expectConsistent(pool, inUse: 1000)
        #expect(try worker.end() == 0)
    }

    @Test func collectingAllocatesNothing() throws {
        let (file, _, pool) = try temporary(cap: 1000)
        let before = pool.snapshot().collects
        let worker = try FieldWorker("collects", file.path, "100")
        let line = try worker.line()
        #expect(
            Field.row(
                "memory.15", "100 collects of spare sessions", expected: "admitted 100000 allocations 0", found: line))
        #expect(pool.snapshot().collects >= before + 100)
        #expect(try worker.end() == 0)
    }

    /// A slot's lock goes with the address space, and the kernel takes that down before it tells of the process' death.
    @Test func sessionsAreBackWhenAPidfdTellsOfTheDeath() throws {
        let (file, _, pool) = try temporary(cap: 10)
        let worker = try FieldWorker("death", file.path, "1024")
        let line = try worker.line()
        let status = try worker.end()
        print("a killed process with 1 GiB: \(line)")
        #expect(
            Field.row(
                "memory.16", "a process with 1 GiB is killed", expected: "its session is back no later than its pidfd tells",
                found: line.hasPrefix("back after") && status == 0
                    ? "its session is back no later than its pidfd tells" : line))
        expectConsistent(pool, inUse: 0)
    }
}
