// ServiceManager: readiness and watchdog, as systemd's sd_notify(3) has them: datagrams to the socket in NOTIFY_SOCKET.

import Foundation

struct ServiceManager: Sendable {
    private let address: String?
    /// How often the watchdog wants to hear from us, halved for safety; nil: no watchdog.
    let watchdogInterval: Duration?

    init(environment: [String: String]) {
        address = environment["NOTIFY_SOCKET"]
        let mine = environment["WATCHDOG_PID"].map { $0 == String(getpid()) } ?? true
        watchdogInterval =
            mine ? environment["WATCHDOG_USEC"].flatMap(Int64.init).map { .microseconds($0 / 2) } : nil
    }

    /// `READY=1`, `WATCHDOG=1`, `STOPPING=1`, `STATUS=...`. Without a service manager it does nothing.
    func notify(_ state: String) {
        guard let address, address.hasPrefix("/") || address.hasPrefix("@") else { return }
        var name = sockaddr_un()
        name.sun_family = sa_family_t(AF_UNIX)
        var path = Array(address.utf8)
        guard path.count < MemoryLayout.size(ofValue: name.sun_path) else { return }
        // A name in the abstract space begins with a zero byte, and counts no zero at its end.
        if path[0] == UInt8(ascii: "@") { path[0] = 0 }
        withUnsafeMutableBytes(of: &name.sun_path) { $0.copyBytes(from: path) }
        let length = socklen_t(MemoryLayout.offset(of: \sockaddr_un.sun_path)! + path.count)
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        _ = withUnsafePointer(to: name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { socketAddress in
                sendto(descriptor, state, state.utf8.count, Int32(MSG_NOSIGNAL), socketAddress, length)
            }
        }
    }
}
