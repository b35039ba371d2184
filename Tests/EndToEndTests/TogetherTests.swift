import Admission
import Foundation
import Synchronization
import Testing

extension EndToEnd {
    /// nginx and haproxy under one licence, and a daemon that is killed beneath them.
    @Suite struct Together {}
}

/// One way into one of the proxies.
private struct Door: Sendable {
    let name: String
    let open: @Sendable (_ idle: Bool) throws -> Client

    static func all(_ nginx: NGINX, _ haproxy: HAProxy) -> [Door] {
        Face.allCases.flatMap { face in
            [
                Door(name: "nginx \(face)") { try nginx.open(face, idle: $0) },
                Door(name: "haproxy \(face)") { try haproxy.open(face, idle: $0) },
            ]
        }
    }
}

extension EndToEnd.Together {
    @Test func threeOfFiveAreInspectedWhicheverDoorTheyTake() throws {
        let control = try DaemonControl()
        let nginx = try NGINX(segment: control.segmentPath)
        let haproxy = try HAProxy(agent: control.runFolder)
        let doors = Door.all(nginx, haproxy)
        for first in doors.indices {
            // Five sessions through four doors, each order of them beginning elsewhere.
            let clients = try (0..<5).map { try doors[(first + $0) % doors.count].open(false) }
            #expect(clients.map(\.outcome) == [.inspect, .inspect, .inspect, .bypass, .bypass], "from \(doors[first].name)")
            #expect(try control.inUseByCommand() == 3)
            clients.close()
            try expectEventually("nothing is in use") { try control.figures().inUse == 0 && control.figures().bypassed == 0 }
        }
        try control.set(policy: .block)
        let clients = try (0..<5).map { try doors[$0 % doors.count].open(false) }
        #expect(clients.map(\.outcome) == [.inspect, .inspect, .inspect, .refused, .refused])
        clients.close()
        try expectEventually("nothing is in use") { try control.inUseByCommand() == 0 }
    }

    /// 500 sessions of all kinds at once through all doors, while the policy changes.
    @Test func aBurstLeavesNothingBehind() throws {
        let control = try DaemonControl(cap: 60)
        let nginx = try NGINX(segment: control.segmentPath)
        let haproxy = try HAProxy(agent: control.runFolder)
        let doors = Door.all(nginx, haproxy)
        let highest = Atomic(0)
        let sampler = BackgroundThread { thread in
            while !thread.isStopped {
                highest.max((try? control.settledInUse()) ?? .max, ordering: .relaxed)
                usleep(500)
            }
        }
        let policies = BackgroundThread { thread in
            var isBlocking = false
            while !thread.isStopped {
                isBlocking.toggle()
                try? control.set(policy: isBlocking ? .block : .bypass)
            }
        }
        let outcomes = Mutex<[Outcome: Int]>([:])
        DispatchQueue.concurrentPerform(iterations: 10) { worker in
            for index in 0..<50 {
                let client = try? doors[(worker + index) % doors.count].open(index % 5 != 0)
                outcomes.withLock { $0[client?.outcome ?? .refused, default: 0] += 1 }
                if index % 3 == 0 { client?.socket.reset() } else { client?.socket.close() }
            }
        }
        policies.stop()
        sampler.stop()
        #expect(highest.load(ordering: .relaxed) <= 60)
        #expect(outcomes.withLock { $0.values.reduce(0, +) } == 500)
        #expect(outcomes.withLock { $0[.inspect] ?? 0 } > 60)
        try expectEventually("nothing is in use") { try control.inUseByCommand() == 0 }
        #expect(try control.counters()["listed"] == 0)
    }

    /// The daemon is killed and started again while nginx is busy: with room there is never a refusal, and never one over the cap.
    @Test func nginxNeverNoticesThatTheDaemonDies() throws {
        let cap = 20
        let control = try DaemonControl(cap: cap)
        let nginx = try NGINX(segment: control.segmentPath)
        let held = try nginx.open(10, .stream)
        #expect(held.count(of: .inspect) == 10)
        let wrong = Mutex<[String]>([])
        let sessions = Atomic(0)
        // Together at most 18 at once: there is always room.
        let load = (0..<4).map { index in
            BackgroundThread { thread in
                while !thread.isStopped {
                    do {
                        let face: Face = index % 2 == 0 ? .http : .stream
                        let clients = [try nginx.open(face), try nginx.open(face)]
                        for client in clients where client.outcome != .inspect {
                            wrong.withLock { $0.append("\(client.outcome) with room") }
                        }
                        clients.close()
                        sessions.add(2, ordering: .relaxed)
                        // nginx ends them a moment later: they must have ended before two new ones start.
                        usleep(20_000)
                    } catch { wrong.withLock { $0.append("\(error)") } }
                }
            }
        }
        let highest = Atomic(0)
        let sampler = BackgroundThread { thread in
            while !thread.isStopped { highest.max((try? control.settledInUse()) ?? .max, ordering: .relaxed) }
        }
        for _ in 0..<5 {
            try control.end(by: SIGKILL)
            let before = sessions.load(ordering: .relaxed)
            expectEventually("work goes on without a daemon") { sessions.load(ordering: .relaxed) > before + 20 }
            try control.start()
        }
        for thread in load { thread.stop() }
        sampler.stop()
        #expect(wrong.withLock { $0.prefix(5) } == [])
        #expect(highest.load(ordering: .relaxed) <= cap)
        try expectEventually("the ten are left") { try control.inUseByCommand() == 10 }
        // Without the daemon the cap holds.
        try control.end(by: SIGKILL)
        let more = try nginx.open(12, .http)
        #expect(more.count(of: .inspect) == 10)
        try control.start()
        #expect(try control.inUseByCommand() == 20)
        (held + more).close()
        try expectEventually("nothing is in use") { try control.inUseByCommand() == 0 }
    }
}
