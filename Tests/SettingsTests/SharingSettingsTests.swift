import Foundation
import SeatSharing
import TestSupport
import Testing

@testable import Settings

@Suite struct SharingSettingsTests {
    private func settings(
        _ text: String = "", flags: [String: String] = [:], environment: [String: String] = [:]
    ) throws(SettingsError) -> Settings {
        try Settings(
            defaults: Settings.Defaults(home: nil), file: try SettingsFile(path: "/etc/fpx/fpxd.yaml", text: text),
            flags: flags, environment: environment)
    }

    private static let fabric = "csf-status: enable\ncsf-group-name: lab\nsharing-endpoints: http://e:2379\n"
    private static let cluster = "ha-mode: 7.2\nha-group-name: pair\nsharing-endpoints: http://e:2379\n"

    private static let tooMany = (1...17).map { "http://e\($0)" }.joined(separator: ",")
    private static let longest = String(repeating: "a", count: 64)

    private static let allowed: [(String, [String])] = [
        ("csf-preferred-seats", ["0", "5", "5/5/5", "0/10/1000000"]),
        ("csf-member-preferred-seats", ["", "FPX1 5", "FPX1 5/5/5, FPX2 0/1/2", "a.b-c_d 1,e 2"]),
        (
            "sharing-endpoints",
            ["", "http://e:2379", "https://192.0.2.1:2379,https://e", "http://[2001:db8::1]:2379", "http://a:1 , http://b:1/"]
        ),
        ("sharing-reclaim-after", ["never", "10m", "1s", "365d"]),
        ("sharing-reclaim", ["time", "ack-only", "recovery 14d", "recovery 1s", "recovery 365d"]),
        ("sharing-term", ["3", "30", "3600"]), ("csf-group-name", ["", "lab", longest]),
        ("ha-mode", ["standalone", "pre-7.2", "7.2"]), ("sharing-ca", ["", "/etc/fpx/ca.pem"]),
    ]

    @Test(arguments: allowed)
    func whatIsAllowed(_ name: String, _ values: [String]) throws {
        let setting = try #require(Setting.named(name))
        for value in values { #expect(setting.accepts(value), "\(name): \(value)") }
    }

    private static let refused: [(String, [String])] = [
        ("csf-preferred-seats", ["", "-1", "+1", "05", "1/2", "1/2/3/4", "1/2/", " 1", "1000001", "1,2,3", "x"]),
        (
            "csf-member-preferred-seats",
            ["FPX1", "FPX1 5/5", "FPX1 5,", ",", "FPX1 1, FPX1 2", "FP/X 1", "FPX1 1 2", "FPX1 -1", "\u{e9} 1"]
        ),
        (
            "sharing-endpoints",
            [
                "e:2379", "ftp://e", "http://", "http://e:0", "http://e:65536", "http://e/v3", "http://u:p@e", "http://e?x",
                "http://e#x", "http://e,", "http://e,http://e", "http://e,https://f", "http://a b", "http://e:x",
                tooMany,
            ]
        ),
        ("sharing-reclaim-after", ["", "10", "0s", "366d", "10 m", "+1m", "m", "Never"]),
        ("sharing-reclaim", ["", "never", "recovery", "recovery 14", "recovery 0d", "recovery  1d", "recovery 366d", "Time"]),
        ("sharing-term", ["2", "3601", "", "30s", "3e1"]),
        ("csf-group-name", ["a b", "a/b", longest + "a"]),
        ("ha-mode", ["", "7.4", "a-p"]), ("csf-role", ["primary"]), ("ha-role", ["root"]), ("csf-status", ["true"]),
        ("csf-division", ["fair"]), ("sharing-ca", ["ca.pem"]), ("sharing-user", ["a b"]),
    ]

    @Test(arguments: refused)
    func whatIsNot(_ name: String, _ values: [String]) throws {
        let setting = try #require(Setting.named(name))
        for value in values {
            let error = #expect(throws: SettingsError.self, "\(value)") { try settings(flags: [name: value]) }
            #expect(
                error == .value(origin: "flag --\(name)", found: value, expected: setting.expectation), "\(name): \(value)")
        }
    }

