// ControlServer: HTTP/1.1 and JSON over a unix stream socket.
//
// Limits, all of them against a client that is slow, broken or hostile: 512 connections, or as many as the process has
// descriptors for, 64 of them of one user, and those of WebForm. Root and the daemon's own user always get in.
//
// Each second the server looks whether its socket still has its name. Where it has lost it another listener is made, which
// answers with the same router under the same limits; the one before takes no connection any more and ends with those that it
// has.

import Basics
import ControlAPI
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
public import ServiceLifecycle
import Synchronization
import WebAPI

/// The control plane as a service: serves until it is shut down gracefully.
public struct ControlServer: Service {
    private static let connectionsPerUserMax = 64

    private let path: String
    private let backend: any ControlBackend
    private let access: AccessRule
    private let version: String
    private let connectionsMax: Int
    private let logger: Logger
    private let ready: @Sendable (_ isFirst: Bool) -> Void
    private let lost: @Sendable (_ make: () async throws -> Void) async -> Void
    private let listener = Listener()

    /// - Parameters:
    ///   - path: where the socket is made. What is there already is removed: the caller has made sure that nobody serves it.
    ///   - connectionsMax: connections at the same time.
    ///   - ready: called when connections are accepted, for the first time or on a socket that was made anew; it may set the
    ///     socket's owner and mode.
    ///   - lost: called when the path does not lead to the socket any more, each second until it does: it is to have the socket
    ///     made anew.
    package init(
        path: String, backend: any ControlBackend, access: AccessRule, version: String, connectionsMax: Int, logger: Logger,
        ready: @escaping @Sendable (_ isFirst: Bool) -> Void,
        lost: @escaping @Sendable (_ make: () async throws -> Void) async -> Void
    ) {
        self.path = path
        self.backend = backend
        self.access = access
        self.version = version
        self.connectionsMax = connectionsMax
        self.logger = logger
        self.ready = ready
        self.lost = lost
    }

    private struct NameTaken: Error, CustomStringConvertible {
        let path: String
        var description: String { "\(path): found something that cannot be removed, expected nothing of that name" }
    }

    public func run() async throws {
        let server = WebForm.http1(limits: limits())
        let responder = try router().buildResponder()
        defer { if listener.hasName(path) { unlink(path) } }
        try await withThrowingDiscardingTaskGroup { group in
            group.addTask { try await serve(responder, server) { ready(true) } }
            while await Self.isSecondLater(), !group.isCancelled {
                if listener.hasName(path) { continue }
                await lost {
                    await listener.close()
                    try await withCheckedThrowingContinuation { continuation in
                        let outcome = Outcome(continuation)
                        group.addTask {
                            do {
                                try await serve(responder, server) {
                                    ready(false)
                                    outcome.succeed()
                                }
                                outcome.succeed()
                            } catch {
                                // One that has listened and ends by itself ends the server, as the first one does.
                                if !outcome.fail(error) { throw error }
                            }
                        }
                    }
                }
            }
        }
    }

    /// Listens under the path until a graceful shutdown, or until another one does and the connections have ended.
    private func serve(
        _ responder: some HTTPResponder<Context>, _ server: HTTPServerBuilder, ready: @escaping @Sendable () -> Void
    ) async throws {
        unlink(path)
        if FileIdentity(path) != nil { throw NameTaken(path: path) }
        var quiet = logger
        quiet.logLevel = .warning
        let ours = Mutex<(any Channel)?>(nil)
        let application = Application(
            responder: responder, server: server,
            configuration: .init(address: .unixDomainSocket(path: path), serverName: "fpxd"),
            onServerRunning: { [listener, path] channel in
                ours.withLock { $0 = channel }
                listener.begin(channel, FileIdentity(path))
                ready()
            }, logger: quiet)
        do {
            try await application.run()
        } catch let error as ServiceGroupError where error.errorCode == .serviceFinishedUnexpectedly {
            // That of one that was closed for another is no surprise.
            if listener.ended(ours.withLock { $0 }) { throw error }
        }
    }

    /// False: a graceful shutdown has begun meanwhile.
    private static func isSecondLater() async -> Bool {
        await cancelWhenGracefulShutdown { (try? await Task.sleep(for: .seconds(1))) != nil }
    }

    private func limits() -> ConnectionLimits {
        ConnectionLimits(
            total: connectionsMax, perPeer: min(Self.connectionsPerUserMax, connectionsMax),
            peer: { [access] channel in
                guard let peer = Peer(channel) else { return ConnectionPeer(name: "a user whose credentials cannot be read") }
                return ConnectionPeer(
                    name: "user \(peer.userID)", alwaysGetsIn: peer.userID == 0 || peer.userID == access.userID)
            }, note: { [logger] in logger.warning("Control socket: \($0)") })
    }

