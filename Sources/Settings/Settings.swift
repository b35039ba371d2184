// Settings: the values in force. Flags outrank the environment, that outranks the file, and that the defaults.

import Configuration
import Foundation

/// All settings with their values, from wherever they come.
public struct Settings: Sendable {
    /// Where the daemon looks when nothing is said.
    public struct Defaults: Sendable {
        public let configurationFile: String
        public let values: [String: String]

        /// - Parameter home: a folder for everything but the segment; nil: the places of the system.
        public init(home: String?) {
            var values = [
                Setting.overLimit: "bypass", Setting.logLevel: "info", Setting.sessionWarning: "80",
                Setting.usageReport: "enable", Setting.authority: "", Setting.authorityCA: "", Setting.authorityCertificate: "",
                Setting.authorityPrivateKey: "", Setting.csfStatus: "disable", Setting.csfRole: "member",
                Setting.csfGroupName: "", Setting.csfPreferredSeats: "0/0/0", Setting.csfMemberPreferredSeats: "",
                Setting.csfDivision: "max-min", Setting.haMode: "standalone", Setting.haRole: "secondary",
                Setting.haGroupName: "", Setting.sharingEndpoints: "", Setting.sharingUser: "",
                Setting.sharingPasswordFile: "", Setting.sharingCA: "", Setting.sharingCertificate: "",
                Setting.sharingPrivateKey: "", Setting.sharingReclaim: "time", Setting.sharingReclaimAfter: "10m",
                Setting.sharingTerm: "30",
            ]
            if let home {
                // Counters belong in memory: the folder may lie on a disk.
                let name = home.split(separator: "/").joined(separator: "-")
                values[Setting.segment] = "/dev/shm/fpx-\(name.suffix(200))/segment"
                values[Setting.stateFolder] = home + "/state"
                values[Setting.runFolder] = home + "/run"
                values[Setting.haproxyFolder] = home + "/run"
                values[Setting.group] = ""
                values[Setting.licenseFile] = home + "/license.lic"
                values[Setting.trustedKeys] = home + "/keys"
                values[Setting.logFile] = home + "/fpxd.log"
                values[Setting.accountKeyFile] = home + "/account.key"
                configurationFile = home + "/fpxd.yaml"
            } else {
                values[Setting.segment] = "/dev/shm/fpx/segment"
                values[Setting.stateFolder] = "/var/lib/fpx"
                values[Setting.runFolder] = "/run/fpx"
                values[Setting.haproxyFolder] = "/run/fpx"
                values[Setting.group] = "fpx"
                values[Setting.licenseFile] = "/etc/fpx/license.lic"
                values[Setting.trustedKeys] = "/etc/fpx/keys"
                values[Setting.logFile] = "/var/log/fpxd.log"
                values[Setting.accountKeyFile] = "/etc/fpx/account.key"
                configurationFile = "/etc/fpx/fpxd.yaml"
            }
            self.values = values
        }
    }

    public private(set) var file: SettingsFile
    public let defaults: Defaults
    /// Values that outrank the file, with where each comes from.
    private let overrides: [String: (value: String, origin: String)]
    /// Values of what cannot be changed while fpxd runs, as they were at the start: they stay in force until the next one.
    private var fixed: [String: String] = [:]

