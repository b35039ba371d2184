// The first hour: what a new operator types, gets wrong, and reads.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldFirstHour {}
}

extension EndToEnd.FieldFirstHour {
    private func row(_ situation: String, _ expected: String, _ found: String) {
        #expect(Field.row("first-hour.commands", situation, expected: expected, found: found))
    }

    // MARK: fpxd -t

    /// `fpxd -t` with a file of settings in a home of its own: its exit status and what it says of it.
    private func check(_ text: String, in folder: TemporaryFolder) throws -> (status: Int32, output: String) {
        try folder.write(text, to: "fpxd.yaml")
        return try run(try Programs.path("fpxd"), ["-t", "--home", folder.path])
    }

    @Test func everyFileThatASettingNamesIsOpened() throws {
        let folder = try TemporaryFolder()
        let (path, missing) = (folder.path, folder.path + "/none")
        let certificates = try Certificates.shared.get()
        try folder.write("secret\n", to: "secret")
        try folder.write("nonsense\n", to: "nonsense")
        #expect(
            try run(try Programs.path("fpx-authority"), ["keys", "new", "--name", "k", "--out", path + "/keys"]).status == 0)
        let https = "sharing-endpoints: https://e:2379\n"
        let (pem, key) = (certificates.path("server.pem"), certificates.path("server.key"))
        let ours = "sharing-certificate: \(pem)\nsharing-private-key: \(key)\n"
        let licensed = "authority: https://a\ntrusted-keys: \(path)/keys\naccount-key-file: \(path)/secret\n"
        // What is before the setting, its name, a value that is in order, what follows.
        let files: [(before: String, name: String, good: String)] = [
            ("log-level: info\n", "license-file", "\(path)/secret"), ("", "trusted-keys", "\(path)/keys"),
            ("authority: https://a\ntrusted-keys: \(path)/keys\n", "account-key-file", "\(path)/secret"),
            (licensed, "authority-ca", pem),
            (licensed + "authority-private-key: \(key)\n", "authority-certificate", pem),
            (licensed + "authority-certificate: \(pem)\n", "authority-private-key", key),
            ("sharing-user: u\n", "sharing-password-file", "\(path)/secret"), (https, "sharing-ca", pem),
            (https + "sharing-private-key: \(key)\n", "sharing-certificate", pem),
            (https + "sharing-certificate: \(pem)\n", "sharing-private-key", key),
        ]
        for (before, name, good) in files {
            let before = name == "license-file" ? before + "trusted-keys: \(path)/keys\n" : before
            let line = before.count { $0 == "\n" } + 1
            let (status, output) = try check(before + "\(name): \(good)\n", in: folder)
            #expect(status == 0 && output.contains("\(name): \(good)\n"), "\(name): \(output)")
            let bad = try check(before + "\(name): \(missing)\n", in: folder)
            let place = "\(path)/fpxd.yaml:\(line): \(name): "
            let isTold = bad.status == 1 && bad.output.contains("fpxd: " + place) && bad.output.contains(missing)
            row(
                "fpxd -t, \(name) names no file", "refused, with file and line",
                isTold ? "refused, with file and line" : bad.output)
        }
        // Not a file, and not what it should be.
        for (name, value, complaint) in [
            ("license-file", "/", "expected a regular file"), ("haproxy-folder", "\(path)/secret", "expected a folder"),
            ("log-file", "/none/fpxd.log", "No such file or directory"), ("log-file", "/", "which is not a file"),
        ] {
            let (status, output) = try check("trusted-keys: \(path)/keys\n\(name): \(value)\n", in: folder)
            #expect(status == 1 && output.contains("fpxd.yaml:2: \(name): ") && output.contains(complaint), "\(output)")
        }
        let (status, output) = try check(licensed + "authority-ca: \(path)/nonsense\n", in: folder)
        #expect(status == 1 && output.contains("fpxd.yaml:4: authority-ca: found 9 bytes that are no certificate"), "\(output)")
        #expect(
            try check(https + ours + "sharing-ca: \(path)/nonsense\n", in: folder).output.contains(
                ":4: sharing-ca: found 9 bytes"))
        // All that is wrong is told at once; and what is needed though no line names it.
        let two = try check("authority: https://a\nauthority-ca: \(missing)\n", in: folder)
        #expect(two.status == 1 && two.output.contains("account-key-file: found no file \(path)/account.key"), "\(two.output)")
        #expect(two.output.contains("fpxd.yaml:2: authority-ca: found no file"), "\(two.output)")
        // By another way in.
        let (flagged, told) = try run(
            try Programs.path("fpxd"), ["--check-config", "--home", path + "/other", "--license-file", missing])
        #expect(flagged == 1 && told.contains("flag --license-file: license-file: found no file \(missing)"), "\(told)")
    }

    @Test func errorsNameFileAndLine() throws {
        let folder = try TemporaryFolder()
        for (situation, text, complaint) in [
            (
                "a setting stands twice", "log-level: info\n# a\nlog-level: debug\n",
                ":3: found setting \"log-level\" in lines 1 and 3"
            ),
            (
                "settings exclude one another", "ha-mode: 7.2\n\ncsf-status: enable\n",
                ":3, \(folder.path)/fpxd.yaml:1: found csf-status"
            ),
            ("a setting lacks its partner", "\nsharing-user: u\n", ":2: found sharing-user u without sharing-password-file"),
        ] {
            let (status, output) = try check(text, in: folder)
            let isTold = status == 1 && output.contains(folder.path + "/fpxd.yaml" + complaint)
            row("fpxd.yaml: \(situation)", complaint, isTold ? complaint : output)
        }
        // Also what only a start finds.
        let (status, output) = try run(
            try Programs.path("fpxd"), ["--home", folder.path + "/home", "--group", "no-such-group"])
        #expect(status == 1 && output.contains("fpxd: flag --group: group: found no group"), "\(output)")
    }

    @Test(arguments: ["fpxd", "fpx", "fpx-authority"])
    func usageIsStatus2(_ program: String) throws {
        row("\(program) --nonsense: exit status", "2", "\(try run(try Programs.path(program), ["--nonsense"]).status)")
        #expect(try run(try Programs.path(program), ["--help"]).status == 0)
        #expect(try run(try Programs.path(program), ["--version"]).status == 0)
    }

    // MARK: fpx

    @Test func everythingIsJSON() throws {
        let daemon = try DaemonControl(cap: 3)
        func isJSON(_ text: String) -> Bool {
            text.count { $0 == "\n" } == 1 && (try? JSONSerialization.jsonObject(with: Data(text.utf8))) != nil
        }
        for (situation, words) in [
            ("fpx --json ... end", ["config", "system", "global", "set", "session-warning", "70", "end"]),
            ("fpx --json ... end, nothing changed", ["config", "system", "global", "end"]),
            ("fpx --json, refused", ["config", "system", "global", "set", "session-warning", "700", "end"]),
            ("fpx --json, usage", ["show", "licence"]), ("fpx --json, an option", ["--jsn"]),
        ] {
            let (_, output) = try daemon.ask(["--json"] + words)
            row(situation, "a line of JSON", isJSON(output) ? "a line of JSON" : output)
        }
        let (_, absent) = try run(try Programs.path("fpx"), ["--json", "--socket", "/nonexistent", "commit"])
        row("fpx --json, no fpxd", "a line of JSON", isJSON(absent) ? "a line of JSON" : absent)
    }

    @Test func aScriptNamesItsLine() throws {
        let daemon = try DaemonControl(cap: 3)
        let fpx = "\(try Programs.path("fpx")) --socket \(daemon.controlSocket)"
        for (situation, script, expected) in [
            ("an unknown command", #"# hello\n\nshow license\nshow licence\n"#, "fpx: line 4: unknown command"),
            (
                "a value that fpxd refuses", #"config system global\nset session-warning 700\nend\n"#,
                "fpx: line 3: session-warning"
            ),
            (
                "end is missing", #"show license\nconfig system global\nset log-level info\n"#,
                "fpx: line 2: config system global without end"
            ),
        ] {
            let (_, output) = try run("/bin/bash", ["-c", "printf '\(script)' | \(fpx) 2>&1 >/dev/null"])
            row("a script: \(situation)", expected, output.hasPrefix(expected) ? expected : output)
        }
    }

    @Test(.enabled(if: geteuid() == 0, "needs root, to be another user"))
    func eventsSayWho() throws {
        let daemon = try DaemonControl(cap: 3)
        let fpx = "\(try Programs.path("fpx")) --socket \(daemon.controlSocket)"
        // The group of the daemon under test is theirs.
        let other = "setpriv --reuid www-data --regid www-data --clear-groups \(fpx)"
        chmod(daemon.folder.path, 0o755)
        let uid = try run("/usr/bin/id", ["-u", "www-data"]).output.trimmingCharacters(in: .newlines)
        for (command, event) in [
            ("config system global set session-warning 70 end", "set session-warning 70, by"),
            ("config system global unset session-warning end", "unset session-warning, by"),
            ("commit", "commit by"), ("diagnose wad session clear", "0 sessions cleared by"),
        ] {
            for (user, fpx) in [("root (uid 0)", fpx), ("www-data (uid \(uid))", other)] {
                let (status, output) = try run("/bin/sh", ["-c", "\(fpx) \(command)"])
                #expect(status == 0, "\(output)")
                let last =
                    try daemon.fpx("get", "system", "events").split(separator: "\n").last { $0.contains(event) } ?? "none"
                row(
                    "the event of \(command), by \(user)", "\(event) \(user)",
                    last.contains("\(event) \(user)") ? "\(event) \(user)" : "\(last)")
            }
        }
        kill(try #require(daemon.processID), SIGHUP)
        try expectEventually("SIGHUP is named") { try daemon.fpx("get", "system", "events").contains("commit by SIGHUP: ") }
    }

    // MARK: the first licence

    @Test(arguments: ["account-key-file", "trusted-keys"])
    func firstContact(_ missing: String) throws {
        let authority = try AuthorityControl()
        let folder = try TemporaryFolder()
        let (account, keys) = (folder.path + "/account", folder.path + "/keys")
        try FileManager.default.createDirectory(atPath: keys, withIntermediateDirectories: true)
        func put(_ name: String) throws {
            if name == "account-key-file" {
                try FileManager.default.copyItem(atPath: authority.folder.path + "/account", toPath: account)
                return
            }
            for name in try FileManager.default.contentsOfDirectory(atPath: authority.keys) where name.hasSuffix(".pem") {
                try FileManager.default.copyItem(atPath: authority.keys + "/" + name, toPath: keys + "/" + name)
            }
        }
        for name in ["account-key-file", "trusted-keys"] where name != missing { try put(name) }
        let daemon = try DaemonControl(
            cap: nil, authority: authority, flags: ["--account-key-file", account, "--trusted-keys", keys])
        let url = try #require(authority.flags.dropFirst().first)
        let (status, output) = try daemon.ask("commit")
        let told = "no licence from the authority (\(url)): \(missing): found no "
        row(
            "fpx commit without the \(missing)", "status 1, told",
            status == 1 && output.contains(told) ? "status 1, told" : "\(status) \(output)")
        let before = try daemon.fpx("get", "system", "status")
        let lines = ["\nAuthority: \(url)\n", "\nAuthority last contact: never\n", "Z \(missing): found no "]
        row(
            "get system status without the \(missing)", "the authority, its last contact, the last error",
            lines.allSatisfy(before.contains) ? "the authority, its last contact, the last error" : before)
        try put(missing)
        let came = try eventually { try daemon.fpx("get", "system", "status").contains("License: Active,") }
        row(
            "the \(missing) appears", "Active, without a command",
            came ? "Active, without a command" : try daemon.fpx("get", "system", "events"))
        let after = try daemon.fpx("get", "system", "status")
        #expect(after.contains(/\nAuthority last contact: 20\d\d-[^\n]*Z\nAuthority last error: none\n/), "\(after)")
        #expect(try daemon.ask("commit").status == 0)
        // And with a reason again, when it is out of reach.
        authority.stop()
        _ = try daemon.ask("set", "renew_license")
        let away = try daemon.fpx("get", "system", "status")
        #expect(
            away.contains(/\nAuthority last contact: 20\d\d-[^\n]*Z\nAuthority last error: 20[^\n]* is out of reach/), "\(away)"
        )
    }
}