    private func router() throws -> Router<Context> {
        let router = Router(context: Context.self)
        router.add(middleware: ErrorForm(operations: routes.map(\.described)) { ($0 as? ControlFailure)?.refusal })
        for route in routes {
            router.on(RouterPath(route.path), method: route.method) { [backend, access, logger] request, context in
                let user = route.changesState ? "\(try await Self.check(access, context, route, logger))" : ""
                var asked = try await Self.read(request, context, route)
                asked.user = user
                return try WebForm.answer(.ok, try await route.handle(backend, asked))
            }
        }
        let document = try OpenAPI.document(version: version)
        router.get("/v1/openapi.json") { _, _ in WebForm.response(.ok, document) }
        return router
    }

    /// Who asks, and may.
    private static func check(
        _ access: AccessRule, _ context: Context, _ route: Route, _ logger: Logger
    ) async throws -> Peer {
        guard let peer = try? await context.channel.eventLoop.submit({ Peer(context.channel) }).get() else {
            throw ControlFailure(.forbidden, "the peer's credentials cannot be read")
        }
        guard access.allows(peer) else {
            logger.warning(
                "Refused \(route.method) \(route.path) to user \(peer.userID) (process \(peer.processID))")
            throw ControlFailure(
                .forbidden,
                "found user \(peer.userID), expected root, user \(access.userID)"
                    + (access.group.map { " or a member of group \($0)" } ?? "") + ", to change state")
        }
        return peer
    }

    private static func read(_ request: Request, _ context: Context, _ route: Route) async throws -> Asked {
        var asked = Asked()
        asked.id = context.parameters.get("id")
        asked.serial = context.parameters.get("serial") ?? ""
        for (name, _) in request.uri.queryParameters where String(name) != route.query?.name {
            throw ControlFailure(
                .badRequest, "query: found \"\(name)\", expected \(route.query.map { "only " + $0.name } ?? "none")")
        }
        if let query = route.query {
            asked.number = query.whenAbsent
            if let text = request.uri.queryParameters[Substring(query.name)] {
                guard let number = Int(text), query.range.contains(number) else {
                    throw ControlFailure(
                        .invalidValue,
                        "\(query.name): found \"\(text)\", expected \(query.range.lowerBound) to \(query.range.upperBound)")
                }
                asked.number = number
            }
        }
        // Read also where none is expected: what is left unread would be taken for the next request.
        asked.body = try await WebForm.body(of: request)
        return asked
    }
}

/// Who listens on the socket now.
private final class Listener: Sendable {
    private struct State {
        var channel: (any Channel)?
        var socket: FileIdentity?
        var isClosed = false
    }

    private let state = Mutex(State())

    func begin(_ channel: any Channel, _ socket: FileIdentity?) {
        state.withLock { $0 = State(channel: channel, socket: socket) }
    }

    /// Whether a path leads to the socket. So it does until somebody listens for the first time.
    func hasName(_ path: String) -> Bool {
        state.withLock { !$0.isClosed && ($0.channel == nil || $0.socket == FileIdentity(path)) }
    }

    /// Whether its end is one that nobody has asked for.
    func ended(_ channel: (any Channel)?) -> Bool { state.withLock { !$0.isClosed && $0.channel === channel } }

    /// No connection is taken any more; those that are there go on. NIO removes any socket that has the name by then.
    func close() async {
        let channel = state.withLock { state in
            state.isClosed = true
            return state.channel
        }
        try? await channel?.close()
    }
}

/// What somebody waits for, told once.
private final class Outcome: Sendable {
    private let waiting: Mutex<CheckedContinuation<Void, any Error>?>

    init(_ continuation: CheckedContinuation<Void, any Error>) { waiting = Mutex(continuation) }

    func succeed() { take()?.resume() }

    /// - Returns: whether it was still waited for.
    func fail(_ error: any Error) -> Bool {
        guard let waiting = take() else { return false }
        waiting.resume(throwing: error)
        return true
    }

    private func take() -> CheckedContinuation<Void, any Error>? {
        waiting.withLock { waiting in
            defer { waiting = nil }
            return waiting
        }
    }
}

/// A request's context with the connection it came on.
struct Context: RequestContext {
    var coreContext: CoreRequestContextStorage
    let channel: any Channel

    init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        channel = source.channel
    }
}

extension ControlFailure {
    fileprivate var refusal: WebRefusal {
        let status: HTTPResponse.Status =
            switch kind {
            case .badRequest: .badRequest
            case .invalidValue: .unprocessableContent
            case .forbidden: .forbidden
            case .notFound: .notFound
            case .unavailable: .serviceUnavailable
            }
        return WebRefusal(status, code: kind.rawValue, message: message)
    }
}
