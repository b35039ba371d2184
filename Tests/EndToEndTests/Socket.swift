// TCP sockets on the loopback interface.

import Foundation

/// What a client of a proxy under test meets.
enum SocketError: Error, CustomStringConvertible {
    case system(call: String, code: Int32)
    case closed(after: String)

    var description: String {
        switch self {
        case .system(let call, let code): "\(call) failed: \(String(cString: strerror(code)))"
        case .closed(let received): "the connection was closed after \(received.debugDescription), expected a whole answer"
        }
    }
}

/// A socket that is closed when the value goes. One thread at a time reads.
final class Socket: @unchecked Sendable {
    private(set) var descriptor: Int32

    private init(_ descriptor: Int32) { self.descriptor = descriptor }

    deinit { close() }

    private static func make() throws(SocketError) -> Socket {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        if descriptor < 0 { throw .system(call: "socket", code: errno) }
        return Socket(descriptor)
    }

    private static func withAddress<Result>(
        _ text: String = "127.0.0.1", port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = inet_addr(text)
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }

    /// Listens on a free port.
    static func listening() throws(SocketError) -> Socket {
        let socket = try make()
        let bound = withAddress(port: 0) { bind(socket.descriptor, $0, $1) }
        guard bound == 0, listen(socket.descriptor, 1024) == 0 else { throw .system(call: "listen", code: errno) }
        return socket
    }

    /// A port that nobody listens on now.
    static func freePort() throws(SocketError) -> UInt16 { try listening().port() }

    /// Connects. An answer that does not come within 10 seconds is an error.
    ///
    /// - Parameter own: the port of this end; nil: one that the kernel chooses.
    static func connected(
        to port: UInt16, at address: String = "127.0.0.1", from own: UInt16? = nil
    ) throws(SocketError) -> Socket {
        let socket = try make()
        if let own {
            var isShared: Int32 = 1
            setsockopt(socket.descriptor, SOL_SOCKET, SO_REUSEADDR, &isShared, socklen_t(MemoryLayout<Int32>.size))
            let bound = withAddress("0.0.0.0", port: own) { bind(socket.descriptor, $0, $1) }
            if bound != 0 { throw .system(call: "bind", code: errno) }
        }
        var patience = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(socket.descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        let result = withAddress(address, port: port) { connect(socket.descriptor, $0, $1) }
        if result != 0 { throw .system(call: "connect", code: errno) }
        return socket
    }

    func port() throws(SocketError) -> UInt16 {
        var address = sockaddr_in()
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &size) }
        }
        if result != 0 { throw .system(call: "getsockname", code: errno) }
        return UInt16(bigEndian: address.sin_port)
    }

    func accept() -> Socket? {
        let accepted = Foundation.accept(descriptor, nil, nil)
        guard accepted >= 0 else { return nil }
        closeOnExec(accepted)
        return Socket(accepted)
    }

    func send(_ text: String) throws(SocketError) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Foundation.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            if count < 0 { throw .system(call: "send", code: errno) }
            rest = rest.dropFirst(count)
        }
    }

    func sendIgnoringErrors(_ text: String) { try? send(text) }

    /// What has come, at least a byte; empty: the other side has closed.
    func receive() throws(SocketError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 16384)
        let count = recv(descriptor, &bytes, bytes.count, 0)
        if count < 0 { throw .system(call: "recv", code: errno) }
        return Array(bytes[..<count])
    }

    /// Closes with FIN, also when a forked child shares the socket.
    func close() {
        guard descriptor >= 0 else { return }
        shutdown(descriptor, Int32(SHUT_RDWR))
        _ = Foundation.close(descriptor)
        descriptor = -1
    }

    /// Closes with RST.
    func reset() {
        var option = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
        _ = Foundation.close(descriptor)
        descriptor = -1
    }
}

/// Programs that are started later do not inherit the descriptor.
func closeOnExec(_ descriptor: Int32) { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
