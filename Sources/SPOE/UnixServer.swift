import Basics
import Logging
import NIOCore
import NIOPosix
import Synchronization

/// What a server asks of its connections' handlers when it stops: finish and close.
struct Drain: Sendable {}

/// The socket, the connections and the life of a server on a unix stream socket.
final class UnixServer: Sendable {
    struct Settings: Sendable {
        let path: String
        /// Permission bits of the socket.
        let mode: UInt32
        /// Connections at the same time.
        let connectionsMax: Int
        /// Whether one more takes the place of the one that was silent for longest. Otherwise it is turned away.
        let replacesSilent: Bool
    }

    private struct Child {
        let channel: any Channel
        /// By the count of what was heard of all.
        var heardAt: Int
    }

    private struct State {
        var listener: (any Channel)?
        /// Which file the listener's socket is.
        var socket: FileIdentity?
        var children: [ObjectIdentifier: Child] = [:]
        /// What was heard of all of them.
        var heard = 0
        var isStopping = false
    }

    let settings: Settings
    private let group: any EventLoopGroup
    private let logger: Logger
    private let state = Mutex(State())
    private let full: @Sendable (String) -> Void
    private let accept: @Sendable (any Channel, _ isOverLimit: Bool) throws -> Void

    /// - Parameters:
    ///   - full: told of each connection for which there is no room, in the same words.
    ///   - accept: adds the handlers of a new connection; above the limit, of one that is to be turned away.
    init(
        settings: Settings, group: any EventLoopGroup, logger: Logger, full: @escaping @Sendable (String) -> Void,
        accept: @escaping @Sendable (any Channel, _ isOverLimit: Bool) throws -> Void
    ) {
        self.settings = settings
        self.group = group
        self.logger = logger
        self.full = full
        self.accept = accept
    }

    private var noRoom: String {
        "\(settings.path): \(settings.connectionsMax) connections are open, and it takes no more: "
            + (settings.replacesSilent
                ? "for each new one the one that was silent for longest is closed" : "new ones are refused")
    }

    var connections: Int { state.withLock { $0.children.count } }

    /// Whether the path leads to the socket that is listened on. So it does while there is none.
    var hasItsName: Bool { state.withLock { $0.listener == nil || $0.socket == FileIdentity(settings.path) } }

    /// Makes the socket and listens. One that is there already gives way to the new one, and its connections go on.
    func start() async throws(SPOEError) {
        let path = settings.path
        let descriptor = try UnixSocket.listen(path: path, mode: settings.mode, backlog: 1024)
        let bootstrap = ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if self.settings.replacesSilent { try channel.pipeline.syncOperations.addHandler(Listening(self)) }
                    try self.accept(channel, !self.add(channel))
                }
            }
            .childChannelOption(.maxMessagesPerRead, value: 4)
        do {
            let listener = try await bootstrap.withBoundSocket(descriptor).get()
            let before = state.withLock { state in
                defer {
                    state.listener = listener
                    state.socket = FileIdentity(path)
                    state.isStopping = false
                }
                return state.listener
            }
            before?.close(promise: nil)
        } catch {
            throw .system(call: "accept", path: path, code: (error as? IOError)?.errnoCode ?? 0)
        }
        logger.info("listening", metadata: ["socket": "\(path)"])
    }

    /// False: there are too many.
    private func add(_ channel: any Channel) -> Bool {
        let (isAdded, isFull, silent) = state.withLock { state in
            let isFull = state.children.count >= settings.connectionsMax
            var silent: (any Channel)?
            if isFull, settings.replacesSilent, let oldest = state.children.min(by: { $0.value.heardAt < $1.value.heardAt }) {
                silent = state.children.removeValue(forKey: oldest.key)?.channel
            }
            guard !isFull || silent != nil, !state.isStopping else { return (false, isFull, silent) }
            state.heard += 1
            state.children[ObjectIdentifier(channel)] = Child(channel: channel, heardAt: state.heard)
            return (true, isFull, silent)
        }
        silent?.close(promise: nil)
        if isFull { full(noRoom) }
        if isAdded {
            channel.closeFuture.whenComplete { _ in
                self.state.withLock { _ = $0.children.removeValue(forKey: ObjectIdentifier(channel)) }
            }
        }
        return isAdded
    }

    /// A connection has said something.
    fileprivate func heard(_ channel: any Channel) {
        state.withLock { state in
            state.heard += 1
            state.children[ObjectIdentifier(channel)]?.heardAt = state.heard
        }
    }

    /// Closes the socket, lets the connections finish, and closes those that have not after two seconds.
    func shutdown() async {
        let (listener, socket, children) = state.withLock { state in
            defer {
                state.listener = nil
                state.isStopping = true
            }
            return (state.listener, state.socket, state.children.values.map(\.channel))
        }
        guard let listener else { return }
        if FileIdentity(settings.path) == socket { UnixSocket.remove(settings.path) }
        try? await listener.close()
        for child in children { child.pipeline.fireUserInboundEventTriggered(Drain()) }
        for child in children {
            let kill = child.eventLoop.scheduleTask(in: .seconds(2)) { child.close(promise: nil) }
            try? await child.closeFuture.get()
            kill.cancel()
        }
    }

    /// Serves until the task is cancelled, then shuts down.
    func run() async throws(SPOEError) {
        if state.withLock({ $0.listener == nil }) { try await start() }
        let (forever, hold) = AsyncStream<Never>.makeStream()
        for await _ in forever {}
        hold.finish()
        await shutdown()
    }
}

/// Knows when a connection was heard of last.
private final class Listening: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let server: UnixServer

    init(_ server: UnixServer) { self.server = server }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        server.heard(context.channel)
        context.fireChannelRead(data)
    }
}
