import Admission
import Foundation
import Synchronization
import Testing

extension EndToEnd {
    /// haproxy from the distribution, asking an agent for each connection or request.
    @Suite struct HAProxySessions {}
}

/// What may end a session of haproxy besides the death of its process.
private enum Ends { case ringAndSockets, ring, sockets, socketsWithoutProcesses }

/// Everything that a test of haproxy needs.
private struct Site {
    let control: DaemonControl
    let haproxy: HAProxy

    init(cap: Int = 3, policy: OverLimitPolicy = .bypass, _ ends: Ends = .ring) throws {
        let launcher =
            switch ends {
            // Without CAP_NET_ADMIN the kernel tells nothing of sockets.
            case .ring where geteuid() == 0: ["/usr/bin/setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
            // In a process namespace of its own fpxd does not see haproxy's processes.
            case .socketsWithoutProcesses: ["/usr/bin/unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
            default: [String]()
            }
        control = try DaemonControl(cap: cap, policy: policy, launcher: launcher)
        haproxy = try HAProxy(agent: control.runFolder, withRing: ends == .ringAndSockets || ends == .ring)
    }

    func expect(inUse: Int, bypassed: Int, sourceLocation: SourceLocation = #_sourceLocation) throws {
        var figures = try control.figures()
        let came = try eventually {
            figures = try control.figures()
            return figures.inUse == inUse && figures.bypassed == bypassed
        }
        #expect(
            came, "found \(figures), expected \(inUse) in use and \(bypassed) bypassed; \(control.log)",
            sourceLocation: sourceLocation)
    }
}

/// The most sessions that were in use at any moment that was looked at.
private final class Highest: Sendable {
    private final class Box: Sendable { let value = Atomic(0) }
    private let box: Box
    private let sampler: BackgroundThread

    init(_ control: DaemonControl) {
        let most = Box()
        box = most
        sampler = BackgroundThread { thread in
            while !thread.isStopped {
                most.value.max((try? control.settledInUse()) ?? .max, ordering: .relaxed)
                usleep(1000)
            }
        }
    }

    /// Looks no more.
    func stop() -> Int {
        sampler.stop()
        return box.value.load(ordering: .relaxed)
    }
}

extension Site {
    fileprivate func expect(_ counter: String, _ value: Int, sourceLocation: SourceLocation = #_sourceLocation) throws {
        try expectEventually("\(counter) is \(value)", sourceLocation: sourceLocation) {
            try control.counters()[counter] == value
        }
    }
}

private let mayWatchSockets = geteuid() == 0

extension EndToEnd.HAProxySessions {
    @Test(arguments: Face.allCases)
    func threeOfFiveAreInspected(_ face: Face) throws {
        let site = try Site()
        var clients = try site.haproxy.open(5, face)
        #expect(clients.map(\.outcome) == [.inspect, .inspect, .inspect, .bypass, .bypass])
        try site.expect(inUse: 3, bypassed: 2)
        // By FIN, by RST; and a new session takes the room.
        clients.removeFirst().socket.close()
        try site.expect(inUse: 2, bypassed: 2)
        clients.append(try site.haproxy.open(face))
        #expect(clients.last?.outcome == .inspect)
        clients.removeFirst().socket.reset()
        try site.expect(inUse: 2, bypassed: 2)
        clients.close()
        try site.expect(inUse: 0, bypassed: 0)
        #expect(try site.control.counters()["unknown_ends"] == 0)
        #expect(try site.control.counters()["unheeded"] == 0)
        #expect(try site.control.counters()["foreign_lines"] == 0)
        #expect(try site.control.counters()["garbage"] == 0)
    }

    @Test(arguments: Face.allCases)
    func blockedSessionsAreRefused(_ face: Face) throws {
        let site = try Site(policy: .block)
        let clients = try site.haproxy.open(5, face)
        #expect(clients.map(\.outcome) == [.inspect, .inspect, .inspect, .refused, .refused])
        // The policy changes for the next session.
        try site.control.set(policy: .bypass)
        #expect(try site.haproxy.open(face).outcome == .bypass)
        try site.control.set(policy: .block)
        #expect(try site.haproxy.open(face).outcome == .refused)
        clients.close()
        try site.expect(inUse: 0, bypassed: 0)
        try site.expect("blocked", 3)
        #expect(try site.control.counters()["unknown_ends"] == 0)
    }

