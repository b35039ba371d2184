// LicenseClient: asks the authority, and believes nothing that the authority has not signed for this very question and unit.
//
// Each question has a connection of its own: they are hours apart, and what the operator changes in files counts at the next
// one. TLS tells that it is the authority's host; the seal tells that it is the authority, whatever terminates TLS on the
// way.

import AsyncHTTPClient
import AuthorityAPI
import Basics
import ControlAPI
import Foundation
import Licensing
import NIOCore
import NIOPosix
import NIOSSL

/// Asks the authority. Safe to use from any task.
package struct LicenseClient: Sendable {
    /// How long it may take, in seconds of the machine, not of `clock`.
    package struct Patience: Sendable {
        package var connect: Int
        /// From the first step to the last byte of the answer.
        package var answer: Int

        package init(connect: Int = 10, answer: Int = 30) {
            self.connect = connect
            self.answer = answer
        }
    }

    /// The largest body that is read.
    package static let bytesMax = 256 << 10
    /// The longest wait that an authority may ask for.
    package static let retryAfterMax = 86_400

    package let connection: AuthorityConnection
    package let unitID: String
    /// By which each question is proved to be this unit's; nil: it has none.
    private let unitKey: SigningKey?
    private let patience: Patience
    private let clock: @Sendable () -> Date

    package init(
        _ connection: AuthorityConnection, unitID: String, unitKey: SigningKey? = nil, patience: Patience = Patience(),
        clock: @escaping @Sendable () -> Date = { Date() }
    ) {
        self.connection = connection
        self.unitID = unitID
        self.unitKey = unitKey
        self.patience = patience
        self.clock = clock
    }

    /// An answer that the authority has signed, of whatever status, at a time that can be.
    package struct Answer: Sendable {
        package var status: Int
        package var body: [UInt8]
        /// The authority's.
        package var time: Int
        /// Of the key that vouches for it.
        package var keyID: String
        fileprivate var retryAfter: Int?

        /// What is in it.
        /// - Throws: `refused`, `body`.
        package func decoded<T: Decodable>(_ type: T.Type) throws(LicenseClientError) -> T {
            guard status == 200 else { throw try refusal() }
            guard let value = try? ControlJSON.decode(type, from: Data(body)) else {
                throw .body(found: "\(body.count) bytes", expected: "\(type) in JSON")
            }
            return value
        }

        private func refusal() throws(LicenseClientError) -> LicenseClientError {
            guard let error = try? ControlJSON.decode(APIError.self, from: Data(body)).error,
                let code = AuthorityRefusal(rawValue: error.code)
            else {
                throw .body(found: "status \(status) with \(body.count) bytes", expected: "one of the authority's refusals")
            }
            return .refused(code: code, message: shown(error.message), retryAfter: retryAfter)
        }

        /// It is printed on terminals: nothing in it may move them.
        private func shown(_ message: String) -> String {
            String(
                String.UnicodeScalarView(
                    message.unicodeScalars.prefix(400).map { $0.properties.generalCategory == .control ? " " : $0 }))
        }
    }

    /// Asks one question.
    /// - Parameters:
    ///   - id: its Idempotency-Key; the same for the same question asked again.
    ///   - keys: whose signatures count.
    package func ask(
        _ path: String, body: [UInt8], id: String, keys: TrustedKeys
    ) async throws(LicenseClientError) -> Answer {
        var request = try request(path, body: body, id: id)
        if let unitKey {
            do {
                let proof = try await UnitProof.sign(
                    unitID: unitID, requestID: id, body: body, at: Timestamp.seconds(clock()), with: unitKey)
                request.headers.add(name: AuthorityHeader.proof, value: proof)
            } catch { throw .license(error) }
        }
        let (head, body) = try await exchange(request)
        let status = Int(head.status.code)
        guard let token = head.headers.first(name: AuthorityHeader.answer) else { throw .unsealed(status: status) }
        let seal: AnswerSeal
        let keyID: String
        do {
            (seal, keyID) = try await AnswerSeal.verify(
                token, status: status, body: body, unitID: unitID, requestID: id, with: keys)
        } catch { throw .seal(error) }
        let now = Timestamp.seconds(clock())
        let time = seal.serverTime
        guard abs(time - now) <= ClockWitness.toleranceSeconds else { throw .clock(authority: time, unit: now) }
        let retryAfter = head.headers.first(name: "Retry-After").flatMap { Int($0) }
        return Answer(
            status: status, body: body, time: time, keyID: keyID,
            retryAfter: retryAfter.map { min(max($0, 1), Self.retryAfterMax) })
    }

    /// Sends a usage report.
    package func send(usage report: [UInt8], keys: TrustedKeys) async throws(LicenseClientError) -> UsageReceipt {
        try await ask(AuthorityPath.usage, body: report, id: Self.newID(), keys: keys).decoded(UsageReceipt.self)
    }

    /// Of a new question.
    package static func newID() -> String { UUID().uuidString.lowercased() }

    /// JSON as it goes over the wire: the same value is the same bytes.
    package static func encode(_ value: some Encodable) throws(LicenseClientError) -> [UInt8] {
        do { return Array(try ControlJSON.encoder().encode(value)) } catch {
            throw .body(found: "\(error)", expected: "what JSON can say")
        }
    }
}

