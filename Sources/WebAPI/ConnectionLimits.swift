// ConnectionLimits: how many connections a server has at the same time, of one peer and in all.
//
// Nobody waits for a place. Whoever comes when the limit is reached takes the place of the connection that has waited for its
// peer for longest: of its own peer at that peer's limit, of anybody at the limit of all. A connection waits for its peer from
// when it is made or has got its answer until a whole request has come, and while its peer does not read the answer; trickling
// bytes does not make it younger. So who only holds connections open holds up nobody.

import HTTPTypes
import Hummingbird
import NIOCore
import NIOHTTPTypes
import Synchronization

/// Who is at the other end of a connection, as far as limits go.
package struct ConnectionPeer: Equatable, Sendable {
    /// Connections of one name are counted together.
    package var name: String
    /// Whoever runs the host is kept out by no limit.
    package var alwaysGetsIn: Bool

    package init(name: String, alwaysGetsIn: Bool = false) {
        self.name = name
        self.alwaysGetsIn = alwaysGetsIn
    }
}

/// The connections of one server. Safe to use from any thread.
package final class ConnectionLimits: Sendable {
    fileprivate struct Connection {
        let channel: any Channel
        let peer: ConnectionPeer
        /// When it began to wait for its peer, by a count; nil: it waits for us.
        var waitsSince: Int?
    }

    fileprivate struct State {
        var connections: [ObjectIdentifier: Connection] = [:]
        var counts: [String: Int] = [:]
        var changes = 0
        /// Since people were last told.
        var displaced = 0
        var refused = 0
        var toldAt: ContinuousClock.Instant?
    }

    private static let toldEvery: Duration = .seconds(60)

    private let total: Int
    private let perPeer: Int
    private let peer: @Sendable (any Channel) -> ConnectionPeer
    private let note: @Sendable (String) -> Void
    private let state = Mutex(State())

    /// - Parameters:
    ///   - total: connections of all peers.
    ///   - perPeer: connections of one peer.
    ///   - peer: called on the connection's event loop.
    ///   - note: told at most once a minute that connections were closed to make room.
    package init(
        total: Int, perPeer: Int, peer: @escaping @Sendable (any Channel) -> ConnectionPeer,
        note: @escaping @Sendable (String) -> Void
    ) {
        self.total = total
        self.perPeer = perPeer
        self.peer = peer
        self.note = note
    }

    /// - Returns: whether there is a place for it.
    fileprivate func open(_ channel: any Channel) -> Bool {
        let peer = peer(channel)
        let (hasPlace, displaced, news) = state.withLock { state in
            var displaced: (any Channel)?
            let isAtLimit = !peer.alwaysGetsIn && state.counts[peer.name, default: 0] >= perPeer
            if isAtLimit || state.connections.count >= total {
                let oldest = isAtLimit ? state.oldest { $0.name == peer.name } : state.oldest(for: peer)
                if let oldest {
                    displaced = state.remove(oldest)
                    state.displaced += 1
                } else if !peer.alwaysGetsIn {
                    state.refused += 1
                    return (false, Optional<any Channel>.none, state.news(of: peer, every: Self.toldEvery))
                }
            }
            state.add(channel, peer)
            return (true, displaced, displaced == nil ? nil : state.news(of: peer, every: Self.toldEvery))
        }
        displaced?.close(promise: nil)
        if let news { note(news) }
        return hasPlace
    }

    fileprivate func close(_ channel: any Channel) { state.withLock { _ = $0.remove(ObjectIdentifier(channel)) } }

    /// A connection has begun to wait for its peer, or for us.
    fileprivate func change(_ channel: any Channel, waitsForPeer: Bool) {
        state.withLock { state in
            state.changes += 1
            state.connections[ObjectIdentifier(channel)]?.waitsSince = waitsForPeer ? state.changes : nil
        }
    }
}

extension ConnectionLimits.State {
    mutating func add(_ channel: any Channel, _ peer: ConnectionPeer) {
        changes += 1
        connections[ObjectIdentifier(channel)] = .init(channel: channel, peer: peer, waitsSince: changes)
        counts[peer.name, default: 0] += 1
    }

    mutating func remove(_ id: ObjectIdentifier) -> (any Channel)? {
        guard let connection = connections.removeValue(forKey: id) else { return nil }
        let count = counts[connection.peer.name, default: 1] - 1
        counts[connection.peer.name] = count == 0 ? nil : count
        return connection.channel
    }

    /// The one that has waited for its peer for longest.
    func oldest(_ isMeant: (ConnectionPeer) -> Bool) -> ObjectIdentifier? {
        var oldest: (id: ObjectIdentifier, since: Int)?
        for (id, connection) in connections {
            guard let since = connection.waitsSince, since < oldest?.since ?? .max, isMeant(connection.peer) else { continue }
            oldest = (id, since)
        }
        return oldest?.id
    }

    /// The one that makes room for a peer. Those of whoever runs the host make room for their own kind only.
    func oldest(for peer: ConnectionPeer) -> ObjectIdentifier? {
        oldest { !$0.alwaysGetsIn } ?? (peer.alwaysGetsIn ? oldest { $0.alwaysGetsIn } : nil)
    }

    mutating func news(of peer: ConnectionPeer, every: Duration) -> String? {
        if let toldAt, .now - toldAt < every { return nil }
        defer { (displaced, refused, toldAt) = (0, 0, .now) }
        return "Too many connections: \(displaced) idle ones closed to make room, \(refused) new ones refused; "
            + "the last came from \(peer.name), which has \(counts[peer.name, default: 0]) of \(connections.count)"
    }
}

/// Tells the limits what becomes of one connection.
final class ConnectionGuard: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private let limits: ConnectionLimits
    /// Whole requests that have no whole answer yet.
    private var unanswered = 0
    private var waitsForPeer = true

    init(_ limits: ConnectionLimits) { self.limits = limits }

    func channelActive(context: ChannelHandlerContext) {
        let hasPlace = limits.open(context.channel)
        context.fireChannelActive()
        if !hasPlace { context.close(promise: nil) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        limits.close(context.channel)
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if case .end = unwrapInboundIn(data) {
            unanswered += 1
            look(context)
        }
        context.fireChannelRead(data)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) {
            unanswered = max(0, unanswered - 1)
            look(context)
        }
        context.write(data, promise: promise)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        look(context)
        context.fireChannelWritabilityChanged()
    }

    private func look(_ context: ChannelHandlerContext) {
        let waits = unanswered == 0 || !context.channel.isWritable
        // Whoever gets an answer is young again.
        guard waits != waitsForPeer else { return }
        waitsForPeer = waits
        limits.change(context.channel, waitsForPeer: waits)
    }
}
