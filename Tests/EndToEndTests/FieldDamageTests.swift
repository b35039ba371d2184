import Foundation
import TestSupport
import Testing

@testable import Admission
@testable import fpxd

extension EndToEnd {
    /// Workers that write where they should not, and files that go: real fpxd, and this process as the worker.
    @Suite struct FieldDamageTests {}
}

/// Writes to the file of a segment, as a faulty worker would through its mapping.
func overwrite(_ path: String, at offset: Int, with words: [UInt64]) throws {
    let descriptor = open(path, O_RDWR | O_CLOEXEC)
    try #require(descriptor >= 0)
    defer { close(descriptor) }
    let written = words.withUnsafeBytes { pwrite(descriptor, $0.baseAddress, $0.count, off_t(offset)) }
    try #require(written == words.count * 8)
}

extension DaemonControl {
    fileprivate var replacements: Int {
        log.split(separator: "\n").count { $0.contains("[CRITICAL]") && $0.contains("replaced") }
    }

    /// Attaches as nginx' module does: again, while the segment of that name is on its way out.
    func attachToCurrent() throws -> Segment {
        var found: Segment?
        expectEventually("a segment for new sessions: \(log.suffix(2000))") {
            guard let segment = try? Segment.attach(path: segmentPath) else { return false }
            if segment.isCurrent { found = segment } else { segment.detach() }
            return found != nil
        }
        return try #require(found)
    }
}

/// Admits until it is refused.
func fill(_ pool: Pool, atMost limit: Int = 1000) -> Int {
    var count = 0
    while count < limit, pool.admit().detach() == .inspect { count += 1 }
    return count
}

/// Admits so many in all, as they become free: what ends elsewhere comes bit by bit.
///
/// - Returns: how many were admitted.
@discardableResult
private func expectFilled(
    _ what: Comment, _ pool: Pool, with count: Int, sourceLocation: SourceLocation = #_sourceLocation
) -> Int {
    var filled = 0
    expectEventually(what, sourceLocation: sourceLocation) {
        filled += fill(pool, atMost: count - filled)
        return filled == count
    }
    return filled
}

