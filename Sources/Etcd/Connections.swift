// Connections: HTTP to the endpoints, one question at a time. What it adds to the HTTP client is the certainty that it was
// asked for: whether a body has begun to leave this machine, and a deadline that counts from the beginning.

import AsyncHTTPClient
import Basics
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// Why an attempt at one endpoint failed, and what that means for the next.
struct AttemptFailure: Error {
    var error: EtcdError
    /// Surely nothing was changed.
    var isSure: Bool
    /// Another endpoint may do better.
    var isOfEndpoint = true
    /// It may be another thing with a new token.
    var needsToken = false
}

/// Connections that were made with the same certificates. They are closed when nobody uses them any more.
final class Connections: Sendable {
    private struct TimedOut: Error {}

    private let client: HTTPClient
    private let certificate: (path: String, end: Int)?
    /// How long a peer may be silent in the middle of an answer; nil: until the deadline.
    let silenceMax: Duration?

    init(_ configuration: EtcdConfiguration, silenceMax: Duration? = nil) throws(EtcdError) {
        self.silenceMax = silenceMax
        let material = try configuration.tls()
        certificate = configuration.certificateFile.flatMap { path in material.endOfCertificate.map { (path, $0) } }
        var settings = HTTPClient.Configuration(tlsConfiguration: material.tls)
        settings.redirectConfiguration = .disallow
        settings.httpVersion = .http1Only
        // A third, so that a host that is gone leaves time for two others.
        settings.timeout = .init(connect: .nanoseconds(configuration.deadline.nanoseconds / 3))
        settings.timeout.read = silenceMax.map { .nanoseconds($0.nanoseconds) }
        // Which endpoint is tried next is decided by who knows all of them.
        settings.connectionPool.retryConnectionEstablishment = false
        settings.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = 64
        client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: settings)
    }

    deinit {
        // A peer that does not take its leave in TLS is given some seconds to; nobody waits for that.
        let client = client
        Task.detached { try? await client.shutdown() }
    }

    struct Limits {
        /// When the answer must have begun, and when it must have ended.
        var head: ContinuousClock.Instant
        var end: ContinuousClock.Instant
        var bytes: Int
    }

    /// Asks once.
    func post(
        _ path: String, of endpoint: String, body: String, token: String?, limits: Limits
    ) async throws(AttemptFailure) -> (status: Int, body: [UInt8]) {
        let progress = Progress()
        let request = request(path, of: endpoint, body: body, token: token, progress: progress)
        let begin = ContinuousClock.now
        let result = await Self.within(limits, progress) { [client] in
            try await Self.read(request, by: client, bytesMax: limits.bytes, endpoint: endpoint, progress: progress)
        }
        switch result {
        case .success(let answer): return answer
        case .failure(let error):
            throw failure(
                error, endpoint: endpoint, waited: ContinuousClock.now - begin, isSent: progress.isSent.load(ordering: .relaxed)
            )
        }
    }

    /// Begins an answer that has no end.
    func open(
        _ path: String, of endpoint: String, body: String, token: String?, limits: Limits
    ) async throws(AttemptFailure) -> HTTPClientResponse {
        let progress = Progress()
        let request = request(path, of: endpoint, body: body, token: token, progress: progress)
        let begin = ContinuousClock.now
        let result = await Self.within(limits, progress) { [client] in
            let response = try await client.execute(request, deadline: .distantFuture)
            progress.hasHead.store(true, ordering: .relaxed)
            return response
        }
        switch result {
        case .success(let response): return response
        case .failure(let error):
            throw failure(error, endpoint: endpoint, waited: ContinuousClock.now - begin, isSent: false)
        }
    }

    private func request(
        _ path: String, of endpoint: String, body: String, token: String?, progress: Progress
    ) -> HTTPClientRequest {
        var request = HTTPClientRequest(url: endpoint + path)
        request.method = .POST
        // Without it a member that has lost its leader is silent instead of saying so.
        request.headers = ["Content-Type": "application/json", "Grpc-Metadata-hasleader": "true"]
        if let token { request.headers.add(name: "Authorization", value: token) }
        let buffer = ByteBuffer(string: body)
        request.body = .stream(Outgoing(buffer: buffer, progress: progress), length: .known(Int64(buffer.readableBytes)))
        return request
    }

    private static func read(
        _ request: HTTPClientRequest, by client: HTTPClient, bytesMax: Int, endpoint: String, progress: Progress
    ) async throws -> (status: Int, body: [UInt8]) {
        let response = try await client.execute(request, deadline: .distantFuture)
        progress.hasHead.store(true, ordering: .relaxed)
        var body: [UInt8] = []
        if let length = response.headers.first(name: "Content-Length").flatMap({ Int($0) }), length <= bytesMax {
            body.reserveCapacity(max(0, length))
        }
        for try await chunk in response.body {
            guard body.count + chunk.readableBytes <= bytesMax else {
                throw EtcdError.answer(endpoint: endpoint, found: "more than \(bytesMax) bytes", expected: "at most that")
            }
            body += chunk.readableBytesView
        }
        return (Int(response.status.code), body)
    }

    /// A peer that sends a byte now and then keeps any limit of silence; this one counts from the beginning.
    private static func within<T: Sendable>(
        _ limits: Limits, _ progress: Progress, _ body: @escaping @Sendable () async throws -> T
    ) async -> Result<T, any Error> {
        await withTaskGroup(of: Result<T, any Error>.self) { group in
            group.addTask {
                do { return .success(try await body()) } catch { return .failure(error) }
            }
            group.addTask {
                do {
                    try await Task.sleep(until: limits.head, clock: .continuous)
                    if progress.hasHead.load(ordering: .relaxed) { try await Task.sleep(until: limits.end, clock: .continuous) }
                    return .failure(TimedOut())
                } catch { return .failure(error) }
            }
            defer { group.cancelAll() }
            // The group has two tasks, so there is a first one.
            return await group.next() ?? .failure(TimedOut())
        }
    }
}

