import CKeyedTable
import Foundation
import TestSupport
import Testing

@testable import Admission
@testable import KeyedSessions

@Suite struct RestoreTests {
    @Test func sessionsOutliveTheDaemon() throws {
        let fixture = try Fixture(cap: 3)
        let process = try IdleProcess()
        let owner = try fixture.watch(process)
        for index in 0..<5 {
            _ = try fixture.admit("\(index)", owner: index == 4 ? owner : nil, port: 100 + index, cookie: UInt64(100 + index))
        }
        let before = fixture.sessions.list(limit: 10).sessions
        try fixture.restart()
        #expect(fixture.sessions.list(limit: 10).sessions == before)
        #expect(fixture.count(.restored) == 5)
        #expect(try fixture.snapshot().inUse == 3)
        #expect(try fixture.snapshot().bypassed == 2)
        #expect(try fixture.admit("1") == .inspect)
        #expect(try fixture.admit("4") == .bypass)
        #expect(try fixture.release("0"))
        #expect(fixture.sessions.boundSockets().count == 4)
        #expect(fixture.sessions.release(sockets: [102]) == 1)
        process.kill()
        #expect(
            eventually {
                fixture.sessions.tick()
                return fixture.sessions.list(limit: 10).total == 2
            })
        // Its process dies while the daemon is away.
        let other = try IdleProcess()
        let second = try fixture.watch(other)
        _ = try fixture.admit("6", owner: second)
        try fixture.restart {
            other.kill()
            other.process.wait()
        }
        #expect(fixture.count(.endedByOwnerDeath) == 1)
        #expect(fixture.sessions.clearAll() == 2)
        try fixture.expectEmpty()
    }

    /// Sessions of a proxy that died with the daemon are taken over in about the time that those of a living one are: a start
    /// looks through the table once, not once a session.
    @Test func manySessionsOfADeadOwner() throws {
        let fixture = try Fixture(cap: 16_000)
        let process = try IdleProcess()
        let owner = try fixture.watch(process)
        for index in 0..<32_000 { _ = try fixture.admit("\(index)", owner: owner) }
        let clock = ContinuousClock()
        var restart = clock.now
        try fixture.restart { restart = clock.now }
        let alive = clock.now - restart
        #expect(fixture.count(.restored) == 32_000)
        #expect(fixture.count(.endedByOwnerDeath) == 0)
        try fixture.restart {
            process.kill()
            process.process.wait()
            restart = clock.now
        }
        let dead = clock.now - restart
        print("32,000 sessions restored in \(alive), of a dead owner in \(dead)")
        #expect(fixture.count(.endedByOwnerDeath) == 32_000)
        #expect(dead < alive * 20)
        try fixture.expectEmpty()
    }

    @Test func handlesWithoutARecordGoBack() throws {
        let fixture = try Fixture(cap: 3)
        _ = try fixture.admit("kept")
        let own = try fixture.keeper.pool(0)
        let lost = try #require(try fixture.keeper.handle(own.admit()))
        #expect(try fixture.snapshot().inUse == 2)
        try fixture.restart()
        #expect(try fixture.snapshot().inUse == 1)
        #expect(!fixture.keeper.handlesInUse().contains(lost))
        #expect(try fixture.release("kept"))
        try fixture.expectEmpty()
    }

    /// Whatever stands in the file: the daemon starts, what it can rely on is followed, and the rest stays counted.
    @Test func damagedRecords() throws {
        let seed = testSeed()
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        for round in 0..<60 {
            let fixture = try Fixture(cap: 10)
            for index in 0..<20 { _ = try fixture.admit("\(index)", port: 1 + index, cookie: UInt64(1 + index)) }
            let before = fixture.sessions.list(limit: 100).sessions
            var damaged: Set<SessionHandle> = []
            try fixture.restart {
                for session in before where Bool.random(using: &random) {
                    damaged.insert(session.handle)
                    let record = 4096 + session.handle.entry * 256
                    let byte = Int.random(in: 0..<256, using: &random)
                    let old = withUnsafeBytes(of: try fixture.record(session.handle.entry)) { $0[byte] }
                    try fixture.write([old ^ UInt8.random(in: 1...255, using: &random)], at: record + byte)
                    for _ in 0..<Int.random(in: 0...40, using: &random) {
                        let other = (byte + Int.random(in: 1..<256, using: &random)) % 256
                        try fixture.write([UInt8.random(in: 0...255, using: &random)], at: record + other)
                    }
                }
            }
            fixture.sessions.tick()
            let comment: Comment = "seed \(seed) round \(round)"
            let listed = fixture.listed
            #expect(listed.known == before.filter { !damaged.contains($0.handle) }, comment)
            #expect(Set(listed.unknown.map(\.handle)) == damaged, comment)
            #expect(try fixture.snapshot().inUse == 10 && fixture.snapshot().bypassed == 10, comment)
            #expect(fixture.sessions.takenOver.newlyUnknown == damaged.count, comment)
            #expect((fixture.sessions.takenOver.fault != nil) == !damaged.isEmpty, comment)
            // The next life finds a journal that is in order.
            try fixture.restart()
            #expect(fixture.sessions.takenOver.fault == nil && fixture.sessions.takenOver.newlyUnknown == 0, comment)
            #expect(fixture.listed.known == listed.known && fixture.listed.unknown == listed.unknown, comment)
            #expect(fixture.sessions.clearUnknown() == damaged.count, comment)
            fixture.sessions.clearAll()
            try fixture.expectEmpty()
        }
    }

    /// The same cookie in another network namespace, or none that can be told, is no socket that is known to be this one's.
    @Test(arguments: [0, 1]) func aSocketOfAnotherNetwork(network: UInt32) throws {
        let fixture = try Fixture(cap: 10)
        _ = try fixture.admit("a", cookie: 5)
        let entry = try #require(fixture.keeper.handlesInUse().first?.entry)
        func write(_ value: UInt32) throws { try fixture.overwrite(entry, \.network_namespace, value) }
        try fixture.restart { try write(network) }
        #expect(fixture.sessions.boundSockets() == [])
        #expect(fixture.sessions.release(sockets: [5]) == 0)
        // Back in its own namespace it is bound again.
        try fixture.restart { try write(Namespace.network) }
        #expect(fixture.sessions.boundSockets().map(\.client.description) == ["192.0.2.1:1000"])
        #expect(fixture.sessions.release(sockets: [5]) == 1)
        try fixture.expectEmpty()
    }

    /// A process that is not to be seen from another process namespace has not died, nor has one whose age is told by another
    /// clock.
    @Test(arguments: [\fpx_record.process_namespace, \.time_namespace])
    func anOwnerInAnotherNamespace(field: WritableKeyPath<fpx_record, UInt32> & Sendable) throws {
        let fixture = try Fixture(cap: 10)
        let process = try IdleProcess()
        _ = try fixture.admit("a", owner: try fixture.watch(process))
        let entry = try #require(fixture.keeper.handlesInUse().first?.entry)
        process.kill()
        _ = process.process.wait()
        try fixture.restart { try fixture.overwrite(entry, field, 1) }
        fixture.sessions.tick()
        #expect(fixture.sessions.list(limit: 2).sessions.map(\.processID) == [0])
        #expect(fixture.count(.endedByOwnerDeath) == 0)
        // Where the number means something it is dead.
        let own = field == \.time_namespace ? Namespace.time : Namespace.process
        try fixture.restart { try fixture.overwrite(entry, field, own) }
        #expect(fixture.count(.endedByOwnerDeath) == 1)
        try fixture.expectEmpty()
    }

    /// Whose the second one is nobody knows, but it was counted.
    @Test func twoRecordsOfOneKey() throws {
        let fixture = try Fixture(cap: 10)
        _ = try fixture.admit("a")
        _ = try fixture.admit("b")
        let entries = fixture.keeper.handlesInUse().map(\.entry)
        try fixture.restart { try fixture.overwrite(entries[1], \.key, fixture.record(entries[0]).key) }
        #expect(fixture.listed.known.count == 1 && fixture.listed.unknown.count == 1)
        #expect(try fixture.snapshot().inUse == 2)
        fixture.sessions.clearAll()
        try fixture.expectEmpty()
    }

    /// A daemon is killed again and again while four of its threads admit and end sessions; each next one takes over what is
    /// there. Count, list and handles agree at every start.
    @Test func killedAtAnyMoment() throws {
        let seed = testSeed()
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let fixture = try Fixture(cap: 500)
        fixture.keeper.detach()
        let victim = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
            .appendingPathComponent("KeyedSessionsVictim").path
        var restored = 0
        var unknown = 0
        for round in 0..<40 {
            let process = try ChildProcess(
                [victim, fixture.segmentPath, fixture.journalPath, "\(seed)", "\(round)"], output: .pipe, error: .inherited)
            // Its first byte says that it admits.
            try #require(try process.output?.read(upToCount: 1)?.count == 1, "seed \(seed) round \(round)")
            usleep(UInt32.random(in: 0...15_000, using: &random))
            process.signal(SIGKILL)
            process.wait()
            let keeper = try Segment.attachKeeper(path: fixture.segmentPath)
            let sessions = try KeyedSessions(segment: keeper, journal: fixture.journalPath)
            let listed = sessions.list(limit: .max)
            let snapshot = try fixture.snapshot()
            #expect(snapshot.conservation?.holds == true, "seed \(seed) round \(round)")
            #expect(snapshot.inUse == listed.sessions.count { $0.verdict == .inspect }, "seed \(seed) round \(round)")
            #expect(snapshot.bypassed == listed.sessions.count { $0.verdict == .bypass }, "seed \(seed) round \(round)")
            #expect(snapshot.inUse <= 500)
            #expect(Set(keeper.handlesInUse()) == Set(listed.sessions.map(\.handle)), "seed \(seed) round \(round)")
            restored += sessions.count(.restored, of: .haproxy)
            // Some end here, so that the table does not only fill.
            for session in listed.sessions where session.hook != nil && Int.random(in: 0..<4, using: &random) == 0 {
                #expect(sessions.release(key: try SessionKey(session.key), hook: .haproxy))
            }
            // Killed just before a page's first record was written: at most one of each thread.
            unknown += sessions.clearUnknown()
            #expect(sessions.takenOver.newlyUnknown <= 4, "seed \(seed) round \(round)")
            keeper.detach()
        }
        #expect(restored > 40)
        // So few that nobody is troubled by a fpxd that is killed.
        #expect(unknown < 20, "seed \(seed)")
        try fixture.restart()
        fixture.sessions.clearAll()
        try fixture.expectEmpty()
    }
}
