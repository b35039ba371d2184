// ControlServer: HTTP/1.1 and JSON over a unix stream socket.
//
// Limits, all of them against a client that is slow, broken or hostile: 512 connections, 64 of them of one user, and those of
// WebForm. Root and the daemon's own user always get in.

import ControlAPI
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import NIOCore
import WebAPI
import Logging
public import ServiceLifecycle

/// The control plane as a service: serves until it is shut down gracefully.
public struct ControlServer: Service {
    static let connectionsMax = 512
    static let connectionsPerUserMax = 64

    private let path: String
    private let backend: any ControlBackend
    private let access: AccessRule
    private let version: String
    private let logger: Logger
    private let ready: @Sendable () -> Void

    /// - Parameters:
    ///   - path: where the socket is made. What is there already is removed: the caller has made sure that nobody serves it.
    ///   - ready: called when connections are accepted; it may set the socket's owner and mode.
    package init(
        path: String, backend: any ControlBackend, access: AccessRule, version: String, logger: Logger,
        ready: @escaping @Sendable () -> Void
    ) {
        self.path = path
        self.backend = backend
        self.access = access
        self.version = version
        self.logger = logger
        self.ready = ready
    }

    public func run() async throws {
        unlink(path)
        var quiet = logger
        quiet.logLevel = .warning
        let application = Application(
            router: try router(),
            server: WebForm.http1(limits: limits()),
            configuration: .init(address: .unixDomainSocket(path: path), serverName: "fpxd"),
            onServerRunning: { [ready] _ in ready() },
            logger: quiet)
        defer { unlink(path) }
        try await application.run()
    }

    private func limits() -> ConnectionLimits {
        ConnectionLimits(
            total: Self.connectionsMax, perPeer: Self.connectionsPerUserMax,
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
