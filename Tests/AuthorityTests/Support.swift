import AsyncHTTPClient
import AuthorityAPI
import AuthorityServer
import ControlAPI
import Foundation
import Licensing
import Logging
import NIOCore
import NIOSSL
import ServiceLifecycle
import Synchronization
import TestSupport
import Testing

/// 2026-11-21T00:00:00Z, when all tests begin.
let start = 1_795_219_200
let day = 86_400

/// A folder that goes with its owner.
final class Folder: Sendable {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.path + "/authority-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ text: String, _ name: String) throws { try Data(text.utf8).write(to: URL(filePath: path + "/" + name)) }
}

let machine = HardwareReport(
    cpuModel: "Test CPU @ 3 GHz", logicalCpusNumber: 2, totalMemorySize: 16005, addressesIpv4: ["192.0.2.1", "192.0.2.2"],
    hostname: "unit")

extension HardwareReport {
    func with(_ change: (inout HardwareReport) -> Void) -> HardwareReport {
        var copy = self
        change(&copy)
        return copy
    }
}

func newID() -> String { UUID().uuidString.lowercased() }

/// An authority with one customer, on a virtual clock.
final class TestAuthority: Sendable {
    let folder: Folder
    let store: AuthorityStore
    let customer: Customer
    let accountKey: String
    private let clock = Clock()

    init(reissues: Int = 3) async throws {
        let folder = try Folder()
        self.folder = folder
        store = try AuthorityStore(
            path: folder.path + "/authority.db", keysFolder: folder.path + "/keys", reissues: reissues, creates: true,
            clock: { [clock] in clock.date })
        _ = try await store.makeFirstKey()
        (customer, accountKey) = try await store.addCustomer(name: "ACME")
    }

    private final class Clock: Sendable {
        let seconds = Mutex(start)
        var date: Date { Date(timeIntervalSince1970: Double(seconds.withLock { $0 })) }
    }

    var now: Int {
        get { clock.seconds.withLock { $0 } }
        set { clock.seconds.withLock { $0 = newValue } }
    }

    var databasePath: String { folder.path + "/authority.db" }
    var trusted: TrustedKeys { TrustedKeys(paths: [folder.path + "/keys"]) }

    @discardableResult
    func subscribe(
        plan: Plan = .annual, days: Int = 365, units: Int = 1, customer: Int64? = nil
    ) async throws -> Subscription {
        try await store.addSubscription(
            Subscription(
                customerID: customer ?? self.customer.id!, plan: plan, paidUntil: now + days * day, units: units,
                seats: PerType(furl: 40, fnbi: 3, fcas: 2), modelMax: PerType(furl: 500, fnbi: 1, fcas: 500), bandwidth: 2000))
    }

    /// Asks for a lease, as the server would.
    /// - Parameters:
    ///   - store: nil: this one's.
    ///   - held: the licence that the unit holds, by id and epoch.
    ///   - unitKey: the public half of the key that vouches for the question.
    ///   - time: when it says that it was sent; nil: now.
    func ask(
        _ unit: String, _ hardware: HardwareReport = machine, key: String = newID(), customer: Int64? = nil,
        of store: AuthorityStore? = nil, holding held: (id: String?, epoch: Int?) = (nil, nil), by unitKey: String? = nil,
        at time: Int? = nil, from address: String = "198.51.100.7"
    ) async throws -> Reply {
        let request = LeaseRequest(hardware: hardware, licenseId: held.id, epoch: held.epoch, version: "1.0.0")
        let answer = try await (store ?? self.store).lease(
            Question(
                customerID: customer ?? self.customer.id!, unitID: unit, requestID: key, address: address,
                proof: unitKey.map { UnitProof(key: $0, time: time ?? now) }, body: request,
                bytes: try ControlJSON.encoder().encode(request)))
        return try await Reply(answer.status, answer.body, trusted)
    }

    func license(of unit: String) async throws -> LicenseRow {
        try #require(try await store.licenses().last { $0.unitId == unit })
    }
}

/// An answer, taken apart.
struct Reply: Sendable {
    var status: Int
    var body: Data
    /// Of a lease, with the signature checked.
    var claims: LicenseClaims?
    var lease: LeaseAnswer?
    var error: APIError.Detail?

    init(_ status: Int, _ body: Data, _ trusted: TrustedKeys) async throws {
        self.status = status
        self.body = body
        if status == 200, let lease = try? ControlJSON.decoder().decode(LeaseAnswer.self, from: body) {
            self.lease = lease
            claims = try await LicenseToken.verify(Array(lease.license.utf8), with: trusted).claims
        }
        error = try? ControlJSON.decoder().decode(APIError.self, from: body).error
    }
}

// MARK: Programs

/// Waits on a thread of its own: tasks that wait would keep the servers of other tests from answering.
func blocking<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread { continuation.resume(with: Result(catching: body)) }
    }
}

typealias Outcome = (status: Int32, output: String, error: String)

