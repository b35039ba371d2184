// Questions that no rule is asked for, such as those with a wrong account key, in the log: a unit that is set up wrongly is found
// here.

import AuthorityAPI
import Foundation
import HTTPTypes
import Hummingbird
import Logging
import Synchronization
import WebAPI

enum AccountKey {
    /// What the request says is its account key.
    static func sent(in headers: HTTPFields) -> String? {
        guard let text = headers[.authorization], text.lowercased().hasPrefix("bearer ") else { return nil }
        let key = text.dropFirst(7).trimmingCharacters(in: .whitespaces)
        return key.isEmpty ? nil : key
    }

    /// The customer that a key names, whether or not the key is theirs; never a part of the secret.
    static func customer(namedBy key: String) -> Int64? { key.split(separator: ".", maxSplits: 1).first.flatMap { Int64($0) } }
}

/// Logs refusals with who asked, so many of one address: whoever asks in vain all day fills no disk.
struct NoteRefusals: RouterMiddleware {
    static let linesPerMinute = 10

    private let logger: Logger
    private let clock: @Sendable () -> ContinuousClock.Instant
    private let lines = TokenBuckets(perMinute: linesPerMinute)
    private let unlogged = Count()

    private final class Count: Sendable { let value = Atomic(0) }

    init(logger: Logger, clock: @escaping @Sendable () -> ContinuousClock.Instant) {
        self.logger = logger
        self.clock = clock
    }

    func handle(
        _ request: Request, context: ConnectionContext, next: (Request, ConnectionContext) async throws -> Response
    ) async throws -> Response {
        do { return try await next(request, context) } catch {
            if let refusal = error as? WebRefusal {
                note(refusal.status, refusal.message, request, context)
            } else if let failure = error as? any HTTPResponseError {
                note(failure.status, (failure as? HTTPError)?.body ?? failure.status.reasonPhrase, request, context)
            }
            throw error
        }
    }

    private func note(_ status: HTTPResponse.Status, _ message: String, _ request: Request, _ context: ConnectionContext) {
        let address = context.channel.remoteAddress?.ipAddress ?? ""
        guard lines.take(Address.source(address), now: clock()) == nil else {
            unlogged.value.add(1, ordering: .relaxed)
            return
        }
        let asker = Asker(request.headers)
        var who: Logger.Metadata = ["address": "\(address)"]
        if !asker.unitID.isEmpty { who["unit"] = "\(asker.unitID)" }
        if let key = AccountKey.sent(in: request.headers), let customer = AccountKey.customer(namedBy: key) {
            who["account"] = "\(customer)"
        }
        let more = unlogged.value.exchange(0, ordering: .relaxed)
        let rest = more > 0 ? "; \(more) more refusals have no line" : ""
        logger.warning(
            "Refused \(request.method) \(request.uri.path.prefix(200)): status \(status.code): \(message)\(rest)",
            metadata: who)
    }
}
