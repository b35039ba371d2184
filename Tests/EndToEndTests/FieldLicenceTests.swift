// Licences and keys as they arrive: by mail, by an editor on Windows, with remarks around them.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldLicence {}
}

/// What people's tools make of a text file.
private enum Spoilt {
    static let mark = "\u{FEFF}"

    static func folded(_ text: String, at column: Int, with end: String) -> String {
        stride(from: 0, to: text.count, by: column).map { String(text.dropFirst($0).prefix(column)) }.joined(separator: end)
    }
}

extension EndToEnd.FieldLicence {
    @Test func aLicenceIsTheSameAfterMailAndEditors() throws {
        let daemon = try DaemonControl(cap: 1)
        let ways: [(situation: String, made: (String) -> String)] = [
            ("licence file with CRLF and a byte order mark", { Spoilt.mark + $0 + "\r\n" }),
            ("licence file with blanks and empty lines around the token", { "\r\n \t\n  " + $0 + " \t\n\n\r\n" }),
            ("licence file without a line end", { $0 }),
            ("licence folded by mail at column 76, CRLF", { Spoilt.folded($0, at: 76, with: "\r\n") + "\r\n" }),
            ("licence folded at column 64, each line indented", { "  " + Spoilt.folded($0, at: 64, with: "\n  ") }),
            ("licence folded at column 7 with blanks at line ends", { Spoilt.folded($0, at: 7, with: " \n") }),
        ]
        for (index, way) in ways.enumerated() {
            let cap = index + 2
            try daemon.sign(cap: cap)
            let token = try String(contentsOfFile: daemon.licenseFile, encoding: .utf8)
                .trimmingCharacters(in: .whitespacesAndNewlines)
            try way.made(token).write(toFile: daemon.licenseFile, atomically: true, encoding: .utf8)
            let commit = try daemon.ask("commit")
            let found = try daemon.figures(of: "Max Licensed Session")
            #expect(
                Field.row(
                    "licence.1", way.situation, expected: "Active, \(cap) sessions",
                    found: "\(state(in: commit.output)), \(found) sessions"),
                "\(commit)")
        }
    }

    /// Keys are in memory, and a process that fails must not leave them on disk.
    @Test func aDaemonThatFailsLeavesNoMemoryOnDisk() throws {
        let daemon = try DaemonControl(cap: 1)
        let process = "/proc/\(try #require(daemon.processID))"
        let limits = try String(contentsOfFile: process + "/limits", encoding: .utf8).split(separator: "\n")
        let core = limits.first { $0.hasPrefix("Max core file size") }?.split(separator: " ").dropFirst(4).prefix(2)
        let filter = try String(contentsOfFile: process + "/coredump_filter", encoding: .utf8)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        #expect(
            Field.row(
                "forgery.6", "fpxd fails: how much of its memory may be dumped", expected: "0 0 bytes, parts 00000000",
                found: "\(core?.joined(separator: " ") ?? "any") bytes, parts \(filter)"))
    }

    /// What is not one token and white space stays out, and the reason says which file it is about.
    @Test func anythingElseStaysRefused() throws {
        let daemon = try DaemonControl(cap: nil)
        try daemon.sign(cap: 5)
        let token = try String(contentsOfFile: daemon.licenseFile, encoding: .utf8)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        let ways: [(situation: String, text: String, state: String)] = [
            ("a word before the licence", "Licence: \(token)\n", "Malformed"),
            ("a word of the same letters before it", "licence \(token)\n", "Malformed"),
            ("a word behind it", "\(token)\nregards\n", "Malformed"),
            ("two licences in one file", "\(token)\n\(token)\n", "Malformed"),
            ("licence quoted by mail with >", Spoilt.folded(token, at: 70, with: "\n> ") + "\n", "Malformed"),
            ("a byte order mark in the middle", "\(token.prefix(40))\u{FEFF}\(token.dropFirst(40))\n", "Malformed"),
            ("only blanks", "\u{FEFF} \r\n", "Empty"),
            ("folded, and its last line lost", Spoilt.folded(String(token.dropLast(60)), at: 76, with: "\r\n"), "Truncated"),
        ]
        for way in ways {
            try daemon.end(by: SIGTERM)
            try? FileManager.default.removeItem(atPath: daemon.home + "/state")
            try way.text.write(toFile: daemon.licenseFile, atomically: true, encoding: .utf8)
            try daemon.start()
            let status = try daemon.fpx("get", "system", "status")
            let says = "License reason: \(daemon.licenseFile) is not a licence (\(way.state)): "
            let state = status.firstMatch(of: /License: (\S+),/).map { String($0.1) } ?? "none"
            let found = status.contains(says) ? "\(state), named" : status
            #expect(Field.row("licence.1", way.situation, expected: "\(way.state), named", found: found), "\(status)")
        }
    }

    /// Keys and certificates of both sides.
    @Test func keysAreTheSameWithAMarkAndRemarks() throws {
        let daemon = try DaemonControl(cap: 2)
        func spoil(_ path: String, _ change: (String) -> String) throws {
            let text = try String(contentsOfFile: path, encoding: .utf8)
            try change(text).write(toFile: path, atomically: true, encoding: .utf8)
        }
        let ways: [(situation: String, change: (String) -> String)] = [
            ("a byte order mark", { Spoilt.mark + $0 }),
            ("text before BEGIN and after END", { "Key of the vendor:\n\n" + $0 + "-- \nregards\n" }),
            ("CRLF, blanks, empty lines", { "\r\n" + $0.replacing("\n", with: " \r\n") + "\r\n" }),
        ]
        let signing = folderOfKey(daemon)
        for (index, way) in ways.enumerated() {
            // A trusted key.
            let trusted = daemon.home + "/keys/test.pem"
            let before = try String(contentsOfFile: trusted, encoding: .utf8)
            try spoil(trusted, way.change)
            try daemon.sign(cap: 10 + index)
            let commit = try daemon.ask("commit")
            #expect(
                Field.row(
                    "licence.1", "trusted key with \(way.situation)", expected: "Active", found: state(in: commit.output)),
                "\(commit)")
            try before.write(toFile: trusted, atomically: true, encoding: .utf8)
            // The vendor's own.
            let secret = try String(contentsOfFile: signing, encoding: .utf8)
            try spoil(signing, way.change)
            let (status, output) = try run(try Programs.path("fpx-authority"), ["keys", "show", signing])
            #expect(
                Field.row(
                    "licence.1", "signing key with \(way.situation)", expected: "kid: test",
                    found: status == 0 ? output.prefix { $0 != "\n" }.description : output), "\(output)")
            try daemon.sign(cap: 20 + index)
            try secret.write(toFile: signing, atomically: true, encoding: .utf8)
        }
        try spoil(signing) { $0 + $0 }
        let (status, output) = try run(try Programs.path("fpx-authority"), ["keys", "show", signing])
        #expect(
            Field.row(
                "licence.1", "two keys in one file", expected: "refused, \(signing)",
                found: status == 1 && output.contains("\(signing): found 2 blocks of PEM") ? "refused, \(signing)" : output))
    }

    private func folderOfKey(_ daemon: DaemonControl) -> String { daemon.folder.path + "/test.key" }

    /// The way to the authority: its certificate and key, the authority that a unit trusts, and the account key.
    @Test func certificatesAndAccountKeysAreTheSame() throws {
        let folder = try TemporaryFolder()
        let certificates = try Certificates.shared.get()
        func spoilt(_ name: String) throws -> String {
            let text = try String(contentsOfFile: certificates.path(name), encoding: .utf8)
            try folder.write(Spoilt.mark + "Subject: what the mail said\r\n\r\n" + text.replacing("\n", with: "\r\n"), to: name)
            return folder.path + "/" + name
        }
        let authority = try AuthorityControl(certificate: try spoilt("server.pem"), key: try spoilt("server.key"))
        let account = try String(contentsOfFile: authority.folder.path + "/account", encoding: .utf8)
        try (Spoilt.mark + account.replacing("\n", with: " \r\n\r\n"))
            .write(toFile: authority.folder.path + "/account", atomically: true, encoding: .utf8)
        let daemon = try DaemonControl(authority: authority, flags: ["--authority-ca", try spoilt("ca.pem")])
        let found = try daemon.eventualState("Active")
        #expect(
            Field.row(
                "licence.1", "authority's certificate, key and CA, account key: mark, text, CRLF", expected: "Active",
                found: found),
            "\(daemon.log)")
    }
}

/// The state that `commit` tells.
private func state(in output: String) -> String {
    output.firstMatch(of: /License state: (\S+)/).map { String($0.1) } ?? output
}

extension DaemonControl {
    /// The number behind a label of `diagnose wad license detail`.
    func figures(of label: String) throws -> Int {
        let text = try fpx("diagnose", "wad", "license", "detail")
        let line = text.split(separator: "\n").first { $0.hasPrefix(label + ": ") }
        return line.flatMap { Int($0.dropFirst(label.count + 2)) } ?? -1
    }

    /// The licence's state, once it is that or ten seconds are over.
    func eventualState(_ state: String, within seconds: Double = 10) throws -> String {
        var found = ""
        _ = try eventually(within: seconds) {
            let text = try fpx("get", "system", "status")
            found = text.firstMatch(of: /License: (\S+),/).map { String($0.1) } ?? text
            return found == state
        }
        return found
    }
}
