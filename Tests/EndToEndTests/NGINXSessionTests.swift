import Admission
import Foundation
import Testing

/// All end-to-end tests run one after the other: processor time and ports are scarce.
@Suite(.serialized) struct EndToEnd {}

extension EndToEnd {
    /// Which sessions there are, and when they end.
    @Suite struct NGINXSessions {}
}

/// A way for a client to end its session.
enum Ending: String, CaseIterable, Sendable { case finish, reset }

extension EndToEnd.NGINXSessions {
    @Test(arguments: Face.allCases)
    func threeOfFiveAreInspected(_ face: Face) throws {
        let control = try DaemonControl()
        let nginx = try NGINX(segment: control.segmentPath)
        let clients = try nginx.open(5, face)
        #expect(clients.count(of: .inspect) == 3)
        #expect(clients.count(of: .bypass) == 2)
        #expect(try control.figures() == Figures(inUse: 3, bypassed: 2, workers: 1))
        // A bypassed session that ends makes no room; an inspected one does.
        clients[4].socket.close()
        try expectEventually("the bypassed session ends") { try control.figures().bypassed == 1 }
        #expect(try nginx.open(face).outcome == .bypass)
        clients[0].socket.close()
        try expectEventually("the inspected session ends") { try control.figures().inUse == 2 }
        let last = try nginx.open(face)
        #expect(last.outcome == .inspect)
        (clients + [last]).close()
        try expectEventually("nothing is in use") { try control.figures() == Figures(inUse: 0, bypassed: 0, workers: 1) }
    }

    @Test(arguments: Face.allCases)
    func policyBlockRefuses(_ face: Face) throws {
        let control = try DaemonControl(policy: .block)
        let nginx = try NGINX(segment: control.segmentPath)
        let clients = try nginx.open(5, face)
        #expect(clients.map(\.outcome) == [.inspect, .inspect, .inspect, .refused, .refused])
        #expect(try control.figures() == Figures(inUse: 3, bypassed: 0, workers: 1))
        clients.close()
        try expectEventually("nothing is in use") { try control.figures().inUse == 0 }
    }

    @Test(arguments: Face.allCases)
    func policyAndCapChangeWhileTrafficFlows(_ face: Face) throws {
        let control = try DaemonControl()
        let nginx = try NGINX(segment: control.segmentPath)
        var held = try nginx.open(3, face)
        for policy in [OverLimitPolicy.block, .bypass, .block, .bypass] {
            try control.set(policy: policy)
            #expect(try nginx.open(face).outcome == (policy == .block ? .refused : .bypass))
        }
        try control.set(cap: 5)
        held += try nginx.open(3, face)
        #expect(held.map(\.outcome) == [.inspect, .inspect, .inspect, .inspect, .inspect, .bypass])
        // Running sessions are never cut: under a lower cap they go on, and count.
        try control.set(cap: 1)
        #expect(try control.figures().inUse == 5)
        #expect(try nginx.open(face).outcome == .bypass)
        held.close()
        try expectEventually("nothing is in use") { try control.figures().inUse == 0 }
        #expect(try nginx.open(face).outcome == .inspect)
    }

    @Test(arguments: Face.allCases, Ending.allCases)
    func sessionsEndWithTheConnection(_ face: Face, _ ending: Ending) throws {
        let control = try DaemonControl()
        let nginx = try NGINX(segment: control.segmentPath)
        for round in 1...3 {
            let clients = try nginx.open(5, face)
            #expect(clients.count(of: .inspect) == 3, "round \(round)")
            for client in clients { ending == .finish ? client.socket.close() : client.socket.reset() }
            try expectEventually("nothing is in use") { try control.figures() == Figures(inUse: 0, bypassed: 0, workers: 1) }
        }
    }

    @Test(arguments: Ending.allCases)
    func uploadsThatAreAbortedEnd(_ ending: Ending) throws {
        let control = try DaemonControl()
        let nginx = try NGINX(segment: control.segmentPath)
        let uploads = try (0..<5).map { _ in
            let socket = try Socket.connected(to: nginx.httpPort)
            try socket.send(
                "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n" + String(repeating: "x", count: 5000))
            return socket
        }
        try expectEventually("uploads count") { try control.figures() == Figures(inUse: 3, bypassed: 2, workers: 1) }
        for socket in uploads { ending == .finish ? socket.close() : socket.reset() }
        try expectEventually("nothing is in use") { try control.figures() == Figures(inUse: 0, bypassed: 0, workers: 1) }
    }

