// What happens to fpxd's folders: sockets, run-folder and state that are removed, spoilt or exchanged, while it runs and while it
// does not.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldFolderTests {}
}

extension DaemonControl {
    fileprivate var stateFolder: String { home + "/state" }

    /// The lines of `get system status` that a person must look at.
    fileprivate func troubles() throws -> [String] {
        try fpx("get", "system", "status").split(separator: "\n").filter { $0.hasPrefix("Trouble: ") }
            .map { String($0.dropFirst(9)) }
    }

    /// In one step: while files are removed one after the other fpxd may write some of them anew.
    fileprivate func removeState() throws {
        let away = folder.path + "/away"
        try #require(rename(stateFolder, away) == 0)
        try FileManager.default.removeItem(atPath: away)
    }

    fileprivate func unitID() throws -> String {
        struct Report: Decodable { var unit_id: String? }
        let text = try fpx("show", "license_hardware_data", "--json")
        return try JSONDecoder().decode(Report.self, from: Data(text.utf8)).unit_id ?? "none"
    }

    fileprivate func hasEvent(_ text: String) throws -> Bool {
        try eventually(within: 20) { try fpx("get", "system", "events").contains(text) }
    }

    /// What is in the files of these names in the state folder.
    fileprivate func state(_ names: [String]) -> [String: Data] {
        Dictionary(
            uniqueKeysWithValues: names.map { ($0, (try? Data(contentsOf: URL(filePath: stateFolder + "/" + $0))) ?? Data()) })
    }
}

extension EndToEnd.FieldFolderTests {
    private func row(_ point: String, _ situation: String, _ expected: String, _ found: String) {
        #expect(Field.row("folders.\(point)", situation, expected: expected, found: found))
    }

    private static let questionOfStatus = "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"

    // MARK: Names and values that are none

    @Test func emptyNamesAndUnknownVariables() throws {
        let folder = try TemporaryFolder()
        let fpxd = try Programs.path("fpxd")
        for (situation, command, expected) in [
            ("--home ''", "\(fpxd) -t --home ''", "flag --home: found \"\", expected a path"),
            ("--config ''", "\(fpxd) -t --home \(folder.path) --config ''", "flag --config: found \"\", expected a path"),
            ("FPX_HOME=", "FPX_HOME= \(fpxd) -t", "environment variable FPX_HOME: found \"\", expected a path"),
        ] {
            let (status, output) = try run("/bin/sh", ["-c", command])
            row("8", "fpxd \(situation)", "1, \(expected)", "\(status), \(output.contains(expected) ? expected : output)")
        }
        let (status, output) = try run("/bin/sh", ["-c", "FPX_LOGLEVEL=debug \(fpxd) -t --home \(folder.path)"])
        let expected =
            "environment variable FPX_LOGLEVEL: found none of that name, expected one of a setting, so it is ignored; did you mean "
            + "FPX_LOG_LEVEL?"
        row("8", "FPX_LOGLEVEL=debug", "0, told", "\(status), \(output.contains("[WARNING] " + expected) ? "told" : output)")
    }

    @Test func aMarkBeforeCommandsAndANameOfFpxd() throws {
        let daemon = try DaemonControl()
        let fpx = "\(try Programs.path("fpx")) --socket \(daemon.controlSocket)"
        let (status, output) = try run("/bin/bash", ["-c", "printf '\\xEF\\xBB\\xBFget system status\\r\\n' | \(fpx)"])
        row("8", "commands from a file with a byte order mark", "0", status == 0 ? "0" : "\(status): \(output)")
        let id = "\(try #require(daemon.processID))"
        var names: Set<String> = []
        for line in try daemon.fpx("diagnose", "wad", "session", "stats").split(separator: "\n") {
            let words = line.split(separator: " ").map(String.init)
            if words.count > 6, words[1] == id { names.insert(words[2]) }
        }
        row("8", "what session stats calls fpxd", "fpxd", names.sorted().joined(separator: ", "))
        try daemon.end(by: SIGTERM)
    }
}
