// The first hour of whoever runs the authority, with units of the real thing.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldFirstHourAuthorityTests {}
}

extension EndToEnd.FieldFirstHourAuthorityTests {
    @Test func seatsThatAreSoldLaterAreDelivered() throws {
        let authority = try AuthorityControl()
        let daemon = try DaemonControl(authority: authority)
        #expect(try daemon.eventualState("Active") == "Active", "\(daemon.log)")
        try authority.command("subscription", "change", "1", "--seats", "60")
        _ = try daemon.fpx("set", "renew_license")
        #expect(
            Field.row(
                "first.1", "subscription change 1 --seats 60, on the unit",
                expected: "Purchased License Seat: 60; Available License Seat: 60; Max Licensed Session: 1500",
                found: try daemon.fpx("diagnose", "wad", "license", "detail").split(separator: "\n").joined(separator: "; ")))
    }

    @Test func theLedgerNamesTheUnit() throws {
        let authority = try AuthorityControl()
        let daemon = try DaemonControl(authority: authority)
        #expect(try daemon.eventualState("Active") == "Active", "\(daemon.log)")
        let unit = try daemon.unitID
        let issued =
            try authority.command("ledger", "list").split(separator: "\n").first { $0.contains("license.issued") } ?? ""
        #expect(
            Field.row(
                "first.10", "ledger list of a first licence, by", expected: "unit UNIT",
                found: (issued.firstMatch(of: /unit \S+/).map { String($0.0) } ?? "").replacing(unit, with: "UNIT")))
    }

    /// The unit's person and the authority's person read the same: which unit, from where, and what to look at.
    @Test func aWrongAccountKeyIsTold() throws {
        let authority = try AuthorityControl()
        let daemon = try DaemonControl(authority: authority)
        #expect(try daemon.eventualState("Active") == "Active", "\(daemon.log)")
        try authority.folder.write("1.no-such-secret\n", to: "account")
        let (status, output) = try daemon.ask("set", "renew_license")
        let told = output.firstMatch(of: /the authority refuses .*/).map { String($0.0) } ?? output
        #expect(
            Field.row(
                "first.4", "a wrong account key, on the unit",
                expected: "1 the authority refuses (unauthorized): unknown account key: check account-key-file",
                found: "\(status) \(told)"))
        let unit = try daemon.unitID
        var line = ""
        _ = eventually {
            line = authority.log.split(separator: "\n").last { $0.contains("Refused") }.map(String.init) ?? ""
            return !line.isEmpty
        }
        let text = line.firstMatch(of: /warning .*/).map { String($0.0) } ?? line
        #expect(
            Field.row(
                "first.4", "a wrong account key, in the authority's log",
                expected: "warning fpx-authority: account=1 address=127.0.0.1 unit=UNIT Refused POST /v1/lease: status 401: "
                    + "unknown account key: check account-key-file", found: text.replacing(unit, with: "UNIT")))
        #expect(!authority.log.contains("no-such-secret"))
    }

    /// A certificate that the unit cannot trust: what to set is in the message.
    @Test func aCertificateThatIsNotTrusted() throws {
        let authority = try AuthorityControl()
        let daemon = try DaemonControl(
            authority: authority, flags: ["--authority-ca", authority.certificates.path("stranger-ca.pem")])
        let (status, output) = try daemon.ask("set", "renew_license")
        #expect(
            Field.row(
                "first.text", "the authority's certificate is not trusted",
                expected: "certificate not trusted: set authority-ca",
                found: output.firstMatch(of: /certificate not trusted: set authority-ca/).map { String($0.0) } ?? output))
        #expect(status == 1)
    }
}

