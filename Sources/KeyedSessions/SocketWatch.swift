// SocketWatch: sessions end when the kernel destroys the socket that they are bound to, whatever became of the proxy.
//
// A session is bound when it begins. Its hook tells both ends of the client's connection. The kernel is asked for the TCP
// socket between exactly these ends that a process has open, and tells its cookie, a number that no other socket ever has.
// Where there is no such socket, or it is in another network namespace, the session is bound to nothing.
//
// The kernel tells of each destroyed TCP socket of this network namespace, with its cookie (NETLINK_SOCK_DIAG, groups
// SKNLGRP_INET_TCP_DESTROY and SKNLGRP_INET6_TCP_DESTROY). Which addresses and ports it had does not matter: a client may have
// opened the next connection from the same port long before the news is read.
//
// News can be missed: while the daemon was down, when the kernel's queue was full (ENOBUFS), or without a word when the kernel
// had no memory for it. So at the start, after ENOBUFS and once a minute the kernel is asked for each socket by its ends and
// its cookie. Only its clear answer that there is no such socket ends a session; an error ends nothing.

import CKeyedTable
import Glibc
import Synchronization

/// Ends sessions with their sockets. While there is one, sessions are bound to sockets. Any thread may call; `tick` each 25 ms.
public final class SocketWatch: Sendable {
    /// Memory for events that the kernel queues between two ticks: each takes about a kilobyte of it.
    static let receiveBytes = 16 << 20
    /// Nanoseconds between two checks of all sockets.
    static let checkInterval: UInt64 = 60_000_000_000
    /// Sockets that one tick asks for: some milliseconds.
    static let socketsPerTick = 2048
    /// Events of one tick, and of one call of the kernel's: what is left waits in its queue for the next tick.
    static let eventsPerTick = 1 << 16
    private static let eventsPerRead = 1024

    private struct State {
        /// Events may be missing.
        var isBehind = true
        /// Monotonic time when the last check began.
        var checked: UInt64 = 0
        /// Sockets of a check that are still to be asked for.
        var unchecked: [ProxySocket] = []
        var cookies = [UInt64](repeating: 0, count: eventsPerRead)
        var overruns = 0
        var checks = 0
    }

    private let sessions: KeyedSessions
    private let events: Int32
    private let state = Mutex(State())

    /// Times that the kernel could not queue an event; each was followed by a check of all sockets.
    public var overruns: Int { state.withLock { $0.overruns } }
    /// Checks of all sockets that have begun.
    public var checks: Int { state.withLock { $0.checks } }

    /// - Throws: `system` with EPERM without CAP_NET_ADMIN: sessions then end by their hooks and with their processes only.
    public convenience init(sessions: KeyedSessions) throws(KeyedSessionsError) {
        try self.init(sessions: sessions, receiveBytes: Self.receiveBytes)
    }

    init(sessions: KeyedSessions, receiveBytes: Int) throws(KeyedSessionsError) {
        let events = fpx_destroyed_open(receiveBytes)
        guard events >= 0 else { throw .system(call: "netlink", path: "socket destroy events", code: -events) }
        let error = fpx_sockets_known()
        guard error == 0 else {
            fpx_descriptor_close(events)
            throw .system(call: "netlink", path: "list of sockets", code: -error)
        }
        self.sessions = sessions
        self.events = events
        sessions.hasSocketWatch.store(true, ordering: .relaxed)
    }

    deinit {
        sessions.hasSocketWatch.store(false, ordering: .relaxed)
        fpx_descriptor_close(events)
    }

    /// Ends the sessions of the sockets destroyed since the last call.
    ///
    /// - Throws: `system` when the kernel does not tell whether a socket is there. That ends nothing, and the next tick asks
    ///   again.
    public func tick() throws(KeyedSessionsError) {
        let code = state.withLock { state -> Int32 in
            let isDrained = readEvents(&state)
            if sessions.mustCheckSockets.exchange(false, ordering: .acquiring) { state.isBehind = true }
            let now = fpx_monotonic()
            let isDue = state.isBehind || now &- state.checked >= Self.checkInterval
            // The kernel drops events until its queue has been empty, so what is lost is known only then.
            if isDue, isDrained, state.unchecked.isEmpty {
                state.isBehind = false
                state.checked = now
                state.checks += 1
                state.unchecked = Array(sessions.boundSockets())
            }
            return check(&state)
        }
        if code != 0 { throw .system(call: "netlink", path: "state of sockets", code: code) }
    }

    /// False: there are more.
    private func readEvents(_ state: inout State) -> Bool {
        for _ in 0..<Self.eventsPerTick / Self.eventsPerRead {
            let count = unsafe fpx_destroyed_read(events, &state.cookies, state.cookies.count)
            if count == 0 { return true }
            guard count > 0 else {
                // Some are lost, whatever the reason.
                state.overruns += 1
                state.isBehind = true
                if -count == ENOBUFS { continue } else { return true }
            }
            sessions.release(sockets: state.cookies.prefix(Int(count)))
        }
        return false
    }

    /// Asks for the next sockets of a check. Returns an error of the kernel's, 0 for none.
    private func check(_ state: inout State) -> Int32 {
        if state.unchecked.isEmpty { return 0 }
        let (gone, unknown, code) = ProxySocket.gone(state.unchecked.suffix(Self.socketsPerTick))
        state.unchecked.removeLast(min(Self.socketsPerTick, state.unchecked.count))
        state.unchecked.insert(contentsOf: unknown, at: 0)
        sessions.release(sockets: gone.map(\.cookie))
        return code
    }
}
