// The manual says what the program does.

import Foundation
import Testing

@testable import fpx

@Suite struct ManualTests {
    private let manual: String

    init() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        manual = try String(contentsOf: root.appendingPathComponent("docs/operations/fpx.md"), encoding: .utf8)
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
            Text.section(try Samples.configuration().global),
        ]
        for example in examples { #expect(manual.contains("\n" + example + "```"), "\(example)") }
    }
}
