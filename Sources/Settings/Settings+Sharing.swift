// Settings+Sharing: how this unit shares seats, read from its settings, and which of them go together.

import Foundation
import SeatSharing

extension Settings {
    /// How this unit shares; nil: it shares nothing.
    package var sharingMode: SharingMode? {
        if self[Setting.csfStatus] == "enable" { return .fabric }
        return switch self[Setting.haMode] {
        case "pre-7.2": .haBefore72
        case "7.2": .ha72
        default: nil
        }
    }

    /// What `Unit` is told; nil: this unit shares nothing.
    ///
    /// - Throws: `setting` for a serial that cannot be one.
    package func unitConfiguration(serial: String) throws(SharingError) -> UnitConfiguration? {
        guard let mode = sharingMode else { return nil }
        let role = Role(rawValue: self[mode.isHA ? Setting.haRole : Setting.csfRole])
        let preferences = Preferences(
            global: seats(Setting.csfPreferredSeats), members: seatsOfUnits(Setting.csfMemberPreferredSeats),
            division: Division(rawValue: self[Setting.csfDivision]) ?? .maxMin)
        return try UnitConfiguration(
            cluster: self[mode.isHA ? Setting.haGroupName : Setting.csfGroupName], serial: serial, mode: mode,
            role: role ?? (mode.isHA ? .secondary : .member), policy: policy(Setting.sharingReclaim),
            preferences: role == .root ? preferences : nil, term: Nanoseconds(number(Setting.sharingTerm)) * .second,
            reclaimAfter: Policy.time(self[Setting.sharingReclaimAfter]) ?? .forever)
    }

    package func seats(_ name: String) -> Seats { Setting.seats(self[name]) ?? .zero }
    /// By serial.
    package func seatsOfUnits(_ name: String) -> [String: Seats] { Setting.seatsOfUnits(self[name]) ?? [:] }
    package func policy(_ name: String) -> Policy { (try? Policy(self[name])) ?? .byTime }
    /// The addresses of etcd, without a slash at their ends.
    public var endpoints: [String] { Setting.endpoints(self[Setting.sharingEndpoints]) ?? [] }

    /// Judges what the next start will find. What is in force by now is of it whatever can be changed while fpxd runs.
    ///
    /// - Parameter isSaved: whether the file on disk says the same, so that its lines can be named.
    func checkTogether(isSaved: Bool = true) throws(SettingsError) {
        func fault(_ names: String..., found: String, expected: String) -> SettingsError {
            .combination(places: isSaved ? names.compactMap(place) : [], found: found, expected: expected)
        }
        let sharesByFabric = configured(Setting.csfStatus) == "enable"
        let sharesByHA = configured(Setting.haMode) != "standalone"
        if sharesByFabric, sharesByHA {
            throw fault(
                Setting.csfStatus, Setting.haMode, found: "\(said(Setting.csfStatus)) and \(said(Setting.haMode))",
                expected: "one of them: a unit shares by fabric or in a cluster")
        }
        for (isShared, switched, name) in [
            (sharesByFabric, Setting.csfStatus, Setting.csfGroupName), (sharesByHA, Setting.haMode, Setting.haGroupName),
        ] where isShared {
            if configured(name).isEmpty {
                throw fault(
                    switched, found: "\(said(switched)) without \(name)",
                    expected: "the name of the pool, the same on all its units")
            }
            if configured(Setting.sharingEndpoints).isEmpty {
                throw fault(
                    switched, found: "\(said(switched)) without \(Setting.sharingEndpoints)",
                    expected: "the addresses of etcd: set endpoints in config system sharing before")
            }
        }
        if configured(Setting.csfRole) != "root" {
            for name in [Setting.csfPreferredSeats, Setting.csfMemberPreferredSeats, Setting.csfDivision]
            where !isDefault(name) {
                throw fault(
                    name, Setting.csfRole, found: "\(said(name)) and \(said(Setting.csfRole))",
                    expected: "csf-role root: only the root's preferred seats and division apply to the fabric")
            }
        }
        for (one, other) in [
            (Setting.sharingUser, Setting.sharingPasswordFile), (Setting.sharingCertificate, Setting.sharingPrivateKey),
        ] {
            for (given, missing) in [(one, other), (other, one)]
            where !configured(given).isEmpty && configured(missing).isEmpty {
                throw fault(given, found: "\(said(given)) without \(missing)", expected: "both or neither")
            }
        }
        if Setting.endpoints(configured(Setting.sharingEndpoints))?.first?.hasPrefix("http:") == true {
            for name in [Setting.sharingCA, Setting.sharingCertificate] where !configured(name).isEmpty {
                throw fault(
                    name, Setting.sharingEndpoints, found: "\(said(name)) and \(said(Setting.sharingEndpoints))",
                    expected: "endpoints with https: http uses no certificates")
            }
        }
    }

    private func said(_ name: String) -> String { "\(name) \(configured(name))" }

    private func isDefault(_ name: String) -> Bool {
        guard name == Setting.csfPreferredSeats else { return configured(name) == defaults.values[name] }
        return Setting.seats(configured(name)) == .zero
    }
}

extension Setting {
    static let endpointsMax = 16

    /// `F/N/C`, or one number for all three; nil for anything else.
    static func seats(_ text: String) -> Seats? {
        let numbers = text.split(separator: "/", omittingEmptySubsequences: false).map { part -> Int? in
            guard let number = Int(part), String(number) == part, (0...Seats.limit).contains(number) else { return nil }
            return number
        }
        let known = numbers.compactMap { $0 }
        guard known.count == numbers.count else { return nil }
        return switch known.count {
        case 1: Seats(known[0])
        case 3: Seats(furl: known[0], fnbi: known[1], fcas: known[2])
        default: nil
        }
    }

    /// By serial; nil for anything that is not `SERIAL F/N/C, SERIAL F/N/C`.
    static func seatsOfUnits(_ text: String) -> [String: Seats]? {
        if text.isEmpty { return [:] }
        var units: [String: Seats] = [:]
        for entry in text.split(separator: ",", omittingEmptySubsequences: false) {
            let words = entry.split(separator: " ").map(String.init)
            guard words.count == 2, Row.isName(words[0]), let seats = seats(words[1]), units.count < Row.entriesMax,
                units.updateValue(seats, forKey: words[0]) == nil
            else { return nil }
        }
        return units
    }

    /// Nil for anything that is no list of `http://HOST:PORT`, or of https alone.
    static func endpoints(_ text: String) -> [String]? {
        if text.isEmpty { return [] }
        var endpoints: [String] = []
        for entry in text.split(separator: ",", omittingEmptySubsequences: false) {
            var address = entry.trimmingCharacters(in: [" "])
            if address.hasSuffix("/") { address.removeLast() }
            guard let parts = URLComponents(string: address), ["http", "https"].contains(parts.scheme), parts.path.isEmpty,
                let host = parts.host, !host.isEmpty, parts.port.map({ (1...65535).contains($0) }) ?? true,
                parts.user == nil, parts.password == nil, parts.query == nil, parts.fragment == nil,
                address.utf8.allSatisfy({ (0x21...0x7E).contains($0) }), !endpoints.contains(address),
                endpoints.first.map({ $0.hasPrefix("https:") == address.hasPrefix("https:") }) ?? true
            else { return nil }
            endpoints.append(address)
        }
        return endpoints.count <= endpointsMax ? endpoints : nil
    }
}
