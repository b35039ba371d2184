// ControlServer: HTTP/1.1 and JSON over a unix stream socket.
//
// Limits, all of them against a client that is slow, broken or hostile: 512 connections, 16 KiB of headers, 64 KiB of body,
// 10 seconds for a body, 30 seconds of silence.

import ControlAPI
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import NIOCore
import NIOHTTP1
import NIOHTTPTypes
public import Logging
public import ServiceLifecycle

/// The control plane as a service: serves until it is shut down gracefully.
public struct ControlServer: Service {
    static let bodyBytesMax = 64 * 1024
    static let bodySecondsMax = 10
    static let silenceSecondsMax: Int64 = 30
    static let connectionsMax = 512

    private let path: String
    private let backend: any ControlBackend
    private let access: AccessRule
    private let version: String
    private let logger: Logger
    private let ready: @Sendable () -> Void

    /// - Parameters:
    ///   - path: where the socket is made. What is there already is removed: the caller has made sure that nobody serves it.
    ///   - ready: called when connections are accepted; it may set the socket's owner and mode.
    public init(
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
            server: .http1(
                configuration: .init(
                    additionalChannelHandlers: [WhatIsNotHTTP()],
                    idleTimeout: .seconds(Self.silenceSecondsMax),
                    httpDecoderConfiguration: .init(
                        maxHeaderFieldSize: 8 * 1024, maxHeaderListSize: 16 * 1024, maxHeaderFieldCount: 100))),
            configuration: .init(
                address: .unixDomainSocket(path: path), serverName: "fpxd",
                availableConnectionsDelegate: MaximumAvailableConnections(Self.connectionsMax)),
            onServerRunning: { [ready] _ in ready() },
            logger: quiet)
        defer { unlink(path) }
        try await application.run()
    }

    private func router() throws -> Router<Context> {
        let router = Router(context: Context.self)
        router.add(middleware: ErrorForm())
        for route in routes {
            router.on(RouterPath(route.path), method: route.method) { [backend, access, logger] request, context in
                if route.changesState { try await Self.check(access, context, route, logger) }
                let asked = try await Self.read(request, context, route)
                return try Self.answer(.ok, try await route.handle(backend, asked))
            }
        }
        let document = try OpenAPI.document(version: version)
        router.get("/v1/openapi.json") { _, _ in Self.response(.ok, document) }
        return router
    }

    private static func check(
        _ access: AccessRule, _ context: Context, _ route: Route, _ logger: Logger
    ) async throws {
        guard let peer = await Peer.of(context.channel) else {
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
    }

    private static func read(_ request: Request, _ context: Context, _ route: Route) async throws -> Asked {
        var asked = Asked()
        asked.id = context.parameters.get("id")
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
        asked.body = try await body(of: request)
        return asked
    }

    private static func body(of request: Request) async throws -> Data {
        try await withThrowingTaskGroup(of: Data.self) { group in
            group.addTask {
                Data(buffer: try await request.body.collect(upTo: bodyBytesMax))
            }
            group.addTask {
                try await Task.sleep(for: .seconds(bodySecondsMax))
                throw HTTPError(.requestTimeout, message: "found no whole body after \(bodySecondsMax) s")
            }
            defer { group.cancelAll() }
            return try await group.next() ?? Data()
        }
    }

    static func answer(_ status: HTTPResponse.Status, _ value: any Encodable) throws -> Response {
        response(status, try ControlJSON.encoder().encode(value))
    }

    static func notHTTP(_ error: any Error) throws -> Data {
        try ControlJSON.encoder().encode(APIError(code: "bad_request", message: "not HTTP: \(error)"))
    }

    static func response(_ status: HTTPResponse.Status, _ json: Data) -> Response {
        Response(
            status: status,
            headers: [.contentType: "application/json", .contentLength: String(json.count), .cacheControl: "no-store"],
            body: ResponseBody(byteBuffer: ByteBuffer(data: json)))
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

/// What comes on a connection and is not HTTP: the server's empty answer to it gets the one JSON form, and the connection is
/// closed when there was time to send it: nothing after it can be read.
private final class WhatIsNotHTTP: ChannelInboundHandler, ChannelOutboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart
    static let patience = TimeAmount.milliseconds(200)

    private var error: (any Error)?

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard let error, case .head(var head) = unwrapOutboundIn(data), head.headerFields[.contentLength] == "0",
            let answer = try? ControlServer.notHTTP(error)
        else { return context.write(data, promise: promise) }
        head.headerFields[.contentType] = "application/json"
        head.headerFields[.contentLength] = "\(answer.count)"
        context.write(wrapOutboundOut(.head(head)), promise: promise)
        context.write(wrapOutboundOut(.body(ByteBuffer(data: answer))), promise: nil)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        self.error = error
        context.fireErrorCaught(error)
        let channel = context.channel
        channel.eventLoop.scheduleTask(in: Self.patience) { channel.close(promise: nil) }
    }
}

/// Gives every error the one JSON form.
private struct ErrorForm: RouterMiddleware {
    func handle(
        _ request: Request, context: Context, next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        do {
            // The router overlooks slashes: what is meant as one session's path would be that of all.
            let path = request.uri.path
            if path.contains("//") || path.hasSuffix("/") { throw HTTPError(.notFound) }
            return try await next(request, context)
        } catch let failure as ControlFailure {
            let status: HTTPResponse.Status =
                switch failure.kind {
                case .badRequest: .badRequest
                case .invalidValue: .unprocessableContent
                case .forbidden: .forbidden
                case .notFound: .notFound
                case .unavailable: .serviceUnavailable
                }
            return try ControlServer.answer(status, APIError(code: failure.kind.rawValue, message: failure.message))
        } catch let error as any HTTPResponseError {
            return try self.response(to: request, status: error.status, detail: (error as? HTTPError)?.body)
        } catch let error as HTTPParserError {
            return ControlServer.response(.badRequest, try ControlServer.notHTTP(error))
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            context.logger.error("\(request.method) \(request.uri.path): \(error)")
            return try ControlServer.answer(.internalServerError, APIError(code: "internal", message: "\(error)"))
        }
    }

    private func response(to request: Request, status: HTTPResponse.Status, detail: String?) throws -> Response {
        switch status {
        case .notFound:
            let methods = routes.filter { $0.path == request.uri.path }.map(\.method.rawValue)
            if !methods.isEmpty {
                var response = try ControlServer.answer(
                    .methodNotAllowed,
                    APIError(
                        code: "method_not_allowed",
                        message:
                            "\(request.uri.path): found method \(request.method), expected \(methods.joined(separator: ", "))"))
                response.headers[.allow] = methods.joined(separator: ", ")
                return response
            }
            return try ControlServer.answer(
                status,
                APIError(
                    code: "not_found",
                    message: "found path \(request.uri.path.prefix(200)), expected one of those in /v1/openapi.json"))
        case .contentTooLarge:
            return try ControlServer.answer(
                status,
                APIError(code: "too_large", message: "expected a body of at most \(ControlServer.bodyBytesMax) bytes"))
        case .requestTimeout:
            return try ControlServer.answer(status, APIError(code: "timeout", message: detail ?? "too slow"))
        default:
            return try ControlServer.answer(
                status, APIError(code: "bad_request", message: detail ?? status.reasonPhrase))
        }
    }
}
