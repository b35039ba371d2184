// HTTP/3 over QUIC has no TCP socket, but a client may have one with the same addresses and ports. The question is the one that
// HAProxy 3.0 asks for a request over `bind quic4@...`.

import TestSupport
import Testing

@testable import KeyedSessions
@testable import SPOE

@Suite struct FieldQUICTests {
    @Test(arguments: [false, true]) func sessionsOverQUIC(hasTCP: Bool) async throws {
        let fixture = try Fixture(cap: 5)
        let path = fixture.folder + "/spoa.sock"
        let server = try SPOEServer(settings: .init(path: path), sessions: fixture.sessions, logger: quiet)
        guard let watch = try? SocketWatch(sessions: fixture.sessions) else { return }  // without CAP_NET_ADMIN
        try watch.tick()
        try await server.start()
        let connection = try LoopbackConnection()
        if !hasTCP { connection.reset() }
        let client = try RawClient(unix: path)
        client.send(SPOPTestFrame.hello())
        for index in 1...3 {
            let arguments: [String: SPOPValue] = [
                "dst": .ipv4([127, 0, 0, 1]), "dport": .integer(connection.port), "proxied": .boolean(false),
                "http": .integer(3),
            ]
            client.send(
                SPOPTestFrame.notify(
                    UInt64(index), "\(index)", client: ([127, 0, 0, 1], connection.clientPort), extra: arguments))
        }
        var answers: [UInt8] = []
        while (SPOPTestFrame.split(answers)?.count ?? 0) < 4 { answers += try #require(client.receive()) }
        let verdicts = try #require(SPOPTestFrame.split(answers)).compactMap { SPOPTestFrame.verdict($0) }
        if hasTCP { connection.reset() }
        // The kernel's news of that socket, and a check of all sockets by a successor.
        let news = fixture.sessions.socketNews.load(ordering: .relaxed)
        #expect(
            try await eventually {
                try watch.tick()
                return fixture.sessions.socketNews.load(ordering: .relaxed) != news
            })
        let successor = try SocketWatch(sessions: fixture.sessions)
        try successor.tick()
        #expect(
            Field.row(
                "sockets.1b", "QUIC, \(hasTCP ? "and a TCP connection from the same port ends" : "no TCP at all")",
                expected: "3 live, 3 counted",
                found: "\(verdicts.count { $0 == "inspect" }) live, \(try fixture.inUse()) counted"))
        #expect(fixture.sessions.count(.unbound, of: .haproxy) == 3)
        await server.shutdown()
    }
}
