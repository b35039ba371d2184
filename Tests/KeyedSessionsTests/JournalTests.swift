import CKeyedTable
import Foundation
import TestSupport
import Testing

@testable import Admission
@testable import KeyedSessions

/// Whatever becomes of the journal's file, no session is lost from the count.
@Suite struct JournalTests {
    /// What befalls the file.
    enum Fate: String, CaseIterable {
        case removed, emptied, cut, junk, zeros, replaced, olderVersion, madeAFolder, madeALink, madeAPipe, anotherUser

        func befall(_ path: String, entry: Int) throws {
            func write(_ bytes: [UInt8], at offset: Int) throws {
                let file = try #require(FileHandle(forUpdatingAtPath: path))
                try file.seek(toOffset: UInt64(offset))
                try file.write(contentsOf: bytes)
                try file.close()
            }
            switch self {
            case .removed: try #require(unlink(path) == 0)
            case .emptied: try #require(truncate(path, 0) == 0)
            case .cut: try #require(truncate(path, 4096) == 0)
            case .junk: try write((0..<256).map { _ in UInt8.random(in: 0...255) }, at: 4096 + entry * 256)
            // The header too, but not the size.
            case .zeros: try #require(truncate(path, 0) == 0 && truncate(path, 16_781_312) == 0)
            case .replaced:
                unlink(path)
                try Data("text".utf8).write(to: URL(filePath: path))
            case .olderVersion: try write([1], at: 8)
            case .madeAFolder:
                unlink(path)
                try #require(mkdir(path, 0o700) == 0)
            case .madeALink:
                try #require(rename(path, path + ".elsewhere") == 0)
                try #require(symlink(path + ".elsewhere", path) == 0)
            case .madeAPipe:
                unlink(path)
                try #require(mkfifo(path, 0o600) == 0)
            case .anotherUser: try #require(chown(path, 65534, 65534) == 0)
            }
        }

        static func cleanUp(_ path: String) {
            for end in ["", ".damaged"] {
                unlink(path + end)
                rmdir(path + end)
            }
            unlink(path + ".elsewhere")
        }
    }

    private static var possible: [Fate] { Fate.allCases.filter { $0 != .anotherUser || geteuid() == 0 } }

    /// While the daemon runs the look finds it, and the next life follows all sessions.
    @Test(arguments: possible.filter { $0 != .anotherUser }) func renewedWhileTheDaemonRuns(_ fate: Fate) throws {
        let fixture = try Fixture(cap: 3)
        defer { Fate.cleanUp(fixture.journalPath) }
        for index in 0..<5 { _ = try fixture.admit("\(index)", port: 1 + index, cookie: UInt64(1 + index)) }
        #expect(fixture.sessions.journalFault() == nil)
        let entry = try #require(fixture.keeper.handlesInUse().first?.entry)
        try fate.befall(fixture.journalPath, entry: entry)
        let fault = try #require(fixture.sessions.journalFault())
        print("\(fate): \(fault)")
        // Sessions begin and end meanwhile.
        #expect(try fixture.admit("late") == .bypass)
        #expect(try fixture.release("1"))
        #expect(try fixture.sessions.renewJournal() == 5)
        #expect(fixture.sessions.journalFault() == nil)
        #expect(try fixture.admit("later") == .inspect)
        let before = fixture.sessions.list(limit: 10).sessions
        try fixture.restart()
        #expect(fixture.sessions.takenOver.fault == nil && fixture.sessions.takenOver.unknown == 0)
        #expect(fixture.sessions.list(limit: 10).sessions == before && before.count == 6)
        #expect(try fixture.snapshot().inUse == 3 && fixture.snapshot().bypassed == 3)
        #expect(fixture.sessions.release(sockets: [1]) == 1)
        fixture.sessions.clearAll()
        try fixture.expectEmpty()
    }

