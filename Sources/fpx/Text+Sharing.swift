// Text of how this unit shares seats with others.

import ControlAPI
import SeatSharing

extension SharingReport {
    var isFabric: Bool { mode.hasPrefix("fabric") }

    /// Why there is no table yet, where there will be one.
    var unread: String { "no row of \(group.shown) has been read yet; see diagnose test application csfd 1" }

    var ledgerMissing: String? {
        guard isFabric else {
            return "no ledger: found license sharing mode \(mode.shown), expected fabric; see show full system csf"
        }
        return ledger == nil ? unread : nil
    }
}

extension Text {
    /// A table whose names would not be read in the pool: they go to the terminal as they are.
    struct BadSerial: Error, Equatable, CustomStringConvertible {
        let found: String
        var description: String { "the unit \(quoted(found)), which is no serial" }
    }

    static func check(_ serials: some Sequence<String>) throws(BadSerial) {
        for serial in serials where !Row.isName(serial) { throw BadSerial(found: serial) }
    }

    /// `diagnose test application csfd 140`: of the root the whole, of another unit its own.
    static func ledger(_ report: SharingReport, isAligned: Bool) throws(BadSerial) -> String {
        guard report.isFabric, let ledger = report.ledger else { return "" }
        try check(ledger.devices.map(\.serial))
        return report.role == Role.root.rawValue ? ledger.text(isAligned: isAligned) : ledger.memberText(isAligned: isAligned)
    }

    /// `diagnose wad license detail` in a cluster.
    static func seatsInHA(_ report: SharingReport, _ license: LicenseSummary) throws(BadSerial) -> String {
        guard let ha = report.ha else { return "" }
        try check(ha.units.map(\.serial))
        let text = ha.text(available: report.cap.furl, sessionsPerSeat: report.sessionsPerSeat, sessions: report.sessions)
        return text + joined(stateUnlessPlain(license))
    }

    /// `diagnose test application csfd 1`
    static func sharing(_ report: SharingReport) -> String {
        let mode = "License sharing mode: \(report.mode.shown)"
        guard !report.group.isEmpty else {
            return joined([mode, "This unit shares no seats: neither system csf nor system ha says so."])
        }
        let heartbeat = report.heartbeatMilliseconds
        let lines = [
            mode,
            "Group: \(report.group.shown)",
            "Serial: \(report.serial.shown)",
            "Role: \(report.role.shown)",
            "Entitled: \(word(report.isEntitled))",
            "Connected: \(word(report.isConnected))",
            "Another process of this unit: \(word(report.isFenced))",
            "Members: \(report.members), stale \(report.staleMembers)",
            "Term: \(report.termSeconds) s, heartbeat \(heartbeat) ms",
            "Reclaim: \(report.policy.shown)",
            "Reclaim after: \(report.reclaimAfter.shown)",
            "Over-use: \(report.overUse.shown)",
            "Sessions: \(report.sessions), \(report.sessionsPerSeat) to a seat",
        ]
        let endpoints = report.endpoints.map { "Endpoint: \($0.url.shown), \($0.state.shown)" }
        let problems = report.problems.map { "Problem: \($0.shown)" }
        return joined(lines + endpoints + problems) + "\n" + seats(of: report)
            + partners(report.lenders, "LENDER") + partners(report.borrowers, "BORROWER")
    }

    static func removed(_ report: MemberRemoved) -> String {
        "Removed: the row of \(report.serial.shown) from pool \(report.group.shown)\n"
    }

    private static func seats(of report: SharingReport) -> String {
        let rows = SeatType.allCases.map { type in
            [type.rawValue]
                + [
                    report.own, report.borrowed, report.lent, report.cap, report.used, report.demand, report.usedTwice,
                    report.debt,
                ].map { String($0[type]) }
        }
        return table(rows, header: ["TYPE", "OWN", "BORROWED", "LENT", "CAP", "USED", "DEMAND", "USED_TWICE", "DEBT"])
    }

    private static func partners(_ partners: [SharingReport.Partner], _ name: String) -> String {
        guard !partners.isEmpty else { return "" }
        let rows = partners.map { partner in
            [partner.serial, "\(partner.seats)", partner.endsInSeconds.map { "in \($0) s" } ?? "when given back"]
        }
        return "\n" + table(rows, header: [name, "SEATS", "ENDS"])
    }

    /// `get system csf`: the vendor's rows, which scripts read, and behind them what is ours. Units of our fabric meet in etcd,
    /// so that is upstream of each; they share seats and nothing else.
    static func fabric(_ report: SharingReport) -> String {
        let isFabric = report.isFabric
        let vendors = [
            ("status", isFabric ? "enable" : "disable"),
            ("upstream", isFabric ? report.endpoints.map(\.url).joined(separator: ",") : ""),
            ("group-name", isFabric ? report.group : ""),
            ("group-password", isFabric && report.hasPassword ? "*" : ""),
            ("downstream-access", "disable"),
            ("license-sharing", isFabric ? "enable" : "disable"),
            ("configuration-sync", "local"),
            ("trusted-list", isFabric ? (report.ledger?.devices.map(\.serial) ?? []).joined(separator: " ") : ""),
        ]
        guard isFabric else { return pairs(vendors) }
        return pairs(
            vendors + [
                ("role", report.role), ("serial", report.serial),
                ("connection", report.isConnected ? "connected" : "disconnected"), ("entitled", word(report.isEntitled)),
                ("members", String(report.members)), ("stale-members", String(report.staleMembers)),
                ("reclaim", report.policy), ("reclaim-after", report.reclaimAfter), ("seats-own", "\(report.own)"),
                ("seats-borrowed", "\(report.borrowed)"),
                ("seats-lent", "\(report.lent)"), ("seats-allocated", "\(report.cap)"), ("seats-used", "\(report.used)"),
                ("seats-debt", "\(report.debt)"),
            ] + report.problems.map { ("problem", $0) })
    }

    /// `name                : value`
    private static func pairs(_ pairs: [(name: String, value: String)]) -> String {
        joined(
            pairs.map { "\($0.name)\(String(repeating: " ", count: max(0, 20 - $0.name.count))): \($0.value.shown)" })
    }

    /// `get system ha status`
    static func cluster(_ report: SharingReport) -> String {
        guard report.mode == "HA" else { return "Mode: Standalone\n" }
        let troubles = troubles(of: report)
        let health =
            troubles.isEmpty ? ["HA Health Status: OK"] : ["HA Health Status:"] + troubles.map { "    \($0.shown)" }
        let units = (report.ha?.units ?? []).map { unit in
            "Member: \(unit.serial.shown), seats registered \(unit.registered), seats adjusted \(unit.adjusted)"
        }
        return joined(
            health + [
                "Mode: \(report.mode)",
                "Group Name: \(report.group.shown)",
                "Serial: \(report.serial.shown)",
                "Role: \(report.role.shown)",
                "Seats: \(report.cap.furl) allocated, \(report.used.furl) used",
                "Number of Members: \(report.members)",
            ] + units)
    }

    private static func troubles(of report: SharingReport) -> [String] {
        var troubles: [String] = []
        if report.isFenced { troubles.append("ERROR: another process runs as this unit; it uses no seats") }
        if !report.isEntitled { troubles.append("ERROR: this unit's licence takes no part") }
        if !report.isConnected { troubles.append("ERROR: no contact with the other units") }
        if report.staleMembers > 0 { troubles.append("WARNING: members that are silent: \(report.staleMembers)") }
        return troubles + report.problems.map { "WARNING: \($0)" }
    }

    private static func word(_ value: Bool) -> String { value ? "yes" : "no" }
}
