// SPOEServer: the agent that haproxy asks for a verdict on each new session.
//
// haproxy sends the message `fpx-admit` with the arguments id, and optionally pool, src, sport, dst, dport, proxied and http;
// the answer sets the transaction variable `verdict` (under haproxy's own prefix) to inspect, bypass or block, or to error
// where the message has no usable id or an unknown pool. Frames are answered in the order in which they come, on their own
// connection, at once: a decision waits for nothing but the kernel's word on the client's socket.

public import KeyedSessions
public import Logging
public import NIOCore
import NIOPosix
import Synchronization

/// Serves haproxy's stream processing offload protocol (SPOP 2.0) on a unix socket.
///
/// `run` fits a service group: it ends when its task is cancelled, after it has told haproxy to go.
public final class SPOEServer: Sendable {
    public struct Settings: Sendable {
        /// Where haproxy connects to; at most 106 bytes.
        public var path: String
        /// Permission bits of the socket: haproxy's workers must be able to write to it.
        public var mode: UInt32
        /// Largest frame, in bytes, 256 to 65,536; haproxy's own limit is 16,380 unless it is told otherwise.
        public var maxFrameSize: Int
        /// Connections at the same time.
        public var connectionsMax: Int
        /// How long a hello or the rest of a frame may take, in seconds.
        public var patienceSeconds: Int
        /// Pools of the segment by the name of their licence type. A message without one asks for the first type, furl.
        public var pools: [String: Int]

        public init(
            path: String, mode: UInt32 = 0o660, maxFrameSize: Int = 16380, connectionsMax: Int = 1024,
            patienceSeconds: Int = 10, pools: [String: Int] = ["furl": 0, "fnbi": 1, "fcas": 2]
        ) {
            self.path = path
            self.mode = mode
            self.maxFrameSize = maxFrameSize
            self.connectionsMax = connectionsMax
            self.patienceSeconds = patienceSeconds
            self.pools = pools
        }
    }

    private let server: UnixServer
    private let statistics: SPOEStatistics

    /// - Parameter full: told of each connection that is refused because there are too many, in the same words.
    public init(
        settings: Settings, sessions: KeyedSessions, logger: Logger,
        group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton, full: @escaping @Sendable (String) -> Void = { _ in }
    ) throws(SPOEError) {
        let frames = SPOPHello.frameSizeMin...65536
        guard frames.contains(settings.maxFrameSize) else {
            throw .range(what: "largest frame", found: settings.maxFrameSize, allowed: frames)
        }
        let connections = 1...65536
        guard connections.contains(settings.connectionsMax) else {
            throw .range(what: "agent connections", found: settings.connectionsMax, allowed: connections)
        }
        let patience = 1...3600
        guard patience.contains(settings.patienceSeconds) else {
            throw .range(what: "seconds to wait for a frame", found: settings.patienceSeconds, allowed: patience)
        }
        let statistics = SPOEStatistics()
        let agent = SPOEAgent(sessions: sessions, pools: settings.pools, statistics: statistics, logger: logger)
        let maxFrameSize = settings.maxFrameSize
        let seconds = TimeAmount.seconds(Int64(settings.patienceSeconds))
        self.statistics = statistics
        server = UnixServer(
            settings: .init(
                path: settings.path, mode: settings.mode, connectionsMax: settings.connectionsMax, replacesSilent: false),
            group: group, logger: logger, full: full
        ) { channel, isOverLimit in
            let handler = SPOEHandler(agent: agent, maxFrameSize: maxFrameSize, patience: seconds, isRefused: isOverLimit)
            try channel.pipeline.syncOperations.addHandler(handler)
        }
    }

    /// Makes the socket and listens. When this returns haproxy can connect. A socket that is there already gives way to the new
    /// one, and its connections go on.
    public func start() async throws(SPOEError) { try await server.start() }

    /// Whether haproxy finds the socket under its path.
    public var hasItsName: Bool { server.hasItsName }

    /// Serves until its task is cancelled, then shuts down. Starts if that was not done yet.
    public func run() async throws(SPOEError) { try await server.run() }

    /// Removes the socket, tells each connection that the agent goes, and closes it.
    public func shutdown() async { await server.shutdown() }

    /// Connections now.
    public var connections: Int { server.connections }

    /// What was counted since the start: `messages`, `errors` (messages without a usable id or pool), `protocol_errors`,
    /// `refused_connections`, `healthchecks`.
    public var counters: [String: Int] { statistics.all }
}

final class SPOEStatistics: Sendable {
    enum Event: String, CaseIterable {
        case messages, errors, healthchecks
        case protocolErrors = "protocol_errors"
        case refusedConnections = "refused_connections"
    }

    private let counts = Mutex<[Event: Int]>([:])

    func count(_ event: Event) { counts.withLock { $0[event, default: 0] += 1 } }