    /// While the daemon is down: all stay counted, what can be relied on is followed, and nothing but an operator ends the rest.
    @Test(arguments: possible) func foundAtAStart(_ fate: Fate) throws {
        let fixture = try Fixture(cap: 3)
        let path = fixture.journalPath
        defer { Fate.cleanUp(path) }
        for index in 0..<5 { _ = try fixture.admit("\(index)", port: 1 + index, cookie: UInt64(1 + index)) }
        let entry = try #require(fixture.keeper.handlesInUse().first?.entry)
        try fixture.restart { try fate.befall(path, entry: entry) }
        let found = fixture.sessions.takenOver
        print("\(fate): \(found.fault ?? "")")
        #expect(found.fault != nil && found.noJournal == nil && found.total == 5)
        #expect(found.movedTo == (fate == .removed ? nil : path + ".damaged"))
        #expect(found.newlyUnknown == (fate == .junk ? 1 : fate == .olderVersion ? 0 : 5))
        #expect(try fixture.snapshot().inUse == 3 && fixture.snapshot().bypassed == 2)
        #expect(try fixture.admit("more") == .bypass)
        // Not by the proxy's word, nor with a socket.
        fixture.sessions.tick()
        for index in 0..<5 { _ = try fixture.release("\(index)") }
        #expect(fixture.sessions.release(sockets: 1...5) == 0)
        #expect(fixture.listed.unknown.count == found.newlyUnknown)
        // The next life knows that it does not know them, and has a journal in order.
        try fixture.restart()
        #expect(fixture.sessions.takenOver.unknown == found.newlyUnknown && fixture.sessions.takenOver.fault == nil)
        let one = fixture.listed.unknown.first
        if let one { #expect(fixture.sessions.clear(one.handle)) }
        #expect(fixture.sessions.clearUnknown() == max(0, found.newlyUnknown - 1))
        #expect(fixture.listed.known.map(\.key) == ["more"])
        fixture.sessions.clearAll()
        try fixture.expectEmpty()
    }

    /// Without sessions nobody misses it.
    @Test(arguments: possible) func foundAtAStartWithoutSessions(_ fate: Fate) throws {
        let fixture = try Fixture(cap: 3)
        defer { Fate.cleanUp(fixture.journalPath) }
        _ = try fixture.admit("a")
        let entry = try #require(fixture.keeper.handlesInUse().first?.entry)
        try fixture.release("a")
        try fixture.restart { try fate.befall(fixture.journalPath, entry: entry) }
        #expect((fixture.sessions.takenOver.fault == nil) == (fate == .removed))
        #expect(fixture.sessions.takenOver.total == 0 && fixture.sessions.journalFault() == nil)
        _ = try fixture.admit("b")
        try fixture.restart()
        #expect(fixture.listed.known.map(\.key) == ["b"])
        fixture.sessions.clearAll()
        try fixture.expectEmpty()
    }

    /// A record that is written over by zeros is not that of an admission that was cut short.
    @Test func zerosOverRecords() throws {
        let fixture = try Fixture(cap: 9)
        for index in 0..<3 { _ = try fixture.admit("\(index)") }
        let entry = try #require(fixture.keeper.handlesInUse().first?.entry)
        try fixture.restart { try fixture.write([UInt8](repeating: 0, count: 256), at: 4096 + entry * 256) }
        #expect(fixture.listed.known.count == 2 && fixture.listed.unknown.count == 1)
        #expect(try fixture.snapshot().inUse == 3)
        // All of them, so that nothing in the file looks like damage.
        try fixture.restart { try fixture.write([UInt8](repeating: 0, count: 16_777_216), at: 4096) }
        #expect(fixture.sessions.takenOver.fault == "it does not tell of 3 sessions in progress")
        #expect(fixture.sessions.takenOver.movedTo != nil && fixture.listed.unknown.count == 3)
        fixture.sessions.clearAll()
        try fixture.expectEmpty()
    }

    /// The look finds nothing wrong while many threads admit and end.
    @Test func theLookUnderLoad() throws {
        let fixture = try Fixture(cap: 1000)
        let sessions = fixture.sessions
        let stop = DispatchSemaphore(value: 0)
        let threads = (0..<3).map { worker in
            let thread = Thread {
                var number = 0
                while stop.wait(timeout: .now()) == .timedOut {
                    number += 1
                    guard let key = try? SessionKey("\(worker) \(number)"),
                        let old = try? SessionKey("\(worker) \(number - 300)"),
                        let request = try? SessionRequest(key: key, hook: .haproxy, pool: 0)
                    else { return }
                    _ = sessions.admit(request)
                    sessions.release(key: old, hook: .haproxy)
                }
                stop.signal()
            }
            thread.start()
            return thread
        }
        for round in 0..<200 {
            #expect(sessions.journalFault() == nil)
            if round % 20 == 0 { _ = try sessions.renewJournal() }
        }
        stop.signal()
        #expect(eventually { threads.allSatisfy(\.isFinished) })
        let before = sessions.list(limit: .max).sessions
        #expect(before.count >= 300)
        try fixture.restart()
        #expect(fixture.sessions.list(limit: .max).sessions == before)
        fixture.sessions.clearAll()
    }
}

// MARK: - The segment is gone

extension JournalTests {
    /// A daemon that finds no segment: it makes one, which gets its name in the end.
    private func startAnew(_ fixture: Fixture, former: [Segment] = []) throws -> (segment: Segment, sessions: KeyedSessions) {
        let next = fixture.segmentPath + ".next"
        try Segment.create(path: next)
        let segment = try Segment.attachKeeper(path: fixture.segmentPath, file: next)
        var isPublished = false
        let sessions = try KeyedSessions(segment: segment, former: former, journal: fixture.journalPath) {
            #expect(segment.handlesInUse().count > 0)
            try #require(rename(next, fixture.segmentPath) == 0)
            isPublished = true
        }
        #expect(isPublished && segment.place == .there)
        return (segment, sessions)
    }

