import Foundation
import Logging
import Synchronization
import TestSupport
import Testing

@testable import Admission
@testable import KeyedSessions
@testable import SPOE

/// Servers on real sockets, with clients that behave and clients that do not.
@Suite struct ServerTests {
    private struct Agent {
        let fixture: Fixture
        let server: SPOEServer
        let path: String

        init(cap: Int, connectionsMax: Int = 64) async throws {
            fixture = try Fixture(cap: cap)
            path = fixture.folder + "/spoa.sock"
            server = try SPOEServer(
                settings: .init(path: path, connectionsMax: connectionsMax),
                sessions: fixture.sessions, logger: quiet)
            try await server.start()
        }

        func client() throws -> RawClient {
            let client = try RawClient(unix: path)
            client.send(SPOPTestFrame.hello())
            return client
        }
    }

    private static func frames(_ client: RawClient, _ count: Int) throws -> [SPOPFrame] {
        var bytes: [UInt8] = []
        while true {
            if let frames = SPOPTestFrame.split(bytes), frames.count >= count { return frames }
            let part = try #require(client.receive())
            try #require(!part.isEmpty)
            bytes += part
        }
    }

    @Test func verdicts() async throws {
        let agent = try await Agent(cap: 2)
        let client = try agent.client()
        for stream in 1...3 { client.send(SPOPTestFrame.notify(UInt64(stream), "s\(stream)", client: ([127, 0, 0, 1], 4000))) }
        let answers = try Self.frames(client, 4).dropFirst()
        #expect(answers.map(\.streamID) == [1, 2, 3] && answers.allSatisfy { $0.frameID == 1 && $0.type == 103 })
        #expect(answers.map { SPOPTestFrame.verdict($0) } == ["inspect", "inspect", "bypass"])
        // The same again: same verdict, and counted once.
        client.send(SPOPTestFrame.notify(9, "s3"))
        #expect(SPOPTestFrame.verdict(try Self.frames(client, 1)[0]) == "bypass")
        try agent.fixture.observer.pool(1).policy = .block
        for stream in 11...13 {
            client.send(SPOPTestFrame.notify(UInt64(stream), "t\(stream)", extra: ["pool": .string("fnbi")]))
        }
        #expect(try Self.frames(client, 3).map { SPOPTestFrame.verdict($0) } == ["inspect", "inspect", "block"])
        #expect(try agent.fixture.inUse() == 2)
        #expect(try agent.fixture.inUse(1) == 2)
        // The kernel says whose sessions they are: this process'.
        let listed = agent.fixture.sessions.list(limit: 10).sessions
        #expect(listed.count == 5 && listed.allSatisfy { $0.processID == Int(getpid()) })
        #expect(listed.first { $0.key == "s1" }?.client?.description == "127.0.0.1:4000")
        #expect(agent.server.counters["messages"] == 7)
        // Sessions do not end with the agent's connection.
        client.close()
        #expect(try await eventually { agent.server.connections == 0 })
        #expect(agent.fixture.sessions.clearAll() == 5)
        try agent.fixture.expectEmpty()
        await agent.server.shutdown()
    }

    @Test func messagesThatCannotBeDecided() async throws {
        let agent = try await Agent(cap: 2)
        let client = try agent.client()
        client.send(SPOPTestFrame.notify(1, nil))
        client.send(SPOPTestFrame.notify(2, "", extra: [:]))
        client.send(SPOPTestFrame.notify(3, String(repeating: "k", count: 169)))
        client.send(SPOPTestFrame.notify(4, "a", extra: ["pool": .string("fuel")]))
        client.send(SPOPTestFrame.notify(5, "a", extra: ["pool": .boolean(true)]))
        client.send(SPOPTestFrame.notify(6, "a", message: "other"))
        client.send(SPOPTestFrame.notify(7, "a", client: ([127, 0, 0, 1], 99999), extra: ["pool": .null]))
        let answers = try Self.frames(client, 8).dropFirst()
        #expect(answers.map { SPOPTestFrame.verdict($0) } == Array(repeating: "error", count: 5) + [nil, "inspect"])
        #expect(agent.server.counters["errors"] == 5)
        #expect(agent.fixture.sessions.list(limit: 9).sessions.map(\.client) == [nil])
        await agent.server.shutdown()
    }