extension EndToEnd.FieldDamageTests {
    @Test func theFileIsRemoved() throws {
        let daemon = try DaemonControl(cap: 100)
        let old = try Segment.attach(path: daemon.segmentPath)
        defer { old.detach() }
        let begun = fill(try old.pool(0), atMost: 40)
        try #require(begun == 40)
        unlink(daemon.segmentPath)
        expectEventually("fpxd says so") { daemon.replacements == 1 }
        let new = try daemon.attachToCurrent()
        defer { new.detach() }
        let more = fill(try new.pool(0))
        #expect(!old.isCurrent && old.isAttached)
        #expect(try old.pool(0).admit().verdict == .bypass)
        #expect(
            Field.row(
                "segment.1", "the segment's file is removed while 40 of 100 sessions are in progress",
                expected: "60 more, 100 in use", found: "\(more) more, \(try daemon.inUseByCommand()) in use"))
        for _ in 0..<15 { try old.pool(0).release(.inspect) }
        expectFilled("what ends in the old one is free in the new one", try new.pool(0), with: 15)
        #expect(fill(try new.pool(0)) == 0)
        // The daemon's next life finds the old segment through this process.
        try daemon.end(by: SIGKILL)
        try daemon.start()
        for _ in 0..<75 { try new.pool(0).release(.inspect) }
        let after = fill(try new.pool(0))
        #expect(
            Field.row(
                "segment.2", "the same, and fpxd is killed and started again: 25 in the old segment",
                expected: "75 in the new one", found: "\(after) in the new one"))
        old.detach()
        expectFilled("nothing is left of it", try new.pool(0), with: 25)
    }

    @Test func theWordOfFreeSessionsIsOverwritten() throws {
        let daemon = try DaemonControl(cap: 100)
        let old = try Segment.attach(path: daemon.segmentPath)
        defer { old.detach() }
        try #require(fill(try old.pool(0), atMost: 40) == 40)
        // 5000 free ones, as of an operation that is done.
        let word = old.engine(0).loadPool()
        let forged = PoolWord(
            free: 5000, loose: word.loose, amount: word.amount, sequence: word.sequence, target: word.target,
            operation: word.operation)
        try overwrite(daemon.segmentPath, at: Layout.pools, with: [forged.low])
        expectEventually("fpxd says so") { daemon.replacements == 1 }
        let new = try daemon.attachToCurrent()
        defer { new.detach() }
        #expect(daemon.log.contains("found free sessions of pool 0 5000, expected at most 100"))
        // What this process had in advance counts as its own.
        let spare = fill(try old.pool(0))
        let more = fill(try new.pool(0))
        #expect(
            Field.row(
                "segment.3", "one write of the word of free sessions: 5000 at a cap of 100, 40 in use",
                expected: "an event, 0 more in the old one, 50 to 60 in the new one",
                found: (daemon.replacements == 1 ? "an event" : "\(daemon.replacements) events")
                    + ", \(spare) more in the old one, \(50...60 ~= more ? "50 to 60" : "\(more)") in the new one"))
    }

    @Test func theCapAndFreeSessionsAreOverwrittenTogether() throws {
        let daemon = try DaemonControl(cap: 10)
        let segment = try Segment.attach(path: daemon.segmentPath)
        defer { segment.detach() }
        let engine = segment.engine(0)
        let word = engine.loadPool()
        let account = engine.capAccount.account
        let forged = Account(bound: 0, phase: 0, credit: 5000, sequence: account.sequence)
        engine.capAccount.high.store(forged.high)
        engine.low.store(
            PoolWord(
                free: 5000, loose: word.loose, amount: word.amount, sequence: word.sequence, target: word.target,
                operation: word.operation
            ).low)
        expectEventually("fpxd says so") { daemon.replacements == 1 }
        let new = try daemon.attachToCurrent()
        defer { new.detach() }
        #expect(fill(try new.pool(0)) == 10)
        #expect(daemon.log.contains("found cap of pool 0 5000, expected 10"))
    }

    @Test func theFileIsCut() throws {
        let daemon = try DaemonControl(cap: 100)
        let old = try Segment.attach(path: daemon.segmentPath)
        defer { old.detach() }
        let pool = try old.pool(0)
        try #require(fill(pool, atMost: 30) == 30)
        sleep(2)  // until fpxd has looked: what it saw last is all that it will know
        truncate(daemon.segmentPath, 0)
        let verdict = pool.admit().detach()
        expectEventually("fpxd says so") { daemon.replacements == 1 }
        let new = try daemon.attachToCurrent()
        defer { new.detach() }
        // What was free may have been taken before the memory went, so all of it counts while this process lives.
        let more = fill(try new.pool(0))
        #expect(
            Field.row(
                "segment.4", "truncate -s 0 under 30 sessions", expected: "bypass, detached, 0 more while the process lives",
                found: "\(verdict), \(old.isAttached ? "attached" : "detached"), \(more) more while the process lives"))
    }

    /// A worker that has found its memory gone has no lock there any more: fpxd knows it by its descriptor, which it closes
    /// with its last session of before.
    @Test(arguments: [0, 1 << 16, 5 << 18], ["runs", "is down"])
    func aWorkerTouchesTheFileThatWasCut(_ bytes: Int, _ moment: String) throws {
        let daemon = try DaemonControl(cap: 25)
        let old = try Segment.attach(path: daemon.segmentPath)
        defer { old.detach() }
        try #require(fill(try old.pool(0), atMost: 10) == 10)
        sleep(2)  // until fpxd has looked
        if moment == "is down" { try daemon.end(by: SIGKILL) }
        try #require(truncate(daemon.segmentPath, off_t(bytes)) == 0)
        let touched = fill(try old.pool(0), atMost: 3)
        if moment == "is down" { try daemon.start() }
        let new = try daemon.attachToCurrent()
        defer { new.detach() }
        sleep(2)  // fpxd looks at the old one, and finds that this process has it open
        let more = fill(try new.pool(0))
        let sum = 10 + touched + more
        daemon.leaveSegment()
        old.detach()
        let all = more + expectFilled("what it had is free again", try new.pool(0), with: 25 - more)
        #expect(
            Field.row(
                "segment.8",
                "the file is cut to \(bytes) bytes while fpxd \(moment), and its worker with 10 of 25 sessions touches it",
                expected: "at most 25 at once, 25 when they have ended",
                found: (sum <= 25 ? "at most 25 at once" : "\(sum) at once") + ", \(all) when they have ended"),
            "\(daemon.log.suffix(2000))")
    }

    /// Who is attached is known from locks, and what each has from its own words: a process that nothing tells of any more, and
    /// that never comes back for a session, takes away what it has and no more.
    @Test func theWordOfUsedSlotsIsOverwritten() throws {
        let daemon = try DaemonControl(cap: 100)
        // Damage comes before fpxd has seen who is there, or after: it looks each second, and this takes milliseconds.
        let idle = try Segment.attach(path: daemon.segmentPath)
        defer { idle.detach() }
        let old = try Segment.attach(path: daemon.segmentPath)
        defer { old.detach() }
        try #require(fill(try old.pool(0), atMost: 40) == 40)
        try overwrite(daemon.segmentPath, at: Layout.headerSlots, with: [0])
        expectEventually("fpxd says so") { daemon.replacements == 1 }
        let new = try daemon.attachToCurrent()
        defer { new.detach() }
        // What the worker had in advance counts as its own.
        let more = fill(try new.pool(0))
        old.detach()
        var inAll = more + expectFilled("what it had is free again", try new.pool(0), with: 100 - more)
        inAll += fill(try new.pool(0))
        #expect(
            Field.row(
                "segment.6", "one write of the word of used slots, 40 of 100 in use, two idle processes that nobody has seen",
                expected: "50 to 60 in the new one, 100 when the worker has left",
                found: "\(50...60 ~= more ? "50 to 60" : "\(more)") in the new one, \(inAll) when the worker has left"))
    }

    /// The last process may leave a former segment at any moment of a reaping: what it held is licensed in the present one
    /// after it.
    @Test func aFormerSegmentIsLeftWhileItIsReaped() throws {
        var missing = 0
        for _ in 0..<200 {
            let paths = [newSegmentPath(), newSegmentPath()]
            defer { for path in paths { unlink(path) } }
            let keepers = try paths.map { path in
                try Segment.create(path: path)
                let keeper = try Segment.attachKeeper(path: path)
                try keeper.pool(0).setCap(10)
                return keeper
            }
            defer { keepers[1].detach() }
            let worker = try Segment.attach(path: paths[0])
            try #require(fill(try worker.pool(0)) == 10)
            let host = HostSegment(
                keepers[1], former: [FoundSegment(keepers[0])], pools: 1,
                maker: .init(make: { throw CancellationError() }, publish: {}))
            _ = host.reap()
            let cap = try keepers[1].pool(0).cap
            try #require(cap == 0)
            let left = DispatchSemaphore(value: 0)
            Thread {
                usleep(.random(in: 0..<1000))
                worker.detach()
                left.signal()
            }.start()
            let deadline = ContinuousClock.now + .seconds(10)
            repeat { _ = host.reap() } while host.takenBefore(pool: 0) != 0 && ContinuousClock.now < deadline
            left.wait()
            try #require(host.takenBefore(pool: 0) == 0)
            for _ in 0..<2 { _ = host.reap() }
            missing += 10 - (try keepers[1].pool(0).cap)
        }
        #expect(
            Field.row(
                "segment.7", "200 times the last worker leaves a former segment while fpxd reaps it",
                expected: "0 sessions lost", found: "\(missing) sessions lost"))
    }

    /// What a segment admits that fpxd has found in order: one that is damaged admits too many until fpxd has looked at it.
    private func admittedBySound(_ daemon: DaemonControl, cap: Int) throws -> Int? {
        let segment = try daemon.attachToCurrent()
        defer { segment.detach() }
        sleep(2)
        let count = fill(try segment.pool(0))
        let isReplaced = eventually(within: count > cap ? 10 : 0) { !segment.isCurrent }
        return isReplaced ? nil : count
    }

    /// A vandal writes anywhere in what is used, and fpxd answers, and has a sound segment again.
    @Test func randomWrites() throws {
        let daemon = try DaemonControl(cap: 50)
        let seed = testSeed()
        var random = SeededGenerator(seed: seed)
        var slowest = Duration.zero
        for round in 0..<25 {
            let worker = try daemon.attachToCurrent()
            let pool = try worker.pool(0)
            _ = fill(pool, atMost: 10)
            let regions = [
                0..<256, Layout.pools..<Layout.pools + 3 * Layout.poolBytes,
                Layout.process(worker.slot)..<Layout.process(worker.slot) + 2600,
                Layout.process(Layout.keeperSlot)..<Layout.process(Layout.keeperSlot) + 2600,
                Layout.shards + worker.slot * Layout.shardsOfProcess..<Layout.shards + (worker.slot + 1)
                    * Layout.shardsOfProcess,
            ]
            for _ in 0..<(round % 3 == 0 ? 1 : 40) {
                let region = regions[Int(random.next() % UInt64(regions.count))]
                let offset = region.lowerBound + Int(random.next() % UInt64(region.count / 8)) * 8
                try overwrite(daemon.segmentPath, at: offset, with: [random.next()])
            }
            for _ in 0..<100 { _ = pool.admit().detach() }
            let begin = ContinuousClock.now
            #expect(
                try daemon.ask("get", "system", "status").status == 0, "seed \(seed), round \(round): \(daemon.log.suffix(500))"
            )
            slowest = max(slowest, ContinuousClock.now - begin)
            worker.detach()
        }
        // What damage has made of the words of a process counts until that has left.
        daemon.leaveSegment()
        var counts: [Int] = []
        try expectEventually("all are free again, seed \(seed)") {
            if let count = try admittedBySound(daemon, cap: 50) { counts.append(count) }
            return counts.last == 50
        }
        #expect(daemon.replacements > 0)
        let highest = counts.max() ?? 0
        #expect(
            Field.row(
                "segment.5", "25 rounds of random 8-byte writes, 50 licensed sessions",
                expected: "fpxd answers within 5 s, 50 sessions in the end, never more than 50",
                found: "fpxd answers within \(slowest < .seconds(5) ? "5 s" : "\(slowest)"), "
                    + "\(counts.last ?? 0) sessions in the end, "
                    + (highest <= 50 ? "never more than 50" : "\(highest) at once")),
            "seed \(seed), \(counts): \(daemon.log.suffix(3000))")
    }
}
