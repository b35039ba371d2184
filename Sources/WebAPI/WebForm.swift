// WebForm: what every HTTP interface of fpx does alike: how it answers, how it reads a body, how an error looks, what it bears.
//
// Limits, all of them against a client that is slow, broken or hostile: 16 KiB of headers, 64 KiB of body, 10 seconds for a
// body, 30 seconds of silence.

import ControlAPI
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import NIOCore
import NIOHTTP1

package enum WebForm {
    package static let bodyBytesMax = 64 * 1024
    package static let bodySecondsMax = 10
    package static let silenceSecondsMax: Int64 = 30

    /// HTTP/1.1 within the limits.
    /// - Parameters:
    ///   - limits: of the server's connections.
    ///   - sealing: more headers for an answer that does not come from the router: the one to what is not HTTP.
    package static func http1(
        limits: ConnectionLimits,
        sealing: (@Sendable (HTTPResponse.Status, Data) async -> HTTPFields)? = nil
    ) -> HTTPServerBuilder {
        .http1(
            configuration: .init(
                additionalChannelHandlers: [ConnectionGuard(limits), WhatIsNotHTTP(sealing: sealing)],
                idleTimeout: .seconds(silenceSecondsMax),
                httpDecoderConfiguration: .init(
                    maxHeaderFieldSize: 8 * 1024, maxHeaderListSize: 16 * 1024, maxHeaderFieldCount: 100)))
    }

    /// - Throws: `HTTPError` for a body that is too large or does not come.
    package static func body(of request: Request) async throws -> Data {
        try await withThrowingTaskGroup(of: Data.self) { group in
            group.addTask { Data(buffer: try await request.body.collect(upTo: bodyBytesMax)) }
            group.addTask {
                try await Task.sleep(for: .seconds(bodySecondsMax))
                throw HTTPError(.requestTimeout, message: "found no whole body after \(bodySecondsMax) s")
            }
            defer { group.cancelAll() }
            return try await group.next() ?? Data()
        }
    }

    package static func answer(_ status: HTTPResponse.Status, _ value: any Encodable) throws -> Response {
        response(status, try ControlJSON.encoder().encode(value))
    }

    package static func answer(_ refusal: WebRefusal) throws -> Response {
        var response = try answer(refusal.status, APIError(code: refusal.code, message: refusal.message))
        for field in refusal.headers { response.headers[field.name] = field.value }
        return response
    }

    package static func response(_ status: HTTPResponse.Status, _ json: Data) -> Response {
        Response(
            status: status,
            headers: [.contentType: "application/json", .contentLength: String(json.count), .cacheControl: "no-store"],
            body: ResponseBody(byteBuffer: ByteBuffer(data: json)))
    }
}

/// Gives every error the one JSON form.
package struct ErrorForm<Context: RequestContext>: RouterMiddleware {
    /// What the router serves, so that a wrong method can be told from a wrong path.
    private let methods: [String: [String]]
    /// Of errors that the interface has besides those of HTTP.
    private let refusal: @Sendable (any Error) -> WebRefusal?

    package init(operations: [APIOperation], refusal: @escaping @Sendable (any Error) -> WebRefusal?) {
        methods = Dictionary(grouping: operations, by: \.path).mapValues { $0.map(\.method.rawValue) }
        self.refusal = refusal
    }

    package func handle(
        _ request: Request, context: Context, next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        do {
            // The router overlooks slashes: what is meant as one thing's path would be that of all.
            let path = request.uri.path
            if path.contains("//") || path.hasSuffix("/") { throw HTTPError(.notFound) }
            return try await next(request, context)
        } catch let refusal as WebRefusal {
            return try WebForm.answer(refusal)
        } catch let error as any HTTPResponseError {
            return try WebForm.answer(describe(error.status, (error as? HTTPError)?.body, of: request))
        } catch let error as HTTPParserError {
            return try WebForm.answer(.notHTTP(error))
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            if let refusal = refusal(error) { return try WebForm.answer(refusal) }
            context.logger.error("\(request.method) \(request.uri.path): \(error)")
            return try WebForm.answer(WebRefusal(.internalServerError, code: "internal", message: "\(error)"))
        }
    }

    private func describe(_ status: HTTPResponse.Status, _ detail: String?, of request: Request) -> WebRefusal {
        let path = request.uri.path
        switch status {
        case .notFound:
            if let methods = methods[path]?.joined(separator: ", ") {
                return WebRefusal(
                    .methodNotAllowed, code: "method_not_allowed",
                    message: "\(path): found method \(request.method), expected \(methods)", headers: [.allow: methods])
            }
            return WebRefusal(
                status, code: "not_found",
                message: "found path \(path.prefix(200)), expected one of those in /v1/openapi.json")
        case .contentTooLarge:
            return WebRefusal(
                status, code: "too_large", message: "expected a body of at most \(WebForm.bodyBytesMax) bytes")
        case .requestTimeout: return WebRefusal(status, code: "timeout", message: detail ?? "too slow")
        default: return WebRefusal(status, code: "bad_request", message: detail ?? status.reasonPhrase)
        }
    }
}