    var all: [String: Int] {
        let counts = counts.withLock { $0 }
        return Dictionary(uniqueKeysWithValues: Event.allCases.map { ($0.rawValue, counts[$0] ?? 0) })
    }
}

/// Peers that were told of: haproxy connects anew for each check, and the same holds for each connection of a process.
final class Strangers: Sendable {
    private static let max = 256

    private let known = Mutex<Set<String>>([])

    /// Whether it has not been told yet; from now on it has.
    func isNew(_ name: String) -> Bool {
        known.withLock { known in
            if known.count >= Self.max { known = [] }
            return known.insert(name).inserted
        }
    }
}

/// Who answers the messages of all connections.
struct SPOEAgent: Sendable {
    static let messageName = "fpx-admit"
    static let variable = "verdict"
    private static let httpOverQUIC = 3

    /// The haproxy worker at the other end.
    struct Peer: Sendable {
        let owner: WatchedOwner?
        /// Whether it is known to be in this network namespace.
        let sharesNetwork: Bool
    }

    let sessions: KeyedSessions
    let pools: [String: Int]
    let statistics: SPOEStatistics
    let logger: Logger
    private let reminder = Reminder()
    private let strangers = Strangers()

    /// - Parameters:
    ///   - processID: from the socket's credentials; 0: in another process namespace.
    ///   - network: number of the network namespace that the other end was made in; nil: the kernel does not tell.
    func peer(processID: Int32, network: UInt64?) -> Peer {
        let owner = Owner(runningProcess: processID)
        if owner == nil, strangers.isNew("unseen") {
            logger.warning("a haproxy whose process cannot be seen has connected: its sessions will not end by its death")
        }
        // A kernel that numbers no namespaces still shows the one of a process that can be seen.
        let isSame = network.map { $0 == Network.cookie && $0 != 0 } ?? owner?.sharesNetwork
        let sharesNetwork = isSame ?? false
        if !sharesNetwork, strangers.isNew("network \(processID)") {
            logger.warning(
                """
                haproxy is \(isSame == nil ? "in an unknown" : "in another") network namespace: its sessions will not end with \
                their sockets
                """, metadata: ["pid": "\(processID)"])
        }
        return Peer(owner: owner.flatMap { sessions.watch($0) }, sharesNetwork: sharesNetwork)
    }

    /// A conversation has ended by a fault of the peer's.
    ///
    /// - Parameter wasSilent: whether the peer had said nothing at all: whoever may connect may do that, and it harms nobody.
    func note(_ error: SPOPError, wasSilent: Bool) {
        statistics.count(.protocolErrors)
        let metadata: Logger.Metadata = ["reason": "\(error.message)"]
        if wasSilent { return logger.debug("closed a connection that has said nothing", metadata: metadata) }
        guard let count = reminder.count(error.message) else { return }
        logger.warning("ended \(count == 1 ? "a conversation" : "\(count) conversations") with haproxy", metadata: metadata)
    }

    /// The answer to one message; messages for others get none.
    func decide(_ message: SPOPMessage, _ peer: Peer) -> [SPOPSetVariable] {
        guard message.name == Self.messageName else { return [] }
        statistics.count(.messages)
        guard let request = request(message, peer) else {
            statistics.count(.errors)
            return [SPOPSetVariable(name: Self.variable, value: .string("error"))]
        }
        return [SPOPSetVariable(name: Self.variable, value: .string("\(sessions.admit(request))"))]
    }

    private func request(_ message: SPOPMessage, _ peer: Peer) -> SessionRequest? {
        let arguments = message.arguments
        guard let id = arguments["id"]?.bytes, let key = try? SessionKey(id) else { return nil }
        var pool = 0
        if let name = arguments["pool"], name != .null {
            guard let bytes = name.bytes, let known = pools[String(decoding: bytes, as: UTF8.self)] else { return nil }
            pool = known
        }
        return try? SessionRequest(
            key: key, hook: .haproxy, pool: pool, owner: peer.owner, client: endpoint("src", "sport", of: message),
            local: peer.sharesNetwork && isOfTheSocket(message) ? endpoint("dst", "dport", of: message) : nil)
    }

    private func endpoint(_ address: String, _ port: String, of message: SPOPMessage) -> Endpoint? {
        guard let address = message.arguments[address]?.address, let port = message.arguments[port]?.number else { return nil }
        return try? Endpoint(address: address, port: port)
    }

    /// Whether the message's addresses are those of a TCP socket of haproxy's. A PROXY line has told those of a connection that
    /// may end before this one. QUIC has no such socket: a TCP socket with its addresses is another connection of the client's.
    private func isOfTheSocket(_ message: SPOPMessage) -> Bool {
        message.arguments["proxied"] == .boolean(false) && message.arguments["http"]?.number != Self.httpOverQUIC
    }
}
