// AuthorityLoad: how many units one authority serves, measured over real TLS on loopback.
//
// A process of fpx-authority serves a new database. Units are registered, then renew; each connection asks, waits for the
// answer, and asks for the next unit. The server runs on the same CPUs as this program, so the rate is a lower bound.

import ArgumentParser
import AsyncHTTPClient
import AuthorityAPI
import AuthorityServer
import ControlAPI
import Foundation
import GRDB
import Licensing
import NIOCore
import NIOSSL
import Synchronization
import TestSupport

@main
struct AuthorityLoad: AsyncParsableCommand {
    @Option(help: "The program fpx-authority.")
    var program: String
    @Option(help: "Units to register.")
    var units = 10_000
    @Option(help: "Renewals to measure, once every unit is registered.")
    var renewals = 20_000
    @Option(help: "Connections that are kept open.")
    var connections = 64

    func validate() throws {
        for (name, number) in [("units", units), ("renewals", renewals), ("connections", connections)] where number < 1 {
            throw ValidationError("--\(name): found \(number), expected 1 or more")
        }
    }

    func run() async throws {
        let folder = FileManager.default.temporaryDirectory.path + "/authority-load-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let bench = try await Bench(folder: folder, units: units, connections: connections)
        let server = try bench.serve(program)
        defer {
            server.signal(SIGTERM)
            server.wait()
        }
        let port = try bench.port(of: server)
        print("first licences: \(try await bench.ask(units, port: port))")
        print("renewals:       \(try await bench.ask(renewals, port: port))")
        let size = try await bench.size()
        print(
            "database:       \(size.unit) bytes a unit; a renewal: \(size.entry) in the ledger, for good, \(size.answer) of "
                + "answer, for 48 h"
        )
        // Renewed daily, a unit has 365 lines in the ledger after a year, and the answers of the last two days.
        let year = units * (size.unit + 365 * size.entry + 2 * size.answer)
        print(
            "a year on:      \(year / 1_000_000) MB for \(units) units renewed daily: units x (unit + 365 ledger + 2 answers)")
    }
}

/// A database, its server and what was measured.
private struct Bench {
    let folder: String
    let store: AuthorityStore
    let accountKey: String
    let unitIDs: [String]
    let connections: Int

    struct Outcome: CustomStringConvertible {
        var seconds: Double
        /// Microseconds, sorted.
        var latencies: [Int]

        var description: String {
            func at(_ share: Double) -> String {
                let index = min(Int(Double(latencies.count) * share), latencies.count - 1)
                return (Double(latencies[index]) / 1000).formatted(.number.precision(.fractionLength(1)).grouping(.never))
            }
            return
                "\(Int(Double(latencies.count) / seconds)) a second, p50 \(at(0.5)) ms, p99 \(at(0.99)) ms (\(latencies.count))"
        }
    }

