// AuthorityServer: HTTP/1.1 and JSON over TLS.
//
// Limits, all of them against a client that is slow, broken or hostile: those of WebForm, 900 connections, 128 of them of one
// address (the /64 of IPv6), and token buckets for each address and each account. A connection that is silent for 30 seconds is
// closed, in the handshake too.

import AuthorityAPI
import Basics
import ControlAPI
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import HummingbirdTLS
import Licensing
import Logging
import NIOCore
import NIOSSL
import ServiceLifecycle
import WebAPI

/// The authority as a service: serves until it is shut down gracefully.
package struct AuthorityServer: Service {
    /// Fewer than the file descriptors that a process usually has.
    static let connectionsMax = 900
    static let connectionsPerAddressMax = 128

    package struct Configuration: Sendable {
        package var host: String
        /// 0: any that is free.
        package var port: Int
        /// PEM files: the certificate with those above it, and its key.
        package var certificate: String
        package var privateKey: String
        /// PEM file of the authorities whose certificates units must show; nil: they show none.
        package var clientCA: String?
        /// Questions a minute; 0: no limit.
        package var ratePerAccount: Int
        package var ratePerAddress: Int

        package init(
            host: String, port: Int, certificate: String, privateKey: String, clientCA: String? = nil,
            ratePerAccount: Int = 600,
            ratePerAddress: Int = 600
        ) {
            self.host = host
            self.port = port
            self.certificate = certificate
            self.privateKey = privateKey
            self.clientCA = clientCA
            self.ratePerAccount = ratePerAccount
            self.ratePerAddress = ratePerAddress
        }
    }

    private let store: AuthorityStore
    private let configuration: Configuration
    private let tls: TLSConfiguration
    private let version: String
    private let logger: Logger
    private let ready: @Sendable (Int) -> Void
    private let clock: @Sendable () -> ContinuousClock.Instant

    /// - Parameters:
    ///   - version: of the program, for the document.
    ///   - clock: what questions a minute are counted by.
    ///   - ready: called with the port when connections are accepted.
    /// - Throws: `tls`, for a file of the configuration that is not what it should be.
    package init(
        store: AuthorityStore, configuration: Configuration, version: String,
        clock: @escaping @Sendable () -> ContinuousClock.Instant = { .now }, logger: Logger,
        ready: @escaping @Sendable (Int) -> Void = { _ in }
    ) throws(AuthorityError) {
        self.store = store
        self.configuration = configuration
        self.version = version
        self.logger = logger
        self.clock = clock
        self.ready = ready
        tls = try Self.tls(configuration, logger)
    }

    /// Checks the files of a configuration, before anything is made for a server that would not begin.
    /// - Throws: `tls`, `licensing`, for a file that is not what it should be.
    package static func checkFiles(of configuration: Configuration, logger: Logger) throws(AuthorityError) {
        let tls = try tls(configuration, logger)
        do { _ = try NIOSSLContext(configuration: tls) } catch {
            throw .tls(
                path: configuration.certificate, found: LibraryFault.ofTLS("\(error)"),
                expected: "files that a TLS server can use")
        }
    }

    package func run() async throws {
        let sealer = Sealer(store: store, logger: logger)
        let limits = ConnectionLimits(
            total: Self.connectionsMax, perPeer: Self.connectionsPerAddressMax,
            peer: { ConnectionPeer(name: "address " + Address.source($0.remoteAddress?.ipAddress ?? "")) },
            note: { [logger] in logger.warning("\($0)") })
        var quiet = logger
        quiet.logLevel = max(logger.logLevel, .warning)
        let application = Application(
            router: try router(sealer),
            server: try .tls(
                WebForm.http1(limits: limits) { status, body in
                    // What is not HTTP names no asker.
                    guard let seal = await sealer.seal(status: status.code, body: Array(body), for: Asker()) else { return [:] }
                    return [.answer: seal]
                }, tlsConfiguration: tls),
            configuration: .init(
                address: .hostname(configuration.host, port: configuration.port), serverName: "fpx-authority"),
            onServerRunning: { [ready] channel in ready(channel.localAddress?.port ?? 0) },
            logger: quiet)
        try await application.run()
    }

    private func router(_ sealer: Sealer) throws -> Router<ConnectionContext> {
        let router = Router(context: ConnectionContext.self)
        router.add(middleware: SealAnswers(sealer: sealer))
        router.add(middleware: ErrorForm(operations: routes.map(\.operation)) { [logger] in Self.refusal($0, logger) })
        router.add(middleware: NoteRefusals(logger: logger, clock: clock))
        let gate = Gate(store: store, configuration: configuration, clock: clock)
        router.add(middleware: gate)
        for route in routes {
            router.on(RouterPath(route.operation.path), method: route.operation.method) { [store, logger] request, context in
                let question = try await gate.question(request, context)
                let answer = try await route.handle(store, question)
                logger.info(
                    "\(route.operation.id): status \(answer.status)",
                    metadata: [
                        "unit": "\(question.unitID)", "customer": "\(question.customerID)", "address": "\(question.address)",
                    ])
                return WebForm.response(HTTPResponse.Status(code: answer.status), answer.body)
            }
        }
        let document = try Self.document(version: version)
        router.get(RouterPath(AuthorityPath.document)) { _, _ in WebForm.response(.ok, document) }
        return router
    }

    /// The OpenAPI document.
    package static func document(version: String) throws -> Data {
        try APIDocument(
            title: "fpx authority", version: version, description: "Issues licences to units and extends their leases.",
            server: (url: "https://localhost", description: "wherever the authority is"), operations: routes.map(\.operation),
            answerHeaders: [
                AuthorityHeader.answer:
                    "A token (JWS, EdDSA, typ fpx-answer+jwt): iat the authority's time, aud the unit, jti the key, "
                    + "status, sha256 of the body in hexadecimal"
            ], takesBearer: true
        ).json()
    }

    /// The authority's own trouble: a unit learns that there is some, the log what it is.
    private static func refusal(_ error: any Error, _ logger: Logger) -> WebRefusal {
        logger.error("\(error)")
        guard error is AuthorityError else {
            return WebRefusal(.internalServerError, code: AuthorityRefusal.internal.rawValue, message: "ask again later")
        }
        return WebRefusal(.serviceUnavailable, code: AuthorityRefusal.unavailable.rawValue, message: "ask again later")
    }

    private static func tls(_ configuration: Configuration, _ logger: Logger) throws(AuthorityError) -> TLSConfiguration {
        var tls = try ServerCertificate(
            certificate: configuration.certificate, privateKey: configuration.privateKey, logger: logger
        ).serverConfiguration()
        if let file = configuration.clientCA {
            tls.trustRoots = .certificates(try ServerCertificate.certificates(file))
            // A unit shows a certificate; what name stands in it is of no matter, as units are known by their account key.
            tls.certificateVerification = .noHostnameVerification
        }
        return tls
    }
}

