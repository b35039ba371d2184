import Glibc
import KeyedSessions
import Logging
import NIOCore

/// One connection of a haproxy worker.
final class SPOEHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let agent: SPOEAgent
    private let patience: TimeAmount
    /// Whether there are too many connections already.
    private let isRefused: Bool
    private var connection: SPOPConnection
    private var peer: SPOEAgent.Peer?
    private var deadline: Scheduled<Void>?
    /// Frames that had come whole when the deadline was set.
    private var framesBefore = 0

    init(agent: SPOEAgent, maxFrameSize: Int, patience: TimeAmount, isRefused: Bool) {
        self.agent = agent
        self.patience = patience
        self.isRefused = isRefused
        connection = SPOPConnection(maxFrameSize: maxFrameSize)
    }

    func channelActive(context: ChannelHandlerContext) {
        if isRefused {
            agent.statistics.count(.refusedConnections)
            end(.resources, context)
        } else {
            expect(context)
        }
    }

    func channelInactive(context: ChannelHandlerContext) { deadline?.cancel() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = unwrapInboundIn(data)
        guard !isClosed else { return }
        let peer = knownPeer(context)
        let wasPastHello = connection.phase != .hello
        let output = connection.receive(Array(buffer.readableBytesView)) { agent.decide($0, peer) }
        if !wasPastHello, connection.isHealthcheck { agent.statistics.count(.healthchecks) }
        send(output, context)
        expect(context)
    }

    /// A peer that does not read its answers gets no more of them: nothing more is read from it until it does.
    func channelWritabilityChanged(context: ChannelHandlerContext) {
        context.channel.setOption(.autoRead, value: context.channel.isWritable).whenFailure { _ in }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is Drain { end(.normal, context) } else { context.fireUserInboundEventTriggered(event) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private var isClosed: Bool { if case .closed = connection.phase { true } else { false } }

    private func end(_ status: SPOPError, _ context: ChannelHandlerContext) { send(connection.end(status), context) }

    private func send(_ output: [UInt8], _ context: ChannelHandlerContext) {
        guard case .closed(let status) = connection.phase else {
            if !output.isEmpty { context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: output)), promise: nil) }
            return
        }
        if status != .normal, !isRefused { agent.note(status, wasSilent: peer == nil) }
        deadline?.cancel()
        // What the other side does not take within its time it does not get.
        deadline = context.eventLoop.assumeIsolated().scheduleTask(in: patience) { context.close(promise: nil) }
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: output))).assumeIsolated().whenComplete { _ in
            context.close(promise: nil)
        }
    }

    /// Waits for what haproxy owes, but not for ever.
    private func expect(_ context: ChannelHandlerContext) {
        guard !isClosed else { return }
        // A busy connection may always be in the middle of a frame, but never for long of the same.
        if !connection.isWaiting || connection.frames > framesBefore {
            deadline?.cancel()
            deadline = nil
            framesBefore = connection.frames
        }
        guard connection.isWaiting, deadline == nil else { return }
        deadline = context.eventLoop.assumeIsolated().scheduleTask(in: patience) {
            self.deadline = nil
            self.end(.timeout, context)
        }
    }

    /// The worker behind the connection, by the kernel's word. Asked for once something has come, when the socket is sure to be
    /// registered.
    private func knownPeer(_ context: ChannelHandlerContext) -> SPOEAgent.Peer {
        if let peer { return peer }
        let credentials: PeerCredentials? = option(SO_PEERCRED, context)
        let found = agent.peer(
            processID: credentials?.processID ?? 0, network: option(Network.cookieOption, context))
        peer = found
        return found
    }

    /// Nil: the kernel does not know the option, or it has a value of another size.
    private func option<Value: Sendable>(_ name: Int32, _ context: ChannelHandlerContext) -> Value? {
        guard let provider = context.channel as? any SocketOptionProvider else { return nil }
        let answer: EventLoopFuture<Value> = provider.unsafeGetSocketOption(
            level: .socket, name: NIOBSDSocket.Option(rawValue: name))
        var value: Value?
        // On the channel's own loop the answer is there at once.
        answer.assumeIsolated().whenSuccess { value = $0 }
        return value
    }
}

/// The kernel's `struct ucred`.
private struct PeerCredentials {
    var processID: Int32 = 0
    var userID: UInt32 = 0
    var groupID: UInt32 = 0
}
