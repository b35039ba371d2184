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
        /// Connections at the same time; more are given to `refuse`.
        let connectionsMax: Int
    }

    private struct State {
        var listener: (any Channel)?
        /// Which file the listener's socket is.
        var socket: FileIdentity?
        var children: [ObjectIdentifier: any Channel] = [:]
        var isStopping = false
    }

    let settings: Settings
    private let group: any EventLoopGroup
    private let logger: Logger
    private let state = Mutex(State())
    private let accept: @Sendable (any Channel, _ isOverLimit: Bool) throws -> Void

    /// - Parameter accept: adds the handlers of a new connection; above the limit, of one that is to be turned away.
    init(
        settings: Settings, group: any EventLoopGroup, logger: Logger,
        accept: @escaping @Sendable (any Channel, _ isOverLimit: Bool) throws -> Void
    ) {
        self.settings = settings
        self.group = group
        self.logger = logger
        self.accept = accept
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
                channel.eventLoop.makeCompletedFuture { try self.accept(channel, !self.add(channel)) }
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
        let isAdded = state.withLock { state in
            guard state.children.count < settings.connectionsMax, !state.isStopping else { return false }
            state.children[ObjectIdentifier(channel)] = channel
            return true
        }
        if isAdded {
            channel.closeFuture.whenComplete { _ in
                self.state.withLock { _ = $0.children.removeValue(forKey: ObjectIdentifier(channel)) }
            }
        }
        return isAdded
    }

    /// Closes the socket, lets the connections finish, and closes those that have not after two seconds.
    func shutdown() async {
        let (listener, socket, children) = state.withLock { state in
            defer {
                state.listener = nil
                state.isStopping = true
            }
            return (state.listener, state.socket, Array(state.children.values))
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
