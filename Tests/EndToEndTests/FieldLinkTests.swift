// Files behind links and mounts, as Kubernetes, configuration management and Docker put them in place. Nobody says `commit`.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldLink {}
}

/// A folder as Kubernetes mounts one: each file is a link into `..data`, which is a link to the version in force.
private struct Volume {
    let path: String
    private let files = FileManager.default

    init(_ path: String) throws {
        self.path = path
        try files.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    /// Exchanges all files at once, by a rename of the link.
    func publish(_ version: String, _ contents: [String: String]) throws {
        try files.createDirectory(atPath: "\(path)/..\(version)", withIntermediateDirectories: true)
        for (name, text) in contents {
            try Data(text.utf8).write(to: URL(filePath: "\(path)/..\(version)/\(name)"))
            if (try? files.destinationOfSymbolicLink(atPath: "\(path)/\(name)")) == nil {
                try? files.removeItem(atPath: "\(path)/\(name)")
                try files.createSymbolicLink(atPath: "\(path)/\(name)", withDestinationPath: "..data/\(name)")
            }
        }
        try files.createSymbolicLink(atPath: "\(path)/..data_tmp", withDestinationPath: "..\(version)")
        guard rename("\(path)/..data_tmp", "\(path)/..data") == 0 else { throw SocketError.system(call: "rename", code: errno) }
    }
}

private func text(_ path: String) throws -> String { try String(contentsOfFile: path, encoding: .utf8) }

/// How long a change may take to be in force by itself.
private let seconds = 5.0

extension EndToEnd.FieldLink {
    private func row(_ situation: String, _ expected: Int, _ found: () throws -> Int) throws {
        var last = -1
        _ = try eventually(within: seconds) {
            last = try found()
            return last == expected
        }
        #expect(
            Field.row(
                "link.2", situation, expected: "\(expected) sessions within \(Int(seconds)) s",
                found: "\(last) sessions within \(Int(seconds)) s"))
    }

    private func cap(_ daemon: DaemonControl) throws -> Int { try daemon.figures(of: "Max Licensed Session") }

    @Test func aLicenceBehindKubernetesLinks() throws {
        let daemon = try DaemonControl(cap: nil)
        let volume = try Volume(daemon.home)
        for cap in [7, 8, 9] {
            try? FileManager.default.removeItem(atPath: daemon.folder.path + "/signed")
            try daemon.sign(cap: cap, to: daemon.folder.path + "/signed")
            try volume.publish("2026_\(cap)", ["license.lic": text(daemon.folder.path + "/signed")])
            try row("license.lic -> ..data/license.lic, ..data exchanged", cap) { try self.cap(daemon) }
        }
    }

    @Test func aLicenceBehindALinkToElsewhere() throws {
        let daemon = try DaemonControl(cap: nil)
        let target = try TemporaryFolder()
        try FileManager.default.createSymbolicLink(
            atPath: daemon.licenseFile, withDestinationPath: target.path + "/current.lic")
        for cap in [7, 8] {
            try daemon.sign(cap: cap, to: target.path + "/current.lic")
            try row("a link whose target is replaced", cap) { try self.cap(daemon) }
        }
        try daemon.sign(cap: 9, to: target.path + "/next.lic")
        try FileManager.default.removeItem(atPath: daemon.licenseFile)
        try FileManager.default.createSymbolicLink(
            atPath: daemon.licenseFile, withDestinationPath: target.path + "/next.lic")
        try row("a link that is made anew", 9) { try self.cap(daemon) }
    }

    @Test(.enabled(if: geteuid() == 0, "needs root, to mount"))
    func aSingleFileThatIsMounted() throws {
        let source = try TemporaryFolder()
        let mounted = try MountedFiles(source)
        let daemon = try DaemonControl(cap: 3, launcher: mounted.launcher(["license.lic", "fpxd.yaml"]))
        try row("a licence that is bind-mounted, at the start", 3) { try self.cap(daemon) }
        try daemon.sign(cap: 8, to: daemon.folder.path + "/signed")
        try mounted.rewrite("license.lic", text(daemon.folder.path + "/signed"))
        try row("a licence that is bind-mounted, written on the host", 8) { try self.cap(daemon) }
        try mounted.rewrite("fpxd.yaml", "license-overlimit: block\n")
        let found = try daemon.eventualPolicy("block", within: seconds)
        #expect(Field.row("link.2", "fpxd.yaml that is bind-mounted, written on the host", expected: "block", found: found))
    }

