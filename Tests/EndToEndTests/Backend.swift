// The servers behind the proxies under test. They say their own name, so that a client sees which way its session went.

import Foundation
import Synchronization

/// A server on a port of its own, served by one thread.
///
/// `stream` sends its name and a newline to who connects. `http` answers each request with its name; a path that begins with
/// `/hold` gets the name, a newline, and no end: that session lives until the client ends it.
final class Backend: Sendable {
    enum Style: Sendable { case http, stream }

    let name: String
    let port: UInt16
    private let service: Service
    private let thread: BackgroundThread

    init(_ name: String, _ style: Style) throws {
        self.name = name
        let service = Service(name, style, try Socket.listening())
        self.service = service
        port = try service.listener.port()
        // The thread holds the service and not the backend, which is how the backend's end can end it.
        thread = BackgroundThread { service.serve(until: $0) }
    }

    deinit { thread.stop() }

    /// Responses without an end that have begun and whose connection is open.
    var held: Int { service.heldCount.load(ordering: .relaxed) }
}

/// What a backend's thread works on.
private final class Service: Sendable {
    let listener: Socket
    let heldCount = Atomic(0)
    private let name: String
    private let style: Backend.Style

    init(_ name: String, _ style: Backend.Style, _ listener: Socket) {
        self.name = name
        self.style = style
        self.listener = listener
    }

    private final class Connection {
        let socket: Socket
        var received: [UInt8] = []
        var isHeld = false
        init(_ socket: Socket) { self.socket = socket }
    }

    func serve(until thread: BackgroundThread) {
        var connections: [Int32: Connection] = [:]
        while !thread.isStopped {
            var polled = ([listener.descriptor] + connections.keys).map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            // The wait is bounded so that the thread sees that it shall stop.
            guard poll(&polled, nfds_t(polled.count), 20) > 0 else { continue }
            for entry in polled where entry.revents != 0 {
                if entry.fd == listener.descriptor {
                    guard let socket = listener.accept() else { continue }
                    if style == .stream { socket.sendIgnoringErrors("\(name)\n") }
                    connections[socket.descriptor] = Connection(socket)
                } else if let connection = connections[entry.fd], !handle(connection) {
                    if connection.isHeld { heldCount.subtract(1, ordering: .relaxed) }
                    connections[entry.fd] = nil
                }
            }
        }
    }

    /// Reads what has come; false: the connection is over.
    private func handle(_ connection: Connection) -> Bool {
        guard let bytes = try? connection.socket.receive(), !bytes.isEmpty else { return false }
        guard style == .http, !connection.isHeld else { return true }
        connection.received += bytes
        while let request = Message.take(from: &connection.received) {
            if request.startLine.contains(" /hold") {
                connection.isHeld = true
                heldCount.add(1, ordering: .relaxed)
                connection.socket.sendIgnoringErrors("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n\(name)\n")
                return true
            }
            connection.socket.sendIgnoringErrors(
                "HTTP/1.1 200 OK\r\nContent-Length: \(name.utf8.count)\r\n\r\n\(name)")
        }
        return true
    }
}

/// An HTTP/1 message with a body whose length is given.
struct Message {
    var startLine: String
    var body: String

    /// Removes the first complete message from the bytes received so far. `partial`: its body need not be complete.
    static func take(from bytes: inout [UInt8], partial: Bool = false) -> Message? {
        guard let end = bytes.firstRange(of: Array("\r\n\r\n".utf8)) else { return nil }
        let lines = String(decoding: bytes[..<end.lowerBound], as: UTF8.self).components(separatedBy: "\r\n")
        let length =
            lines.dropFirst().compactMap { line -> Int? in
                let parts = line.split(separator: ":", maxSplits: 1)
                guard parts.count == 2, parts[0].lowercased() == "content-length" else { return nil }
                return Int(parts[1].trimmingCharacters(in: .whitespaces))
            }.first ?? 0
        let available = bytes.count - end.upperBound
        guard available >= length || (partial && available > 0) else { return nil }
        let bodyEnd = end.upperBound + min(length, available)
        let message = Message(startLine: lines[0], body: String(decoding: bytes[end.upperBound..<bodyEnd], as: UTF8.self))
        bytes.removeFirst(bodyEnd)
        return message
    }
}