    @Test func anUploadThatBreaksOff() throws {
        let site = try Site()
        for port in [site.haproxy.httpPort, site.haproxy.streamPort] {
            let socket = try Socket.connected(to: port)
            try socket.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
            try socket.send(String(repeating: "x", count: 100_000))
            try site.expect(inUse: 1, bypassed: 0)
            socket.reset()
            try site.expect(inUse: 0, bypassed: 0)
        }
    }

    /// In mode http a session is a request: an idle connection between two holds nothing.
    @Test func requestsOfOneConnection() throws {
        let site = try Site()
        let client = try site.haproxy.open(.http, idle: true)
        #expect(client.outcome == .inspect)
        try site.expect(inUse: 0, bypassed: 0)
        let others = try site.haproxy.open(3, .http)
        #expect(try client.request() == .bypass)
        others.close()
        try site.expect(inUse: 0, bypassed: 0)
        #expect(try client.request() == .inspect)
        try site.expect(inUse: 0, bypassed: 0)
    }

    @Test(arguments: Face.allCases)
    func aBurst(_ face: Face) throws {
        let site = try Site(cap: 100)
        let highest = Highest(site.control)
        let haproxy = site.haproxy
        let inspected = Atomic(0)
        let failed = Atomic(0)
        DispatchQueue.concurrentPerform(iterations: 10) { _ in
            for index in 0..<50 {
                // haproxy holds the beginning of an answer without an end back for 200 ms, so only some are of that kind.
                guard let client = try? haproxy.open(face, idle: index % 10 != 0) else {
                    failed.add(1, ordering: .relaxed)
                    continue
                }
                if client.outcome == .inspect { inspected.add(1, ordering: .relaxed) }
                if index % 3 == 0 { client.socket.reset() } else { client.socket.close() }
            }
        }
        #expect(failed.load(ordering: .relaxed) == 0)
        #expect(inspected.load(ordering: .relaxed) > 100)
        #expect(highest.stop() <= 100)
        try site.expect(inUse: 0, bypassed: 0)
        #expect(try site.control.counters()["unknown_ends"] == 0)
    }

    @Test(arguments: Face.allCases)
    func reloadsKeepSessionsAndTheCap(_ face: Face) throws {
        let site = try Site()
        let highest = Highest(site.control)
        var clients = try site.haproxy.open(5, face)
        for round in 1...4 {
            try site.haproxy.reload()
            #expect(site.haproxy.workers().count == round + 1, "an old worker stays with its sessions")
            let more = try site.haproxy.open(3, face)
            #expect(more.allSatisfy { $0.outcome == .bypass })
            clients += more
            try site.expect(inUse: 3, bypassed: 2 + 3 * round)
        }
        clients.close()
        try site.expect(inUse: 0, bypassed: 0)
        expectEventually("old workers exit") { site.haproxy.workers().count == 1 }
        #expect(try site.haproxy.open(face).outcome == .inspect)
        #expect(highest.stop() == 3)
    }

    /// haproxy dies, under load unless the kernel alone tells of its sessions: one that is about to begin then is bound to no
    /// socket. What it held is back within a second.
    private func killed(_ ends: Ends, _ face: Face) throws {
        let site = try Site(cap: 50, ends)
        let haproxy = site.haproxy
        let held = try haproxy.open(20, face)
        let load = (0..<(ends == .ring ? 4 : 0)).map { _ in
            BackgroundThread { thread in
                while !thread.isStopped { (try? haproxy.open(face, idle: true))?.socket.close() }
            }
        }
        let expected = (try site.control.counters()["messages"] ?? 0) + 50 * load.count
        try expectEventually("there is load") { (try site.control.counters()["messages"] ?? 0) >= expected }
        let processes = haproxy.workers() + [haproxy.master()].compactMap { $0 }
        for process in processes { kill(process, SIGKILL) }
        let start = ContinuousClock.now
        let came = try eventually(within: 5) { try site.control.figures() == Figures(inUse: 0, bypassed: 0, workers: 0) }
        let time = ContinuousClock.now - start
        let figures = try site.control.figures()
        #expect(came, "\(figures) \(site.control.log)")
        #expect(time < .seconds(1))
        print("after SIGKILL of haproxy all sessions were back in \(time)")
        for thread in load { thread.stop() }
        held.close()
    }

