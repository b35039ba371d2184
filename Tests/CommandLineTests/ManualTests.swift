// The manual says what the program does.

import ControlAPI
import Foundation
import Testing

@testable import fpx

@Suite struct ManualTests {
    private let manual: String
    private let daemonsManual: String

    init() throws {
        func read(_ name: String) throws -> String {
            let tests = URL(filePath: #filePath).deletingLastPathComponent()
            return try String(contentsOf: tests.appending(path: "../../docs/operations/\(name)"), encoding: .utf8)
        }
        manual = try read("fpx.md")
        daemonsManual = try read("fpxd.md")
    }

    /// A heading for each command, in the order of the table, and no other.
    @Test func listsTheCommands() {
        let headings = manual.split(separator: "\n").filter { $0.hasPrefix("### `") }.map {
            $0.dropFirst(5).prefix { $0 != "`" }
        }
        #expect(headings.map(String.init) == CommandTable.commands.filter { $0.mode == .top }.map(\.usage))
        let rows = manual.split(separator: "\n").filter { $0.hasPrefix("| `") }.map { $0.dropFirst(3).prefix { $0 != "`" } }
        #expect(rows.map(String.init) == CommandTable.commands.filter { $0.mode == .configuration }.map(\.usage))
    }

    /// The examples are the output for the samples of these tests.
    @Test func showsRealOutput() throws {
        let examples = [
            Text.status(Samples.status()), Text.performance(Samples.performance), Text.events(Samples.events),
            try Text.seatsInDetail(Samples.seats()), Text.seats(Samples.seats()), Text.statistics(Samples.statistics),
            Text.license(Samples.license()), try JSONLine.hardware(Samples.hardware),
            try JSONLine.usage(Samples.usage), Text.renewal(Samples.renewal),
            Text.section(try Samples.configuration().section("system global")), Text.configuration(Samples.configuration()),
            Text.sessions(SessionsReport(total: 1, sessions: [Samples.sessions.sessions[0]])),
            Text.cleared(SessionsCleared(cleared: 1)), Text.removed(MemberRemoved(serial: "FPXMEMB03", group: "lab")),
            Text.commit(Samples.commit), Text.fabric(Samples.sharing),
            Text.cluster(Samples.cluster), Text.sharing(Samples.sharing), try Text.ledger(Samples.sharing, isAligned: false),
            try Text.ledger(Samples.sharing(role: .member, viewer: "FPXMEMB02"), isAligned: false),
            try Text.seatsInHA(Samples.cluster, Samples.summary),
            Text.section(try Samples.configuration(["status": "enable", "group-name": "lab"]).section("system csf")),
            Text.section(try Samples.configuration().section("system ha")),
            Text.section(try Samples.configuration().section("system sharing")),
        ]
        for example in examples { #expect(manual.contains("\n```\n" + example + "```"), "\(example)") }
    }

    /// The samples are of a daemon that can be: its settings, their defaults and its files are those of fpxd's manual, whose
    /// table the tests of the settings hold against the settings themselves.
    @Test func samplesAreOfTheRealSettings() throws {
        let rows = daemonsManual.split(separator: "\n").filter { $0.hasPrefix("| `") && $0.count(where: { $0 == "|" }) == 5 }
            .map { $0.split(separator: "|").prefix(2).map { $0.trimmingCharacters(in: [" ", "`"]) } }
            .map { $0.map { $0 == "none" ? "" : $0 } }
        let sections = Samples.configuration().sections
        let prefixes = ["system csf": "csf-", "system ha": "ha-", "system sharing": "sharing-"]
        let settings = sections.flatMap { section in
            section.settings.map { [(prefixes[section.path] ?? "") + $0.name, $0.defaultValue] }
        }
        #expect(!rows.isEmpty && settings == rows)
        #expect(daemonsManual.contains("`log-level`, `session-warning`, `usage-report`) are changed at once by"))
        #expect(rows.prefix(4).map(\.[0]) == ["license-overlimit", "log-level", "session-warning", "usage-report"])
        #expect(sections.map(\.path) == ["system global", "system csf", "system ha", "system sharing", "system daemon"])
        #expect(sections.map { $0.settings.filter(\.changeable).count } == [4, 6, 3, 9, 0])
        let status = Samples.status()
        #expect(rows.contains(["segment", status.segment]))
        #expect(daemonsManual.contains("`\(status.configurationFile ?? "none")`"))
    }
}
