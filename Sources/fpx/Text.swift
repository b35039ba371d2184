// Text: what the commands print, as functions of what fpxd answers.
//
// Whatever comes from outside (keys of sessions, names, reasons) is made safe for a terminal by `shown`; see there.

import ControlAPI
import Foundation
import SeatSharing

enum Text {
    /// `get system status`: the first two lines are a format that programs read.
    static func status(_ status: SystemStatus) -> String {
        let license = status.license
        var lines = [
            "Version: fpxd v\(status.version.shown),build\(status.build.shown),\(status.date.shown) (\(status.tag.shown))",
            "License: \(license.state.shown), seat \(license.purchasedSeats), active seat \(license.activeSeats), "
                + "expiry date \((license.expiryDate ?? "none").shown)",
        ]
        if let reason = license.reason { lines.append("License \(license.valid ? "note" : "reason"): \(reason.shown)") }
        if let days = license.daysLeft { lines.append("License days left: \(days)") }
        if let authority = status.authority {
            lines += [
                "Authority: \(authority.url.shown)",
                "Authority last contact: \(authority.lastContact.map(time) ?? "never")",
                "Authority last error: "
                    + (authority.lastErrorAt.map { time($0) + " " } ?? "") + (authority.lastError ?? "none").shown,
            ]
        }
        lines += (status.troubles ?? []).map { "Trouble: \($0.shown)" }
        lines += [
            "License sharing mode: \(status.mode.shown)",
            "Segment: \(status.segment.shown)",
            "Configuration: \((status.configurationFile ?? "none").shown)",
            "Process: \(status.processId)",
            "Started: \(time(status.startedAt))",
            uptime(status.uptimeSeconds),
        ]
        return joined(lines)
    }

    /// `show license`
    static func license(_ license: LicenseReport) -> String {
        guard let date = license.summary.expiryDate else {
            return "No license: \((license.summary.reason ?? license.summary.state).shown)\n"
        }
        let type = license.businessType.prefix(1).uppercased() + license.businessType.dropFirst()
        let line =
            "\(type.shown) license for \(license.licensedBandwidth) \(license.licensedBandwidthUnit.shown) "
            + "valid until \(date.shown)"
        return joined([line] + (license.summary.valid ? [] : [state(license.summary)]))
    }

    /// `diagnose wad license`: the vendor's labels, which scripts read, and behind them what is ours.
    ///
    /// - Parameter cluster: where the mode is HA, and the pool has been read.
    static func seats(_ report: SeatsReport, cluster: HASeats? = nil) -> String {
        var lines = ["Lic Sharing mode: \(report.mode.shown)"]
        for seats in report.types {
            let type = SeatType(rawValue: seats.type)
            let registered = zip(cluster?.units ?? [], cluster?.registered ?? []).map { unit, registered in
                "    \(unit.serial.shown): \(type.map { registered[$0] } ?? 0)"
            }
            lines += [
                "Lic type \(seats.type.shown):",
                "  Model Max Seat: \(seats.modelMax)",
                "  Active Seat: \(seats.activeSeats)",
                "  Available Purchased Seat: \(seats.purchasedSeats)",
                "  Available Fabric Seat: \(seats.fabricSeats)",
                "  Available HA Seat: \(seats.haSeats)",
            ]
            if report.mode == "HA" { lines += ["  License Seats Registered:"] + registered }
            lines += [
                "  Max Licensed Session: \(seats.maxSessions)",
                "  Current Licensed Sessions: \(seats.currentSessions.map(String.init) ?? "an unknown number")",
                "  Max bypassed Sessions: \(seats.maxBypassed)",
            ]
        }
        let bypassed = report.types.map { "\($0.type.shown) \($0.currentBypassed)" }.joined(separator: ", ")
        return joined(lines + ["Bypassed now: \(bypassed)", state(report.license)])
    }

    /// What fpxd of another version might not tell.
    struct MissingType: Error, Equatable, CustomStringConvertible {
        let found: [String]
        var description: String { "seats of \(found.isEmpty ? "no type" : found.joined(separator: ", ")), not of furl" }
    }

