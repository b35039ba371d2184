import Foundation
import Testing

@testable import Admission
@testable import KeyedSessions

/// Whether this process may listen to socket events; the tests of them need CAP_NET_ADMIN.
private let mayWatchSockets: Bool = {
    guard let fixture = try? Fixture(cap: 1) else { return true }
    return (try? SocketWatch(sessions: fixture.sessions)) != nil
}()

/// IPPROTO_MPTCP, which Swift's Glibc does not have.
private let multipath: Int32 = 262

/// A listener and connections to it, all within this process: both ends' sockets are destroyed in these tests.
private final class Connections {
    let listener: Int32
    let port: UInt16
    private let kind: Int32
    private(set) var pairs: [(client: Int32, server: Int32, port: Int)] = []

    init(_ family: Int32, kind: Int32 = 0) throws {
        self.kind = kind
        listener = socket(family, Int32(SOCK_STREAM.rawValue), kind)
        port = try Connections.bound(listener, family)
        listen(listener, 1024)
    }

    static func address<Result>(
        _ family: Int32, _ port: UInt16, _ body: (UnsafeMutablePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        var storage = sockaddr_storage()
        return withUnsafeMutablePointer(to: &storage) { storage in
            storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                var length = MemoryLayout<sockaddr_in>.size
                if family == AF_INET {
                    storage.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                        $0.pointee.sin_family = sa_family_t(AF_INET)
                        $0.pointee.sin_port = port.bigEndian
                        $0.pointee.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
                    }
                } else {
                    length = MemoryLayout<sockaddr_in6>.size
                    storage.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) {
                        $0.pointee.sin6_family = sa_family_t(AF_INET6)
                        $0.pointee.sin6_port = port.bigEndian
                        $0.pointee.sin6_addr = in6addr_loopback
                    }
                }
                return body(address, socklen_t(length))
            }
        }
    }

    static func bound(_ descriptor: Int32, _ family: Int32) throws -> UInt16 {
        try #require(address(family, 0) { bind(descriptor, $0, $1) } == 0)
        return portOf(descriptor)
    }

    /// The port stands at the same place for both families.
    static func portOf(_ descriptor: Int32) -> UInt16 {
        address(AF_INET6, 0) { address, length in
            var length = length
            getsockname(descriptor, address, &length)
            return address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { UInt16(bigEndian: $0.pointee.sin_port) }
        }
    }

    /// A connection that has been accepted, and its client's port: `own`, or one that the kernel chooses.
    @discardableResult
    func open(_ family: Int32, from own: UInt16 = 0) throws -> Int {
        let (client, clientPort) = try connected(family, from: own)
        let server = accept(listener, nil, nil)
        pairs.append((client, server, clientPort))
        return clientPort
    }

    /// A connection that waits to be accepted.
    func connected(_ family: Int32, from own: UInt16 = 0) throws -> (client: Int32, port: Int) {
        let client = socket(family, Int32(SOCK_STREAM.rawValue), kind)
        try #require(Connections.address(family, own) { bind(client, $0, $1) } == 0)
        try #require(Connections.address(family, port) { connect(client, $0, $1) } == 0)
        return (client, Int(Connections.portOf(client)))
    }

    /// Ends the oldest by RST, so that neither socket lingers.
    func reset(_ count: Int) {
        for pair in pairs.prefix(count) { Connections.reset(pair.client, pair.server) }
        pairs.removeFirst(count)
    }

    func resetNewest() {
        let pair = pairs.removeLast()
        Connections.reset(pair.client, pair.server)
    }

    /// Ends the oldest one's client; its server's socket stays open.
    func resetClient() {
        Connections.reset(pairs[0].client)
        pairs[0].client = -1
    }

    /// Closes the newest one's server, whose client's socket stays open: FIN, and then TIME_WAIT or FIN_WAIT.
    func finishNewestServer() {
        close(pairs[pairs.count - 1].server)
        pairs[pairs.count - 1].server = -1
    }

    static func reset(_ descriptors: Int32...) {
        for descriptor in descriptors where descriptor >= 0 {
            var linger = linger(l_onoff: 1, l_linger: 0)
            setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout.size(ofValue: linger)))
            close(descriptor)
        }
    }

    deinit {
        reset(pairs.count)
        close(listener)
    }
}

private func loopback(_ family: Int32, _ port: Int) throws -> Endpoint {
    try Endpoint(family == AF_INET ? "127.0.0.1" : "::1", port: port)
}