extension EndToEnd.FieldFirstHourAuthorityTests {
    /// Two units on one machine: CPU and memory are the same, the units are not.
    @Test func anOfflineLicenceIsOfOneUnit() throws {
        let authority = try AuthorityControl()
        let units = [try DaemonControl(cap: nil), try DaemonControl(cap: nil)]
        let ids = try units.map { try $0.unitID }
        let keys = try units.map {
            try #require($0.fpx("show", "license_hardware_data").firstMatch(of: /"unit_key":"([^"]+)"/).map { String($0.1) })
        }
        for unit in units {
            for name in try FileManager.default.contentsOfDirectory(atPath: authority.keys) where name.hasSuffix(".pem") {
                try FileManager.default.copyItem(atPath: authority.keys + "/" + name, toPath: unit.home + "/keys/" + name)
            }
        }
        let data = authority.folder.path + "/hw_data.lic"
        try units[0].fpx("show", "license_hardware_data").write(toFile: data, atomically: true, encoding: .utf8)
        func issue(_ data: String) throws -> (token: String, notes: String) {
            let ended = try ChildProcess.run([
                try Programs.path("fpx-authority"), "offline", data, "--subscription", "1", "--database", authority.database,
            ])
            try #require(ended.status == 0, "\(ended)")
            return (ended.output, ended.error)
        }
        let (token, notes) = try issue(data)
        #expect(!notes.contains("warning"), "\(notes)")
        for unit in units { try token.write(toFile: unit.licenseFile, atomically: true, encoding: .utf8) }
        let states = [try units[0].eventualState("Offline-active"), try units[1].eventualState("Other-unit")]
        #expect(
            Field.row(
                "first.6", "an offline licence on its unit and, copied, on another",
                expected: "Offline-active, Other-unit",
                found: states.joined(separator: ", ")))
        let status = try units[1].fpx("get", "system", "status")
        let reason = status.firstMatch(of: /found the unit of key \S+, expected that of key \S+/).map { String($0.0) } ?? status
        #expect(
            Field.row(
                "first.6", "get system status on the other unit",
                expected: "found the unit of key SECOND, expected that of key FIRST",
                found: reason.replacing(keys[0], with: "FIRST").replacing(keys[1], with: "SECOND")))

        // Data of a version that named no unit, and a licence that binds nothing: they run as ever, and it is said where.
        try String(contentsOfFile: data, encoding: .utf8).replacing(#","unit_id":"\#(ids[0])""#, with: "")
            .replacing(#","unit_key":"\#(keys[0])""#, with: "").write(toFile: data, atomically: true, encoding: .utf8)
        let unbound = try issue(data)
        #expect(
            Field.row(
                "first.6", "offline with data that names no unit", expected: "warning",
                found: unbound.notes.contains("warning: \(data) names no unit_id") ? "warning" : unbound.notes))
        try unbound.token.write(toFile: units[1].licenseFile, atomically: true, encoding: .utf8)
        #expect(try units[1].eventualState("Offline-active") == "Offline-active")
        let anywhere = try units[0].authority(
            "license", "sign", "--key", units[0].folder.path + "/test.key", "--customer", "ACME", "--seats", "4",
            "--issuer-type",
            "offline", "--days", "365", "--out", units[0].folder.path + "/anywhere.lic")
        #expect(
            Field.row(
                "first.6", "license sign --issuer-type offline without --hardware", expected: "warning",
                found: anywhere.contains("warning: without --hardware this offline licence runs on any unit until ")
                    ? "warning" : anywhere))
    }
}

extension EndToEnd.FieldFirstHourAuthorityTests {
    /// The authority's disk is lost after a unit was licensed: the backup knows nothing of that unit, and one place is sold.
    @Test func aUnitLicensedAfterTheBackup() throws {
        let authority = try AuthorityControl()
        try authority.command("subscription", "change", "1", "--units", "1")
        let backup = authority.folder.path + "/backup.db"
        try authority.command("backup", backup)
        let unit = try DaemonControl(authority: authority)
        #expect(try unit.eventualState("Active") == "Active", "\(unit.log)")
        _ = try unit.fpx("set", "renew_license")
        let before = try #require(try authority.licenses().first)
        #expect(before.epoch == 2)

        let early = try authority.refusableCommand(["restore", backup])
        #expect(
            Field.row(
                "first.5", "restore while serve runs", expected: "1 a database that is in use",
                found: "\(early.status) "
                    + (early.output.firstMatch(of: /a database that is in use/).map { String($0.0) } ?? early.output)))
        authority.stop()
        try expectEventually("serve has ended") { try authority.refusableCommand(["restore", backup]).status == 0 }
        try authority.start()
        #expect(try authority.licenses().isEmpty)

        // A new unit comes first: the only place is another unit's, though the authority cannot know it.
        let other = try DaemonControl(authority: authority)
        let asked = try other.ask("set", "renew_license")
        #expect(
            Field.row(
                "first.5", "a new unit asks a restored authority", expected: "1 the authority refuses (unavailable)",
                found: "\(asked.status) "
                    + (asked.output.firstMatch(of: /the authority refuses \(\w+\)/).map { String($0.0) } ?? asked.output)))
        let renewed = try unit.ask("set", "renew_license")
        let after = try authority.licenses()
        #expect(
            Field.row(
                "first.5", "a unit that was licensed after the backup renews", expected: "0 ID, epoch 3",
                found: "\(renewed.status) "
                    + after.map { "\($0.id == before.id ? "ID" : $0.id), epoch \($0.epoch)" }.joined(separator: "; ")),
            "\(renewed.output)")
        #expect(try unit.eventualState("Active") == "Active")
        // Who is in charge ends the wait: the place is taken all the same.
        try authority.command("restore", "--hold-days", "0")
        let late = try other.ask("set", "renew_license")
        #expect(
            Field.row(
                "first.5", "the new unit, after the wait", expected: "1 the authority refuses (no_subscription)",
                found: "\(late.status) "
                    + (late.output.firstMatch(of: /the authority refuses \(\w+\)/).map { String($0.0) } ?? late.output)))
        #expect(try authority.licenses().map(\.id) == [before.id])
        #expect(try authority.command("ledger", "verify").contains("entries"))
    }
}

extension DaemonControl {
    /// By which an authority knows it.
    fileprivate var unitID: String {
        get throws {
            try String(contentsOfFile: home + "/state/unit", encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
        }
    }
}
