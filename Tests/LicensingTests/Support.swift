import Foundation
import Licensing
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
        path = FileManager.default.temporaryDirectory.path + "/licensing-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ text: String, _ name: String) throws { try Data(text.utf8).write(to: URL(filePath: path + "/" + name)) }
    func read(_ name: String) -> String? {
        (try? Data(contentsOf: URL(filePath: path + "/" + name))).map { String(decoding: $0, as: UTF8.self) }
    }
    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: path + "/" + name) }
    var names: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted() }
}

func claims(
    id: String = "L1", seats: Int = 40, from: Int = start, days: Int = 14, business: BusinessType = .production,
    issuer: IssuerType = .automatic, hardware: HardwareBinding = HardwareBinding(), epoch: Int = 1
) -> LicenseClaims {
    LicenseClaims(
        issuer: "tests", customer: "ACME", licenseID: id, issuedAt: min(from, start), notBefore: from,
        leaseExpiry: from + days * day, paidUntil: from + 10_000 * day, seats: PerType(furl: seats, fnbi: 3, fcas: 2),
        modelMax: PerType(furl: 500, fnbi: 1, fcas: 500), licensedBandwidth: 2000, businessType: business, issuerType: issuer,
        hardware: hardware, epoch: epoch)
}

let machine = Hardware(
    cpuModel: "Test \"CPU\" @ 3 GHz", logicalCPUsNumber: 2, totalMemorySize: 16005, addressesIPv4: ["192.0.2.1", "192.0.2.2"],
    hostname: "unit")

/// A unit: its licence file, keys, clock and hardware, and as many starts of the keeper as a test wants.
final class Unit: Sendable {
    let folder: Folder
    let key: SigningKey
    let now = Mutex(start)
    let hardware = Mutex<Hardware?>(machine)
    let named: Bool
    let hasAuthority: Bool

    /// - Parameter named: whether the operator has named a licence file, so that its absence is no evaluation.
    init(named: Bool = true, hasAuthority: Bool = false) throws {
        folder = try Folder()
        key = try SigningKey(id: "k1")
        self.named = named
        self.hasAuthority = hasAuthority
        try FileManager.default.createDirectory(atPath: folder.path + "/keys", withIntermediateDirectories: true)
        try folder.write(key.publicPEM, "keys/k1.pem")
    }

    var configuration: LicenseConfiguration {
        LicenseConfiguration(
            licenseFile: folder.path + "/license.lic", evaluatesWhenAbsent: !named, stateFolder: folder.path + "/var/state",
            trustedKeys: [folder.path + "/keys"], hasAuthority: hasAuthority)
    }

    func load() async -> (keeper: LicenseKeeper, report: CommitReport) {
        await LicenseKeeper.load(
            configuration,
            hardware: { () throws(LicensingError) in
                guard let hardware = self.hardware.withLock({ $0 }) else { throw .absent(path: "/proc/cpuinfo") }
                return hardware
            },
            clock: { Timestamp.date(self.now.withLock { $0 }) })
    }

    func put(_ claims: LicenseClaims, by key: SigningKey? = nil) async throws {
        try folder.write(try await LicenseToken.sign(claims, with: key ?? self.key), "license.lic")
    }

    func put(_ text: String) throws { try folder.write(text, "license.lic") }
    func set(clock: Int) { now.withLock { $0 = clock } }
    var trusted: TrustedKeys { TrustedKeys(paths: configuration.trustedKeys) }
}

/// The error that verifying a file ends in, or nil.
func refusal(_ file: [UInt8], _ keys: TrustedKeys) async -> LicensingError? {
    do {
        _ = try await LicenseToken.verify(file, with: keys)
        return nil
    } catch {
        return error
    }
}

/// Runs a program; nil where there is none of that name.
func run(_ command: [String]) throws -> (status: Int32, output: String)? {
    let ended = try ChildProcess.run(["env"] + command)
    return ended.status == 127 ? nil : (ended.status, ended.text)
}
