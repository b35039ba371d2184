// Dates as contracts have them: the last day is included, and what is shown is the day that was written.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldDate {}
}

extension EndToEnd.FieldDate {
    private var today: String { String(Date.now.formatted(.iso8601).prefix(10)) }

    @Test func whatIsPaidUntilTodayHoldsToday() throws {
        let authority = try AuthorityControl()
        let day = today
        let changed = try authority.command("subscription", "change", "1", "--paid-until", day)
        #expect(
            Field.row(
                "date.4", "subscription change --paid-until TODAY", expected: "subscription 1 is paid until TODAY",
                found: changed.trimmingCharacters(in: .whitespacesAndNewlines).replacing(day, with: "TODAY")))
        let list = try authority.command("subscription", "list").split(separator: "\n").last ?? ""
        #expect(
            Field.row(
                "date.4", "subscription list", expected: "TODAY",
                found: String(list.split(whereSeparator: \.isWhitespace)[3]).replacing(day, with: "TODAY")))
        let daemon = try DaemonControl(authority: authority)
        #expect(
            Field.row(
                "date.4", "a unit asks on the last paid day", expected: "Active", found: try daemon.eventualState("Active")),
            "\(daemon.log)")
        let status = try daemon.fpx("get", "system", "status")
        let shown = status.firstMatch(of: /expiry date (\S+)/).map { String($0.1) } ?? status
        #expect(
            Field.row("date.4", "get system status", expected: "TODAY", found: shown.replacing(day, with: "TODAY")))
        let license = try daemon.fpx("show", "license", "--json")
        let date = license.firstMatch(of: /"expiration_date":"([^"]*)"/).map { String($0.1) } ?? license
        #expect(Field.row("date.4", "show license --json", expected: "TODAY", found: date.replacing(day, with: "TODAY")))
        let row = try authority.command("license", "list").split(separator: "\n").last ?? ""
        let lease = row.split(whereSeparator: \.isWhitespace).last.map(String.init) ?? ""
        #expect(
            Field.row("date.4", "license list: the lease", expected: "TODAY", found: lease.replacing(day, with: "TODAY")))
    }

    @Test func aLeaseThatExpiresTodayHoldsToday() throws {
        let daemon = try DaemonControl(cap: nil)
        let day = today
        try daemon.sign(cap: 5, "--expires", day)
        #expect(
            Field.row("date.4", "license sign --expires TODAY", expected: "Active", found: try daemon.eventualState("Active")))
        let line = try daemon.fpx("show", "license")
        #expect(
            Field.row(
                "date.4", "show license", expected: "Production license for 2000 mbits valid until TODAY",
                found: line.trimmingCharacters(in: .whitespacesAndNewlines).replacing(day, with: "TODAY")))
    }

    /// An hour before the end of the last day, and a minute after it.
    @Test(arguments: [
        (["--days", "3650", "--paid-until", "2030-06-15"], "Paid-until-passed", "paid until 2030-06-15,"),
        (["--expires", "2030-06-15", "--paid-until", "2030-06-15"], "Paid-until-passed", "paid until 2030-06-15,"),
        (["--expires", "2030-06-10", "--paid-until", "2030-06-15"], "Paid-until-passed", "paid until 2030-06-15,"),
        (["--expires", "2030-06-15", "--paid-until", "2031-06-15"], "Expired", "a lease until 2030-06-16T00:00:00Z,"),
        (["--expires", "2030-06-15"], "Expired", "a lease until 2030-06-16T00:00:00Z,"),
        (
            ["--expires", "2030-06-15", "--paid-until", "2030-06-15", "--issuer-type", "offline"], "Offline-expired",
            "a lease until 2030-06-15,"
        ),
    ])
    func theLastDayEndsAtMidnight(_ terms: [String], _ state: String, _ reason: String) throws {
        let situation = terms.joined(separator: " ") + ", a moment after that day"
        let clock = try FakeClock()
        try clock.set("2030-06-15T23:00:00Z")
        let daemon = try DaemonControl(cap: nil, launcher: clock.launcher)
        try daemon.sign(cap: 5, terms)
        let begins = terms.contains("2030-06-10") ? "Expired" : terms.contains("offline") ? "Offline-active" : "Active"
        let before = try daemon.eventualState(begins)
        #expect(Field.row("date.4", situation.replacing("a moment after", with: "late on"), expected: begins, found: before))
        try clock.set("2030-06-16T00:01:00Z")
        let after = try daemon.eventualState(state)
        #expect(Field.row("date.4", situation, expected: state, found: after))
        #expect(try daemon.fpx("get", "system", "status").contains(reason))
    }
}

/// The wall clock of a program: it shows when a file was changed, and stands still.
private struct FakeClock {
    private let folder: TemporaryFolder
    private var file: String { folder.path + "/clock" }
    var launcher: [String] {
        [
            "/usr/bin/env", "FAKETIME_FOLLOW_FILE=\(file)", "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_NO_CACHE=1",
            "faketime", "-f", "%",
        ]
    }

    init() throws {
        folder = try TemporaryFolder()
        try folder.write("", to: "clock")
    }

    func set(_ time: String) throws {
        let date = try Date(time, strategy: .iso8601)
        try FileManager.default.setAttributes([.modificationDate: date], ofItemAtPath: file)
    }
}
