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

extension DaemonControl {
    /// By which an authority knows it.
    fileprivate var unitID: String {
        get throws {
            try String(contentsOfFile: home + "/state/unit", encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
        }
    }
}