private func proxySocket(_ connections: Connections, _ family: Int32, client: Int) throws -> ProxySocket? {
    ProxySocket(local: try loopback(family, Int(connections.port)), client: try loopback(family, client))
}

@Suite struct ProxySocketTests {
    /// The cookie is the one that the owner of the socket is told.
    @Test(arguments: [AF_INET, AF_INET6]) func aSocketIsFoundByBothItsEnds(family: Int32) throws {
        let connections = try Connections(family)
        let port = try connections.open(family)
        let socket = try #require(try proxySocket(connections, family, client: port))
        var cookie: UInt64 = 0
        var length = socklen_t(MemoryLayout<UInt64>.size)
        #expect(getsockopt(connections.pairs[0].server, SOL_SOCKET, SO_COOKIE, &cookie, &length) == 0)
        #expect(socket.cookie == cookie)
        #expect(ProxySocket.gone([socket]).gone == [])
        connections.reset(1)
        #expect(ProxySocket.gone([socket]).gone == [socket])
        // The same ends again are another socket.
        try connections.open(family, from: UInt16(port))
        let next = try #require(try proxySocket(connections, family, client: port))
        #expect(next.cookie != socket.cookie)
        let answer = ProxySocket.gone([next, socket])
        #expect(answer.gone == [socket] && answer.unknown == [] && answer.code == 0)
    }

    /// A listener of both families has an IPv6 socket with mapped addresses for each IPv4 client.
    @Test func aMappedSocketIsFound() throws {
        let listener = socket(AF_INET6, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(listener) }
        var any = sockaddr_in6()
        any.sin6_family = sa_family_t(AF_INET6)
        let bound = withUnsafePointer(to: &any) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, socklen_t(MemoryLayout<sockaddr_in6>.size))
            }
        }
        try #require(bound == 0 && listen(listener, 1) == 0)
        let port = Connections.portOf(listener)
        let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        try #require(Connections.address(AF_INET, port) { connect(client, $0, $1) } == 0)
        let server = accept(listener, nil, nil)
        defer { Connections.reset(client, server) }
        let own = Int(Connections.portOf(client))
        for prefix in ["", "::ffff:"] {
            let socket = ProxySocket(
                local: try Endpoint(prefix + "127.0.0.1", port: Int(port)),
                client: try Endpoint(prefix + "127.0.0.1", port: own))
            #expect(socket != nil)
        }
    }

    /// What no process has open is nobody's session: a listener, a connection that waits, one that is over.
    @Test func whatIsNotOpenIsNotFound() throws {
        let connections = try Connections(AF_INET)
        #expect(try proxySocket(connections, AF_INET, client: 1) == nil)
        let waiting = try connections.connected(AF_INET)
        #expect(try proxySocket(connections, AF_INET, client: waiting.port) == nil)
        let server = accept(connections.listener, nil, nil)
        #expect(try proxySocket(connections, AF_INET, client: waiting.port) != nil)
        // The client has reset it; the process does not know yet.
        Connections.reset(waiting.client)
        #expect(try proxySocket(connections, AF_INET, client: waiting.port) == nil)
        close(server)
        // The proxy has closed it, and the kernel still has it to wait for the client.
        let port = try connections.open(AF_INET)
        let open = try #require(try proxySocket(connections, AF_INET, client: port))
        connections.finishNewestServer()
        #expect(try proxySocket(connections, AF_INET, client: port) == nil)
        #expect(ProxySocket.gone([open]).gone == [])
    }

    /// A connection over several paths goes on when one of them ends.
    @Test func aPathOfMPTCPIsNotFound() throws {
        let probe = socket(AF_INET, Int32(SOCK_STREAM.rawValue), multipath)
        guard probe >= 0 else { return }  // a kernel without
        close(probe)
        let connections = try Connections(AF_INET, kind: multipath)
        let port = try connections.open(AF_INET)
        #expect(try proxySocket(connections, AF_INET, client: port) == nil)
    }

    @Test func thisProcessKnowsItsNamespaces() throws {
        for (kind, found) in [("net", Namespace.network), ("pid", Namespace.process), ("time", Namespace.time)] {
            var status = stat()
            #expect(stat("/proc/self/ns/\(kind)", &status) == 0)
            #expect(UInt64(found) == UInt64(status.st_ino) && found != 0, "\(kind)")
        }
    }
}