// MARK: - HTTP

extension LicenseClient {
    private struct TimedOut: Error {}

    private func request(_ path: String, body: [UInt8], id: String) throws(LicenseClientError) -> HTTPClientRequest {
        var request = HTTPClientRequest(url: try connection.address(of: path))
        request.method = .POST
        request.headers = [
            "Authorization": "Bearer \(try connection.accountKey())", "Content-Type": "application/json",
            "Accept": "application/json", AuthorityHeader.unit: unitID, AuthorityHeader.idempotencyKey: id,
        ]
        request.body = .bytes(body)
        return request
    }

    private func exchange(
        _ request: HTTPClientRequest
    ) async throws(LicenseClientError) -> (head: HTTPClientResponse, body: [UInt8]) {
        var configuration = HTTPClient.Configuration(tlsConfiguration: try connection.tls())
        configuration.redirectConfiguration = .disallow
        configuration.httpVersion = .http1Only
        configuration.timeout = .init(connect: .seconds(Int64(patience.connect)))
        // What went wrong is told at once: the next attempt is for whoever keeps the schedule.
        configuration.connectionPool.retryConnectionEstablishment = false
        let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        let result: Result<(HTTPClientResponse, [UInt8]), any Error>
        do { result = .success(try await within(seconds: patience.answer) { try await Self.read(request, by: client) }) } catch
        {
            result = .failure(error)
        }
        // A peer that does not take its leave in TLS is given some seconds to; nobody waits for that.
        Task.detached { try? await client.shutdown() }
        switch result {
        case .success(let answer): return answer
        case .failure(let error): throw describe(error)
        }
    }

    private static func read(_ request: HTTPClientRequest, by client: HTTPClient) async throws -> (HTTPClientResponse, [UInt8])
    {
        let response = try await client.execute(request, deadline: .distantFuture)
        var body: [UInt8] = []
        for try await chunk in response.body {
            guard body.count + chunk.readableBytes <= bytesMax else { throw LicenseClientError.tooLarge(limit: bytesMax) }
            body += chunk.readableBytesView
        }
        return (response, body)
    }

    /// A peer that sends a byte now and then keeps any limit of silence; this one counts from the beginning.
    private func within<T: Sendable>(seconds: Int, _ body: @escaping @Sendable () async throws -> T) async throws -> T {
        try await withThrowingTaskGroup(of: T.self) { group in
            group.addTask(operation: body)
            group.addTask {
                try await Task.sleep(for: .seconds(seconds))
                throw TimedOut()
            }
            defer { group.cancelAll() }
            // The group has two tasks, so there is a first one.
            guard let first = try await group.next() else { throw TimedOut() }
            return first
        }
    }

    private func describe(_ error: any Error) -> LicenseClientError {
        let authority = connection.url
        switch error {
        case let error as LicenseClientError: return error
        case is CancellationError: return .unreachable(authority: authority, reason: "we are told to stop")
        case is TimedOut: return .timeout(authority: authority, seconds: patience.answer)
        case let error as HTTPClientError where [.connectTimeout, .tlsHandshakeTimeout].contains(error):
            return .timeout(authority: authority, seconds: patience.connect)
        case let error as HTTPClientError where error == .remoteConnectionClosed || error == .uncleanShutdown:
            return .broken(authority: authority, reason: error.shortDescription)
        case is NIOSSLError, is NIOSSLExtraError, is BoringSSLError:
            // An alert is what the other side says; those about certificates are about ours.
            let text = "\(error)"
            let reason = LibraryFault.ofTLS(text)
            let isOurs = text.contains("ALERT") && (text.contains("CERTIFICATE") || text.contains("UNKNOWN_CA"))
            return isOurs
                ? .ownCertificate(authority: authority, reason: reason) : .certificate(authority: authority, reason: reason)
        case let error as NIOConnectionError:
            let reason = error.connectionErrors.first.map { Self.reason(of: $0.error) } ?? "found no address of \(error.host)"
            return .unreachable(authority: authority, reason: reason)
        case let error as HTTPClientError: return .unreachable(authority: authority, reason: error.shortDescription)
        case is ChannelError, is IOError: return .unreachable(authority: authority, reason: Self.reason(of: error))
        default: return .broken(authority: authority, reason: LibraryFault.ofCase("\(error)"))
        }
    }

    /// Without the words that NIO puts around the system's own.
    private static func reason(of error: any Error) -> String {
        (error as? IOError).map { String(cString: strerror($0.errnoCode)) } ?? LibraryFault.ofCase("\(error)")
    }
}
