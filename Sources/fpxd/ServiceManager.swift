// ServiceManager: readiness and watchdog, as systemd's sd_notify(3) has them: datagrams to the socket in NOTIFY_SOCKET.

import Foundation

struct ServiceManager: Sendable {
    private let address: UnixAddress?
    /// How long the watchdog waits for a word; nil: no watchdog.
    let watchdogPatience: Duration?

    init(environment: [String: String]) {
        address = environment["NOTIFY_SOCKET"].flatMap { $0.hasPrefix("/") || $0.hasPrefix("@") ? UnixAddress($0) : nil }
        let mine = environment["WATCHDOG_PID"].map { $0 == String(getpid()) } ?? true
        watchdogPatience = mine ? environment["WATCHDOG_USEC"].flatMap(Int64.init).map { .microseconds($0) } : nil
    }

    /// `READY=1`, `WATCHDOG=1`, `STOPPING=1`, `STATUS=...`. Without a service manager it does nothing; one that does not read
    /// is waited for a second, and no longer.
    func notify(_ state: String) {
        guard let address else { return }
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        var limit = timeval(tv_sec: 1, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        _ = address.call { sendto(descriptor, state, state.utf8.count, Int32(MSG_NOSIGNAL), $0, $1) }
    }
}

/// The name of a unix socket; `@` at its beginning: in the abstract space.
struct UnixAddress: Sendable {
    private let path: [UInt8]

    /// Nil: the name is too long for the kernel.
    init?(_ name: String) {
        var path = Array(name.utf8)
        guard !path.isEmpty, path.count < MemoryLayout.size(ofValue: sockaddr_un().sun_path) else { return nil }
        // A name in the abstract space begins with a zero byte, and counts no zero at its end.
        if path[0] == UInt8(ascii: "@") { path[0] = 0 }
        self.path = path
    }

    func call<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        var name = sockaddr_un()
        name.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &name.sun_path) { $0.copyBytes(from: path) }
        let length = socklen_t(MemoryLayout.offset(of: \sockaddr_un.sun_path)! + path.count)
        return withUnsafePointer(to: name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }
}