@Suite(.enabled(if: mayWatchSockets, "needs CAP_NET_ADMIN"), .serialized) struct SocketTests {
    @Test(arguments: [AF_INET, AF_INET6]) func sessionsEndWithTheirSockets(family: Int32) throws {
        let fixture = try Fixture(cap: 1000)
        let connections = try Connections(family)
        let watch = try SocketWatch(sessions: fixture.sessions)
        let address = family == AF_INET ? "127.0.0.1" : "::1"
        for index in 0..<200 {
            let port = try connections.open(family)
            _ = try fixture.admit("\(index)", client: address, port: port, localPort: connections.port)
        }
        try watch.tick()
        #expect(try fixture.snapshot().inUse == 200)
        #expect(fixture.count(.unbound) == 0)
        connections.reset(150)
        #expect(
            try eventually {
                try watch.tick()
                return try fixture.snapshot().inUse == 50
            })
        connections.reset(50)
        #expect(
            try eventually {
                try watch.tick()
                return try fixture.snapshot().inUse == 0
            })
        // By the events alone: the only check was the first tick's.
        #expect(watch.checks == 1)
        try fixture.expectEmpty()
        #expect(fixture.count(.endedBySocket) == 200)
    }

    /// The client's own socket of a loopback connection goes first, and its end is not the proxy's.
    @Test func theClientsOwnSocketIsNotTheProxys() throws {
        let fixture = try Fixture(cap: 10)
        let connections = try Connections(AF_INET)
        let watch = try SocketWatch(sessions: fixture.sessions)
        let port = try connections.open(AF_INET)
        _ = try fixture.admit("right", client: "127.0.0.1", port: port, localPort: connections.port)
        // Bound to nothing: these ends are of no socket.
        _ = try fixture.admit("other listener", client: "127.0.0.1", port: port, localPort: connections.port &+ 1)
        #expect(fixture.count(.unbound) == 1)
        try watch.tick()
        connections.resetClient()
        try watch.tick()
        #expect(try fixture.snapshot().inUse == 2)
        connections.reset(1)
        #expect(
            try eventually {
                try watch.tick()
                return try fixture.snapshot().inUse == 1
            })
        #expect(fixture.sessions.list(limit: 9).sessions.map(\.key) == ["other listener"])
    }

    /// The news of a socket's end is read when the client's next connection has a session already.
    @Test func aPortIsUsedAgain() throws {
        let fixture = try Fixture(cap: 100)
        let connections = try Connections(AF_INET)
        let watch = try SocketWatch(sessions: fixture.sessions)
        try watch.tick()
        let ports = try (0..<20).map { _ in try connections.open(AF_INET) }
        for port in ports {
            _ = try fixture.admit("first \(port)", client: "127.0.0.1", port: port, localPort: connections.port)
        }
        connections.reset(20)
        for port in ports {
            try connections.open(AF_INET, from: UInt16(port))
            _ = try fixture.admit("second \(port)", client: "127.0.0.1", port: port, localPort: connections.port)
        }
        #expect(
            try eventually {
                try watch.tick()
                return try fixture.snapshot().inUse == 20
            })
        #expect(fixture.sessions.list(limit: 100).sessions.allSatisfy { $0.key.hasPrefix("second") })
        #expect(fixture.count(.endedBySocket) == 20)
        // The question comes when the client has another connection from the same port: the earlier session ends with that one.
        connections.reset(20)
        try connections.open(AF_INET, from: UInt16(ports[0]))
        _ = try fixture.admit("late", client: "127.0.0.1", port: ports[0], localPort: connections.port)
        _ = try fixture.admit("in time", client: "127.0.0.1", port: ports[0], localPort: connections.port)
        #expect(
            try eventually {
                try watch.tick()
                return try fixture.snapshot().inUse == 2
            })
        connections.reset(1)
        #expect(
            try eventually {
                try watch.tick()
                return try fixture.snapshot().inUse == 0
            })
        try fixture.expectEmpty()
    }

    /// The news is read between the admission's look at its socket and the moment from which the session can be found.
    @Test func theNewsComesDuringAnAdmission() throws {
        let fixture = try Fixture(cap: 10)
        let connections = try Connections(AF_INET)
        let watch = try SocketWatch(sessions: fixture.sessions)
        let sessions = fixture.sessions
        try watch.tick()
        for isReset in [true, false] {
            let port = try connections.open(AF_INET)
            let news = sessions.socketNews.load(ordering: .sequentiallyConsistent)
            let socket = try #require(try proxySocket(connections, AF_INET, client: port))
            if isReset { connections.resetNewest() }
            // Also the end of another socket, of no session.
            try connections.open(AF_INET)
            connections.resetNewest()
            #expect(
                try eventually {
                    try watch.tick()
                    return sessions.socketNews.load(ordering: .sequentiallyConsistent) != news
                })
            let request = try SessionRequest(key: SessionKey("\(isReset)"), hook: .haproxy, pool: 0, client: socket.client)
            #expect(sessions.admit(request, boundTo: socket, news: news) == .inspect)
            #expect(sessions.list(limit: 9).total == (isReset ? 0 : 1))
        }
        #expect(fixture.count(.endedBySocket) == 1)
    }

    /// Without a watch nobody would hear of a socket's end.
    @Test func withoutAWatchNothingIsBound() throws {
        let fixture = try Fixture(cap: 10)
        let connections = try Connections(AF_INET)
        let port = try connections.open(AF_INET)
        _ = try fixture.admit("before", client: "127.0.0.1", port: port, localPort: connections.port)
        do {
            let watch = try SocketWatch(sessions: fixture.sessions)
            _ = try fixture.admit("during", client: "127.0.0.1", port: port, localPort: connections.port)
            try watch.tick()
        }
        _ = try fixture.admit("after", client: "127.0.0.1", port: port, localPort: connections.port)
        #expect(fixture.count(.unbound) == 2)
        #expect(fixture.sessions.boundSockets().count == 1)
    }

    @Test func socketsThatWentUnseen() throws {
        let fixture = try Fixture(cap: 100)
        let connections = try Connections(AF_INET)
        var first: SocketWatch? = try SocketWatch(sessions: fixture.sessions)
        for index in 0..<20 {
            let port = try connections.open(AF_INET)
            _ = try fixture.admit("\(index)", client: "127.0.0.1", port: port, localPort: connections.port)
        }
        // Never seen: its socket was gone before its admission, so nothing tells when it has ended but its proxy.
        let gone = try connections.open(AF_INET)
        connections.resetNewest()
        _ = try fixture.admit("late", client: "127.0.0.1", port: gone, localPort: connections.port)
        #expect(fixture.count(.unbound) == 1)
        // Gone while nobody listened; one of the ports is in use again.
        first = nil
        let port = connections.pairs[0].port
        try fixture.restart {
            connections.reset(12)
            try connections.open(AF_INET, from: UInt16(port))
        }
        let watch = try SocketWatch(sessions: fixture.sessions)
        try watch.tick()
        #expect(try fixture.snapshot().inUse == 9)
        #expect(fixture.sessions.list(limit: 100).sessions.map(\.key).sorted() == (12..<20).map(String.init) + ["late"])
        for _ in 0..<3 { try watch.tick() }
        #expect(watch.checks == 1)
        #expect(try fixture.release("late"))
        _ = first
    }

    @Test func moreEventsThanTheKernelKeeps() throws {
        let fixture = try Fixture(cap: 1000)
        let connections = try Connections(AF_INET)
        let watch = try SocketWatch(sessions: fixture.sessions, receiveBytes: 4096)
        for index in 0..<300 {
            let port = try connections.open(AF_INET)
            _ = try fixture.admit("\(index)", client: "127.0.0.1", port: port, localPort: connections.port)
        }
        try watch.tick()
        connections.reset(290)
        #expect(
            try eventually(within: 10) {
                try watch.tick()
                return try fixture.snapshot().inUse == 10
            })
        #expect(watch.overruns > 0)
        #expect(fixture.count(.endedBySocket) == 290)
    }

    /// A check goes on over several ticks.
    @Test func moreSocketsThanOneTickAsksFor() throws {
        let count = SocketWatch.socketsPerTick * 2 + 100
        let fixture = try Fixture(cap: count)
        // No socket of the kernel's has these cookies, as after a restart in which all have gone.
        for index in 0..<count { _ = try fixture.admit("\(index)", port: 1 + index, cookie: .max - UInt64(index)) }
        let watch = try SocketWatch(sessions: fixture.sessions)
        var left: [Int] = []
        for _ in 0..<3 {
            try watch.tick()
            left.append(try fixture.snapshot().inUse)
        }
        #expect(left == [count - SocketWatch.socketsPerTick, 100, 0])
        #expect(watch.checks == 1)
        try fixture.expectEmpty()
    }
}