    @Test(arguments: Face.allCases)
    func killedHAProxyWithEndsByTheRing(_ face: Face) throws { try killed(.ring, face) }

    @Test(.enabled(if: mayWatchSockets, "needs CAP_NET_ADMIN"), arguments: Face.allCases)
    func killedHAProxyWithEndsBySocketsAlone(_ face: Face) throws { try killed(.socketsWithoutProcesses, face) }

    @Test(.enabled(if: mayWatchSockets, "needs CAP_NET_ADMIN"))
    func sessionsEndBySocketsAlone() throws {
        let site = try Site(.sockets)
        let clients = try site.haproxy.open(5, .stream)
        #expect(clients.map(\.outcome) == [.inspect, .inspect, .inspect, .bypass, .bypass])
        for client in clients.prefix(2) { client.socket.reset() }
        try site.expect(inUse: 1, bypassed: 2)
        clients.dropFirst(2).forEach { $0.socket.close() }
        try site.expect(inUse: 0, bypassed: 0)
        try site.expect("ended_by_socket", 5)
    }

    /// Both ways at once: each session ends once, and nothing looks like an error.
    @Test(.enabled(if: mayWatchSockets, "needs CAP_NET_ADMIN"))
    func endsByRingAndSockets() throws {
        let site = try Site(cap: 50, .ringAndSockets)
        for _ in 0..<5 { try site.haproxy.open(40, .stream).close() }
        try site.expect(inUse: 0, bypassed: 0)
        try expectEventually("all ends have come") {
            let counters = try site.control.counters()
            return (counters["released"] ?? 0) + (counters["repeated_ends"] ?? 0) == 200
        }
        let counters = try site.control.counters()
        #expect((counters["released"] ?? 0) + (counters["ended_by_socket"] ?? 0) == 200)
        #expect(counters["unknown_ends"] == 0)
    }

    /// The agent is killed and started again while haproxy is busy; sessions that went on are still counted, those that ended
    /// meanwhile are not.
    @Test(.enabled(if: mayWatchSockets, "needs CAP_NET_ADMIN"), arguments: [true, false])
    func theAgentIsRestarted(isKilled: Bool) throws {
        let site = try Site(cap: 50, .ringAndSockets)
        let haproxy = site.haproxy
        let held = try haproxy.open(20, .stream)
        #expect(held.count(of: .inspect) == 20)
        let load = (0..<2).map { _ in
            BackgroundThread { thread in
                while !thread.isStopped { (try? haproxy.open(.stream))?.socket.close() }
            }
        }
        let highest = Highest(site.control)
        for _ in 0..<4 {
            let before = try site.control.counters()["messages"] ?? 0
            try expectEventually("there is load") { (try site.control.counters()["messages"] ?? 0) > before + 50 }
            try site.control.end(by: isKilled ? SIGKILL : SIGTERM)
            try haproxy.awaitAgent(false)
            // Without the agent sessions go on, uninspected and uncounted.
            #expect(try haproxy.open(.stream).outcome == .bypass)
            #expect(try site.control.figures().inUse >= 20)
            try site.control.start()
            try haproxy.awaitAgent()
        }
        for thread in load { thread.stop() }
        #expect(highest.stop() <= 50)
        try site.expect(inUse: 20, bypassed: 0)
        held.dropFirst(5).forEach { $0.socket.close() }
        try site.expect(inUse: 5, bypassed: 0)
        try site.control.end(by: SIGKILL)
        held.dropFirst(3).forEach { $0.socket.close() }
        try site.control.start()
        try site.expect(inUse: 3, bypassed: 0)
        held.close()
        try site.expect(inUse: 0, bypassed: 0)
    }

    /// The example as it is shipped, with the paths of Debian, is one that haproxy accepts.
    @Test func theExampleIsValid() throws {
        let folder = try TemporaryFolder()
        let text = try String(contentsOfFile: HAProxy.integration + "/example.cfg", encoding: .utf8)
            .replacingOccurrences(of: "/etc/haproxy/spoe.conf", with: HAProxy.integration + "/spoe.conf")
        try folder.write(text, to: "example.cfg")
        let result = try run(
            HAProxy.program, ["-c", "-f", HAProxy.integration + "/fpx.cfg", "-f", folder.path + "/example.cfg"])
        #expect(
            result.status == 0 && !result.output.contains("ALERT") && !result.output.contains("WARNING"), "\(result.output)")
    }
}
