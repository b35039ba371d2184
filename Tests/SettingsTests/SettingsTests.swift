import Foundation
import TestSupport
import Testing

@testable import Settings

@Suite struct SettingsFileTests {
    private func file(_ text: String) throws -> SettingsFile { try SettingsFile(path: "/etc/fpx/fpxd.yaml", text: text) }

    @Test func changesTouchOnlyTheirLines() throws {
        let text = """
            # Ours. Do not touch.
            license-overlimit: bypass   # agreed with the board
            log-file: "/var/log/a # b.log"

            session-warning: 90

            """
        let changed = try file(text).changing(["license-overlimit": "block", "log-level": "debug"])
        #expect(changed.values["license-overlimit"] == "block")
        let folder = FileManager.default.temporaryDirectory.path + "/fpx-settings.\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let path = folder + "/fpxd.yaml"
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        chmod(path, 0o604)
        try SettingsFile.read(path).changing(["license-overlimit": "block", "log-level": "debug", "session-warning": nil])
            .write()
        #expect(
            try String(contentsOfFile: path, encoding: .utf8) == """
                # Ours. Do not touch.
                license-overlimit: block # agreed with the board
                log-file: "/var/log/a # b.log"

                log-level: debug

                """)
        var status = stat()
        stat(path, &status)
        #expect(status.st_mode & 0o777 == 0o604)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["fpxd.yaml"])
    }

    /// Lines end as the operator's editor ended them, also the last one.
    @Test(arguments: ["\n", "\r\n", "\r", "\u{85}", "\u{2028}"])
    func lineEndsStay(end: String) throws {
        let text = ["# ours", "", "log-level: info  # all", "session-warning: 7", "# tail"].joined(separator: end)
        #expect(
            try file(text).changing(["log-level": "debug", "session-warning": nil]).text
                == ["# ours", "", "log-level: debug # all", "# tail"].joined(separator: end))
        #expect(
            try file(text).changing(["license-overlimit": "block"]).text == text + end + "license-overlimit: block" + end)
    }

    @Test func whatCannotBeChangedInPlaceIsRefused() throws {
        for text in ["{license-overlimit: bypass, log-level: info}\n", "log-level:\n  info\nlicense-overlimit: bypass\n"] {
            let error = #expect(throws: SettingsError.self) { try file(text).changing(["log-level": "debug"]) }
            #expect("\(try #require(error))".contains("line of its own"), "\(text)")
        }
    }

    /// Each line on which a setting stands is named, however it is written.
    @Test(arguments: [
        ("log-level: info\n# a\nlog-level: debug\n", 3, "in lines 1 and 3, expected it in one of them"),
        ("\"log-level\": info\r\n'log-level' : info\r\nlog-level: a\r\n", 2, "in lines 1, 2 and 3, expected it in one of them"),
        (
            "---\ngroup: log-level\nlog-level: info\n  # log-level: x\nlog-level: debug", 5,
            "in lines 3 and 5, expected it in one of them"
        ),
        ("{log-level: info, log-level: debug}\n", 1, "more than once, expected it once"),
    ])
    func aSettingThatStandsTwice(_ text: String, _ line: Int, _ message: String) {
        #expect(
            throws: SettingsError.line(
                path: "/etc/fpx/fpxd.yaml", line: line, message: "found setting \"log-level\" \(message)")
        ) {
            try file(text)
        }
    }

    @Test func emptyFilesAreEmpty() throws {
        for text in ["", "\n", "# nothing\n", "---\n"] { #expect(try file(text).values.isEmpty, "\(text)") }
        #expect(try SettingsFile.read("/nonexistent/fpxd.yaml").values.isEmpty)
    }

    /// Whatever values are set in whatever order, the file says what was set, and what was not touched stays.
    @Test func randomChangesAreWhatTheFileSays() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SeededGenerator(seed: seed)
        let values: [String: [String]] = [
            "license-overlimit": ["bypass", "block"], "log-level": ["debug", "info", "warning", "error"],
            "session-warning": ["0", "7", "100"], "log-file": ["", "/a b/c\"d.log", "/x#y", "/x #y: z", "/\\n", "/ö/日本"],
            "group": ["", "fpx", "a.b-c_d", "007"], "segment": ["/dev/shm/x", "/dev/shm/'y'"],
            "csf-member-preferred-seats": ["", "FPX1 1/2/3, FPX2 4"], "ha-mode": ["pre-7.2", "7.2"],
            "sharing-endpoints": ["", "http://[::1]:2379,http://e"], "sharing-reclaim": ["time", "recovery 14d"],
        ]
        for _ in 0..<200 {
            let end: Character = ["\n", "\r\n", "\r"].randomElement(using: &random)!
            let head = "# head\(end)\(end)# tail\(end)"
            var current = try file(head)
            var expected: [String: String] = [:]
            for _ in 0..<10 {
                let name = values.keys.sorted().randomElement(using: &random)!
                let value: String? = Bool.random(using: &random) ? values[name]!.randomElement(using: &random)! : nil
                current = try current.changing([name: value])
                expected[name] = value
                #expect(current.values == expected, "seed \(seed)")
                #expect(current.text.hasPrefix(head), "seed \(seed)")
                #expect(current.text.filter(\.isNewline).allSatisfy { $0 == end }, "seed \(seed)")
            }
        }
    }
}

@Suite struct SettingsTests {
    private let defaults = Settings.Defaults(home: nil)

