// KeyedSessions: sessions that a proxy names by keys of its own, because it holds no handle.
//
// A session is a node in an RCU hash table (liburcu's cds_lfht), found by hook and key, and by the socket that it is bound to
// (see SocketWatch). Its place in the count is a handle of the keeper's attachment, which outlives the daemon; its journal
// record tells the daemon's next life whose it is. The order of an admission: node, handle, record, state; that of an end: state,
// record, handle. Killed in between, the next life finds a handle whose record says that it is free, and gives it back: nobody was
// told a verdict, or the session has ended.
//
// A node's state is one word, and who changes it owns what follows:
//
//     deciding --> handle --------> ended          the node leaves the tables
//         |           \-----------> remembered     keys are unique and others than the hook ended it: a late end finds it
//         \--> endedEarly --> ended                its end came while it was decided
//     (no node) --> remembered                     its end came before its admission
//
// (a) Exactly one thread moves a node from `deciding` or from its handle, so a handle is released once.
// (b) An admission moves the state to the handle before it looks whether its owner is dead; a sweep marks the owner before it
//     walks. So one of the two ends the session of an owner that dies meanwhile.
// (c) An admission asks for its socket before its node can be found by it. News of the socket's end that is read in between
//     finds no node. So an admission reads `socketNews` before it asks, and again when its node can be found. Who brings news,
//     or collects the sockets of a check, adds to `socketNews` before it looks at the table. If the number has changed, the
//     admission asks for its socket again.
// (d) A remembered node leaves the table by its age alone.
//
// Progress: admissions and ends of different keys are lock-free (remembering takes a mutex); an admission of a key that another
// thread is deciding waits for that decision, which waits for nobody.

public import Admission
import CKeyedTable
import Glibc
import Synchronization

/// A hook's name for a session: 1 to 160 bytes.
public struct SessionKey: Hashable, Sendable, CustomStringConvertible {
    public static let length = 1...Int(FPX_KEY_BYTES)
    let bytes: [UInt8]

    public init(_ bytes: some Collection<UInt8>) throws(KeyedSessionsError) {
        guard Self.length.contains(bytes.count) else { throw .key(bytes: bytes.count, allowed: Self.length) }
        self.bytes = Array(bytes)
    }

    public init(_ text: String) throws(KeyedSessionsError) { try self.init(text.utf8) }

    public var description: String { String(decoding: bytes, as: UTF8.self) }
}

/// What a hook tells of a new session.
public struct SessionRequest: Sendable {
    public let key: SessionKey
    public let hook: Hook
    /// Pool of the segment, 0 to 15.
    public let pool: Int
    /// The proxy's process; nil: unknown.
    public let owner: WatchedOwner?
    public let client: Endpoint?
    /// The proxy's own end of the client's TCP connection. Only where the proxy's sockets are known to be of this network
    /// namespace, and `client` to be the other end: the end of the socket between the two then ends the session.
    public let local: Endpoint?

    public init(
        key: SessionKey, hook: Hook, pool: Int, owner: WatchedOwner? = nil, client: Endpoint? = nil, local: Endpoint? = nil
    ) throws(KeyedSessionsError) {
        guard (0..<Limits.pools).contains(pool) else {
            throw .range(what: "pool", found: pool, allowed: 0...(Limits.pools - 1))
        }
        self.key = key
        self.hook = hook
        self.pool = pool
        self.owner = owner
        self.client = client
        self.local = local
    }
}

enum State {
    static let deciding: UInt64 = 0
    static let endedEarly: UInt64 = 1
    static let ended: UInt64 = 2
    static let remembered: UInt64 = 3

    /// A handle in use: its highest bit is always set.
    static func isLive(_ state: UInt64) -> Bool { state >> 63 == 1 }
}

/// All keyed sessions of a host. Any thread may call anything.
public final class KeyedSessions: Sendable {
    /// Where sessions are counted and described.
    final class Place: Sendable {
        let segment: Segment
        let pools: [Pool]
        /// Nil: none could be made yet; sessions that cannot be described are not kept.
        let journal: Journal?