    /// The licence is there before the key that it is signed with.
    @Test func aTrustedKeyBehindLinks() throws {
        let daemon = try DaemonControl(cap: nil)
        try daemon.authority("keys", "new", "--name", "next", "--out", daemon.folder.path)
        let volume = try Volume(daemon.home + "/keys")
        let first = try text(daemon.folder.path + "/test.pem")
        try volume.publish("1", ["test.pem": first])
        try daemon.sign(cap: 7, by: "next")
        try #require(try daemon.eventualState("Unknown-key") == "Unknown-key")
        try volume.publish("2", ["test.pem": first, "next.pem": text(daemon.folder.path + "/next.pem")])
        let found = try daemon.eventualState("Active", within: seconds)
        #expect(
            Field.row("link.2", "a trusted key comes after its licence, ..data exchanged", expected: "Active", found: found))
        // And its folder as a whole.
        try daemon.authority("keys", "new", "--name", "third", "--out", daemon.folder.path)
        try daemon.sign(cap: 8, by: "third")
        let keys = try TemporaryFolder()
        for name in ["test", "next", "third"] { try keys.write(text(daemon.folder.path + "/\(name).pem"), to: "\(name).pem") }
        try #require(chmod(keys.path, 0o755) == 0)
        try FileManager.default.moveItem(atPath: daemon.home + "/keys", toPath: daemon.home + "/keys.old")
        try FileManager.default.createSymbolicLink(atPath: daemon.home + "/keys", withDestinationPath: keys.path)
        try row("the folder of keys becomes a link to another", 8) { try self.cap(daemon) }
    }

    @Test func theConfigurationFileBehindLinks() throws {
        let daemon = try DaemonControl(cap: 3)
        let volume = try Volume(daemon.home)
        for (version, value) in [("a", "block"), ("b", "bypass"), ("c", "block")] {
            try volume.publish(version, ["fpxd.yaml": "license-overlimit: \(value)\nlog-file: /elsewhere/\(version)\n"])
            let found = try daemon.eventualPolicy(value, within: seconds)
            #expect(Field.row("link.2", "fpxd.yaml -> ..data/fpxd.yaml, ..data exchanged", expected: value, found: found))
        }
        let events = try daemon.fpx("get", "system", "events")
        #expect(
            Field.row(
                "link.2", "what of it waits for a restart is told", expected: "told",
                found: events.contains("log-file: a change takes effect when fpxd is restarted") ? "told" : events))
        // What cannot be read changes nothing, and is told; so is a file that is gone, which may come back at once.
        try volume.publish("d", ["fpxd.yaml": "license-overlimit: perhaps\n"])
        let told = try eventually(within: seconds) {
            try daemon.fpx("get", "system", "events").contains("has changed and is refused")
        }
        let policy = try daemon.eventualPolicy("block", within: 0)
        #expect(
            Field.row(
                "link.2", "a value that is not allowed", expected: "told, block",
                found: "\(told ? "told" : "silent"), \(policy)"))
        try FileManager.default.removeItem(atPath: daemon.home + "/fpxd.yaml")
        let gone = try eventually(within: seconds) { try daemon.fpx("get", "system", "events").contains("is gone or empty") }
        #expect(
            Field.row(
                "link.2", "fpxd.yaml is gone", expected: "told, block",
                found: "\(gone ? "told" : "silent"), \(try daemon.eventualPolicy("block", within: 0))"))
    }

    /// Certificates of both sides: the unit asks again as soon as it may trust the authority, and that serves its new one.
    @Test func certificatesBehindLinks() throws {
        let certificates = try Certificates.shared.get()
        func pair(_ name: String) throws -> [String: String] {
            ["tls.pem": try text(certificates.path("\(name).pem")), "tls.key": try text(certificates.path("\(name).key"))]
        }
        let served = try TemporaryFolder()
        let servedVolume = try Volume(served.path)
        try servedVolume.publish("1", pair("other"))
        let authority = try AuthorityControl(certificate: served.path + "/tls.pem", key: served.path + "/tls.key")
        let trusted = try TemporaryFolder()
        let trustedVolume = try Volume(trusted.path)
        try trustedVolume.publish("1", ["ca.pem": text(certificates.path("stranger-ca.pem"))])
        let daemon = try DaemonControl(authority: authority, flags: ["--authority-ca", trusted.path + "/ca.pem"])
        func refusal() throws -> String {
            let (status, output) = try daemon.ask("set", "renew_license")
            return status == 1 && output.contains("certificate") ? "refused" : "\(status) \(output)"
        }
        #expect(Field.row("link.2", "authority of another name and maker", expected: "refused", found: try refusal()))
        try servedVolume.publish("2", pair("server"))
        #expect(Field.row("link.2", "the authority's certificate is exchanged", expected: "refused", found: try refusal()))
        try trustedVolume.publish("2", ["ca.pem": text(certificates.authority)])
        let found = try daemon.eventualState("Active", within: seconds)
        #expect(
            Field.row("link.2", "the unit's CA is exchanged: it asks again by itself", expected: "Active", found: found),
            "\(daemon.log)\(authority.log)")
    }
}

/// Files of a folder, each mounted over one of the same name in a mount namespace of the daemon's own.
struct MountedFiles {
    private let source: TemporaryFolder

    init(_ source: TemporaryFolder) throws { self.source = source }

    /// Starts a program whose `--home` follows, in which the files are mounted; what lay there is what they hold first.
    func launcher(_ names: [String]) -> [String] {
        let mounts = names.map {
            "touch $home/\($0); cp $home/\($0) \(source.path)/\($0); mount --bind \(source.path)/\($0) $home/\($0)"
        }
        // The program, --home, and its folder come after `sh`.
        return [
            "/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-e", "-c",
            "home=$3; \(mounts.joined(separator: "; ")); exec \"$@\"", "sh",
        ]
    }

    /// Writes into the file that is there, as an editor on the host or `kubectl cp` does.
    func rewrite(_ name: String, _ text: String) throws {
        let handle = try FileHandle(forWritingTo: URL(filePath: source.path + "/" + name))
        try handle.truncate(atOffset: 0)
        try handle.write(contentsOf: Data(text.utf8))
        try handle.close()
    }
}

extension DaemonControl {
    /// What a new session over the limit gets, once it is that or the time is over.
    func eventualPolicy(_ policy: String, within seconds: Double) throws -> String {
        var found = ""
        _ = try eventually(within: seconds) {
            let line = try fpx("show", "full", "system", "global", "|", "grep", "overlimit")
            found = String(line.split(separator: " ").last ?? "").trimmingCharacters(in: .whitespacesAndNewlines)
            return found == policy
        }
        return found
    }
}
