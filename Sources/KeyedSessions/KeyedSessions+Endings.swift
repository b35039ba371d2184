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
        guard let (node, isNew) = table.add(record, state: State.remembered) else { return nil }
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
        giveBack(SessionHandle(rawValue: handle))
        if node.record.isBound { table.unlinkSocket(node) }
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

    /// Ends the sessions that are bound to sockets which the kernel says are gone. Returns how many.
    @discardableResult
    func release(sockets cookies: some Sequence<UInt64>) -> Int {
        noteSocketNews()
        var count = 0
        table.reading {
            for cookie in cookies {
                table.forEach(boundTo: cookie) { node in
                    if endNow(node, .endedBySocket) { count += 1 }
                }
            }
        }
        return count
    }

    /// The sockets that sessions in progress are bound to.
    func boundSockets() -> Set<ProxySocket> {
        noteSocketNews()
        var sockets: Set<ProxySocket> = []
        table.reading {
            table.forEach { node in
                if State.isLive(node.state.load()), let socket = node.record.socket { sockets.insert(socket) }
            }
        }
        return sockets
    }

    /// Called before news of sockets is looked up in the table: an admission whose node is not in it yet then asks again.
    private func noteSocketNews() {
        socketNews.add(1, ordering: .sequentiallyConsistent)
        fpx_fence()
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

    /// Ends all sessions of which nothing but the handle is known, as an operator. Returns how many.
    @discardableResult
    public func clearUnknown() -> Int { endAll(.cleared) { $0.hook == 0 } }

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