// MARK: - What went wrong

extension Connections {
    func failure(_ error: any Error, endpoint: String, waited: Duration, isSent: Bool) -> AttemptFailure {
        var failure = AttemptFailure(
            error: describe(error, endpoint: endpoint, waited: waited, isSent: isSent), isSure: !isSent)
        switch failure.error {
        // A server that refuses our certificate has not read what we sent behind it.
        case .certificate: failure.isSure = true
        case .cancelled: failure.isOfEndpoint = false
        default: break
        }
        return failure
    }

    private func describe(_ error: any Error, endpoint: String, waited: Duration, isSent: Bool) -> EtcdError {
        switch error {
        case let error as EtcdError: return error
        case is CancellationError: return .cancelled
        case is TimedOut: return .timeout(endpoint: endpoint, milliseconds: Self.rounded(waited))
        case let error as HTTPClientError where error == .cancelled: return .cancelled
        case let error as HTTPClientError
        where [.connectTimeout, .tlsHandshakeTimeout, .readTimeout, .getConnectionFromPoolTimeout].contains(error):
            return .timeout(endpoint: endpoint, milliseconds: Self.rounded(waited))
        case is NIOSSLError, is NIOSSLExtraError, is BoringSSLError:
            return .certificate(endpoint: endpoint, reason: LibraryFault.ofTLS("\(error)") + ownEnd(endpoint))
        case let error as NIOConnectionError:
            let reason =
                error.connectionErrors.first.map { Self.reason(of: $0.error) } ?? "found no address of \(error.host)"
            return .unreachable(endpoint: endpoint, reason: reason)
        case is HTTPParserError:
            return .broken(endpoint: endpoint, reason: "it is not HTTP: \(LibraryFault.ofCase("\(error)"))")
        default:
            let reason =
                ((error as? HTTPClientError)?.shortDescription.lowercased() ?? Self.reason(of: error)) + ownEnd(endpoint)
            return isSent ? .broken(endpoint: endpoint, reason: reason) : .unreachable(endpoint: endpoint, reason: reason)
        }
    }

    /// Milliseconds in tenths of a second: the same trouble reads the same.
    private static func rounded(_ waited: Duration) -> Int { Int(waited.nanoseconds / 100_000_000) * 100 }

    /// Servers do not tell why they refuse a certificate, and this is the reason that is met most.
    private func ownEnd(_ endpoint: String) -> String {
        guard let certificate, endpoint.hasPrefix("https:"), certificate.end <= Int(Date().timeIntervalSince1970) else {
            return ""
        }
        let end = Date(timeIntervalSince1970: TimeInterval(certificate.end)).formatted(.iso8601)
        return "; our certificate in \(certificate.path) has expired at \(end)"
    }

    /// Without the words that NIO puts around the system's own.
    private static func reason(of error: any Error) -> String {
        switch error {
        case let error as IOError: String(cString: strerror(error.errnoCode))
        case is NIOSSLError, is NIOSSLExtraError, is BoringSSLError: LibraryFault.ofTLS("\(error)")
        default: LibraryFault.ofCase("\(error)")
        }
    }
}

/// How far an attempt has come.
private final class Progress: Sendable {
    let isSent = Atomic(false)
    let hasHead = Atomic(false)
}

/// A body that tells when it is taken: before that nothing of it has left, and without it no request is whole.
private struct Outgoing: AsyncSequence, Sendable {
    let buffer: ByteBuffer
    let progress: Progress

    struct AsyncIterator: AsyncIteratorProtocol {
        var buffer: ByteBuffer?
        let progress: Progress

        mutating func next() async -> ByteBuffer? {
            progress.isSent.store(true, ordering: .relaxed)
            defer { buffer = nil }
            return buffer
        }
    }

    func makeAsyncIterator() -> AsyncIterator { AsyncIterator(buffer: buffer, progress: progress) }
}

extension Duration {
    /// As far as 64 bits go.
    var nanoseconds: Int64 {
        let (seconds, attoseconds) = components
        let (product, isTooLarge) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, isStillTooLarge) = product.addingReportingOverflow(attoseconds / 1_000_000_000)
        return isTooLarge || isStillTooLarge ? .max : sum
    }
}