        init(_ segment: Segment, _ journal: Journal?) {
            self.segment = segment
            self.journal = journal
            pools = (0..<Limits.pools).compactMap { try? segment.pool($0) }
        }
    }

    /// Changes in `move` and `renewJournal` alone, while nobody is in a read section of the table.
    let place: Mutex<Place>
    let journalPath: String
    let table: KeyedTable
    let owners = OwnerWatch()
    let counters = Counters()
    let memory = Mutex(EndedMemory())
    /// Whether somebody listens for the ends of sockets: without, sessions are bound to none.
    let hasSocketWatch = Atomic<Bool>(false)
    /// Counts news of sockets, see (c).
    let socketNews = Atomic<UInt64>(0)
    /// Whether an admission could not make sure that its socket is still there.
    let mustCheckSockets = Atomic<Bool>(false)

    /// What was found of the daemon's earlier life.
    public let takenOver: TakenOver

    /// Takes over the sessions of the daemon's earlier life.
    ///
    /// - Parameters:
    ///   - segment: attached as keeper. As an ordinary attachment it works too, but its sessions end with this process.
    ///   - former: segments that the daemon's earlier life had, attached as keeper. What they count is to be given back: see `leave`.
    ///   - path: the journal, on the same kind of file system as the segment, for this process alone. One that is not in order is
    ///     moved aside.
    ///   - publish: gives a new segment, which nobody else uses yet, its name. Called when the sessions of before are counted in it:
    ///     its caps are then what it holds. Nil: the segment has its name, and its handles say which sessions there are.
    /// - Throws: what keeps a new segment from counting them.
    public init(
        segment: Segment, former: [Segment] = [], journal path: String, publish: (() throws -> Void)? = nil
    ) throws {
        guard let table = KeyedTable() else { throw KeyedSessionsError.system(call: "malloc", path: path, code: ENOMEM) }
        var found = Inheritance(JournalContents(path: path), of: publish == nil ? [segment] : former)
        let journal: Journal?
        if let publish {
            found.addUncounted()
            let new = try found.count(in: segment)
            found.moveAside()
            try publish()
            try new.publish()
            journal = new
        } else {
            journal = found.openJournal()
        }
        if publish == nil { for handle in found.cutShort { try? segment.release(handle) } }
        self.table = table
        place = Mutex(Place(segment, journal))
        journalPath = path
        takenOver = found.report
        restore(found.sessions)
    }

    /// Gives back what former segments still count. All of it is of no session, or counted in the present one: by the start, or for
    /// long. When it is called they must admit nobody any more.
    public func leave(_ former: [Segment]) {
        for segment in former { for handle in segment.handlesInUse() { try? segment.release(handle) } }
    }

    var segment: Segment { place.withLock { $0.segment } }
    var pools: [Pool] { place.withLock { $0.pools } }

    private func restore(_ sessions: [DescribedSession]) {
        var found: Set<Owner> = []
        table.reading {
            for session in sessions {
                let record = session.record
                // Made as undecided, so that it can be found only when it can be ended whole.
                guard let (node, isNew) = table.add(record, state: State.deciding), isNew else { continue }
                if record.isBound { table.linkSocket(node) }
                node.state.store(session.handle.rawValue)
                if let hook = node.hook { counters.count(.restored, hook) }
                if record.owner_pid != 0 { found.insert(Owner(processID: record.owner_pid, startTime: record.owner_start)) }
            }
        }
        release(owners: found.filter { owners.watch($0)?.isDead == true })
    }
}

// MARK: - Admit

extension KeyedSessions {
    private enum Found {
        case verdict(Verdict)
        case isDeciding
        case wasEnding
    }

    /// The verdict of a session, decided and counted when its key is new. The same key again, while the session is in progress,
    /// gets the same verdict.
    public func admit(_ request: SessionRequest) -> Verdict {
        let news = socketNews.load(ordering: .sequentiallyConsistent)
        return admit(request, boundTo: socket(of: request), news: news)
    }