    /// `diagnose wad license detail`: the type that gates sessions. Three lines, and one more where the licence is not
    /// a valid one that was bought.
    static func seatsInDetail(_ report: SeatsReport) throws(MissingType) -> String {
        guard let seats = report.types.first(where: { $0.type == "furl" }) else {
            throw MissingType(found: report.types.map(\.type))
        }
        let lines = [
            "Purchased License Seat: \(seats.purchasedSeats)",
            "Available License Seat: \(seats.activeSeats)",
            "Max Licensed Session: \(seats.maxSessions)",
        ]
        return joined(lines + stateUnlessPlain(report.license))
    }

    /// Nothing of a valid licence that was bought.
    static func stateUnlessPlain(_ license: LicenseSummary) -> [String] {
        license.valid && license.state != "Evaluation" ? [] : [state(license)]
    }

    private static func state(_ license: LicenseSummary) -> String {
        "License state: \(license.state.shown)" + (license.reason.map { " (\($0.shown))" } ?? "")
    }

    /// `get system performance status`
    static func performance(_ report: PerformanceReport) -> String {
        var lines = report.cpus.map { cpu in
            "CPU\(cpu.cpu.map(String.init) ?? "") states: \(cpu.user)% user \(cpu.system)% system \(cpu.nice)% nice "
                + "\(cpu.idle)% idle \(cpu.iowait)% iowait \(cpu.irq)% irq \(cpu.softirq)% softirq"
        }
        let memory = report.memory
        // Saturating: figures of another process may be anything.
        let freeable = max(0, memory.available.subtractingReportingOverflow(memory.free).partialValue)
        func share(_ part: Int) -> String {
            guard memory.total > 0 else { return "0.0%" }
            let tenths = Int((Double(part) * 1000 / Double(memory.total)).rounded().clamped(to: 0...1_000_000))
            return "\(tenths / 10).\(tenths % 10)%"
        }
        lines.append(
            "Memory: \(memory.total)k total, \(memory.used)k used (\(share(memory.used))), "
                + "\(memory.free)k free (\(share(memory.free))), \(freeable)k freeable (\(share(freeable)))")
        lines.append("Current network usage: \(pair(report.speed, 1_000_000, decimals: 1)) mbits in 10 seconds")
        lines.append("Average network usage: " + inWindows(report) { "\(pair($0.averageSpeed, 1000, decimals: 0)) kbps" })
        lines.append("Average sessions: " + inWindows(report) { "\($0.averageSessions) sessions" })
        lines.append("Maximal sessions: " + inWindows(report) { "\($0.peakSessions) sessions" })
        lines.append(
            "Average session setup rate: " + inWindows(report, "in last") { "\($0.setupRate) sessions per second" })
        lines.append(uptime(report.uptimeSeconds))
        return joined(lines)
    }

    /// From clients, then to them, in units of so many bits a second.
    private static func pair(_ speed: PerformanceReport.Speed, _ unit: Double, decimals: Int) -> String {
        [speed.bitsIn, speed.bitsOut].map { String(format: "%.\(decimals)f", Double($0) / unit) }.joined(separator: " / ")
    }

    private static func inWindows(
        _ report: PerformanceReport, _ preposition: String = "in", _ figure: (PerformanceReport.Window) -> String
    ) -> String {
        report.windows.map { "\(figure($0)) \(preposition) \($0.minutes) minute\($0.minutes == 1 ? "" : "s")" }
            .joined(separator: ", ")
    }

    private static func uptime(_ seconds: Int) -> String {
        "Uptime: \(seconds / 86400) days,  \(seconds / 3600 % 24) hours,  \(seconds / 60 % 60) minutes"
    }

    /// RFC 3339 in UTC, as on the wire.
    static func time(_ date: Date) -> String { date.formatted(.iso8601) }

    static func joined(_ lines: [String]) -> String { lines.map { $0 + "\n" }.joined() }
}

extension Comparable {
    fileprivate func clamped(to range: ClosedRange<Self>) -> Self { min(max(self, range.lowerBound), range.upperBound) }
}
