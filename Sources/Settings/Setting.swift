// Setting: the table of all that can be configured. Files, flags, environment and `fpx config` all go by it.

import Foundation

/// One thing that can be configured.
public struct Setting: Sendable {
    public enum Kind: Sendable {
        case choice([String])
        case number(ClosedRange<Int>, unit: String)
        /// An absolute path; empty: none, where `mayBeEmpty`.
        case path(mayBeEmpty: Bool)
        /// A name of letters, digits, `_`, `.` and `-`; empty: none.
        case name
        /// `https://HOST[:PORT][/PREFIX]`; empty: none.
        case address
    }

    /// In files as it stands, as a flag with `--` before it, in the environment as `FPX_` and capitals with `_` for `-`.
    public let name: String
    public let kind: Kind
    public let help: String
    /// Whether it can be changed while the daemon runs: those form the section `system global`.
    public let changeable: Bool

    public static let overLimit = "license-overlimit"
    public static let logLevel = "log-level"
    public static let sessionWarning = "session-warning"
    public static let usageReport = "usage-report"
    public static let segment = "segment"
    public static let stateFolder = "state-folder"
    public static let runFolder = "run-folder"
    public static let group = "group"
    public static let licenseFile = "license-file"
    public static let trustedKeys = "trusted-keys"
    public static let logFile = "log-file"
    public static let haproxyFolder = "haproxy-folder"
    public static let authority = "authority"
    public static let accountKeyFile = "account-key-file"
    public static let authorityCA = "authority-ca"
    public static let authorityCertificate = "authority-certificate"
    public static let authorityPrivateKey = "authority-private-key"

    public static let all: [Setting] = [
        Setting(
            name: overLimit, kind: .choice(["bypass", "block"]),
            help: "verdict of a new session when no licensed session is free", changeable: true),
        Setting(
            name: logLevel, kind: .choice(["debug", "info", "warning", "error"]), help: "least severe lines that are logged",
            changeable: true),
        Setting(
            name: sessionWarning, kind: .number(0...100, unit: "percent"),
            help: "share of the licensed sessions in use that raises a warning, 0 for none", changeable: true),
        Setting(
            name: usageReport, kind: .choice(["enable", "disable"]), help: "hourly usage report to the authority",
            changeable: true),
        Setting(
            name: segment, kind: .path(mayBeEmpty: false), help: "file of the shared counters, on a file system in memory",
            changeable: false),
        Setting(
            name: stateFolder, kind: .path(mayBeEmpty: false), help: "folder of what must outlive a restart", changeable: false),
        Setting(
            name: runFolder, kind: .path(mayBeEmpty: false), help: "folder of the sockets", changeable: false),
        Setting(
            name: group, kind: .name, help: "group that may use segment and sockets, empty for the user's own",
            changeable: false),
        Setting(name: licenseFile, kind: .path(mayBeEmpty: false), help: "the signed licence", changeable: false),
        Setting(
            name: trustedKeys, kind: .path(mayBeEmpty: false), help: "folder of the authority's public keys, KEYID.pem",
            changeable: false),
        Setting(
            name: logFile, kind: .path(mayBeEmpty: true), help: "log file besides standard error, empty for none",
            changeable: false),
        Setting(
            name: haproxyFolder, kind: .path(mayBeEmpty: true),
            help: "folder of the sockets for HAProxy, spoa.sock and ring.sock; empty: none are served", changeable: false),
        Setting(
            name: authority, kind: .address, help: "the licensing server that issues and extends leases, empty for none",
            changeable: false),
        Setting(
            name: accountKeyFile, kind: .path(mayBeEmpty: false), help: "file with the account key for the authority",
            changeable: false),
        Setting(
            name: authorityCA, kind: .path(mayBeEmpty: true),
            help: "whom the authority's certificate must come from (PEM), empty for those that the system trusts",
            changeable: false),
        Setting(
            name: authorityCertificate, kind: .path(mayBeEmpty: true),
            help: "this unit's certificate for the authority (PEM), empty for none", changeable: false),
        Setting(
            name: authorityPrivateKey, kind: .path(mayBeEmpty: true), help: "the private key of that certificate (PEM)",
            changeable: false),
    ]

    public static func named(_ name: String) -> Setting? { all.first { $0.name == name } }

    /// The name in the environment.
    public var variable: String { "FPX_" + name.uppercased().replacing("-", with: "_") }

    /// What is allowed, in words.
    public var expectation: String {
        switch kind {
        case .choice(let words): words.joined(separator: " or ")
        case .number(let range, let unit): "a number from \(range.lowerBound) to \(range.upperBound) (\(unit))"
        case .path(let mayBeEmpty): mayBeEmpty ? "an absolute path, or nothing" : "an absolute path"
        case .address: "https://HOST, perhaps with :PORT and a path, or nothing"
        case .name: "a name of letters, digits, \"_\", \".\" and \"-\", or nothing"
        }
    }

    public var allowed: [String]? {
        if case .choice(let words) = kind { return words }
        return nil
    }

    public func accepts(_ value: String) -> Bool {
        switch kind {
        case .choice(let words): words.contains(value)
        case .number(let range, _): Int(value).map { range.contains($0) && String($0) == value } ?? false
        case .path(let mayBeEmpty):
            value.isEmpty
                ? mayBeEmpty
                : value.hasPrefix("/") && value.utf8.count < 4096 && !value.unicodeScalars.contains { $0.value < 32 }
        case .address: value.isEmpty || Self.isAddress(value)
        case .name:
            value.utf8.count <= 32 && value.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "_.-".contains($0)) }
        }
    }
}

extension Setting {
    private static func isAddress(_ value: String) -> Bool {
        guard value.utf8.count < 2048, let parts = URLComponents(string: value), parts.scheme == "https",
            let host = parts.host, !host.isEmpty
        else { return false }
        return parts.user == nil && parts.password == nil && parts.query == nil && parts.fragment == nil
    }
}

/// Why a configuration is not accepted.
public enum SettingsError: Error, Equatable, Sendable {
    /// A file cannot be read or written.
    case file(path: String, reason: String)
    /// Something in a file is wrong; lines count from 1.
    case line(path: String, line: Int, message: String)
    /// A value from elsewhere is wrong.
    case value(origin: String, found: String, expected: String)
    /// A setting of that name does not exist, or cannot be changed now.
    case name(found: String, message: String)
}

extension SettingsError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .file(let path, let reason): "\(path): \(reason)"
        case .line(let path, let line, let message): "\(path):\(line): \(message)"
        case .value(let origin, let found, let expected): "\(origin): found \"\(found)\", expected \(expected)"
        case .name(let found, let message): "\(found): \(message)"
        }
    }
}
