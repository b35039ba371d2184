import Foundation

/// A socket that hears what systemd hears.
final class NotifySocket {
    private let folder: TemporaryFolder
    private let descriptor: Int32
    let path: String

    /// - Parameter place: in a folder of its own, if nil.
    init(_ type: __socket_type = SOCK_DGRAM, at place: String? = nil) throws {
        folder = try TemporaryFolder()
        let path = place ?? folder.path + "/notify"
        self.path = path
        descriptor = socket(AF_UNIX, Int32(type.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let bound = withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        if type == SOCK_STREAM { listen(descriptor, 16) }
        if bound != 0 { throw SocketError.system(call: "bind", code: errno) }
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { _ = close(descriptor) }

    /// The next message; empty: none came for 10 seconds.
    func receive() -> String { receive(flags: 0) }

    /// The next message; empty: none came within so many seconds.
    func receive(within seconds: Int) -> String {
        var descriptor = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&descriptor, 1, Int32(seconds) * 1000) > 0 ? receive() : ""
    }

    /// Throws away what has come.
    func forget() { while !receive(flags: Int32(MSG_DONTWAIT)).isEmpty {} }

    private func receive(flags: Int32) -> String {
        var bytes = [UInt8](repeating: 0, count: 1024)
        let count = recv(descriptor, &bytes, bytes.count, flags)
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }
}
