// Setting: the table of all that can be configured. Files, flags, environment and `fpx config` all go by it.

import Foundation
import SeatSharing

/// One thing that can be configured.
public struct Setting: Sendable {
    public enum Kind: Sendable {
        case choice([String])
        case number(ClosedRange<Int>, unit: String)
        /// An absolute path; empty: none, where `mayBeEmpty`.
        case path(mayBeEmpty: Bool)
        /// A name of at most so many letters, digits, `_`, `.` and `-`; empty: none.
        case name(lengthMax: Int)
        /// `https://HOST[:PORT][/PREFIX]`; empty: none.
        case address
        /// Seats of each type, FURL/FNBI/FCAS, or one number for all three.
        case seats
        /// Seats of units, `SERIAL F/N/C, SERIAL F/N/C`; empty: none.
        case seatsOfUnits
        /// `http://HOST[:PORT]`, several with commas between, or all with `https`; empty: none.
        case endpoints
        /// When a loan ends without a word from the borrower.
        case policy
        /// A time such as `10m`, or `never`.
        case patience
    }

    /// Where a setting stands for `fpx config`, by its words after `config`.
    public enum Section: String, CaseIterable, Sendable {
        case global = "system global"
        case fabric = "system csf"
        case ha = "system ha"
        case sharing = "system sharing"
        /// What only the file, flags and the environment can say.
        case daemon = "system daemon"

        /// What the names of its settings begin with, except in the section itself.
        var prefix: String {
            switch self {
            case .global, .daemon: ""
            case .fabric: "csf-"
            case .ha: "ha-"
            case .sharing: "sharing-"
            }
        }

        /// In the order of the table.
        public var settings: [Setting] { Setting.all.filter { $0.section == self } }

        /// The setting that the section calls so.
        public func setting(_ name: String) -> Setting? { settings.first { $0.nameInSection == name } }
    }

    /// In files as it stands, as a flag with `--` before it, in the environment as `FPX_` and capitals with `_` for `-`.
    public let name: String
    public let kind: Kind
    public let help: String
    public let section: Section

    init(_ name: String, _ kind: Kind, in section: Section = .daemon, help: String) {
        self.name = name
        self.kind = kind
        self.help = help
        self.section = section
    }

    /// Whether `fpx config` can change it, and a change is in force at once; else it is from the next start on.
    public var changeable: Bool { section != .daemon }
    /// What it is called within its section: `status` for `csf-status`.
    public var nameInSection: String { String(name.dropFirst(section.prefix.count)) }

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
        case .name(let lengthMax): "a name of at most \(lengthMax) letters, digits, \"_\", \".\" and \"-\", or nothing"
        case .seats: "seats as FURL/FNBI/FCAS, or one number for all three, each from 0 to \(Seats.limit)"
        case .seatsOfUnits:
            "SERIAL FURL/FNBI/FCAS of each unit once, with commas between, at most \(Row.entriesMax) of them, or nothing"
        case .endpoints:
            "http://HOST:PORT or https://HOST:PORT, at most \(Self.endpointsMax) with commas between, all of one kind, or nothing"
        case .policy: "time, ack-only, or recovery with a time from 1s to 365d, as in recovery 14d"
        case .patience: "a time from 1s to 365d, as in 10m, or never"
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
        case .name(let lengthMax): value.isEmpty || (value.utf8.count <= lengthMax && Row.isName(value))
        case .seats: Self.seats(value) != nil
        case .seatsOfUnits: Self.seatsOfUnits(value) != nil
        case .endpoints: Self.endpoints(value) != nil
        case .patience: value == "never" || Policy.time(value) != nil
        case .policy: (try? Policy(value)) != nil
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
    /// Settings that do not go together, and where they stand: `FILE:LINE`, a flag or a variable.
    case combination(places: [String], found: String, expected: String)
    /// No seats can be shared by them: a file that they name, or this host, is not as it must be.
    case sharing(reason: String)
}

extension SettingsError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .file(let path, let reason): "\(path): \(reason)"
        case .line(let path, let line, let message): "\(path):\(line): \(message)"
        case .value(let origin, let found, let expected): "\(origin): found \"\(found)\", expected \(expected)"
        case .name(let found, let message): "\(found): \(message)"
        case .combination(let places, let found, let expected):
            (places.isEmpty ? "" : places.joined(separator: ", ") + ": ") + "found \(found), expected \(expected)"
        case .sharing(let reason): reason
        }
    }
}
