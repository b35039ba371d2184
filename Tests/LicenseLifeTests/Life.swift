import Admission
import AuthorityServer
import Foundation
import LicenseClient
import Licensing
import Logging
import Synchronization
import TestSupport
import Testing

let day = 86_400

/// An authority and a unit with an engine, on one virtual clock, with TLS on loopback and a database file between them.
final class Life: Sendable {
    /// What is around both of them.
    final class World: Sendable {
        let now = Mutex(1_795_219_200)  // 2026-11-21T00:00:00Z
        let machine = Mutex(
            Hardware(
                cpuModel: "Test CPU", logicalCPUsNumber: 2, totalMemorySize: 16005, addressesIPv4: ["192.0.2.1"],
                hostname: "unit"))
        let lines = Mutex<[String]>([])
        var clock: @Sendable () -> Date { { Timestamp.date(self.now.withLock { $0 }) } }
    }

    private struct Serving {
        var task: Task<Void, any Error>
        var port: Int
    }

    let folder: String
    let world = World()
    let store: AuthorityStore
    let customer: Customer
    let subscription: Subscription
    let keeper: LicenseKeeper
    let renewal: LicenseRenewal
    let segment: Segment
    let pool: Pool
    private let serving = Mutex<Serving?>(nil)

    init(paidDays: Int) async throws {
        let folder = FileManager.default.temporaryDirectory.path + "/license-life-" + UUID().uuidString
        self.folder = folder
        try FileManager.default.createDirectory(atPath: folder + "/unit/keys", withIntermediateDirectories: true)
        let certificates = try Certificates.shared.get()

        store = try AuthorityStore(
            path: folder + "/authority.db", keysFolder: folder + "/keys", creates: true, clock: world.clock)
        let key = try #require(try await store.makeFirstKey())
        let (customer, accountKey) = try await store.addCustomer(name: "ACME")
        self.customer = customer
        let now = world.now.withLock { $0 }
        subscription = try await store.addSubscription(
            Subscription(
                customerID: try #require(customer.id), plan: .annual, paidUntil: now + paidDays * day, units: 2,
                seats: PerType(furl: 40, fnbi: 3, fcas: 0), modelMax: PerType(furl: 500, fnbi: 500, fcas: 500),
                bandwidth: 2000))
        let port = try await Self.serve(store, certificates, port: 0, in: serving)

        try Data(key.pem.utf8).write(to: URL(filePath: folder + "/unit/keys/\(key.kid).pem"))
        try Data((accountKey + "\n").utf8).write(to: URL(filePath: folder + "/unit/account"))
        let world = world
        let unit = UnitIdentity.load(stateFolder: folder + "/unit/state")
        keeper = await LicenseKeeper.load(
            LicenseConfiguration(
                licenseFile: folder + "/unit/license.lic", evaluatesWhenAbsent: false, stateFolder: folder + "/unit/state",
                trustedKeys: [folder + "/unit/keys"], hasAuthority: true),
            hardware: { () throws(LicensingError) in world.machine.withLock { $0 } }, clock: world.clock
        ).keeper
        renewal = LicenseRenewal(
            client: LicenseClient(
                AuthorityConnection(
                    url: "https://localhost:\(port)", accountKeyFile: folder + "/unit/account",
                    authorityFile: certificates.authority),
                unitID: unit.id ?? "", unitKey: unit.key, clock: world.clock),
            keeper: keeper, version: "1.0.0", jitter: { $0.upperBound },
            log: { level, line in world.lines.withLock { $0.append("[\("\(level)".uppercased())] \(line)") } })

        let path = folder + "/segment"
        try Segment.create(path: path, cpus: 2)
        segment = try Segment.attach(path: path)
        pool = try segment.pool(LicenseType.furl.poolIndex)
        pool.policy = .bypass
    }

    deinit {
        serving.withLock { $0?.task.cancel() }
        segment.detach()
        try? FileManager.default.removeItem(atPath: folder)
    }

    // MARK: Authority

    private static func serve(
        _ store: AuthorityStore, _ certificates: Certificates, port: Int, in serving: borrowing Mutex<Serving?>
    ) async throws -> Int {
        let ports = AsyncStream<Int>.makeStream()
        let server = try AuthorityServer(
            store: store,
            configuration: .init(
                host: "127.0.0.1", port: port, certificate: certificates.folder + "/server.pem",
                privateKey: certificates.folder + "/server.key", ratePerAccount: 0, ratePerAddress: 0),
            version: "test", logger: Logger(label: "authority", factory: { _ in SwiftLogNoOpLogHandler() }),
            ready: { ports.continuation.yield($0) })
        let task = Task {
            defer { ports.continuation.finish() }
            try await server.run()
        }
        guard let port = await ports.stream.first(where: { _ in true }) else {
            try await task.value
            throw CancellationError()
        }
        serving.withLock { $0 = Serving(task: task, port: port) }
        return port
    }

    func stopServer() async {
        let task = serving.withLock { $0?.task }
        task?.cancel()
        _ = await task?.result
    }

    /// On the same port and database.
    func startServer() async throws {
        let port = try #require(serving.withLock { $0?.port })
        _ = try await Self.serve(store, try Certificates.shared.get(), port: port, in: serving)
    }

    func license() async throws -> LicenseRow { try #require(try await store.licenses().first { $0.issuerType == .automatic }) }

    // MARK: Unit

    var now: Int { world.now.withLock { $0 } }
    var epoch: Int { keeper.status().claims?.epoch ?? 0 }

    func pass(_ seconds: Int) { world.now.withLock { $0 += seconds } }

    /// Renews at the times that the unit's schedule says, until then.
    /// - Returns: how often it renewed, and how often it failed to.
    @discardableResult
    func live(until end: Int) async throws -> (renewed: Int, failed: Int) {
        var count = (renewed: 0, failed: 0)
        while true {
            let next = await renewal.nextAt
            if next > end { break }
            world.now.withLock { $0 = max($0, next) }
            switch try #require(await renewal.renewIfDue(), "it was due") {
            case .success: count.renewed += 1
            case .failure: count.failed += 1
            }
            try enforce()
        }
        world.now.withLock { $0 = max($0, end) }
        try enforce()
        return count
    }

    /// What the daemon does each second: the licence in force becomes the engine's cap.
    func enforce() throws {
        let status = keeper.status()
        let cap = status.cap(of: .furl)
        if pool.cap != cap { try pool.setCap(cap) }
        #expect(status.isValid == (cap > 0), "\(status.state)")
    }

    /// Whether a new session is inspected. It ends at once.
    func admits() -> Bool {
        let session = pool.admit()
        let isInspected = session.verdict == .inspect
        session.end()
        return isInspected
    }

    /// Expects a state, with all that follows from it.
    func expect(
        _ state: LicenseState, seats: Int = 40, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        try enforce()
        let status = keeper.status()
        #expect(status.state == state, "\(status.reason ?? "")", sourceLocation: sourceLocation)
        #expect(pool.cap == (state.isValid ? seats * 25 : 0), sourceLocation: sourceLocation)
        #expect(admits() == state.isValid, sourceLocation: sourceLocation)
        #expect((status.reason == nil) == state.isValid, sourceLocation: sourceLocation)
    }

    /// Renews now, and expects to be refused in these words.
    func expectRefused(_ text: String, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        switch await renewal.renew() {
        case .success(let renewal): Issue.record("found \(renewal), expected \(text)", sourceLocation: sourceLocation)
        case .failure(let error): #expect("\(error)".contains(text), "found: \(error)", sourceLocation: sourceLocation)
        }
        try enforce()
    }
}