    init(folder: String, units: Int, connections: Int) async throws {
        self.folder = folder
        self.connections = connections
        unitIDs = (0..<units).map { _ in UUID().uuidString.lowercased() }
        store = try AuthorityStore(path: folder + "/authority.db", keysFolder: folder + "/keys", creates: true)
        let customer = try await store.addCustomer(name: "Load")
        accountKey = customer.accountKey
        _ = try await store.addSubscription(
            Subscription(
                customerID: customer.customer.id ?? 0, plan: .annual, paidUntil: store.now + 400 * 86_400, units: units,
                seats: PerType(furl: 40, fnbi: 0, fcas: 0), bandwidth: 2000))
        try openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
            "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", folder + "/tls.key", "-out",
            folder + "/tls.pem")
    }

    private func openssl(_ arguments: String...) throws {
        let ended = try ChildProcess.run(["openssl"] + arguments)
        guard ended.status == 0 else { throw Failure("openssl: found status \(ended.status), expected 0: \(ended.text)") }
    }

    func serve(_ program: String) throws -> ChildProcess {
        try Data().write(to: URL(filePath: folder + "/log"))
        return try ChildProcess(
            [
                program, "serve", "--database", folder + "/authority.db", "--listen", "127.0.0.1:0", "--certificate",
                folder + "/tls.pem", "--key", folder + "/tls.key", "--rate-per-account", "0", "--rate-per-address", "0",
            ], output: .inherited, error: .file(folder + "/log"))
    }

    func port(of server: ChildProcess) throws -> Int {
        while true {
            let log = String(decoding: try Data(contentsOf: URL(filePath: folder + "/log")), as: UTF8.self)
            if let line = log.split(separator: "\n").first(where: { $0.hasPrefix("ready: ") }),
                let port = line.split(separator: ":").last?.prefix(while: \.isNumber).description
            {
                return Int(port) ?? 0
            }
            guard server.status == nil else { throw Failure("serve: found that it has ended, expected `ready: `\n\(log)") }
            usleep(20_000)
        }
    }

    /// Asks so many questions, round and round the units.
    func ask(_ count: Int, port: Int) async throws -> Outcome {
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(folder + "/tls.pem"))
        var configuration = HTTPClient.Configuration(tlsConfiguration: tls)
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = connections
        configuration.httpVersion = .http1Only
        let client = HTTPClient(configuration: configuration)
        let hardware = HardwareReport(
            cpuModel: "Load CPU @ 3.00GHz", logicalCpusNumber: 8, totalMemorySize: 16005, addressesIpv4: ["192.0.2.10"],
            hostname: "unit")
        let body = try ControlJSON.encoder().encode(
            LeaseRequest(hardware: hardware, licenseId: nil, epoch: nil, version: Version.number))
        let next = Counter()
        let begin = ContinuousClock.now
        do {
            let latencies = try await withThrowingTaskGroup(of: [Int].self) { group in
                for _ in 0..<connections {
                    group.addTask { try await worker(client, port, body, count, next) }
                }
                return try await group.reduce(into: []) { $0 += $1 }
            }
            try await client.shutdown()
            return Outcome(seconds: (ContinuousClock.now - begin) / .seconds(1), latencies: latencies.sorted())
        } catch {
            try await client.shutdown()
            throw error
        }
    }

    private func worker(
        _ client: HTTPClient, _ port: Int, _ body: Data, _ count: Int, _ next: Counter
    ) async throws -> [Int] {
        var latencies: [Int] = []
        while true {
            let number = next.value.add(1, ordering: .relaxed).oldValue
            if number >= count { return latencies }
            var request = HTTPClientRequest(url: "https://localhost:\(port)\(AuthorityPath.lease)")
            request.method = .POST
            request.headers.add(name: "Authorization", value: "Bearer " + accountKey)
            request.headers.add(name: AuthorityHeader.unit, value: unitIDs[number % unitIDs.count])
            request.headers.add(name: AuthorityHeader.idempotencyKey, value: UUID().uuidString)
            request.body = .bytes(body)
            let begin = ContinuousClock.now
            let response = try await client.execute(request, timeout: .seconds(60))
            let answer = try await response.body.collect(upTo: 1 << 20)
            latencies.append(Int((ContinuousClock.now - begin) / .microseconds(1)))
            guard response.status == .ok, response.headers.contains(name: AuthorityHeader.answer) else {
                throw Failure("found status \(response.status.code), expected a sealed 200: \(String(buffer: answer))")
            }
        }
    }

    /// Bytes of pages, indexes included.
    struct Size {
        /// Of each unit: its licence and hardware.
        var unit: Int
        var entry: Int
        var answer: Int
    }

    func size() async throws -> Size {
        let database = try DatabaseQueue(path: store.path)
        try await database.writeWithoutTransaction { try $0.execute(sql: "PRAGMA wal_checkpoint(TRUNCATE)") }
        return try await database.read { database in
            func bytes(_ table: String) throws -> Int {
                let pages = try Int.fetchOne(
                    database,
                    sql: "SELECT sum(pgsize) FROM dbstat JOIN sqlite_schema USING (name) WHERE tbl_name = ?", arguments: [table]
                )
                let rows = try Int.fetchOne(database, sql: "SELECT count(*) FROM \(table)")
                return (pages ?? 0) / max(rows ?? 1, 1)
            }
            return Size(
                unit: try bytes("license") + bytes("hardware_assignment"), entry: try bytes("ledger"),
                answer: try bytes("answer"))
        }
    }
}

private final class Counter: Sendable { let value = Atomic(0) }

struct Failure: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}
