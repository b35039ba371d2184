// How sessions end: by their hook, with their process or socket, or by an operator.

public import Admission
import CKeyedTable

/// Nodes of ended sessions that are kept for a while, oldest first. Guarded by a mutex.
struct EndedMemory {
    /// How long an end is remembered, in nanoseconds: longer than a request waits in any socket's buffer.
    static let lifetime: UInt64 = 10_000_000_000
    /// Nodes at most; beyond it the oldest is forgotten early.
    static let limit = 1 << 15

    private var ring: [(node: Node, expires: UInt64)] = []
    private var first = 0

    var count: Int { ring.count - first }

    mutating func remember(_ node: Node, now: UInt64) { ring.append((node, now &+ Self.lifetime)) }

    /// The next node that is to be forgotten.
    mutating func forget(now: UInt64) -> Node? {
        guard first < ring.count, count > Self.limit || ring[first].expires <= now else { return nil }
        let node = ring[first].node
        first += 1
        // Moved in rare big steps, so that each node moves about once.
        if first > 1024, first * 2 > ring.count {
            ring.removeFirst(first)
            first = 0
        }
        return node
    }
}

extension KeyedSessions {
    /// Ends the session of a key. False: nobody knows it, or it has ended already; both are counted and change nothing.
    ///
    /// - Parameter heeded: false when the proxy tells that it had no verdict while the session ran.
    @discardableResult
    public func release(key: SessionKey, hook: Hook, heeded: Bool = true) -> Bool {
        table.reading {
            guard let node = table.find(key, hook) ?? rememberEnd(key, hook) else {
                counters.count(.unknownEnds, hook)
                return false
            }
            while true {
                let state = node.state.load()
                if State.isLive(state) {
                    guard end(node, state, .released) else { continue }
                    // What was bypassed anyway has lost nothing.
                    if !heeded, !SessionHandle(rawValue: state).isBypassed { counters.count(.unheeded, hook) }
                } else if state == State.deciding {
                    guard node.state.compareExchange(state, State.endedEarly).exchanged else { continue }
                } else {
                    counters.count(.repeatedEnds, hook)
                    return false
                }
                counters.count(.released, hook)
                return true
            }
        }
    }

    /// Remembers the end of an unknown session, whose admission may still be on its way, and returns nil; or returns the
    /// session's node, if it has come meanwhile.
    private func rememberEnd(_ key: SessionKey, _ hook: Hook) -> Node? {
        guard hook.keysAreUnique else { return nil }
        var record = fpx_record()
        record.hook = hook.rawValue
        record.set(key)
        guard let (node, isNew) = table.add(record, state: State.remembered, admitted: 0) else { return nil }
        if !isNew { return node }
        remember(node)
        return nil
    }

    private func remember(_ node: Node) {
        let now = fpx_monotonic()
        memory.withLock { memory in
            memory.remember(node, now: now)
            while let old = memory.forget(now: now) { table.remove(old) }
        }
    }

    /// Moves a node from its handle to its end. False: another was first.
    func end(_ node: Node, _ handle: UInt64, _ cause: SessionCounter) -> Bool {
        let isRemembered = cause != .released && node.hook?.keysAreUnique == true
        guard node.state.compareExchange(handle, isRemembered ? State.remembered : State.ended).exchanged else { return false }
        // Whoever finds the handle out of use has released it from outside: it is not ours to count.
        try? segment.release(SessionHandle(rawValue: handle))
        if node.record.by_socket == 1 { table.unlinkClient(node) }
        if isRemembered { remember(node) } else { table.remove(node) }
        return true
    }

    /// Ends each session that a condition holds for, also one that is being decided.
    private func endAll(_ cause: SessionCounter, where isWanted: (fpx_record) -> Bool) -> Int {
        var count = 0
        table.reading {
            table.forEach { node in
                if isWanted(node.record), endNow(node, cause) { count += 1 }
            }
        }
        return count
    }

    private func endNow(_ node: Node, _ cause: SessionCounter) -> Bool {
        while true {
            let state = node.state.load()
            guard State.isLive(state) || state == State.deciding else { return false }
            let isMine =
                State.isLive(state)
                ? end(node, state, cause) : node.state.compareExchange(state, State.endedEarly).exchanged
            guard isMine else { continue }
            if let hook = node.hook { counters.count(cause, hook) }
            return true
        }
    }

    /// Ends all sessions of some processes. Returns how many.
    ///
    /// It looks at each session there is once, however many processes there are.
    @discardableResult
    public func release(owners: Set<Owner>) -> Int {
        if owners.isEmpty { return 0 }
        return endAll(.endedByOwnerDeath) {
            owners.contains(Owner(processID: $0.owner_pid, startTime: $0.owner_start))
        }
    }

    /// Ends the sessions of a client's connection whose socket is gone. Returns how many.
    ///
    /// - Parameter localPort: the proxy's port of that connection; sessions known to be of another port are left alone.
    @discardableResult
    public func release(client: ClientEndpoint, localPort: UInt16? = nil) -> Int {
        var count = 0
        table.reading {
            table.forEach(client: client) { node in
                let port = node.record.local_port
                if let localPort, port != 0, port != localPort { return }
                if endNow(node, .endedBySocket) { count += 1 }
            }
        }
        return count
    }

    /// Ends the session with this handle, as an operator. False: there is none.
    @discardableResult
    public func clear(_ handle: SessionHandle) -> Bool {
        var found = false
        table.reading {
            table.forEach { node in
                if node.state.load() == handle.rawValue, endNow(node, .cleared) { found = true }
            }
        }
        return found
    }

    /// Ends all sessions, as an operator. Returns how many.
    @discardableResult
    public func clearAll() -> Int { endAll(.cleared) { _ in true } }

    /// Starts to watch a process; nil if too many are watched: its sessions are then those of an unknown owner.
    public func watch(_ owner: Owner) -> WatchedOwner? { owners.watch(owner) }

    /// Ends the sessions of processes that have died, and forgets old ends. Call it each 25 ms.
    public func tick() {
        release(owners: Set(owners.collectDead().map(\.owner)))
        let now = fpx_monotonic()
        table.reading {
            memory.withLock { memory in
                while let old = memory.forget(now: now) { table.remove(old) }
            }
        }
    }
}

// MARK: - Sockets

/// A connection as the kernel shows it at the proxy.
struct Flow: Hashable {
    let client: ClientEndpoint
    let localPort: UInt16
}

extension KeyedSessions {
    /// Ends sessions whose sockets two lists in a row did not show. One is not enough: a list takes a while, and a socket can be
    /// skipped in it when its neighbours go. For one thread at a time.
    ///
    /// - Parameters:
    ///   - flows: the TCP sockets of this network namespace.
    ///   - began: monotonic time before they were listed; younger sessions are left alone.
    /// - Returns: sessions that are to be looked for again.
    func reconcile(flows: Set<Flow>, clients: Set<ClientEndpoint>, began: UInt64) -> Int {
        var missing = 0
        table.reading {
            table.forEach { node in
                let record = node.record
                guard record.by_socket == 1, State.isLive(node.state.load()), let client = record.clientEndpoint else { return }
                let isThere =
                    record.local_port == 0
                    ? clients.contains(client) : flows.contains(Flow(client: client, localPort: record.local_port))
                if isThere {
                    node.misses = 0
                } else if node.admitted >= began {
                    missing += 1
                } else {
                    node.misses += 1
                    if node.misses < 2 { missing += 1 } else { _ = endNow(node, .endedBySocket) }
                }
            }
        }
        return missing
    }
}