    @Test(arguments: Ending.allCases)
    func streamsThatAreAbortedWhileSendingEnd(_ ending: Ending) throws {
        let control = try DaemonControl()
        let nginx = try NGINX(segment: control.segmentPath)
        let clients = try nginx.open(5, .stream)
        for client in clients { try client.socket.send(String(repeating: "x", count: 100_000)) }
        #expect(try control.figures().inUse == 3)
        for client in clients { ending == .finish ? client.socket.close() : client.socket.reset() }
        try expectEventually("nothing is in use") { try control.figures() == Figures(inUse: 0, bypassed: 0, workers: 1) }
    }

    @Test func requestsOfOneConnectionAreOneSession() throws {
        let control = try DaemonControl()
        let nginx = try NGINX(segment: control.segmentPath)
        let clients = try nginx.open(5, .http, idle: true)
        for _ in 1...20 {
            for client in clients { #expect(try client.request() == client.outcome) }
        }
        #expect(try control.figures() == Figures(inUse: 3, bypassed: 2, workers: 1))
        // A verdict stays with its connection: room that has come since is for new ones.
        try control.set(cap: 10)
        #expect(try clients[4].request() == .bypass)
        clients.close()
        try expectEventually("nothing is in use") { try control.figures() == Figures(inUse: 0, bypassed: 0, workers: 1) }
    }

    @Test func refusedConnectionsMayAskAgain() throws {
        let control = try DaemonControl(cap: 1, policy: .block)
        let nginx = try NGINX(segment: control.segmentPath)
        let first = try nginx.open(.http, idle: true)
        let second = try nginx.open(.http, idle: true)
        #expect(second.outcome == .refused)
        #expect(try second.request() == .refused)
        first.socket.close()
        try expectEventually("the first session ends") { try control.figures().inUse == 0 }
        #expect(try second.request() == .inspect)
    }

    @Test func idleConnectionsThatNginxClosesEnd() throws {
        let control = try DaemonControl()
        var settings = NGINXSettings()
        settings.http = "keepalive_timeout 300ms;"
        let nginx = try NGINX(segment: control.segmentPath, settings)
        let clients = try nginx.open(5, .http, idle: true)
        #expect(clients.count(of: .inspect) == 3)
        try expectEventually("nothing is in use") { try control.figures() == Figures(inUse: 0, bypassed: 0, workers: 1) }
        withExtendedLifetime(clients) {}
    }

    @Test func http2StreamsOfOneConnectionAreOneSession() throws {
        let control = try DaemonControl(cap: 1)
        var settings = NGINXSettings()
        settings.httpListen = "http2"
        let nginx = try NGINX(segment: control.segmentPath, settings)
        let nghttp = try required("/usr/bin/nghttp", "nghttp: apt-get install nghttp2-client (`make setup` does it)")
        let urls = (1...3).map { "http://127.0.0.1:\(nginx.httpPort)/hold/\($0)" }
        do {
            let client = try ProxyProcess([nghttp, "--null-out"] + urls, output: "\(nginx.folder.path)/nghttp")
            // Three responses at once, all inspected, and a cap of 1: they share one session.
            expectEventually("three streams") { nginx.webBackends[0].held == 3 }
            #expect(nginx.webBackends[1].held == 0)
            #expect(try control.figures() == Figures(inUse: 1, bypassed: 0, workers: 1))
            let other = try run(nghttp, ["http://127.0.0.1:\(nginx.httpPort)/"])
            #expect(other.output == "bypass")
            withExtendedLifetime(client) {}
        }
        try expectEventually("nothing is in use") { try control.figures() == Figures(inUse: 0, bypassed: 0, workers: 1) }
    }

    @Test func burstOfMixedSessionsLeavesNothing() throws {
        let control = try DaemonControl(cap: 100)
        var settings = NGINXSettings()
        settings.workers = 4
        let nginx = try NGINX(segment: control.segmentPath, settings)
        var random = SystemRandomNumberGenerator()
        var clients: [Client] = []
        for index in 0..<500 {
            let face = Face.allCases[index % 2]
            clients.append(try nginx.open(face, idle: Bool.random(using: &random)))
            if clients.count > 150 {
                let gone = clients.remove(at: Int.random(in: 0..<clients.count, using: &random))
                Bool.random(using: &random) ? gone.socket.close() : gone.socket.reset()
            }
            #expect(try control.settledInUse() <= 100)
        }
        #expect(clients.count(of: .bypass) > 0)
        clients.close()
        try expectEventually("nothing is in use") { try control.figures() == Figures(inUse: 0, bypassed: 0, workers: 4) }
    }
}
