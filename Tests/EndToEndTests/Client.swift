// A client of a proxy under test.

import Foundation

/// How clients speak to the proxy.
enum Face: String, CaseIterable, Sendable { case http, stream }

/// Where a session went, as the client sees it.
enum Outcome: String, Sendable { case inspect, bypass, refused }

/// One connection to a proxy, and what became of its session.
final class Client: Sendable {
    let socket: Socket
    let outcome: Outcome

    /// Connects and learns the session's outcome. The session lives until the client ends it: over http as a response without
    /// an end, or with `idle` as a keepalive connection between two requests.
    convenience init(_ face: Face, port: UInt16, idle: Bool = false) throws {
        try self.init(face, over: try Socket.connected(to: port), idle: idle)
    }

    /// The same over a connection that is there already.
    init(_ face: Face, over socket: Socket, idle: Bool = false) throws {
        self.socket = socket
        switch face {
        case .http: outcome = try Client.request(idle ? "/" : "/hold", over: socket)
        case .stream: outcome = try Client.greeting(from: socket)
        }
    }

    /// Another request on the same connection, of an idle http client.
    func request() throws -> Outcome { try Client.request("/", over: socket) }

    private static func request(_ path: String, over socket: Socket) throws -> Outcome {
        try socket.send("GET \(path) HTTP/1.1\r\nHost: test\r\n\r\n")
        var received: [UInt8] = []
        while true {
            if let answer = Message.take(from: &received, partial: path == "/hold") {
                if answer.startLine.hasPrefix("HTTP/1.1 503 ") { return .refused }
                return try outcome(named: answer.body, within: answer.startLine + " " + answer.body)
            }
            let bytes = try socket.receive()
            if bytes.isEmpty { throw SocketError.closed(after: String(decoding: received, as: UTF8.self)) }
            received += bytes
        }
    }

    private static func greeting(from socket: Socket) throws -> Outcome {
        var received: [UInt8] = []
        while received.last != UInt8(ascii: "\n") {
            let bytes = try socket.receive()
            if bytes.isEmpty { break }
            received += bytes
        }
        if received.isEmpty { return .refused }
        let text = String(decoding: received, as: UTF8.self)
        return try outcome(named: text, within: text)
    }

    private static func outcome(named text: String, within answer: String) throws -> Outcome {
        guard let outcome = Outcome(rawValue: text.trimmingCharacters(in: .newlines)) else {
            throw SocketError.closed(after: answer)
        }
        return outcome
    }
}

extension [Client] {
    func count(of outcome: Outcome) -> Int { count { $0.outcome == outcome } }
    func close() { for client in self { client.socket.close() } }
}