    private static let apart: [(String, String)] = [
        (
            fabric + "ha-mode: 7.2\n",
            "found csf-status enable and ha-mode 7.2, expected one of them: a unit shares by fabric or in a cluster"
        ),
        (
            "csf-status: enable\nsharing-endpoints: http://e\n",
            "found csf-status enable without csf-group-name, expected the name of the pool, the same on all its units"
        ),
        (
            "csf-status: enable\ncsf-group-name: lab\n",
            "found csf-status enable without sharing-endpoints, expected the addresses of etcd: "
                + "set endpoints in config system sharing before"
        ),
        (
            "ha-mode: pre-7.2\nsharing-endpoints: http://e\n",
            "found ha-mode pre-7.2 without ha-group-name, expected the name of the pool, the same on all its units"
        ),
        (
            "ha-mode: pre-7.2\nha-group-name: pair\n",
            "found ha-mode pre-7.2 without sharing-endpoints, expected the addresses of etcd: "
                + "set endpoints in config system sharing before"
        ),
        (
            fabric + "csf-preferred-seats: 5\n",
            "found csf-preferred-seats 5 and csf-role member, expected csf-role root: "
                + "only the root's preferred seats and division apply to the fabric"
        ),
        (
            "csf-member-preferred-seats: FPX1 5\n",
            "found csf-member-preferred-seats FPX1 5 and csf-role member, expected csf-role root: "
                + "only the root's preferred seats and division apply to the fabric"
        ),
        (
            "csf-division: proportional\n",
            "found csf-division proportional and csf-role member, expected csf-role root: "
                + "only the root's preferred seats and division apply to the fabric"
        ),
        ("sharing-user: fpx\n", "found sharing-user fpx without sharing-password-file, expected both or neither"),
        ("sharing-password-file: /p\n", "found sharing-password-file /p without sharing-user, expected both or neither"),
        ("sharing-certificate: /c\n", "found sharing-certificate /c without sharing-private-key, expected both or neither"),
        ("sharing-private-key: /k\n", "found sharing-private-key /k without sharing-certificate, expected both or neither"),
        (
            "sharing-ca: /c\nsharing-endpoints: http://e\n",
            "found sharing-ca /c and sharing-endpoints http://e, expected endpoints with https: "
                + "http uses no certificates"
        ),
    ]

