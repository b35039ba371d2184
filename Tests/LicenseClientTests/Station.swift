import AuthorityAPI
import ControlAPI
import Foundation
import LicenseClient
import Licensing
import Logging
import Synchronization
import TestSupport
import Testing

/// 2026-11-21T00:00:00Z, when all tests begin.
let start = 1_795_219_200
let day = 86_400

let machine = Hardware(
    cpuModel: "Test CPU", logicalCPUsNumber: 2, totalMemorySize: 16005, addressesIPv4: ["192.0.2.1"], hostname: "unit")

/// What is around a unit.
final class World: Sendable {
    let now = Mutex(start)
    let hardware = Mutex(machine)
    let lines = Mutex<[String]>([])
    /// Of a clock that nobody sets.
    let uptime = Mutex(ContinuousClock.now)
}

/// A unit with its files, clock and hardware, and an authority that answers it as a test wants.
final class Station: Sendable {
    let folder: String
    let server: RawServer
    let key: SigningKey
    let unitID = UUID().uuidString.lowercased()
    let world = World()
    let keeper: LicenseKeeper
    let renewal: LicenseRenewal

    /// - Parameter connect: changes how the unit connects.
    init(
        certificate: String = "server", clientAuthority: String? = nil, answerSeconds: Int = 20,
        connect: (inout AuthorityConnection) -> Void = { _ in }
    ) async throws {
        let folder = FileManager.default.temporaryDirectory.path + "/license-client-" + UUID().uuidString
        self.folder = folder
        try FileManager.default.createDirectory(atPath: folder + "/keys", withIntermediateDirectories: true)
        server = try await RawServer.start(certificate: certificate, clientAuthority: clientAuthority)
        key = try SigningKey(id: "k1")
        try Data(key.publicPEM.utf8).write(to: URL(filePath: folder + "/keys/k1.pem"))
        try Data("secret-account-key\n".utf8).write(to: URL(filePath: folder + "/account"))
        var connection = AuthorityConnection(
            url: server.url, accountKeyFile: folder + "/account", authorityFile: try Certificates.shared.get().authority)
        connect(&connection)
        let world = world
        let clock: @Sendable () -> Date = { Timestamp.date(world.now.withLock { $0 }) }
        keeper = await LicenseKeeper.load(
            LicenseConfiguration(
                licenseFile: folder + "/license.lic", evaluatesWhenAbsent: false, stateFolder: folder + "/state",
                trustedKeys: [folder + "/keys"], hasAuthority: true),
            hardware: { () throws(LicensingError) in world.hardware.withLock { $0 } },
            clock: clock
        ).keeper
        renewal = LicenseRenewal(
            client: LicenseClient(
                connection, unitID: unitID, patience: .init(connect: 10, answer: answerSeconds), clock: clock),
            keeper: keeper, version: "1.2.3", jitter: { $0.upperBound },
            uptime: { world.uptime.withLock { $0 } },
            log: { level, line in world.lines.withLock { $0.append("[\(level)] \(line)") } })
    }

    /// What the next process makes of the files.
    func restarted() async throws -> (keeper: LicenseKeeper, renewal: LicenseRenewal) {
        let world = world
        let clock: @Sendable () -> Date = { Timestamp.date(world.now.withLock { $0 }) }
        let keeper = await LicenseKeeper.load(
            keeper.configuration, hardware: { () throws(LicensingError) in world.hardware.withLock { $0 } }, clock: clock
        ).keeper
        let client = LicenseClient(
            AuthorityConnection(
                url: server.url, accountKeyFile: folder + "/account", authorityFile: try Certificates.shared.get().authority),
            unitID: unitID, clock: clock)
        let renewal = LicenseRenewal(client: client, keeper: keeper, version: "1.2.3", jitter: { $0.upperBound }) { _, _ in }
        return (keeper, renewal)
    }

    deinit {
        server.stop()
        try? FileManager.default.removeItem(atPath: folder)
    }

    func read(_ name: String) -> String? {
        (try? Data(contentsOf: URL(filePath: folder + "/" + name))).map { String(decoding: $0, as: UTF8.self) }
    }

    func set(_ clock: Int) { world.now.withLock { $0 = clock } }

    /// Everything that an answer could change: the bytes of all files but the open question, the state, the caps.
    var everything: [String: String] {
        var all: [String: String] = [:]
        for name in ["license.lic", "license.lic.previous", "state/license.lic", "state/license.lic.previous"] {
            all[name] = read(name) ?? "-"
        }
        for name in (try? FileManager.default.contentsOfDirectory(atPath: folder + "/state/keys")) ?? [] {
            all["state/keys/" + name] = read("state/keys/" + name)
        }
        let record = keeper.record
        all["record"] = "\(record.lastContact) \(record.lastSuccess) \(String(describing: record.refusal))"
        let status = keeper.status()
        all["status"] =
            "\(status.state) \(status.reason ?? "") \(status.claims?.epoch ?? 0) \(status.keyID ?? "") \(status.warnings)"
        all["caps"] = "\(LicenseType.allCases.map { status.cap(of: $0) })"
        return all
    }
}