    /// A session is bound to a socket only if each part of the message says that its addresses are that socket's.
    @Test func sessionsAreBoundToTheirSockets() async throws {
        let agent = try await Agent(cap: 20)
        let sessions = agent.fixture.sessions
        guard let watch = try? SocketWatch(sessions: sessions) else { return }  // without CAP_NET_ADMIN
        let connection = try LoopbackConnection()
        let client = try agent.client()
        let whole: [String: SPOPValue] = [
            "dst": .ipv4([127, 0, 0, 1]), "dport": .integer(connection.port), "proxied": .boolean(false), "http": .null,
        ]
        func without(_ name: String) -> [String: SPOPValue] { whole.filter { $0.key != name } }
        func but(_ name: String, _ value: SPOPValue) -> [String: SPOPValue] { whole.merging([name: value]) { $1 } }
        let bound = [whole, but("http", .integer(1)), but("http", .integer(2)), without("http")]
        let unbound = [
            [:], without("dst"), without("dport"), without("proxied"), but("proxied", .boolean(true)), but("proxied", .null),
            but("http", .integer(3)), but("dst", .ipv4([127, 0, 0, 2])), but("dport", .integer(connection.port ^ 1)),
            but("dport", .integer(65536 + connection.port)),
        ]
        for (index, arguments) in (bound + unbound).enumerated() {
            client.send(
                SPOPTestFrame.notify(
                    UInt64(index + 1), "s\(index)", client: ([127, 0, 0, 1], connection.clientPort), extra: arguments))
        }
        _ = try Self.frames(client, 1 + bound.count + unbound.count)
        #expect(sessions.count(.unbound, of: .haproxy) == unbound.count)
        try watch.tick()
        #expect(sessions.list(limit: 0).total == bound.count + unbound.count)
        connection.reset()
        #expect(
            try await eventually {
                try watch.tick()
                return sessions.list(limit: 0).total == unbound.count
            })
        #expect(sessions.list(limit: 99).sessions.allSatisfy { Int($0.key.dropFirst()) ?? 0 >= bound.count })
        await agent.server.shutdown()
    }

    /// The kernel says in which network namespace the other end of the agent's socket was made, also where it does not show the
    /// process; and a namespace that is unknown is not this one.
    @Test func whoIsInThisNetwork() async throws {
        let fixture = try Fixture(cap: 1)
        let agent = SPOEAgent(sessions: fixture.sessions, pools: [:], statistics: SPOEStatistics(), logger: quiet)
        #expect(agent.peer(processID: getpid(), network: Network.cookie).sharesNetwork)
        #expect(agent.peer(processID: 0, network: Network.cookie).sharesNetwork)
        #expect(!agent.peer(processID: getpid(), network: Network.cookie + 1).sharesNetwork)
        #expect(!agent.peer(processID: getpid(), network: 0).sharesNetwork)
        // A kernel that does not number namespaces.
        #expect(agent.peer(processID: getpid(), network: nil).sharesNetwork)
        #expect(!agent.peer(processID: 0, network: nil).sharesNetwork)
    }

    @Test func conversationsThatEnd() async throws {
        let agent = try await Agent(cap: 2, connectionsMax: 3)
        // A health check: the answer, then the end.
        let check = try RawClient(unix: agent.path)
        check.send(SPOPTestFrame.hello(healthcheck: true))
        let answer = try #require(check.receiveAll().flatMap(SPOPTestFrame.split))
        #expect(answer.map(\.type) == [101])
        #expect(agent.server.counters["healthchecks"] == 1)
        // Nonsense.
        let nonsense = try RawClient(unix: agent.path)
        nonsense.send("GET / HTTP/1.1\r\n\r\n")
        #expect(nonsense.receiveAll() == SPOPFrame.disconnect(.frameTooBig).encoded)
        #expect(try await eventually { agent.server.connections == 0 })
        // Three fit, the fourth does not.
        let idle = try (0..<3).map { _ in try agent.client() }
        for client in idle { _ = try Self.frames(client, 1) }
        let fourth = try RawClient(unix: agent.path)
        #expect(fourth.receiveAll() == SPOPFrame.disconnect(.resources).encoded)
        #expect(agent.server.counters["refused_connections"] == 1)
        idle[0].send(SPOPTestFrame.notify(1, "a"))
        #expect(SPOPTestFrame.verdict(try Self.frames(idle[0], 1)[0]) == "inspect")
        // At the end each is told.
        await agent.server.shutdown()
        for client in idle { #expect(client.receiveAll() == SPOPFrame.disconnect(.normal).encoded) }
        #expect(throws: (any Error).self) { try RawClient(unix: agent.path) }
        #expect(!FileManager.default.fileExists(atPath: agent.path))
    }

    /// A client that asks and does not read: it is not served for ever, and others are.
    @Test func aClientThatDoesNotRead() async throws {
        let agent = try await Agent(cap: 1000)
        let deaf = try agent.client()
        let frame = SPOPTestFrame.notify(1, "same")
        let flood = Array(repeating: frame, count: 500).flatMap { $0 }
        let flags = fcntl(deaf.descriptor, F_GETFL)
        _ = fcntl(deaf.descriptor, F_SETFL, flags | Int32(O_NONBLOCK))
        var sent = 0
        var idle = 0
        while idle < 200, sent < 400 << 20 {
            let count = flood.withUnsafeBytes { send(deaf.descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            if count > 0 {
                sent += count
                idle = 0
            } else {
                idle += 1
                try await Task.sleep(for: .milliseconds(2))
            }
        }
        #expect(sent < 64 << 20, "the server went on reading")
        let other = try agent.client()
        other.send(SPOPTestFrame.notify(1, "other"))
        #expect(SPOPTestFrame.verdict(try Self.frames(other, 2)[1]) == "inspect")
        await agent.server.shutdown()
    }

    @Test func manyClientsAtOnce() async throws {
        let agent = try await Agent(cap: 100)
        let path = agent.path
        let counts = try await withThrowingTaskGroup(of: [String?].self) { group in
            for number in 0..<20 {
                group.addTask {
                    let client = try RawClient(unix: path)
                    client.send(SPOPTestFrame.hello())
                    // All at once, and in small pieces.
                    let bytes = (1...50).flatMap { SPOPTestFrame.notify(UInt64($0), "\(number) \($0)") }
                    for start in stride(from: 0, to: bytes.count, by: 97) {
                        client.send(Array(bytes[start..<min(start + 97, bytes.count)]))
                    }
                    return try Self.frames(client, 51).dropFirst().map { SPOPTestFrame.verdict($0) }
                }
            }
            return try await group.reduce(into: [String?]()) { $0 += $1 }
        }
        #expect(counts.count { $0 == "inspect" } == 100)
        #expect(counts.count { $0 == "bypass" } == 900)
        #expect(agent.fixture.sessions.clearAll() == 1000)
        await agent.server.shutdown()
        try agent.fixture.expectEmpty()
    }

    /// Mutants of the corpus against the real server: it answers or closes, and serves the next.
    @Test func mutantsOnTheWire() async throws {
        let seed = testSeed()
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let agent = try await Agent(cap: 10)
        let seeds = try FuzzTests.seeds().map(\.bytes)
        for round in 0..<300 {
            let mutant = FuzzTests.mutate(seeds[round % seeds.count], with: seeds, using: &random)
            let client = try RawClient(unix: agent.path)
            client.send(mutant)
            shutdown(client.descriptor, Int32(SHUT_WR))
            let output = client.receiveAll()
            try #require(output != nil, "seed \(seed) round \(round): neither answered nor closed")
        }
        #expect(try await eventually { agent.server.connections == 0 })
        agent.fixture.sessions.clearAll()
        try agent.fixture.expectEmpty()
        await agent.server.shutdown()
    }

    @Test func socketsAndTheirFiles() async throws {
        let fixture = try Fixture(cap: 1)
        func server(_ path: String) throws -> SPOEServer {
            try SPOEServer(settings: .init(path: path, mode: 0o600), sessions: fixture.sessions, logger: quiet)
        }
        let path = fixture.folder + "/a.sock"
        // What a daemon leaves that was killed.
        let stale = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(stale, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        try #require(bound == 0)
        close(stale)
        let first = try server(path)
        try await first.start()
        var status = stat()
        #expect(lstat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
        let second = try server(path)
        await #expect(throws: SPOEError.inUse(path: path)) { try await second.start() }
        await first.shutdown()
        try Data().write(to: URL(fileURLWithPath: path))
        await #expect(throws: SPOEError.notASocket(path: path)) { try await second.start() }
        #expect(FileManager.default.fileExists(atPath: path))
        let long = fixture.folder + "/" + String(repeating: "x", count: 100)
        await #expect(throws: SPOEError.pathLength(path: long, bytes: long.utf8.count, max: 106)) {
            try await server(long).start()
        }
        await #expect(throws: SPOEError.system(call: "bind", path: "/none/a", code: ENOENT)) {
            try await server("/none/a").start()
        }
        #expect(throws: SPOEError.range(what: "largest frame", found: 255, allowed: 256...65536)) {
            try SPOEServer(settings: .init(path: path, maxFrameSize: 255), sessions: fixture.sessions, logger: quiet)
        }
    }

    @Test func runEndsWhenItIsCancelled() async throws {
        let fixture = try Fixture(cap: 1)
        let path = fixture.folder + "/a.sock"
        let server = try SPOEServer(settings: .init(path: path), sessions: fixture.sessions, logger: quiet)
        let task = Task { try await server.run() }
        #expect(try await eventually { FileManager.default.fileExists(atPath: path) })
        let client = try RawClient(unix: path)
        client.send(SPOPTestFrame.hello())
        _ = try Self.frames(client, 1)
        task.cancel()
        try await task.value
        #expect(client.receiveAll() == SPOPFrame.disconnect(.normal).encoded)
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test func endsOfSessions() async throws {
        let fixture = try Fixture(cap: 100)
        let path = fixture.folder + "/ring.sock"
        let pool = try fixture.observer.pool(0)
        let told = Mutex<[String]>([])
        let server = try EndServer(
            path: path, connectionsMax: 2, sessions: fixture.sessions, logger: quiet,
            full: { text in told.withLock { $0.append(text) } }
        ) { try pool.report(bytesIn: $0, out: $1) }
        try await server.start()
        for index in 0..<10 {
            _ = fixture.sessions.admit(try SessionRequest(key: SessionKey("k\(index)"), hook: .haproxy, pool: 0))
        }
        let ring = try RawClient(unix: path)
        func counted(_ text: String) -> String { "\(text.utf8.count) \(text)" }
        ring.send(counted("END k0 -- -\n") + counted("END k1") + counted("END k2 -- inspect\nEND k3"))
        #expect(try await eventually { try fixture.inUse() == 6 })
        #expect(fixture.sessions.count(.unheeded, of: .haproxy) == 1)
        let long = "END " + String(repeating: "x", count: 193)
        let lines = ["END k4", "hello", "END k5 -- block", "END none --", "END none --", long].map(counted)
        ring.send("junk\n" + lines.joined())
        #expect(try await eventually { server.counters["foreign_lines"] == 2 })
        #expect(try fixture.inUse() == 5)
        #expect(fixture.sessions.count(.unknownEnds, of: .haproxy) == 1)
        #expect(fixture.sessions.count(.repeatedEnds, of: .haproxy) == 1)
        #expect(server.counters["garbage"] == 1)
        // So far k1, k2, k3, k4 and twice k-none came without bytes; what was refused or not asked for counts neither way.
        #expect(server.counters["unmetered"] == 6)
        #expect(pool.traffic() == Traffic())
        let second = try RawClient(unix: path)
        second.send(counted("END k6 -- inspect 1000 20\nEND k7 -- bypass 5 0\nEND k8 -- - 7 7\nEND x -- block 7 7"))
        second.send(counted("END k9 -- inspect 3 1125899906842625\nEND y CD inspect -3 9\nEND z -- inspect 1 1"))
        #expect(try await eventually { pool.traffic() == Traffic(bytesIn: 1006, bytesOut: 21) })
        #expect(server.counters["lines"] == 15)
        #expect(try fixture.inUse() == 1)
        #expect(server.counters["unmetered"] == 8)
        // The one that was silent for longest makes room for a third.
        #expect(told.withLock { $0 } == [])
        let third = try RawClient(unix: path)
        #expect(ring.receiveAll() == [])
        third.send(counted("END x -- block 7 7"))
        second.send(counted("END x -- block 7 7"))
        #expect(try await eventually { server.counters["lines"] == 17 })
        #expect(
            told.withLock { $0 } == [
                "\(path): 2 connections are open, and it takes no more: for each new one the one that was silent for longest is closed"
            ])
        await server.shutdown()
        #expect(second.receiveAll() == [] && third.receiveAll() == [])
        fixture.sessions.clearAll()
        try fixture.expectEmpty()
    }
}

let quiet: Logger = {
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    return logger
}()