    private func socket(of request: SessionRequest) -> ProxySocket? {
        guard let local = request.local, let client = request.client, hasSocketWatch.load(ordering: .relaxed),
            Namespace.network != 0
        else { return nil }
        return ProxySocket(local: local, client: client)
    }

    /// - Parameter news: `socketNews` before the socket was found.
    func admit(_ request: SessionRequest, boundTo socket: ProxySocket?, news: UInt64) -> Verdict {
        let record = fpx_record(request, socket: socket, started: fpx_milliseconds())
        while true {
            let found = table.reading { () -> Found in
                guard let (node, isNew) = table.add(record, state: State.deciding) else {
                    return .verdict(exhausted(request))
                }
                guard isNew else { return meet(node, request) }
                let verdict = decide(node, request, record)
                if let socket { lookAgain(socket, news: news) }
                return .verdict(verdict)
            }
            switch found {
            case .verdict(let verdict): return verdict
            case .isDeciding: fpx_yield()
            case .wasEnding: continue
            }
        }
    }

    /// What a node that has the key already means to an admission.
    private func meet(_ node: Node, _ request: SessionRequest) -> Found {
        let state = node.state.load()
        if State.isLive(state) {
            counters.count(.repeated, request.hook)
            return .verdict(SessionHandle(rawValue: state).isBypassed ? .bypass : .inspect)
        }
        switch state {
        case State.remembered:
            counters.count(.late, request.hook)
            return .verdict(.bypass)
        case State.ended:
            table.remove(node)  // who ended it may have been stopped before it got here
            return .wasEnding
        default:
            return .isDeciding
        }
    }

    private func decide(_ node: Node, _ request: SessionRequest, _ described: fpx_record) -> Verdict {
        let session = pools[request.pool].admit()
        let verdict = session.verdict
        if verdict == .block {
            counters.count(.blocked, request.hook)
            drop(node)
            return .block
        }
        let made = try? segment.handle(session)
        guard let handle = made ?? nil else {
            drop(node)
            return exhausted(request)
        }
        var record = described
        record.handle = handle.rawValue
        record.verdict = verdict.rawValue
        guard place.withLock({ $0 }).journal?.write(record, entry: handle.entry) == true else {
            giveBack(handle)
            drop(node)
            return exhausted(request)
        }
        counters.count(verdict == .inspect ? .admitted : .bypassed, request.hook)
        if record.isBound { table.linkSocket(node) } else { counters.count(.unbound, request.hook) }
        if !node.state.compareExchange(State.deciding, handle.rawValue).exchanged {
            // Its end came meanwhile and was counted by who brought it.
            if record.isBound { table.unlinkSocket(node) }
            giveBack(handle)
            drop(node)
        } else if let owner = request.owner, owner.isDead, end(node, handle.rawValue, .endedByOwnerDeath) {
            counters.count(.endedByOwnerDeath, request.hook)
        }
        return verdict
    }

    /// Ends the count of a session that has ended. The record goes first: another session may have the entry at once.
    func giveBack(_ handle: SessionHandle) {
        let place = place.withLock { $0 }
        place.journal?.clear(handle)
        // Whoever finds the handle out of use has released it from outside: it is not ours to count.
        try? place.segment.release(handle)
    }

    /// Ends what is bound to a socket whose end may have been told before the session could be found.
    private func lookAgain(_ socket: ProxySocket, news: UInt64) {
        fpx_fence()
        guard socketNews.load(ordering: .sequentiallyConsistent) != news else { return }
        let (gone, unknown, _) = ProxySocket.gone(CollectionOfOne(socket))
        if !gone.isEmpty { release(sockets: CollectionOfOne(socket.cookie)) }
        if !unknown.isEmpty { mustCheckSockets.store(true, ordering: .releasing) }
    }

    /// Takes a node without a session out of the table.
    private func drop(_ node: Node) {
        node.state.store(State.ended)
        table.remove(node)
    }

    /// The answer to a session that cannot be kept: it is as over the limit as any that finds no licence.
    private func exhausted(_ request: SessionRequest) -> Verdict {
        counters.count(.exhausted, request.hook)
        return pools[request.pool].policy == .block ? .block : .bypass
    }
}
