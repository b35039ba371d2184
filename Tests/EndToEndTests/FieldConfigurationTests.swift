// The configuration file is the operator's: `fpx config` changes a setting in it and nothing else about it.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldConfiguration {}
}

extension EndToEnd.FieldConfiguration {
    private func row(_ situation: String, _ expected: String, _ found: String) {
        #expect(Field.row("config.5", situation, expected: expected, found: found))
    }

    /// Names of the folder's files that are none of fpxd's own.
    private func names(in folder: String) throws -> String {
        try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.contains("fpxd.yaml") }.sorted()
            .joined(separator: " ")
    }

    @Test func aLinkStaysALink() throws {
        let daemon = try DaemonControl(cap: 0)
        let elsewhere = try TemporaryFolder()
        try elsewhere.write("# the fleet's\nlog-level: info\n", to: "fleet.yaml")
        try FileManager.default.createSymbolicLink(atPath: elsewhere.path + "/fpxd.yaml", withDestinationPath: "fleet.yaml")
        try FileManager.default.createSymbolicLink(
            atPath: daemon.home + "/fpxd.yaml", withDestinationPath: elsewhere.path + "/fpxd.yaml")
        _ = try daemon.ask("commit")
        try daemon.set(policy: .block)
        let link = try? FileManager.default.destinationOfSymbolicLink(atPath: daemon.home + "/fpxd.yaml")
        row("fpxd.yaml is a link to a link", "a link", link == elsewhere.path + "/fpxd.yaml" ? "a link" : "a file")
        row(
            "the file that it leads to", "# the fleet's|log-level: info|license-overlimit: block|",
            elsewhere.read("fleet.yaml").replacing("\n", with: "|"))
        row("what lies beside them", "fpxd.yaml, fpxd.yaml", try "\(names(in: daemon.home)), \(names(in: elsewhere.path))")
        // One that leads nowhere yet.
        unlink(elsewhere.path + "/fleet.yaml")
        _ = try daemon.ask("commit")
        try daemon.set(policy: .block)
        row(
            "a link that leads nowhere yet", "license-overlimit: block|",
            elsewhere.read("fleet.yaml").replacing("\n", with: "|"))
    }

    @Test(.enabled(if: geteuid() == 0, "needs root, to give files away"))
    func ownerAndModeStay() throws {
        let daemon = try DaemonControl(cap: 0)
        let file = daemon.home + "/fpxd.yaml"
        try "log-level: info\n".write(toFile: file, atomically: true, encoding: .utf8)
        #expect(chown(file, 12345, 23456) == 0 && chmod(file, 0o664) == 0)
        _ = try daemon.ask("commit")
        try daemon.set(policy: .block)
        var status = stat()
        stat(file, &status)
        row(
            "owner, group and mode of fpxd.yaml", "12345:23456 664",
            "\(status.st_uid):\(status.st_gid) \(String(status.st_mode & 0o7777, radix: 8))")
        // The other name must go on being one of the same file.
        #expect(link(file, daemon.home + "/other") == 0)
        let told = try daemon.fpx("config", "system", "global", "set", "session-warning", "70", "end")
        stat(file, &status)
        row(
            "fpxd.yaml has a second name", "2 names, told",
            "\(status.st_nlink) names, \(told.contains("was written in place, since it has other names") ? "told" : told)")
    }

    @Test func remarksBehindTabsAndAMark() throws {
        let daemon = try DaemonControl(cap: 0)
        let file = daemon.home + "/fpxd.yaml"
        try "\u{FEFF}license-overlimit: bypass\t\t# as agreed\r\nlog-level: info \t #all\r\n"
            .write(toFile: file, atomically: true, encoding: .utf8)
        _ = try daemon.ask("commit")
        try daemon.set(policy: .block)
        _ = try daemon.fpx("config", "system", "global", "set", "log-level", "warning", "end")
        let found = try String(decoding: Data(contentsOf: URL(filePath: file)), as: UTF8.self)
        row(
            "a byte order mark, remarks behind tabs, CRLF",
            "MARK license-overlimit: block # as agreed|log-level: warning #all|",
            found.replacing("\u{FEFF}", with: "MARK ").replacing("\r\n", with: "|"))
        row("and it is read", "block", try daemon.eventualPolicy("block", within: 0))
    }

    @Test(.enabled(if: geteuid() == 0, "needs root, to mount"))
    func aFileThatIsMountedByItself() throws {
        let source = try TemporaryFolder()
        let mounted = try MountedFiles(source)
        let daemon = try DaemonControl(cap: 0, launcher: mounted.launcher(["fpxd.yaml"]))
        try mounted.rewrite("fpxd.yaml", "# on the host\nsession-warning: 70\n")
        #expect(try eventually { try daemon.fpx("show", "full", "system", "global").contains("session-warning 70") })
        let told = try daemon.ask("config", "system", "global", "set", "license-overlimit", "block", "end")
        row(
            "fpx config on a bind-mounted fpxd.yaml", "# on the host|session-warning: 70|license-overlimit: block|",
            source.read("fpxd.yaml").replacing("\n", with: "|"))
        let cost = "was written in place, since it is mounted by itself: a crash in the middle of that can leave it cut short"
        row("what that costs is said", "0, said", "\(told.status), \(told.output.contains(cost) ? "said" : told.output)")
        row("also in the events", "said", try daemon.fpx("get", "system", "events").contains(cost) ? "said" : "silent")
        row("what lies beside it", "fpxd.yaml", try names(in: daemon.home))
        _ = try daemon.fpx("config", "system", "global", "unset", "session-warning", "end")
        row("and made shorter", "# on the host|license-overlimit: block|", source.read("fpxd.yaml").replacing("\n", with: "|"))
    }

    @Test func whatACrashHasLeftGoesAtTheNextStart() throws {
        let daemon = try DaemonControl(cap: 0)
        try daemon.end(by: SIGKILL)
        try "log-le".write(toFile: daemon.home + "/fpxd.yaml.tmp", atomically: true, encoding: .utf8)
        try daemon.start()
        row("fpxd.yaml.tmp after a crash and a start", "", try names(in: daemon.home))
    }

    @Test(.enabled(if: geteuid() == 0, "needs root, to mount"))
    func aRenewedLicenceKeepsLinksAndMounts() throws {
        let authority = try AuthorityControl()
        let source = try TemporaryFolder()
        let mounted = try MountedFiles(source)
        let daemon = try DaemonControl(launcher: mounted.launcher(["license.lic"]), authority: authority)
        row("a licence that comes for a bind-mounted license.lic", "Active", try daemon.eventualState("Active"))
        row(
            "it is on the host", "a licence",
            source.read("license.lic").hasPrefix("eyJ") ? "a licence" : source.read("license.lic"))
        let other = try DaemonControl(authority: authority)
        try FileManager.default.createDirectory(atPath: other.home + "/volume", withIntermediateDirectories: true)
        #expect(try other.eventualState("Active") == "Active")
        try FileManager.default.moveItem(atPath: other.licenseFile, toPath: other.home + "/volume/license.lic")
        try FileManager.default.createSymbolicLink(atPath: other.licenseFile, withDestinationPath: "volume/license.lic")
        _ = try other.fpx("set", "renew_license")
        let link = try? FileManager.default.destinationOfSymbolicLink(atPath: other.licenseFile)
        row("a renewal of a licence that is a link", "volume/license.lic", link ?? "a file")
    }
}
