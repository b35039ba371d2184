// Every answer is sealed: whatever goes out bears `Fpx-Answer`, signed with the time at which it goes out.

import AuthorityAPI
import Foundation
import HTTPTypes
import Hummingbird
import Licensing
import Logging
import NIOCore
import Synchronization

extension HTTPField.Name {
    // Tokens of RFC 9110, so the names exist.
    static let answer = HTTPField.Name(AuthorityHeader.answer)!
    static let unit = HTTPField.Name(AuthorityHeader.unit)!
    static let proof = HTTPField.Name(AuthorityHeader.proof)!
    static let idempotencyKey = HTTPField.Name(AuthorityHeader.idempotencyKey)!
}

/// Who asked, as far as the headers say; empty where they do not, or say what cannot be.
struct Asker: Equatable, Sendable {
    var unitID = ""
    var requestID = ""

    init() {}

    init(_ headers: HTTPFields) {
        if let unit = headers[.unit], UnitID.isOne(unit) { unitID = unit }
        if let key = headers[.idempotencyKey], (1...64).contains(key.utf8.count),
            key.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
        {
            requestID = key
        }
    }
}

struct Sealer: Sendable {
    let store: AuthorityStore
    let logger: Logger

    /// The token; nil, with a line in the log, where no key signs. Such an answer goes out unsealed, and no unit believes it.
    func seal(status: Int, body: [UInt8], for asker: Asker) async -> String? {
        do {
            let key = try await store.signingKey()
            return try await AnswerSeal(
                serverTime: store.now, unitID: asker.unitID, requestID: asker.requestID, status: status, body: body
            ).sign(with: key)
        } catch {
            logger.error("An answer of status \(status) goes out without \(AuthorityHeader.answer): \(error)")
            return nil
        }
    }
}

/// Seals what the router answers.
struct SealAnswers: RouterMiddleware {
    let sealer: Sealer

    func handle(
        _ request: Request, context: ConnectionContext, next: (Request, ConnectionContext) async throws -> Response
    ) async throws -> Response {
        var response = try await next(request, context)
        let bytes = Bytes()
        try await response.body.write(Collector(bytes: bytes))
        let body = bytes.all.withLock { $0 }
        response.headers[.answer] = await sealer.seal(
            status: response.status.code, body: Array(body.readableBytesView), for: Asker(request.headers))
        response.body = ResponseBody(byteBuffer: body)
        return response
    }

    private final class Bytes: Sendable { let all = Mutex(ByteBuffer()) }

    private struct Collector: ResponseBodyWriter {
        let bytes: Bytes
        func write(_ buffer: ByteBuffer) { _ = bytes.all.withLock { $0.writeImmutableBuffer(buffer) } }
        consuming func finish(_ trailers: HTTPFields?) {}
    }
}
