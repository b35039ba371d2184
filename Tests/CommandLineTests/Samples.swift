// Answers of a daemon: a small installation in order, and what changes from there.

import ControlAPI
import Foundation

enum Samples {
    static let summary = LicenseSummary(
        state: "Active", valid: true, reason: nil, purchasedSeats: 40, activeSeats: 40, expiryDate: "2027-01-31", daysLeft: 71)
    static let expired = LicenseSummary(
        state: "Expired", valid: false, reason: "lease ended on 2026-11-20", purchasedSeats: 40, activeSeats: 0,
        expiryDate: "2026-11-20", daysLeft: 0)
    static let evaluation = LicenseSummary(
        state: "Evaluation", valid: true, reason: "built-in evaluation, no licence file", purchasedSeats: 4, activeSeats: 4,
        expiryDate: "2026-12-21", daysLeft: 30)
    static let none = LicenseSummary(
        state: "Absent", valid: false, reason: "no licence file", purchasedSeats: 0, activeSeats: 0, expiryDate: nil,
        daysLeft: nil)

    static let start = Date(timeIntervalSince1970: 1_795_000_000)

    static func status(_ license: LicenseSummary = summary) -> SystemStatus {
        SystemStatus(
            version: "0.3.0", build: "0042", date: "261121", tag: "GA", license: license, processId: 4711, startedAt: start,
            uptimeSeconds: 2 * 86400 + 3 * 3600 + 4 * 60 + 5, segment: "/dev/shm/fpx/segment",
            configurationFile: "/etc/fpx/fpxd.yaml",
            mode: "None",
            authority: AuthorityContact(
                url: "https://licence.example", lastContact: start - 3600, lastError: nil, lastErrorAt: nil))
    }

    static func license(_ summary: LicenseSummary = summary, type: String = "production") -> LicenseReport {
        LicenseReport(
            summary: summary, licenseId: "L-1", customer: "Example", keyId: "k1", epoch: 7, sessionsPerSeat: 25,
            seats: ["furl": 40, "fnbi": 0, "fcas": 0], modelMax: ["furl": 500, "fnbi": 500, "fcas": 500], addressIpv4: "",
            totalMemorySize: 7973, logicalCpusNumber: 2, cpuModel: "AMD \"EPYC\" 7/B13", licensedBandwidth: 2000,
            licensedBandwidthUnit: "mbits", issuerType: "automatic", businessType: type)
    }

    static func seats(_ license: LicenseSummary = summary) -> SeatsReport {
        func type(_ name: String, _ seats: Int, current: Int = 0, peak: Int = 0) -> SeatsOfType {
            SeatsOfType(
                type: name, modelMax: 500, activeSeats: seats, purchasedSeats: seats, fabricSeats: 0, haSeats: 0,
                maxSessions: seats * 25, currentSessions: current, currentBypassed: 0, maxBypassed: peak)
        }
        return SeatsReport(
            mode: "None", license: license, types: [type("furl", 40, current: 812, peak: 17), type("fnbi", 0), type("fcas", 0)])
    }

    static let sessions = SessionsReport(
        total: 3,
        sessions: [
            SessionEntry(
                id: "87e0000000000007", key: "4801:17:192.0.2.7:40112:1795000000", hook: "haproxy", type: "furl",
                verdict: "inspect", client: "192.0.2.7:40112", processId: 4801, startedAt: start),
            SessionEntry(
                id: "87e1000100000003", key: "\u{1b}[2Jevil\nline", hook: "haproxy", type: "furl", verdict: "bypass",
                client: nil,
                processId: 48, startedAt: start),
        ])

    static let statistics = SessionStatistics(
        hooks: [.init(hook: "haproxy", counters: ["released": 90, "admitted": 100])],
        processes: [
            .init(
                slot: 0, processId: 4795, name: "nginx", alive: true, type: "furl", inUse: 802, spare: 6, bypassed: 0,
                admissions: 9000, refused: 0),
            .init(
                slot: 511, processId: 4711, name: "fpxd", alive: true, type: "furl", inUse: 10, spare: 25, bypassed: 0,
                admissions: 100, refused: 0),
        ],
        cpus: [
            .init(cpu: 0, type: "furl", held: -3, spare: 10, admissions: 40),
            .init(cpu: 1, type: "furl", held: 13, spare: 15, admissions: 60),
        ])