/// Runs a program to its end.
func run(_ command: [String]) async throws -> Outcome {
    try await blocking {
        let ended = try ChildProcess.run(command)
        return (ended.status, ended.output, ended.error)
    }
}

/// The command as a person runs it: built beside these tests.
let program = CommandLine.arguments.first.map { URL(filePath: $0).deletingLastPathComponent().path + "/fpx-authority" } ?? ""

// MARK: TLS

/// A server over real TLS on loopback, for as long as a test runs.
func serving(
    _ store: AuthorityStore, clientCA: Bool = false, ratePerAccount: Int = 0, ratePerAddress: Int = 0,
    clock: @escaping @Sendable () -> ContinuousClock.Instant = { .now }, _ body: @Sendable (Int) async throws -> Void
) async throws {
    let certificates = try Certificates.shared.get()
    let ports = AsyncStream<Int>.makeStream()
    var logger = Logger(label: "authority")
    logger.logLevel = .critical
    let server = try AuthorityServer(
        store: store,
        configuration: .init(
            host: "127.0.0.1", port: 0, certificate: certificates.path("server.pem"),
            privateKey: certificates.path("server.key"), clientCA: clientCA ? certificates.path("ca.pem") : nil,
            ratePerAccount: ratePerAccount, ratePerAddress: ratePerAddress),
        version: "1.0.0", clock: clock, logger: logger, ready: { ports.continuation.yield($0) })
    let group = ServiceGroup(configuration: .init(services: [server], logger: logger))
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await group.run() }
        var port: Int?
        for await number in ports.stream {
            port = number
            break
        }
        do { try await body(try #require(port)) } catch {
            await group.triggerGracefulShutdown()
            throw error
        }
        await group.triggerGracefulShutdown()
        try await tasks.waitForAll()
    }
}

/// An HTTP client that trusts the tests' certificates.
func withClient<Value>(
    certificate: String? = nil, _ body: (HTTPClient) async throws -> Value
) async throws -> Value {
    let certificates = try Certificates.shared.get()
    var tls = TLSConfiguration.makeClientConfiguration()
    tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(certificates.path("ca.pem")))
    if let certificate {
        tls.certificateChain = try NIOSSLCertificate.fromPEMFile(certificates.path(certificate + ".pem")).map {
            .certificate($0)
        }
        tls.privateKey = .privateKey(try NIOSSLPrivateKey(file: certificates.path(certificate + ".key"), format: .pem))
    }
    let client = HTTPClient(configuration: HTTPClient.Configuration(tlsConfiguration: tls))
    do {
        let value = try await body(client)
        try await client.shutdown()
        return value
    } catch {
        try await client.shutdown()
        throw error
    }
}

/// One request, whose seal is checked with all that was asked.
struct Ask: Sendable {
    var method = "POST"
    var path = AuthorityPath.lease
    var unit: String? = newID()
    var requestID: String? = newID()
    var accountKey: String?
    var body: [UInt8] = []

    init(
        _ method: String = "POST", _ path: String = AuthorityPath.lease, unit: String? = newID(), requestID: String? = newID(),
        accountKey: String?, body: String = ""
    ) {
        (self.method, self.path, self.unit, self.requestID, self.accountKey) = (method, path, unit, requestID, accountKey)
        self.body = Array(body.utf8)
    }

    init(_ body: some Encodable, path: String = AuthorityPath.lease, unit: String = newID(), accountKey: String?) throws {
        self.init("POST", path, unit: unit, accountKey: accountKey)
        self.body = Array(try ControlJSON.encoder().encode(body))
    }

    /// - Parameters: `unitID` and `id`: what the seal must name; by default as asked.
    func send(
        _ client: HTTPClient, _ port: Int, trusted: TrustedKeys, sealedFor unitID: String? = nil, id: String? = nil
    ) async throws -> (reply: Reply, seal: AnswerSeal, headers: [String: String]) {
        var request = HTTPClientRequest(url: "https://localhost:\(port)\(path)")
        request.method = .RAW(value: method)
        if let accountKey { request.headers.add(name: "Authorization", value: "Bearer " + accountKey) }
        if let unit { request.headers.add(name: AuthorityHeader.unit, value: unit) }
        if let requestID { request.headers.add(name: AuthorityHeader.idempotencyKey, value: requestID) }
        if method != "GET" { request.body = .bytes(body) }
        let response = try await client.execute(request, timeout: .seconds(60))
        let bytes = Array(buffer: try await response.body.collect(upTo: 1 << 20))
        let token = try #require(response.headers.first(name: AuthorityHeader.answer), "\(response.status) without a seal")
        let (seal, _) = try await AnswerSeal.verify(
            token, status: Int(response.status.code), body: bytes, unitID: unitID ?? unit ?? "",
            requestID: id ?? requestID ?? "",
            with: trusted)
        let headers = Dictionary(response.headers.map { ($0.name.lowercased(), $0.value) }, uniquingKeysWith: { $1 })
        return (try await Reply(Int(response.status.code), Data(bytes), trusted), seal, headers)
    }
}