    /// The journal alone says who is there: those that have ended are not in it any more.
    @Test func theSegmentIsGone() throws {
        let fixture = try Fixture(cap: 3)
        for index in 0..<5 { _ = try fixture.admit("\(index)", port: 1 + index, cookie: UInt64(1 + index)) }
        try fixture.release("1")
        _ = try fixture.admit("again")
        fixture.keeper.detach()
        fixture.observer.detach()
        try #require(unlink(fixture.segmentPath) == 0)
        let (segment, sessions) = try startAnew(fixture)
        defer { segment.detach() }
        #expect(sessions.takenOver.described == 5 && sessions.takenOver.unknown == 0 && sessions.takenOver.hasMoved)
        #expect(Set(sessions.list(limit: 9).sessions.map(\.key)) == ["0", "2", "3", "4", "again"])
        let pool = try segment.pool(0)
        #expect(pool.snapshot().inUse == 3 && pool.snapshot().bypassed == 2 && pool.cap == 3)
        #expect(sessions.journalFault() == nil)
        #expect(sessions.release(sockets: [1, 5]) == 2)
        // And so on, for the life after.
        segment.detach()
        let next = try Segment.attachKeeper(path: fixture.segmentPath)
        defer { next.detach() }
        let later = try KeyedSessions(segment: next, journal: fixture.journalPath)
        #expect(Set(later.list(limit: 9).sessions.map(\.key)) == ["2", "3", "again"])
        #expect(later.takenOver.fault == nil && !later.takenOver.hasMoved)
        #expect(later.clearAll() == 3)
        #expect(try next.pool(0).snapshot().inUse == 0)
    }

    /// Another process has the former one: its handles say that also those are there whose records are lost.
    @Test(arguments: [false, true]) func theSegmentIsFound(withJournal: Bool) throws {
        let fixture = try Fixture(cap: 3)
        for index in 0..<5 { _ = try fixture.admit("\(index)") }
        let entry = try #require(fixture.keeper.handlesInUse().first?.entry)
        fixture.keeper.detach()
        if withJournal {
            try fixture.write([UInt8](repeating: 1, count: 9), at: 4096 + entry * 256 + 70)
        } else {
            unlink(fixture.journalPath)
        }
        try #require(rename(fixture.segmentPath, fixture.segmentPath + ".former") == 0)
        let former = try Segment.attachKeeper(path: fixture.segmentPath, file: fixture.segmentPath + ".former")
        unlink(fixture.segmentPath + ".former")
        let (segment, sessions) = try startAnew(fixture, former: [former])
        defer { segment.detach() }
        #expect(sessions.takenOver.newlyUnknown == (withJournal ? 1 : 5) && sessions.takenOver.total == 5)
        let pool = try segment.pool(0)
        #expect(pool.snapshot().inUse == 3 && pool.snapshot().bypassed == 2)
        // Counted in both, until the former one admits nobody.
        #expect(former.handlesInUse().count == 5)
        sessions.leave([former])
        #expect(former.handlesInUse().isEmpty)
        #expect(try former.pool(0).snapshot().inUse == 0)
        former.detach()
        #expect(sessions.clearAll() == 5)
        #expect(pool.snapshot().inUse == 0)
    }
}

// MARK: - No room

extension JournalTests {
    @Test(.enabled(if: TemporaryFileSystem.isPermitted, "mounting a tmpfs takes root")) func noRoom() throws {
        let disk = try TemporaryFileSystem(bytes: 8 << 20)
        let path = disk.path + "/segment"
        try Segment.create(path: path)
        var keeper = try Segment.attachKeeper(path: path)
        try keeper.pool(0).setCap(100)
        var sessions = try KeyedSessions(segment: keeper, journal: path + ".sessions")
        func admit(_ key: String) throws -> Verdict {
            try sessions.admit(SessionRequest(key: SessionKey(key), hook: .haproxy, pool: 0))
        }
        #expect(sessions.hasRoom)
        #expect(try admit("a") == .inspect)
        try disk.fill()
        #expect(!sessions.hasRoom)
        // A start needs none, unless the journal is lost.
        keeper.detach()
        keeper = try Segment.attachKeeper(path: path)
        sessions = try KeyedSessions(segment: keeper, journal: path + ".sessions")
        #expect(sessions.takenOver == TakenOver(described: 1) && !sessions.hasRoom)
        try #require(truncate(path + ".sessions", 100) == 0)
        try disk.fill()
        keeper.detach()
        keeper = try Segment.attachKeeper(path: path)
        sessions = try KeyedSessions(segment: keeper, journal: path + ".sessions")
        #expect(sessions.takenOver.noJournal?.contains("ENOSPC") == true && sessions.takenOver.unknown == 1)
        #expect(try admit("b") == .bypass && sessions.count(.exhausted, of: .haproxy) == 1)
        #expect(sessions.journalFault() != nil)
        #expect(throws: KeyedSessionsError.self) { try sessions.renewJournal() }
        disk.makeRoom()
        #expect(try sessions.renewJournal() == 1)
        #expect(sessions.journalFault() == nil && sessions.hasRoom)
        #expect(try admit("b") == .inspect)
        #expect(try keeper.pool(0).snapshot().inUse == 2)
        keeper.detach()
    }
}