    static let performance = PerformanceReport(
        cpus: [
            .init(cpu: nil, user: 1, system: 2, nice: 0, idle: 96, iowait: 1, irq: 0, softirq: 0),
            .init(cpu: 0, user: 2, system: 4, nice: 0, idle: 92, iowait: 2, irq: 0, softirq: 0),
        ],
        memory: .init(total: 8_000_000, used: 2_000_000, free: 5_000_000, available: 5_500_000),
        windows: [
            .init(
                minutes: 1, averageSessions: 812, peakSessions: 900, setupRate: 30,
                averageSpeed: .init(bitsIn: 1_234_567, bitsOut: 45_678_900)),
            .init(
                minutes: 10, averageSessions: 700, peakSessions: 950, setupRate: 20,
                averageSpeed: .init(bitsIn: 499, bitsOut: 1500)),
            .init(
                minutes: 30, averageSessions: 600, peakSessions: 1000, setupRate: 10,
                averageSpeed: .init(bitsIn: 0, bitsOut: 0)),
        ],
        speed: .init(bitsIn: 12_345_678, bitsOut: 400_000), uptimeSeconds: 3 * 3600)

    static let hardware = HardwareReport(
        cpuModel: "AMD EPYC 7B13", logicalCpusNumber: 2, totalMemorySize: 7973, addressesIpv4: ["192.0.2.1"], hostname: "gw1",
        unitId: "3b9dbf2c-7d53-4f0e-9a43-0d5f4a4a2f10")

    static let usage = UsageReport(
        version: "0.3.0", hooks: ["haproxy", "nginx"], incomingSpeed: 12_345_678, outgoingSpeed: 400_000,
        activeClientsIpv4: 812,
        activeClientsIpv6: 37, sessions: 905, admissionsPerSecond: 30, virtualization: "kvm", censusMicroseconds: 1840,
        kernel: "6.1.0-18-amd64", distribution: "debian", distributionVersion: "12", cpuFlags: ["fpu", "sse2", "avx2"],
        features: ["haproxy-agent", "license-overlimit-bypass", "membarrier", "rseq"])

    static let renewal = RenewalReport(renewed: true, reason: nil, license: summary)

    static func configuration(_ values: [String: String] = [:]) -> ConfigurationReport {
        func setting(
            _ name: String, _ standard: String, _ allowed: [String]?, _ help: String, _ changes: Bool = true
        ) -> ConfigurationReport.Setting {
            let value = values[name] ?? standard
            return .init(
                name: name, value: changes ? value : standard,
                valueAfterRestart: !changes && value != standard ? value : nil, defaultValue: standard, allowed: allowed,
                help: help, changeable: changes)
        }
        return ConfigurationReport(sections: [
            .init(
                path: "system global",
                settings: [
                    setting("license-overlimit", "bypass", ["bypass", "block"], "Verdict of a session over the limit"),
                    setting("log-level", "info", ["debug", "info", "warning", "error"], "Least severe lines that are logged"),
                    setting("session-warning", "80", nil, "Share of the licensed sessions that raises a warning"),
                    setting("usage-report", "enable", ["enable", "disable"], "Hourly usage report to the authority"),
                ]),
            .init(
                path: "system csf",
                settings: [
                    setting("status", "disable", ["enable", "disable"], "Sharing of seats in a fabric"),
                    setting("role", "member", ["root", "member"], "Whose preferences hold"),
                    setting("group-name", "", nil, "The fabric's name"),
                    setting("preferred-seats", "0/0/0", nil, "Preferred seats of each unit"),
                    setting("member-preferred-seats", "", nil, "Preferred seats of single units"),
                    setting("division", "max-min", ["max-min", "proportional"], "How seats are divided"),
                ]),
            .init(
                path: "system ha",
                settings: [
                    setting("mode", "standalone", ["standalone", "pre-7.2", "7.2"], "Sharing in a cluster"),
                    setting("role", "secondary", ["primary", "secondary"], "Whether this unit has the traffic"),
                    setting("group-name", "", nil, "The cluster's name"),
                ]),
            .init(
                path: "system sharing",
                settings: [
                    setting("endpoints", "", nil, "The etcd to share by"),
                    setting("user", "", nil, "This unit's user of etcd"),
                    setting("password-file", "", nil, "File with its password"),
                    setting("ca", "", nil, "Whom etcd's certificate must come from"),
                    setting("certificate", "", nil, "This unit's certificate"),
                    setting("private-key", "", nil, "Its private key"),
                    setting("reclaim", "time", nil, "When lent seats come back"),
                    setting("reclaim-after", "10m", nil, "How long lent seats are waited for"),
                    setting("term", "30", nil, "How long a loan lasts"),
                ]),
            .init(
                path: "system daemon",
                settings: [
                    setting("segment", "/dev/shm/fpx/segment", nil, "File of the shared counters", false),
                    setting("state-folder", "/var/lib/fpx", nil, "Folder of what must outlive a restart", false),
                    setting("run-folder", "/run/fpx", nil, "Folder of the sockets", false),
                    setting("group", "fpx", nil, "Group that may use segment and sockets", false),
                    setting("license-file", "/etc/fpx/license.lic", nil, "The signed licence", false),
                    setting("trusted-keys", "/etc/fpx/keys", nil, "Folder of the authority's public keys", false),
                    setting("log-file", "/var/log/fpxd.log", nil, "Log file besides standard error", false),
                    setting("haproxy-folder", "/run/fpx", nil, "Folder of the sockets for HAProxy", false),
                    setting("authority", "", nil, "The licensing server", false),
                    setting("account-key-file", "/etc/fpx/account.key", nil, "File with the account key", false),
                    setting("authority-ca", "", nil, "Whom the authority's certificate must come from", false),
                    setting("authority-certificate", "", nil, "This unit's certificate", false),
                    setting("authority-private-key", "", nil, "Its private key", false),
                ]),
        ])
    }

