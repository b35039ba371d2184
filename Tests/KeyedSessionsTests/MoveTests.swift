import Foundation
import Testing

@testable import Admission
@testable import KeyedSessions

/// Sessions move to another segment, all or none.
@Suite struct MoveTests {
    private struct Ground {
        let path = "/dev/shm/fpx-test.\(getpid()).\(UInt32.random(in: 0...UInt32.max))"
        let segment: Segment

        init(cap: Int) throws {
            try Segment.create(path: path)
            segment = try Segment.attachKeeper(path: path)
            try segment.pool(0).setCap(cap)
        }

        func end() {
            segment.detach()
            for file in [path, path + ".sessions"] { unlink(file) }
        }

        func inUse() throws -> Int { try segment.pool(0).snapshot().inUse }
        func bypassed() throws -> Int { try segment.pool(0).snapshot().bypassed }
    }

    private func key(_ number: Int) throws -> SessionKey { try SessionKey("session \(number)") }

    @Test func allMoveAndCanBeEnded() throws {
        let old = try Ground(cap: 700)
        let new = try Ground(cap: 0)
        defer {
            old.end()
            new.end()
        }
        let sessions = try KeyedSessions(segment: old.segment, journal: old.path + ".sessions")
        for number in 0..<1000 {
            let verdict = try sessions.admit(SessionRequest(key: key(number), hook: .haproxy, pool: 0))
            #expect(verdict == (number < 700 ? .inspect : .bypass))
        }
        var stops = 0
        try sessions.move(to: new.segment) {
            stops += 1
            old.segment.markReplaced(isSound: true)
        }
        #expect(stops == 1)
        #expect(try old.inUse() == 0 && old.bypassed() == 0 && !old.segment.isCurrent)
        #expect(try new.inUse() == 700 && new.bypassed() == 300)
        #expect(try new.segment.pool(0).cap == 700)
        #expect(sessions.list(limit: 10).total == 1000)
        // The same session asks again, others end, a new one takes the place.
        #expect(try sessions.admit(SessionRequest(key: key(3), hook: .haproxy, pool: 0)) == .inspect)
        #expect(try sessions.release(key: key(3), hook: .haproxy) && sessions.release(key: key(999), hook: .haproxy))
        #expect(try new.inUse() == 699 && new.bypassed() == 299)
        #expect(try sessions.admit(SessionRequest(key: key(2000), hook: .haproxy, pool: 0)) == .inspect)
        // The next life reads the journal that was written while they moved.
        new.segment.detach()
        let successor = try Segment.attachKeeper(path: new.path)
        defer { successor.detach() }
        let restored = try KeyedSessions(segment: successor, journal: old.path + ".sessions")
        #expect(restored.takenOver.unknown == 0)
        #expect(restored.list(limit: 1).total == 999)
        #expect(restored.clearAll() == 999)
        #expect(try successor.pool(0).snapshot().inUse == 0)
    }

    @Test func whatCannotMoveStays() throws {
        let old = try Ground(cap: 5)
        let new = try Ground(cap: 0)
        defer {
            old.end()
            new.end()
        }
        let folder = old.path + ".folder"
        mkdir(folder, 0o700)
        let sessions = try KeyedSessions(segment: old.segment, journal: folder + "/sessions")
        unlink(folder + "/sessions")
        rmdir(folder)
        for number in 0..<7 { _ = try sessions.admit(SessionRequest(key: key(number), hook: .haproxy, pool: 0)) }
        #expect(throws: KeyedSessionsError.self) {
            try sessions.move(to: new.segment) { Issue.record("stopped") }
        }
        #expect(try old.inUse() == 5 && old.bypassed() == 2)
        #expect(try new.inUse() == 0 && new.bypassed() == 0)
        #expect(try sessions.release(key: key(0), hook: .haproxy))
        #expect(try old.inUse() == 4)
    }

    /// Requests of many threads go on while sessions move: none is lost, doubled or ended on the wrong segment.
    @Test func requestsGoOnMeanwhile() throws {
        let grounds = try (0..<4).map { _ in try Ground(cap: 0) }
        defer { for ground in grounds { ground.end() } }
        try grounds[0].segment.pool(0).setCap(4000)
        let sessions = try KeyedSessions(segment: grounds[0].segment, journal: grounds[0].path + ".sessions")
        DispatchQueue.concurrentPerform(iterations: 4) { worker in
            for number in 0..<500 {
                guard let key = try? key(worker * 10_000 + number),
                    let request = try? SessionRequest(key: key, hook: .haproxy, pool: 0)
                else { return }
                _ = sessions.admit(request)
                if number % 2 == 0 { sessions.release(key: key, hook: .haproxy) }
                guard worker == 0, number % 150 == 149 else { continue }
                let (from, to) = (grounds[number / 150], grounds[number / 150 + 1])
                try? sessions.move(to: to.segment) { from.segment.markReplaced(isSound: true) }
            }
        }
        let last = try #require(grounds.last)
        for ground in grounds.dropLast() { #expect(try ground.inUse() == 0 && ground.bypassed() == 0) }
        #expect(sessions.list(limit: 1).total == 1000)
        #expect(try last.inUse() + last.bypassed() == 1000)
        #expect(sessions.clearAll() == 1000)
        #expect(try last.inUse() == 0 && last.bypassed() == 0)
    }
}
