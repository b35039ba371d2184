import Foundation
import Testing

@testable import Admission
@testable import KeyedSessions

/// Whether this process may listen to socket events; the tests of them need CAP_NET_ADMIN.
private let mayWatchSockets: Bool = {
    guard let fixture = try? Fixture(cap: 1) else { return true }
    return (try? SocketWatch(sessions: fixture.sessions)) != nil
}()

/// A listener and connections to it, all within this process: both ends' sockets are destroyed in these tests.
private final class Connections {
    let listener: Int32
    let port: UInt16
    private(set) var pairs: [(client: Int32, server: Int32, port: Int)] = []

    init(_ family: Int32) throws {
        listener = socket(family, Int32(SOCK_STREAM.rawValue), 0)
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

    func open(_ family: Int32) throws -> Int {
        let client = socket(family, Int32(SOCK_STREAM.rawValue), 0)
        try #require(Connections.address(family, port) { connect(client, $0, $1) } == 0)
        let server = accept(listener, nil, nil)
        let clientPort = Int(Connections.portOf(client))
        pairs.append((client, server, clientPort))
        return clientPort
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

    private static func reset(_ descriptors: Int32...) {
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
        connections.reset(150)
        // By the events alone: less than a list's interval has passed.
        #expect(
            try eventually(within: 0.9) {
                try watch.tick()
                return try fixture.snapshot().inUse == 50
            })
        connections.reset(50)
        #expect(
            try eventually {
                try watch.tick()
                return try fixture.snapshot().inUse == 0
            })
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
        _ = try fixture.admit("other listener", client: "127.0.0.1", port: port, localPort: connections.port &+ 1)
        try watch.tick()
        connections.resetClient()
        try watch.tick()
        #expect(try fixture.snapshot().inUse == 2)
        connections.reset(1)
        #expect(
            try eventually(within: 0.9) {
                try watch.tick()
                return try fixture.snapshot().inUse == 1
            })
        #expect(fixture.sessions.list(limit: 9).sessions.map(\.key) == ["other listener"])
    }

    @Test func socketsThatWentUnseen() throws {
        let fixture = try Fixture(cap: 100)
        let connections = try Connections(AF_INET)
        for index in 0..<20 {
            let port = try connections.open(AF_INET)
            _ = try fixture.admit(
                "\(index)", client: "127.0.0.1", port: port, localPort: index % 2 == 0 ? connections.port : nil)
        }
        // Gone while nobody listened, and one that was gone before its admission.
        try fixture.restart { connections.reset(12) }
        let watch = try SocketWatch(sessions: fixture.sessions)
        let gone = try connections.open(AF_INET)
        connections.resetNewest()
        _ = try fixture.admit("late", client: "127.0.0.1", port: gone, localPort: connections.port)
        #expect(
            try eventually(within: 10) {
                try watch.tick()
                return try fixture.snapshot().inUse == 8
            })
        let lists = watch.lists
        #expect(lists >= 2)
        // Nothing is missing any more, so no more lists are taken.
        usleep(1_100_000)
        try watch.tick()
        try watch.tick()
        #expect(watch.lists == lists)
        #expect(try fixture.snapshot().inUse == 8)
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
}
