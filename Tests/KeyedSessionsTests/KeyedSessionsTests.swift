import Foundation
import Testing

@testable import Admission
@testable import KeyedSessions

@Suite struct KeyedSessionsTests {
    @Test func aKeyIsCountedOnceAndEndsOnce() throws {
        let fixture = try Fixture(cap: 2)
        #expect(try fixture.admit("a") == .inspect)
        #expect(try fixture.admit("a") == .inspect)
        #expect(try fixture.admit("b") == .inspect)
        #expect(try fixture.admit("c") == .bypass)
        #expect(try fixture.admit("c") == .bypass)
        #expect(try fixture.snapshot().inUse == 2)
        #expect(try fixture.snapshot().bypassed == 1)
        #expect(try fixture.release("a"))
        #expect(try !fixture.release("a", hook: .squid))
        #expect(try fixture.snapshot().inUse == 1)
        #expect(try fixture.admit("d") == .inspect)
        for key in ["b", "c", "d"] { #expect(try fixture.release(key)) }
        try fixture.expectEmpty()
        #expect(fixture.count(.admitted) == 3)
        #expect(fixture.count(.bypassed) == 1)
        #expect(fixture.count(.repeated) == 2)
        #expect(fixture.count(.released) == 4)
        #expect(fixture.count(.unknownEnds) == 0)
        #expect(fixture.count(.unknownEnds, .squid) == 1)
    }

    @Test func blockedSessionsHoldNothing() throws {
        let fixture = try Fixture(cap: 1)
        try fixture.observer.pool(0).policy = .block
        #expect(try fixture.admit("a") == .inspect)
        #expect(try fixture.admit("b") == .block)
        #expect(fixture.keeper.handlesInUse().count == 1)
        #expect(fixture.count(.blocked) == 1)
        // The verdict of a blocked session was for that attempt alone.
        try fixture.release("a")
        #expect(try fixture.admit("b") == .inspect)
        try fixture.release("b")
        try fixture.expectEmpty()
    }

    @Test func poolsAreCountedApart() throws {
        let fixture = try Fixture(cap: 1)
        #expect(try fixture.admit("a", pool: 0) == .inspect)
        #expect(try fixture.admit("b", pool: 1) == .inspect)
        #expect(try fixture.admit("c", pool: 1) == .bypass)
        #expect(try fixture.snapshot(1).inUse == 1)
        #expect(fixture.sessions.list(limit: 10).sessions.map(\.pool).sorted() == [0, 1, 1])
        #expect(fixture.sessions.clearAll() == 3)
        try fixture.expectEmpty()
    }

    @Test func anEndBeforeItsAdmissionIsRememberedWhereKeysAreUnique() throws {
        let fixture = try Fixture(cap: 5)
        #expect(try !fixture.release("a"))
        #expect(try fixture.admit("a") == .bypass)
        try fixture.expectEmpty()
        #expect(fixture.count(.unknownEnds) == 1)
        #expect(fixture.count(.late) == 1)
        #expect(try !fixture.release("a"))
        #expect(fixture.count(.repeatedEnds) == 1)
        // squid's keys come again with the client's port.
        #expect(try !fixture.release("a", hook: .squid))
        #expect(try fixture.admit("a", hook: .squid) == .inspect)
        #expect(try fixture.release("a", hook: .squid))
        #expect(try fixture.admit("a", hook: .squid) == .inspect)
        #expect(fixture.sessions.clearAll() == 1)
        #expect(try fixture.admit("a", hook: .squid) == .inspect)
        try fixture.release("a", hook: .squid)
        try fixture.expectEmpty()
    }

    @Test func oldEndsAreForgotten() throws {
        var memory = EndedMemory()
        let fixture = try Fixture(cap: 1)
        let table = fixture.sessions.table
        for index in 0..<3 { try fixture.release("\(index)") }
        table.reading {
            var now: UInt64 = 1
            table.forEach {
                memory.remember($0, now: now)
                now += 1
            }
            #expect(memory.forget(now: EndedMemory.lifetime) == nil)
            #expect(memory.forget(now: EndedMemory.lifetime + 2) != nil)
            #expect(memory.forget(now: EndedMemory.lifetime + 2) != nil)
            #expect(memory.forget(now: EndedMemory.lifetime + 2) == nil)
            #expect(memory.count == 1)
        }
        // More than are remembered: the table does not grow with a flood of ends.
        for index in 0..<(EndedMemory.limit + 5000) { try fixture.release("flood \(index)") }
        var nodes = 0
        table.reading { table.forEach { _ in nodes += 1 } }
        #expect(nodes == EndedMemory.limit)
        #expect(try fixture.admit("flood 0") == .inspect)
        #expect(try fixture.admit("flood \(EndedMemory.limit + 4999)") == .bypass)
        #expect(fixture.count(.late) == 1)
    }

    @Test func endsTellWhetherTheVerdictWasHeeded() throws {
        let fixture = try Fixture(cap: 1)
        _ = try fixture.admit("a")
        _ = try fixture.admit("b")
        #expect(fixture.sessions.release(key: try SessionKey("a"), hook: .haproxy, heeded: false))
        #expect(fixture.sessions.release(key: try SessionKey("b"), hook: .haproxy, heeded: false))
        #expect(fixture.count(.unheeded) == 1)
        try fixture.expectEmpty()
    }

    @Test func allHandlesInUse() throws {
        let fixture = try Fixture(cap: 100_000)
        for index in 0..<Limits.handles { #expect(try fixture.admit("\(index)") == .inspect) }
        #expect(try fixture.admit("more") == .bypass)
        try fixture.observer.pool(0).policy = .block
        #expect(try fixture.admit("more") == .block)
        #expect(fixture.count(.exhausted) == 2)
        #expect(try fixture.snapshot().inUse == Limits.handles)
        #expect(try fixture.release("17"))
        #expect(try fixture.admit("more") == .inspect)
        #expect(fixture.sessions.list(limit: 3).total == Limits.handles)
        #expect(fixture.sessions.list(limit: 3).sessions.count == 3)
        #expect(fixture.sessions.clearAll() == Limits.handles)
        try fixture.expectEmpty()
    }

    @Test func whatAnOperatorSeesAndClears() throws {
        let fixture = try Fixture(cap: 1)
        let owner = try #require(Owner(runningProcess: getpid()))
        let watched = fixture.sessions.watch(owner)
        _ = try fixture.admit("one", owner: watched, client: "192.0.2.7", port: 4711)
        _ = try fixture.admit("two", client: "2001:db8::1", port: 80)
        let listed = fixture.sessions.list(limit: 10).sessions
        let one = try #require(listed.first { $0.key == "one" })
        let two = try #require(listed.first { $0.key == "two" })
        #expect(one.processID == Int(getpid()) && two.processID == 0)
        #expect(one.client?.description == "192.0.2.7:4711")
        #expect(two.client?.description == "[2001:db8::1]:80")
        #expect(one.verdict == .inspect && two.verdict == .bypass && one.hook == .haproxy)
        #expect(abs(Double(one.started) / 1000 - Date().timeIntervalSince1970) < 60)
        #expect(one.id.count == 16)
        let handle = try #require(SessionHandle(id: one.id))
        #expect(fixture.sessions.clear(handle))
        #expect(!fixture.sessions.clear(handle))
        #expect(SessionHandle(id: "12") == nil && SessionHandle(id: "+12345678901234f") == nil)
        #expect(try !fixture.release("one"))
        #expect(fixture.count(.cleared) == 1 && fixture.count(.repeatedEnds) == 1)
        #expect(fixture.sessions.clearAll() == 1)
        try fixture.expectEmpty()
    }

    @Test func sessionsEndWithTheirProcess() throws {
        let fixture = try Fixture(cap: 10)
        let process = try IdleProcess()
        let owner = try #require(Owner(runningProcess: process.id))
        let watched = try #require(fixture.sessions.watch(owner))
        for index in 0..<5 { _ = try fixture.admit("\(index)", owner: watched) }
        _ = try fixture.admit("other")
        fixture.sessions.tick()
        #expect(try fixture.snapshot().inUse == 6)
        process.kill()  // and nobody has waited for it: a zombie is dead
        #expect(
            try eventually {
                fixture.sessions.tick()
                return try fixture.snapshot().inUse == 1
            })
        // Asked by a process that has died meanwhile: the answer is given, and nothing stays counted.
        #expect(try fixture.admit("late", owner: watched) == .inspect)
        #expect(try fixture.snapshot().inUse == 1)
        #expect(fixture.count(.endedByOwnerDeath) == 6)
        // A number that another process has now.
        let reused = Owner(processID: getpid(), startTime: 1)
        #expect(fixture.sessions.watch(reused)?.isDead == true)
        #expect(Owner(runningProcess: 0) == nil)
        try fixture.release("other")
        try fixture.expectEmpty()
    }

    @Test func sessionsEndWithTheirSocket() throws {
        let fixture = try Fixture(cap: 10)
        _ = try fixture.admit("a", cookie: 1)
        _ = try fixture.admit("b", cookie: 1)
        // Another socket of the same client's address and port, and none at all.
        _ = try fixture.admit("c", cookie: 2)
        _ = try fixture.admit("d", client: "192.0.2.1", port: 1000)
        _ = try fixture.admit("e", cookie: 1 << 32 | 1)
        #expect(fixture.count(.unbound) == 1)
        let sessions = fixture.sessions
        #expect(sessions.release(sockets: [7, 1]) == 2)
        #expect(sessions.release(sockets: [1]) == 0)
        #expect(Set(sessions.list(limit: 9).sessions.map(\.key)) == ["c", "d", "e"])
        #expect(sessions.release(sockets: [1 << 32 | 1, 2, 0]) == 2)
        #expect(try !fixture.release("a"))
        #expect(try fixture.release("d"))
        #expect(fixture.count(.endedBySocket) == 4)
        #expect(fixture.count(.repeatedEnds) == 1 && fixture.count(.unknownEnds) == 0)
        try fixture.expectEmpty()
    }

    @Test func badRequestsAreErrors() throws {
        #expect(throws: KeyedSessionsError.key(bytes: 0, allowed: 1...160)) { try SessionKey("") }
        #expect(throws: KeyedSessionsError.key(bytes: 161, allowed: 1...160)) {
            try SessionKey([UInt8](repeating: 65, count: 161))
        }
        #expect(throws: KeyedSessionsError.range(what: "pool", found: 16, allowed: 0...15)) {
            try SessionRequest(key: SessionKey("a"), hook: .squid, pool: 16)
        }
        #expect(throws: KeyedSessionsError.range(what: "port", found: 0, allowed: 1...65535)) {
            try Endpoint("::1", port: 0)
        }
        #expect(throws: KeyedSessionsError.address(found: "x")) { try Endpoint("x", port: 1) }
        let fixture = try Fixture(cap: 1)
        let longest = try SessionKey([UInt8](repeating: 255, count: 160))
        #expect(fixture.sessions.admit(try SessionRequest(key: longest, hook: .squid, pool: 0)) == .inspect)
        #expect(fixture.sessions.release(key: longest, hook: .squid))
        try fixture.expectEmpty()
    }
}