    @Test(arguments: apart)
    func whatDoesNotGoTogether(_ text: String, _ message: String) throws {
        let error = try #require(#expect(throws: SettingsError.self) { try settings(text) })
        // In front stands where: each setting that the file has.
        let places = try #require("\(error)".hasSuffix(": " + message) ? "\(error)".dropLast(message.count + 2) : nil)
        #expect(places.split(separator: ", ").allSatisfy { $0.wholeMatch(of: /\/etc\/fpx\/fpxd.yaml:\d+/) != nil }, "\(error)")
        func isSame(_ other: (any Error)?, _ place: String) -> Bool {
            guard let other else { return false }
            return "\(other)".hasPrefix(place) && "\(other)".hasSuffix(": " + message)
        }
        // Wherever the values come from, and also when the file is read again.
        let (path, remove) = try temporaryFile("")
        defer { remove() }
        let running = try Settings(
            defaults: Settings.Defaults(home: nil), file: try SettingsFile.read(path), flags: [:], environment: [:])
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        #expect(isSame(#expect(throws: SettingsError.self) { try running.reloaded() }, path + ":"))
        let values = try SettingsFile(path: "", text: text).values
        let variables = values.map { (Setting.named($0.key)?.variable ?? "", $0.value) }
        #expect(
            isSame(
                #expect(throws: SettingsError.self) { try settings(environment: Dictionary(uniqueKeysWithValues: variables)) },
                "environment variable FPX_"))
    }

    @Test func whatGoesTogether() throws {
        for text in [
            Self.fabric, Self.cluster, Self.fabric + "csf-role: root\ncsf-preferred-seats: 5\ncsf-division: proportional\n",
            "csf-preferred-seats: 0\n", "sharing-user: u\nsharing-password-file: /p\n",
            "sharing-endpoints: https://e\nsharing-ca: /c\nsharing-certificate: /d\nsharing-private-key: /k\n",
            Self.cluster + "csf-role: root\n",
        ] { #expect(throws: Never.self, "\(text)") { try settings(text) } }
    }

    /// As an operator changes it: one block after another, each judged as a whole.
    @Test func blocksOfTheCommandLine() throws {
        let (path, remove) = try temporaryFile("# ours\n")
        defer { remove() }
        var settings = try Settings(
            defaults: Settings.Defaults(home: nil), file: try SettingsFile.read(path), flags: [:], environment: [:])
        func change(_ changes: [String: String?]) throws {
            settings = try settings.changing(changes)
            try settings.save()
        }
        let fabric = ["csf-status": "enable", "csf-group-name": "lab", "csf-role": "root", "csf-preferred-seats": "5/5/5"]
        let early = #expect(throws: SettingsError.self) { try change(fabric) }
        #expect("\(try #require(early))".hasSuffix("set endpoints in config system sharing before"))
        #expect(try SettingsFile.read(path).values == [:], "all or none")
        try change(["sharing-endpoints": "http://e:2379", "sharing-reclaim": "recovery 14d"])
        try change(fabric)
        // All of it is in force, as it would be after a restart.
        #expect(settings.awaitingRestart == [])
        let restarted = try Settings(
            defaults: Settings.Defaults(home: nil), file: try SettingsFile.read(path), flags: [:], environment: [:])
        let unit = try #require(try settings.unitConfiguration(serial: "FPX1"))
        #expect(unit.role == .root && unit.cluster == "lab" && settings.endpoints == ["http://e:2379"])
        #expect(try restarted.unitConfiguration(serial: "FPX1") == unit)
        #expect(throws: SettingsError.self) { try change(["sharing-endpoints": nil]) }
        #expect(throws: SettingsError.self) { try change(["csf-role": "member"]) }
        #expect(throws: SettingsError.self) { try change(["ha-mode": "7.2", "ha-group-name": "pair"]) }
        try change(["csf-status": nil, "csf-role": nil, "csf-preferred-seats": nil, "csf-group-name": nil])
        try change(["sharing-endpoints": nil, "sharing-reclaim": nil])
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "# ours\n")
        #expect(try settings.unitConfiguration(serial: "FPX1") == nil)
    }

    @Test func whatAUnitIsTold() throws {
        #expect(try settings().unitConfiguration(serial: "FPX1") == nil)
        #expect(try settings().endpoints == [])
        let root = try settings(
            Self.fabric + "csf-role: root\ncsf-preferred-seats: 5\ncsf-member-preferred-seats: FPX2 1/2/3, FPX3 4\n"
                + "csf-division: proportional\nsharing-reclaim: recovery 2h\nsharing-term: 60\nsharing-reclaim-after: never\n")
        #expect(
            try root.unitConfiguration(serial: "FPX1")
                == UnitConfiguration(
                    cluster: "lab", serial: "FPX1", mode: .fabric, role: .root, policy: .recovery(7200 * .second),
                    preferences: Preferences(
                        global: Seats(5), members: ["FPX2": Seats(furl: 1, fnbi: 2, fcas: 3), "FPX3": Seats(4)],
                        division: .proportional),
                    term: 60 * .second, reclaimAfter: .forever))
        #expect(
            try settings(Self.fabric).unitConfiguration(serial: "FPX1")
                == UnitConfiguration(
                    cluster: "lab", serial: "FPX1", mode: .fabric, role: .member, reclaimAfter: 600 * .second))
        for (word, mode) in [("7.2", SharingMode.ha72), ("pre-7.2", .haBefore72)] {
            let text = Self.cluster.replacing("7.2", with: word) + "ha-role: primary\nsharing-reclaim: ack-only\n"
            #expect(
                try settings(text).unitConfiguration(serial: "FPX1")
                    == UnitConfiguration(
                        cluster: "pair", serial: "FPX1", mode: mode, role: .primary, policy: .acknowledgedOnly,
                        reclaimAfter: 600 * .second))
        }
        let error = #expect(throws: SharingError.self) { try root.unitConfiguration(serial: "a/b") }
        #expect(error.map { "\($0)" }?.hasPrefix("serial: found \"a/b\"") == true)
        #expect(try settings("sharing-endpoints: 'https://a:2379/, https://b'\n").endpoints == ["https://a:2379", "https://b"])
    }

    /// A section calls its settings without what their names begin with.
    @Test func sections() {
        #expect(Setting.Section.allCases.flatMap(\.settings).map(\.name) == Setting.all.map(\.name))
        for section in Setting.Section.allCases {
            #expect(Set(section.settings.map(\.nameInSection)).count == section.settings.count)
            for setting in section.settings { #expect(section.setting(setting.nameInSection)?.name == setting.name) }
        }
        #expect(Setting.Section.fabric.setting("status")?.name == "csf-status")
        #expect(Setting.Section.fabric.setting("csf-status") == nil)
        #expect(Setting.Section.ha.settings.map(\.nameInSection) == ["mode", "role", "group-name"])
    }

    private func temporaryFile(_ text: String) throws -> (path: String, remove: () -> Void) {
        let path = FileManager.default.temporaryDirectory.path + "/fpx-settings.\(UInt32.random(in: 0 ... .max)).yaml"
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        return (path, { unlink(path) })
    }
}