    private func settings(_ text: String = "", flags: [String: String] = [:], environment: [String: String] = [:]) throws
        -> Settings
    {
        try Settings(
            defaults: defaults, file: try SettingsFile(path: "/etc/fpx/fpxd.yaml", text: text), flags: flags,
            environment: environment)
    }

    @Test func flagsOutrankTheEnvironmentThatOutranksTheFile() throws {
        #expect(try settings()["log-level"] == "info")
        #expect(try settings("log-level: error\n")["log-level"] == "error")
        #expect(try settings("log-level: error\n", environment: ["FPX_LOG_LEVEL": "debug"])["log-level"] == "debug")
        #expect(
            try settings(
                "log-level: error\n", flags: ["log-level": "warning"], environment: ["FPX_LOG_LEVEL": "debug"])["log-level"]
                == "warning")
        for setting in Setting.all {
            #expect(setting.accepts(defaults.values[setting.name] ?? "missing"), "\(setting.name)")
            #expect(setting.accepts(Settings.Defaults(home: "/a/b").values[setting.name] ?? "missing"), "\(setting.name)")
        }
    }

    @Test func theManualListsEachSettingWithItsDefaults() throws {
        let manual = try String(
            contentsOf: URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../docs/operations/fpxd.md"),
            encoding: .utf8)
        let rows = manual.split(separator: "\n").filter { $0.hasPrefix("| `") && $0.count(where: { $0 == "|" }) == 5 }.map {
            $0.split(separator: "|").prefix(3).map { $0.trimmingCharacters(in: [" ", "`"]) }
        }
        #expect(rows.map { $0[0] } == Setting.all.map(\.name))
        let home = Settings.Defaults(home: "/H")
        for row in rows {
            let standard = defaults.values[row[0]] ?? ""
            #expect(row[1] == (standard.isEmpty ? "none" : standard), "\(row[0])")
            let value = home.values[row[0]]?.replacing("/H/", with: "H/") ?? ""
            #expect(row[2] == (value.isEmpty ? "none" : value), "\(row[0])")
        }
    }

    @Test func variablesThatAreNoneAreNamed() {
        let sentences = Settings.unknownVariables(in: [
            "FPX_LOGLEVEL": "debug", "FPX_LOG_LEVEL": "debug", "FPX_HOME": "/x", "FPX_SOCKET": "/y", "PATH": "/z", "FPX_X": "",
        ])
        #expect(
            sentences == [
                "environment variable FPX_LOGLEVEL: found none of that name, expected one of a setting, so it is ignored; did "
                    + "you mean FPX_LOG_LEVEL?",
                "environment variable FPX_X: found none of that name, expected one of a setting, so it is ignored",
            ])
    }

    @Test func wrongValuesNameTheirOrigin() {
        let flag = #expect(throws: SettingsError.self) { try settings(flags: ["session-warning": "many"]) }
        #expect(flag.map { "\($0)" } == "flag --session-warning: found \"many\", expected a number from 0 to 100 (percent)")
        let variable = #expect(throws: SettingsError.self) { try settings(environment: ["FPX_LICENSE_OVERLIMIT": ""]) }
        #expect(
            variable.map { "\($0)" } == "environment variable FPX_LICENSE_OVERLIMIT: found \"\", expected bypass or block")
    }

    @Test func whatNeedsARestartStaysAsItIsUntilThen() throws {
        let (path, remove) = try temporaryFile("log-level: info\nlog-file: /a\n")
        defer { remove() }
        var settings = try Settings(defaults: defaults, file: try SettingsFile.read(path), flags: [:], environment: [:])
        try "log-level: debug\nlog-file: /b\n".write(toFile: path, atomically: true, encoding: .utf8)
        for _ in 0..<2 {
            settings = try settings.reloaded()
            #expect(settings["log-level"] == "debug")
            #expect(settings["log-file"] == "/a")
            #expect(settings.awaitingRestart == ["log-file"])
        }
        try "log-file: /a\n".write(toFile: path, atomically: true, encoding: .utf8)
        #expect(try settings.reloaded().awaitingRestart == [])
    }

    @Test func whatOthersHaveWrittenIsNotOverwritten() throws {
        let (path, remove) = try temporaryFile("log-level: info\n")
        defer { remove() }
        let settings = try Settings(defaults: defaults, file: try SettingsFile.read(path), flags: [:], environment: [:])
        for text in ["log-level: info\nsession-warning: 7\n", "log-level: info # now\n", ""] {
            try text.write(toFile: path, atomically: true, encoding: .utf8)
            let error = #expect(throws: SettingsError.self) { try settings.changing(["log-level": "debug"]) }
            #expect(error.map { "\($0)" } == "\(path): changed since it was read: commit first")
            #expect(try settings.reloaded().changing(["log-level": "debug"])["log-level"] == "debug")
        }
    }

    private func temporaryFile(_ text: String) throws -> (path: String, remove: () -> Void) {
        let path = FileManager.default.temporaryDirectory.path + "/fpx-settings.\(UInt32.random(in: 0 ... .max)).yaml"
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        return (path, { unlink(path) })
    }

    @Test func whatIsOutrankedOrFixedCannotBeChanged() throws {
        let settings = try settings(environment: ["FPX_LOG_LEVEL": "debug"])
        for (name, words) in [
            ("log-level", "environment variable FPX_LOG_LEVEL"), ("segment", "restart"),
            ("lisence-overlimit", "license-overlimit"),
        ] {
            let error = #expect(throws: SettingsError.self) { try settings.changing([name: "info"]) }
            #expect(error.map { "\($0)" }?.contains(words) == true, "\(name)")
        }
    }
}
