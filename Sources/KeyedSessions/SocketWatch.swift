// SocketWatch: sessions end when the kernel destroys their client's socket, whatever became of the proxy.
//
// The kernel tells of each destroyed TCP socket of this network namespace (NETLINK_SOCK_DIAG, groups
// SKNLGRP_INET_TCP_DESTROY and SKNLGRP_INET6_TCP_DESTROY). The proxy's socket is the one whose other end is the client: on a
// loopback connection the client's own socket has the proxy at its other end, and finds no session.
//
// An event can be missed: while the daemon was down, when the kernel's queue was full (ENOBUFS), or because it came before the
// session's admission. So sessions are also compared with a list of all sockets: at the start, after ENOBUFS, and about a
// second after the last admission, once more while a socket is missing.

import CKeyedTable
import Glibc

/// Ends sessions with their sockets. For one thread; `tick` each 25 ms.
public final class SocketWatch {
    /// Memory for events that the kernel queues between two ticks: each takes about a kilobyte of it.
    static let receiveBytes = 16 << 20
    /// Nanoseconds between two lists.
    static let listInterval: UInt64 = 1_000_000_000

    private let sessions: KeyedSessions
    private let events: Int32
    private var flows = [fpx_flow](repeating: fpx_flow(), count: Int(FPX_FLOWS))
    /// Monotonic time when the last list began.
    private var listed: UInt64 = 0
    /// Whether the next tick lists in any case.
    private var isBehind = true
    private var missing = 0

    /// Times that the kernel could not queue an event; each was followed by a list.
    public private(set) var overruns = 0
    /// Lists of all sockets that were taken.
    public private(set) var lists = 0

    /// - Throws: `system` with EPERM without CAP_NET_ADMIN: sessions then end by their hooks and with their processes only.
    public convenience init(sessions: KeyedSessions) throws(KeyedSessionsError) {
        try self.init(sessions: sessions, receiveBytes: Self.receiveBytes)
    }

    init(sessions: KeyedSessions, receiveBytes: Int) throws(KeyedSessionsError) {
        let events = fpx_destroyed_open(receiveBytes)
        guard events >= 0 else { throw .system(call: "netlink", path: "socket destroy events", code: -events) }
        self.sessions = sessions
        self.events = events
    }

    deinit { fpx_descriptor_close(events) }

    /// Ends the sessions of all sockets destroyed since the last call.
    ///
    /// - Throws: `system` when the kernel refuses a list; nothing is ended by it then, and the next tick tries again.
    public func tick() throws(KeyedSessionsError) {
        readEvents()
        let now = fpx_monotonic()
        let isDue = missing > 0 || sessions.lastSocketAdmission.load(ordering: .acquiring) >= listed
        if isBehind || isDue && now &- listed >= Self.listInterval { try list(now) }
    }

    private func readEvents() {
        while true {
            let count = unsafe fpx_destroyed_read(events, &flows, flows.count)
            guard count != 0 else { return }
            guard count > 0 else {
                // Some are lost, whatever the reason: only a list can tell which.
                overruns += 1
                isBehind = true
                if -count == ENOBUFS { continue } else { return }
            }
            for flow in flows.prefix(Int(count)) {
                if let client = flow.client { sessions.release(client: client, localPort: flow.local_port) }
            }
        }
    }

    private func list(_ now: UInt64) throws(KeyedSessionsError) {
        var found: Set<Flow> = []
        var clients: Set<ClientEndpoint> = []
        for family: Int32 in [4, 6] {
            // A socket of its own for each, so that what a failed one has left unread is gone.
            let dump = fpx_dump_open()
            guard dump >= 0 else { throw Self.error(dump) }
            defer { fpx_descriptor_close(dump) }
            var count = fpx_dump_begin(dump, family)
            while true {
                guard count >= 0 else { throw Self.error(count) }
                count = unsafe fpx_dump_read(dump, &flows, flows.count)
                if count == 0 { break }
                for flow in flows.prefix(Int(max(0, count))) {
                    guard let client = flow.client else { continue }
                    found.insert(Flow(client: client, localPort: flow.local_port))
                    clients.insert(client)
                }
            }
        }
        lists += 1
        listed = now
        isBehind = false
        missing = sessions.reconcile(flows: found, clients: clients, began: now)
    }

    private static func error(_ code: Int32) -> KeyedSessionsError {
        .system(call: "netlink", path: "list of sockets", code: -code)
    }
}

extension fpx_flow {
    fileprivate var client: ClientEndpoint? {
        guard remote_port != 0 else { return nil }
        return unsafe withUnsafeBytes(of: remote) { unsafe try? ClientEndpoint(address: $0, port: Int(remote_port)) }
    }
}
