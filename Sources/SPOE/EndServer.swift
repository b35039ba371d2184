// EndServer: haproxy tells the ends of its streams, which SPOP has no word for.
//
// haproxy logs one line for each stream at its end into a ring, and the ring's server connects here and sends each line with
// its length before it. The ring keeps what could not be sent while fpxd was away.

public import KeyedSessions
public import Logging
public import NIOCore
import NIOPosix
import Synchronization

/// Reads octet-counted lines `END ID TERMINATION VERDICT BYTES_IN BYTES_OUT` on a unix stream socket and ends those sessions.
public final class EndServer: Sendable {
    private let server: UnixServer
    private let statistics = EndStatistics()

    /// - Parameters:
    ///   - path: where haproxy's ring connects to; at most 106 bytes.
    ///   - mode: permission bits of the socket.
    ///   - connectionsMax: connections at the same time; one more takes the place of the one that was silent for longest.
    ///   - full: told of each of those, in the same words.
    ///   - meter: is told the bytes that each inspected or bypassed session has carried, from the client and to it, and throws
    ///     what it cannot count.
    public init(
        path: String, mode: UInt32 = 0o660, connectionsMax: Int = 256, sessions: KeyedSessions, logger: Logger,
        group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton,
        full: @escaping @Sendable (String) -> Void = { _ in },
        meter: @escaping @Sendable (_ bytesIn: Int, _ bytesOut: Int) throws -> Void
    ) throws(SPOEError) {
        let connections = 1...65536
        guard connections.contains(connectionsMax) else {
            throw .range(what: "ring connections", found: connectionsMax, allowed: connections)
        }
        let statistics = statistics
        server = UnixServer(
            settings: .init(path: path, mode: mode, connectionsMax: connectionsMax, replacesSilent: true), group: group,
            logger: logger, full: full
        ) { channel, isOverLimit in
            let handler = EndHandler(
                sessions: sessions, meter: meter, statistics: statistics, logger: logger,
                isRefused: isOverLimit)
            try channel.pipeline.syncOperations.addHandler(handler)
        }
    }

    /// Makes the socket and listens. A socket that is there already gives way to the new one, and its connections go on.
    public func start() async throws(SPOEError) { try await server.start() }

    /// Whether haproxy finds the socket under its path.
    public var hasItsName: Bool { server.hasItsName }

    /// Serves until its task is cancelled, then shuts down.
    public func run() async throws(SPOEError) { try await server.run() }

    /// Removes the socket and closes the connections.
    public func shutdown() async { await server.shutdown() }

    /// What was counted since the start: `lines`, `foreign_lines` (no END), `unmetered` (without bytes, or not with
    /// numbers that can be theirs), `garbage` (no length where one must be).
    public var counters: [String: Int] {
        [
            "lines": statistics.lines.load(ordering: .relaxed),
            "foreign_lines": statistics.foreignLines.load(ordering: .relaxed),
            "unmetered": statistics.unmetered.load(ordering: .relaxed),
            "garbage": statistics.garbage.load(ordering: .relaxed),
        ]
    }
}

private final class EndStatistics: Sendable {
    let lines = Atomic<Int>(0)
    let foreignLines = Atomic<Int>(0)
    let unmetered = Atomic<Int>(0)
    let garbage = Atomic<Int>(0)
}

private final class EndHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let sessions: KeyedSessions
    private let meter: @Sendable (Int, Int) throws -> Void
    private let statistics: EndStatistics
    private let logger: Logger
    private let isRefused: Bool
    private var parser = EndLineParser()

    init(
        sessions: KeyedSessions, meter: @escaping @Sendable (Int, Int) throws -> Void, statistics: EndStatistics,
        logger: Logger, isRefused: Bool
    ) {
        self.sessions = sessions
        self.meter = meter
        self.statistics = statistics
        self.logger = logger
        self.isRefused = isRefused
    }

    func channelActive(context: ChannelHandlerContext) {
        if isRefused { context.close(promise: nil) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let garbage = parser.garbage
        for line in parser.receive(Array(unwrapInboundIn(data).readableBytesView)) { end(line) }
        guard parser.garbage > garbage else { return }
        if statistics.garbage.load(ordering: .relaxed) == 0 {
            logger.warning("found bytes that are no octet-counted line; is `log-proto octet-count` set on the ring's server?")
        }
        statistics.garbage.wrappingAdd(parser.garbage - garbage, ordering: .relaxed)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is Drain { context.close(promise: nil) } else { context.fireUserInboundEventTriggered(event) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func end(_ bytes: ArraySlice<UInt8>) {
        guard let line = EndLine(bytes), let key = try? SessionKey(line.id) else {
            statistics.foreignLines.wrappingAdd(1, ordering: .relaxed)
            return
        }
        statistics.lines.wrappingAdd(1, ordering: .relaxed)
        // A blocked session holds nothing, so its end says nothing.
        if line.verdict == "block" { return }
        sessions.release(key: key, hook: .haproxy, heeded: line.verdict != "-")
        // Without a verdict nobody was asked, or not in time: such traffic counts nowhere.
        if line.verdict != "-" { meter(line) }
    }

    private func meter(_ line: EndLine) {
        do {
            guard let bytesIn = line.bytesIn, let bytesOut = line.bytesOut else { throw Unmetered() }
            try meter(bytesIn, bytesOut)
        } catch {
            statistics.unmetered.wrappingAdd(1, ordering: .relaxed)
        }
    }

    private struct Unmetered: Error {}
}