    static let events = EventsReport(events: [
        .init(
            at: start, level: "info", subject: "daemon",
            message: "fpxd v0.3.0,build0042,261121 (GA) started as process 4711 on segment /dev/shm/fpx/segment, "
                + "0 sessions of wire hooks taken over"),
        .init(at: start, level: "warning", subject: "license", message: "30 days left"),
    ])

    static let commit = CommitReport(applied: true, license: summary, messages: ["set session-warning 90"])

    /// What a daemon in order says.
    static let answer: TestDaemon.Answer = { request, body in
        switch request {
        case "GET /v1/status": .value(status())
        case "GET /v1/seats": .value(seats())
        case "GET /v1/sharing": .value(sharing)
        case "DELETE /v1/sharing/members/FPXMEMB03": .value(MemberRemoved(serial: "FPXMEMB03", group: "lab"))
        case "GET /v1/license": .value(license())
        case "GET /v1/license/hardware": .value(hardware)
        case "GET /v1/sessions", "GET /v1/sessions?limit=2": .value(sessions)
        case "DELETE /v1/sessions": .value(SessionsCleared(cleared: 3))
        case "DELETE /v1/sessions/87e0000000000007": .value(SessionsCleared(cleared: 1))
        case "GET /v1/sessions/stats": .value(statistics)
        case "GET /v1/config": .value(configuration())
        case "PATCH /v1/config": patched(body)
        case "GET /v1/performance": .value(performance)
        case "POST /v1/commit": .value(commit)
        case "POST /v1/license/renew", "POST /v1/license/replace_stolen_key": .value(renewal)
        case "GET /v1/usage_report": .value(usage)
        case "GET /v1/events", "GET /v1/events?limit=2": .value(events)
        default: .refusal(404, "not_found", "nothing at \(request)")
        }
    }

    private static func patched(_ body: Data) -> Reply {
        guard let change = try? ControlJSON.decoder().decode(ConfigurationChange.self, from: body) else {
            return .refusal(400, "bad_request", "the body is no change")
        }
        if let value = change.set["session-warning"], Int(value) == nil {
            return .refusal(
                422, "invalid_value", "session-warning: found \"\(value)\", expected a number from 0 to 100 (percent)")
        }
        if change.set["status"] == "enable", change.set["group-name"] == nil {
            return .refusal(
                422, "invalid_value",
                "found csf-status enable without csf-group-name, expected the name of the pool, the same on all its units")
        }
        return .value(configuration(change.set))
    }
}
