import Foundation
import Licensing
import Testing

/// The command as a person runs it: built beside these tests.
@Suite struct AuthorityTests {
    let folder: Folder
    let program: String

    init() throws {
        folder = try Folder()
        program = try #require(
            CommandLine.arguments.first.map { URL(filePath: $0).deletingLastPathComponent().path + "/fpx-authority" })
        try #require(access(program, X_OK) == 0, "no \(program)")
    }

    private func authority(_ arguments: String...) throws -> (status: Int32, output: String) {
        let inFolder = arguments.map { $0.replacing("@", with: folder.path + "/") }
        let result = try #require(try run([program] + inFolder))
        return (result.status, result.output.replacing(folder.path + "/", with: "@"))
    }

    @Test func aLicenceFromKeyToUnit() async throws {
        let unit = try Unit()
        #expect(try authority("keys", "new", "--name", "k9", "--out", "@keys").status == 0)
        #expect(
            try FileManager.default.attributesOfItem(atPath: folder.path + "/keys/k9.key")[.posixPermissions] as? Int == 0o600)
        try unit.folder.write(folder.read("keys/k9.pem")!, "keys/k9.pem")
        try folder.write(
            """
            {"cpu_model":"Test \\"CPU\\" @ 3 GHz","logical_cpus_number":2,"total_memory_size":16005,"addresses_ipv4":[],"hostname":"u"}
            """, "hw.lic")
        let signed = try authority(
            "license", "sign", "--key", "@keys/k9.key", "--customer", "ACME", "--seats", "40", "--model-max", "30", "--days",
            "365",
            "--not-before", "2026-11-21", "--issuer-type", "offline", "--hardware", "@hw.lic", "--epoch", "7", "--id", "L9",
            "--out",
            "@license.lic")
        #expect(signed.status == 0)
        #expect(signed.output.contains("licence L9 for ACME, epoch 7, until 2027-11-20: @license.lic\n"), "\(signed.output)")
        #expect(signed.output.contains("warning: @hw.lic names no unit_id: "), "\(signed.output)")
        try unit.put(folder.read("license.lic")!)
        // Signed by the clock of this machine, wherever it stands.
        unit.set(clock: max(start, Timestamp.seconds(Date())))
        let status = await unit.load().report.status
        let isOver = unit.now.withLock { $0 } >= start + 365 * day
        #expect(status.state == (isOver ? .offlineExpired : .offlineActive), "\(status)")
        #expect(status.seats(of: .furl) == 40 && status.claims?.activeSeats(of: .furl) == 30 && status.keyID == "k9")
        #expect(status.claims?.hardware.binds == [.cpuModel, .logicalCPUsNumber, .totalMemorySize])

        let shown = try authority("license", "show", "@license.lic", "--trusted", "@keys")
        #expect(
            shown.status == 0 && shown.output.contains("\"jti\" : \"L9\"")
                && shown.output.contains("signature: verifies, by key k9"))
    }

    @Test func refusalsHaveReasons() throws {
        #expect(try authority("keys", "new", "--name", "k9", "--out", "@keys").status == 0)
        let private1 = folder.read("keys/k9.key")
        let again = try authority("keys", "new", "--name", "k9", "--out", "@keys")
        #expect(again.status == 1)
        #expect(
            again.output
                == "fpx-authority: @keys/k9.pem: there is such a file already, and it is not overwritten; take another name\n")
        try folder.remove("keys/k9.pem")
        #expect(try authority("keys", "new", "--name", "k9", "--out", "@keys").status == 1)
        #expect(folder.read("keys/k9.key") == private1)

        let large = try authority(
            "license", "sign", "--key", "@keys/k9.key", "--customer", "A", "--seats", "4000000", "--out", "@x.lic")
        #expect(large.status == 1 && large.output.contains("which is the engine's limit") && folder.read("x.lic") == nil)
        let keyless = try authority(
            "license", "sign", "--key", "@none.key", "--customer", "A", "--seats", "4", "--out", "@x.lic")
        #expect(keyless.status == 1 && keyless.output == "fpx-authority: @none.key: found no such file, expected a key\n")

        try folder.write("eyJh", "cut.lic")
        let cut = try authority("license", "show", "@cut.lic")
        #expect(cut.status == 1)
        #expect(
            cut.output == "fpx-authority: @cut.lic is not a licence (Truncated): the file is cut short: found 1 of 3 parts, "
                + "expected header.payload.signature\n")
        let none = try authority("license", "show", "@none.lic").output
        #expect(
            none == "fpx-authority: @none.lic: found neither a licence of this id nor a file of this name; "
                + "`license list` has the ids\n")
    }

    @Test func aStrangersLicenceIsShownAndRefused() throws {
        for name in ["k1", "k2"] { #expect(try authority("keys", "new", "--name", name, "--out", "@\(name)").status == 0) }
        let signed = try authority(
            "license", "sign", "--key", "@k2/k2.key", "--customer", "A", "--seats", "4", "--out", "@license.lic")
        #expect(signed.status == 0)
        let shown = try authority("license", "show", "@license.lic", "--trusted", "@k1")
        #expect(shown.status == 1 && shown.output.contains("kid: found \"k2\", expected one of k1"))
        #expect(try authority("license", "show", "@license.lic").status == 0)
    }

    @Test(arguments: [
        ["keys", "new", "--name", "../k", "--out", "@"], ["keys", "new"], ["nothing"], ["license", "sign", "--seats", "x"],
        ["license", "sign", "--key", "k", "--customer", "A", "--seats", "1", "--out", "o", "--not-before", "2027-02-30"],
        ["license", "sign", "--key", "k", "--customer", "A", "--seats", "1", "--out", "o", "--days", "0"],
        ["license", "sign", "--key", "k", "--customer", "A", "--seats", "1", "--out", "o", "--bind", "cpu_model"],
        [
            "license", "sign", "--key", "k", "--customer", "A", "--seats", "1", "--out", "o", "--days", "1", "--expires",
            "2027-01-01",
        ],
    ])
    func usageIsStatus2(_ arguments: [String]) throws { #expect(try run([program] + arguments)?.status == 2) }

    @Test(arguments: [["--help"], ["keys", "new", "--help"], ["license", "sign", "--help"], ["license", "show", "--help"]])
    func helpIsNoError(_ arguments: [String]) throws { #expect(try run([program] + arguments)?.status == 0) }
}