/// A request's context with the connection it came on.
struct ConnectionContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    let channel: any Channel
    /// Whose account key it bears; nil: nobody's.
    var customerID: Int64?

    init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        channel = source.channel
    }
}

/// What a request must have before a rule is asked.
private struct Gate: RouterMiddleware {
    let store: AuthorityStore
    let accounts: TokenBuckets
    let addresses: TokenBuckets
    let clock: @Sendable () -> ContinuousClock.Instant

    init(
        store: AuthorityStore, configuration: AuthorityServer.Configuration,
        clock: @escaping @Sendable () -> ContinuousClock.Instant
    ) {
        self.store = store
        self.clock = clock
        accounts = TokenBuckets(perMinute: configuration.ratePerAccount)
        addresses = TokenBuckets(perMinute: configuration.ratePerAddress)
    }

    /// Counts every request of an address, before anything else. Each customer there has a count of its own: whoever guesses
    /// keys at the same address keeps none of its units from asking.
    func handle(
        _ request: Request, context: ConnectionContext, next: (Request, ConnectionContext) async throws -> Response
    ) async throws -> Response {
        let address = context.channel.remoteAddress?.ipAddress ?? ""
        var context = context
        if let key = AccountKey.sent(in: request.headers) { context.customerID = try await store.customerID(ofAccountKey: key) }
        let whose = context.customerID.map { " customer \($0)" } ?? ""
        try take(addresses, Address.source(address) + whose, "address \(address)")
        return try await next(request, context)
    }

    func question(_ request: Request, _ context: ConnectionContext) async throws -> Question<Data> {
        // Read first: what is left unread would be taken for the next request.
        let body = try await WebForm.body(of: request)
        if let (name, _) = request.uri.queryParameters.first {
            throw WebRefusal.badRequest("query: found \"\(name.prefix(64))\", expected none")
        }
        let asker = Asker(request.headers)
        if asker.unitID.isEmpty {
            throw WebRefusal.badRequest(
                "\(AuthorityHeader.unit): found \(shown(request.headers[.unit])), expected a UUID in small letters")
        }
        if asker.requestID.isEmpty {
            throw WebRefusal.badRequest(
                "\(AuthorityHeader.idempotencyKey): found \(shown(request.headers[.idempotencyKey])), expected 1 to 64 visible "
                    + "characters"
            )
        }
        let customer = try customerID(request.headers, context)
        try take(accounts, String(customer), "customer \(customer)")
        return Question(
            customerID: customer, unitID: asker.unitID, requestID: asker.requestID,
            address: context.channel.remoteAddress?.ipAddress ?? "", proof: try await proof(of: asker, request.headers, body),
            body: body,
            bytes: body)
    }

    /// nil: there is none.
    private func proof(of asker: Asker, _ headers: HTTPFields, _ body: Data) async throws -> UnitProof? {
        guard let proof = headers[.proof] else { return nil }
        do {
            return try await UnitProof.verify(
                proof, unitID: asker.unitID, requestID: asker.requestID, body: Array(body))
        } catch {
            throw WebRefusal(.unauthorized, code: AuthorityRefusal.unauthorized.rawValue, message: "\(error)")
        }
    }

    private func customerID(_ headers: HTTPFields, _ context: ConnectionContext) throws -> Int64 {
        func refusal(_ message: String) -> WebRefusal {
            WebRefusal(
                .unauthorized, code: AuthorityRefusal.unauthorized.rawValue, message: message,
                headers: [.wwwAuthenticate: "Bearer"])
        }
        guard AccountKey.sent(in: headers) != nil else {
            throw refusal("Authorization: found no account key, expected `Bearer KEY`")
        }
        guard let customer = context.customerID else { throw refusal("unknown account key: check account-key-file") }
        return customer
    }

    private func take(_ buckets: TokenBuckets, _ source: String, _ who: String) throws(WebRefusal) {
        guard let seconds = buckets.take(source, now: clock()) else { return }
        throw WebRefusal(
            .tooManyRequests, code: AuthorityRefusal.rateLimited.rawValue,
            message: "\(who): found too many questions, expected the next one in \(seconds) s or later",
            headers: [.retryAfter: String(seconds)])
    }

    private func shown(_ value: String?) -> String { value.map { "\"\($0.prefix(64))\"" } ?? "none" }
}
