import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Admission
@testable import KeyedSessions

/// Random operations against a plain dictionary, and many threads against the law that nothing stays.
@Suite struct ModelTests {
    private struct Expected {
        var verdict: Verdict
        var owner: Int?
        var client: Int
    }

    @Test func agreesWithADictionary() throws {
        let seed = testSeed()
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let cap = 20
        let fixture = try Fixture(cap: cap)
        var processes = try (0..<3).map { _ in try IdleProcess() }
        var owners = try processes.map { try fixture.watch($0) }
        var live: [String: Expected] = [:]
        var ended: Set<String> = []
        func used(_ verdict: Verdict) -> Int { live.values.count { $0.verdict == verdict } }
        var next = 0
        for step in 0..<4000 {
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<45:
                let isNew = Bool.random(using: &random) || live.isEmpty
                let key = isNew ? "key \(next)" : live.keys.sorted().randomElement(using: &random) ?? ""
                if isNew { next += 1 }
                let owner = Int.random(in: 0...3, using: &random)
                let client = Int.random(in: 1...30, using: &random)
                let verdict = try fixture.admit(
                    key, owner: owner < 3 ? owners[owner] : nil, port: client, cookie: UInt64(client))
                let expected = live[key]?.verdict ?? (ended.contains(key) ? .bypass : used(.inspect) < cap ? .inspect : .bypass)
                try #require(verdict == expected, "seed \(seed) step \(step)")
                if live[key] == nil, !ended.contains(key) {
                    live[key] = Expected(verdict: verdict, owner: owner < 3 ? owner : nil, client: client)
                }
            case 45..<80:
                let isKnown = Int.random(in: 0..<10, using: &random) > 0
                let key = isKnown ? live.keys.sorted().randomElement(using: &random) ?? "none" : "key \(next)"
                if key == "key \(next)" { next += 1 }
                let isEnded = try fixture.release(key)
                try #require(isEnded == (live[key] != nil), "seed \(seed) step \(step)")
                if live.removeValue(forKey: key) == nil { ended.insert(key) }
            case 80..<90:
                let client = Int.random(in: 1...30, using: &random)
                let gone = live.filter { $0.value.client == client }
                let count = fixture.sessions.release(sockets: [UInt64(client)])
                try #require(count == gone.count, "seed \(seed) step \(step)")
                for key in gone.keys {
                    live[key] = nil
                    ended.insert(key)
                }
            case 90..<93:
                let index = Int.random(in: 0..<3, using: &random)
                processes[index].kill()
                let gone = live.filter { $0.value.owner == index }
                let left = live.count - gone.count
                #expect(
                    eventually {
                        fixture.sessions.tick()
                        return fixture.sessions.list(limit: 0).total == left
                    }, "seed \(seed) step \(step)")
                for key in gone.keys {
                    live[key] = nil
                    ended.insert(key)
                }
                processes[index] = try IdleProcess()
                owners[index] = try fixture.watch(processes[index])
            case 93..<96:
                try fixture.restart()
                owners = try processes.map { try fixture.watch($0) }
                ended = []  // a new life remembers no ends
            default:
                guard let some = fixture.sessions.list(limit: 1000).sessions.randomElement(using: &random) else { break }
                try #require(fixture.sessions.clear(some.handle), "seed \(seed) step \(step)")
                try #require(live.removeValue(forKey: some.key) != nil, "seed \(seed) step \(step)")
                ended.insert(some.key)
            }
            let snapshot = try fixture.snapshot()
            try #require(snapshot.inUse == used(.inspect), "seed \(seed) step \(step)")
            try #require(snapshot.bypassed == used(.bypass), "seed \(seed) step \(step)")
        }
        let listed = fixture.sessions.list(limit: 1000).sessions
        #expect(Set(listed.map(\.key)) == Set(live.keys), "seed \(seed)")
        #expect(listed.allSatisfy { live[$0.key]?.verdict == $0.verdict }, "seed \(seed)")
        for key in live.keys { try fixture.release(key) }
        try fixture.expectEmpty()
    }

    /// Threads admit and end the same few keys as fast as they can: ends meet admissions that are being decided.
    @Test(arguments: [Hook.haproxy, .squid]) func endsMeetAdmissions(hook: Hook) throws {
        let fixture = try Fixture(cap: 4)
        let sessions = fixture.sessions
        let observer = fixture.observer
        let over = Atomic<Int>(0)
        DispatchQueue.concurrentPerform(iterations: 6) { thread in
            var random = SeededGenerator(seed: UInt64(thread))
            for round in 0..<20_000 {
                // haproxy's keys are never used twice, so each round has keys of its own there.
                let name = Int.random(in: 0..<6, using: &random)
                let text = hook.keysAreUnique ? "\(round / 50) \(name)" : "\(name)"
                guard let key = try? SessionKey(text),
                    let client = try? Endpoint("192.0.2.1", port: name + 1), let local = try? Endpoint("192.0.2.2", port: 80),
                    let request = try? SessionRequest(key: key, hook: hook, pool: 0, client: client)
                else { return }
                // The kernel has no such socket: where news come during an admission, it is ended as gone.
                let socket = ProxySocket(local: local, client: client, cookie: UInt64(name + 1))
                switch Int.random(in: 0..<8, using: &random) {
                case 0..<4:
                    let news = sessions.socketNews.load(ordering: .sequentiallyConsistent)
                    _ = sessions.admit(request, boundTo: socket, news: news)
                case 4..<7: sessions.release(key: key, hook: hook)
                default: sessions.release(sockets: [socket.cookie])
                }
                if round % 500 == 0, let pool = try? observer.pool(0), pool.snapshot().inUse > 4 {
                    over.add(1, ordering: .relaxed)
                }
            }
        }
        #expect(over.load(ordering: .relaxed) == 0)
        let listed = sessions.list(limit: 1000)
        let snapshot = try fixture.snapshot()
        #expect(listed.total == snapshot.inUse + snapshot.bypassed)
        #expect(Set(listed.sessions.map(\.key)).count == listed.total)
        #expect(Set(fixture.keeper.handlesInUse()) == Set(listed.sessions.map(\.handle)))
        let begun = fixture.count(.admitted, hook) + fixture.count(.bypassed, hook)
        #expect(begun == fixture.count(.released, hook) + fixture.count(.endedBySocket, hook) + listed.total)
        #expect(begun > 1000)
        sessions.clearAll()
        try fixture.expectEmpty()
    }

    @Test func ownersDieUnderLoad() throws {
        let fixture = try Fixture(cap: 1000)
        let sessions = fixture.sessions
        let process = try IdleProcess()
        let watched = try fixture.watch(process)
        let id = process.id
        DispatchQueue.concurrentPerform(iterations: 4) { thread in
            for round in 0..<5000 {
                if thread == 0, round == 1000 { kill(id, SIGKILL) }
                if thread == 0, round % 100 == 0 { sessions.tick() }
                guard let key = try? SessionKey("\(thread) \(round)"),
                    let request = try? SessionRequest(key: key, hook: .haproxy, pool: 0, owner: watched)
                else { return }
                _ = sessions.admit(request)
                if round % 3 == 0 { sessions.release(key: key, hook: .haproxy) }
            }
        }
        #expect(
            eventually {
                sessions.tick()
                return watched.isDead
            })
        try fixture.expectEmpty()
        #expect(fixture.count(.endedByOwnerDeath) > 0)
    }
}