    /// - Parameters:
    ///   - flags: settings given as flags.
    ///   - environment: all variables of the process; those named `FPX_` and a setting count.
    public init(
        defaults: Defaults, file: SettingsFile, flags: [String: String], environment: [String: String]
    ) throws(SettingsError) {
        self.defaults = defaults
        self.file = file
        let layers: [(reader: ConfigReader, origin: (Setting) -> String)] = [
            (
                ConfigReader(
                    provider: InMemoryProvider(
                        values: Dictionary(
                            uniqueKeysWithValues: flags.map {
                                (AbsoluteConfigKey(["fpx", $0.key]), ConfigValue(.string($0.value), isSecret: false))
                            }))), { "flag --\($0.name)" }
            ),
            (
                ConfigReader(provider: EnvironmentVariablesProvider(environmentVariables: environment)),
                { "environment variable \($0.variable)" }
            ),
        ]
        var overrides: [String: (value: String, origin: String)] = [:]
        for layer in layers {
            for setting in Setting.all where overrides[setting.name] == nil {
                guard let value = layer.reader.string(forKey: ConfigKey(["fpx", setting.name])) else { continue }
                let origin = layer.origin(setting)
                guard setting.accepts(value) else {
                    throw .value(origin: origin, found: value, expected: setting.expectation)
                }
                overrides[setting.name] = (value, origin)
            }
        }
        self.overrides = overrides
        for setting in Setting.all where !setting.changeable { fixed[setting.name] = configured(setting.name) }
        try checkTogether()
    }

    /// Variables that begin as settings do and are none, a sentence each: a typing error would else be a default.
    ///
    /// - Parameter environment: all variables of the process.
    public static func unknownVariables(in environment: [String: String]) -> [String] {
        // Of fpxd's home, and of `fpx`.
        let known = Setting.all.map(\.variable) + ["FPX_HOME", "FPX_SOCKET"]
        return environment.keys.filter { $0.hasPrefix("FPX_") && !known.contains($0) }.sorted().map { name in
            let near = known.min { SettingsFile.distance(name, $0) < SettingsFile.distance(name, $1) }
            let hint = near.flatMap { SettingsFile.distance(name, $0) <= 3 ? "; did you mean \($0)?" : nil } ?? ""
            return "environment variable \(name): found none of that name, expected one of a setting, so it is ignored\(hint)"
        }
    }

    /// The value in force.
    public subscript(name: String) -> String { fixed[name] ?? configured(name) }

    /// The value from the next start on.
    public func configured(_ name: String) -> String {
        overrides[name]?.value ?? file.values[name] ?? defaults.values[name] ?? ""
    }

    /// Names of settings whose value in force is not the configured one: that takes effect at the next start.
    public var awaitingRestart: [String] { Setting.all.map(\.name).filter { self[$0] != configured($0) } }

    public func number(_ name: String) -> Int { Int(self[name]) ?? 0 }

    /// Whether the operator has given it a value anywhere.
    public func isSet(_ name: String) -> Bool { overrides[name] != nil || file.values[name] != nil }

    /// Where the operator has given it a value: a flag, a variable, or `FILE:LINE`; nil: nowhere.
    public func place(_ name: String) -> String? {
        overrides[name]?.origin ?? file.line(of: name).map { "\(file.path):\($0)" }
    }

    /// The same with the file read again.
    public func reloaded() throws(SettingsError) -> Settings {
        var settings = self
        settings.file = try SettingsFile.read(file.path)
        try settings.checkTogether()
        return settings
    }

    /// The same with some settings changed (nil: back to the default), not saved yet.
    ///
    /// - Throws: also when the file is not the one that was read: what somebody has written there must not be lost.
    public func changing(_ changes: [String: String?]) throws(SettingsError) -> Settings {
        for (name, value) in changes {
            guard let setting = Setting.named(name) else { throw .name(found: name, message: SettingsFile.unknown(name)) }
            guard setting.changeable else {
                throw .name(
                    found: name, message: "cannot be changed while fpxd runs: write it to \(file.path) and restart fpxd")
            }
            if let origin = overrides[name]?.origin {
                throw .name(found: name, message: "is set by \(origin), which outranks \(file.path): change it there")
            }
            if let value, !setting.accepts(value) {
                throw .value(origin: name, found: value, expected: setting.expectation)
            }
        }
        guard try SettingsFile.read(file.path) == file else {
            throw .file(path: file.path, reason: "changed since it was read: commit first")
        }
        var settings = self
        settings.file = try file.changing(changes)
        try settings.checkTogether(isSaved: false)
        return settings
    }

    /// - Returns: as `SettingsFile.write`.
    @discardableResult
    public func save() throws(SettingsError) -> String? { try file.write() }
}
