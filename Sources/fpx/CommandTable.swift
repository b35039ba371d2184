// CommandTable: every command there is. Parsing, `?`, completion, help and the test of the manual all read this table.

import ControlAPI

enum CommandTable {
    static let commands: [Command] = [
        Command("get system status", help: "Version, licence and state of fpxd", .ask(status)),
        Command("get system performance status", help: "CPU, memory, sessions, set-up rate, uptime", .ask(performance)),
        Command("get system events", count, help: "What happened last: licence, limit, processes, configuration", .ask(events)),
        Command("get system csf", help: "Sharing of seats in a fabric", .ask(fabric)),
        Command("get system ha status", help: "Sharing of seats in a high availability cluster", .ask(cluster)),
        Command("diagnose wad license", help: "Mode, seats and sessions of each licence type", .ask(seats)),
        Command("diagnose wad license detail", help: "Purchased and available seats, max licensed session", .ask(detail)),
        Command("diagnose wad session list", limit, help: "Sessions of the wire hooks, oldest first", .ask(sessions)),
        Command(
            "diagnose wad session clear", session,
            help: "Stop counting one session of the wire hooks, or more",
            question: "All sessions of the wire hooks go on uncounted.", .ask(clear)),
        Command("diagnose wad session stats", help: "Counters of each hook, process and CPU", .ask(statistics)),
        Command("diagnose test application csfd 1", help: "State of seat sharing", .ask(sharing)),
        Command("diagnose test application csfd 140", help: "The fabric's ledger of seats", .ask(ledger(isAligned: false))),
        Command("diagnose test application csfd 140 --align", help: "Columns as wide as 10", .ask(ledger(isAligned: true))),
        Command("show license", help: "The licence in force, in one line", .ask(license)),
        Command("show license_hardware_data", help: "What identifies this hardware, for an offline licence", .ask(hardware)),
        Command("show usage_report", help: "The usage report that goes to the authority next", .ask(usageReport)),
        Command(
            "show system global", help: "Settings of system global that differ from their defaults",
            .ask(changed("system global"))),
        Command("show system csf", help: "Settings of system csf that differ from their defaults", .ask(changed("system csf"))),
        Command("show system ha", help: "Settings of system ha that differ from their defaults", .ask(changed("system ha"))),
        Command(
            "show system sharing", help: "Settings of system sharing that differ from their defaults",
            .ask(changed("system sharing"))),
        Command("show full-configuration", help: "The whole configuration", .ask(configuration)),
        Command(
            "show full-configuration system global", help: "All settings of system global", .ask(settings("system global"))),
        Command("show full-configuration system csf", help: "All settings of system csf", .ask(settings("system csf"))),
        Command("show full-configuration system ha", help: "All settings of system ha", .ask(settings("system ha"))),
        Command(
            "show full-configuration system sharing", help: "All settings of system sharing", .ask(settings("system sharing"))),
        Command("config system global", help: "Change settings", .configure),
        Command("config system csf", help: "Change how seats are shared in a fabric", .configure),
        Command("config system ha", help: "Change how seats are shared in a cluster", .configure),
        Command("config system sharing", help: "Change the way to units that share seats", .configure),
        Command("set", setting, value, mode: .configuration, help: "Give a setting a value", .set),
        Command("unset", setting, mode: .configuration, help: "Give a setting its default value", .unset),
        Command("show", mode: .configuration, help: "The settings, with the changes made so far", .show),
        Command("abort", mode: .configuration, help: "Leave without changing anything", .abort),
        Command("end", mode: .configuration, help: "Apply and save all changes, or none, and leave", .end),
        Command("execute csf remove", serial, help: "Take the row of a unit that is gone away from its pool", .ask(removal)),
        Command("commit", help: "Read the licence and the configuration again", .ask(commit)),
        Command("set renew_license", help: "Ask the authority for a lease now", .ask(renewal)),
        Command(
            "set replace_stolen_key", stolen, file, help: "Trust a new key of the authority's in place of a stolen one",
            .ask(replacement)),
        Command("help", help: "All commands", .help),
        Command("exit", help: "Leave the shell", .exit),
        Command("quit", help: "Leave the shell", .exit),
    ]

    /// What the words say that begin several commands.
    static let groups: [String: String] = [
        "get": "State of the system",
        "get system": "State of fpxd and of this host",
        "get system performance": "Load of this host",
        "get system ha": "High availability",
        "diagnose": "What is behind a verdict",
        "diagnose test": "What parts of fpxd know",
        "diagnose test application": "What parts of fpxd know",
        "diagnose test application csfd": "Sharing of seats",
        "diagnose wad": "Licensing of proxy sessions",
        "diagnose wad session": "Sessions of the wire hooks",
        "show": "Licence and configuration",
        "show system": "Settings that differ from their defaults",
        "show full-configuration system": "All settings of one section",
        "execute": "Do something now",
        "execute csf": "Sharing of seats",
        "config": "Change the configuration",
        "config system": "Settings of the system",
    ]

    private static let count = Parameter(name: "N", help: "How many, 100 unless told", kind: .number(1...1000))
    private static let limit = Parameter(name: "LIMIT", help: "How many, 1000 unless told", kind: .number(1...100_000))
    private static let session = Parameter(
        name: "ID", help: "Its id from the list, or unknown; all unless told", kind: .sessionID)
    private static let serial = Parameter(
        name: "SERIAL", help: "Of a unit that does not speak any more", kind: .serial, isOptional: false)
    private static let setting = Parameter(name: "NAME", help: "Name of a setting", kind: .setting, isOptional: false)
    private static let stolen = Parameter(name: "KID", help: "The stolen key", kind: .value, isOptional: false)
    private static let file = Parameter(name: "FILE", help: "KID.pem of the new one", kind: .value, isOptional: false)
    private static let value = Parameter(name: "VALUE", help: "Its value", kind: .value, isOptional: false)
}

extension CommandTable {
    private static let status = Exchange("/v1/status", as: SystemStatus.self) { Text.status($0) }
    private static let performance = Exchange("/v1/performance", as: PerformanceReport.self) { Text.performance($0) }
    private static let events = Exchange("/v1/events", query: "limit", as: EventsReport.self) { Text.events($0) }
    private static let seats = Exchange(
        "/v1/seats", as: SeatsReport.self, next: { $0.mode == "HA" ? seatsInHA($0) : nil }
    ) {
        Text.seats($0)
    }
    /// With the units of the cluster, where the pool has been read. Its JSON is that of /v1/seats.
    private static func seatsInHA(_ seats: SeatsReport) -> Exchange {
        Exchange("/v1/sharing", as: SharingReport.self, json: { _ in try JSONLine.seats(seats) }) { sharing in
            try Text.check((sharing.ha?.units ?? []).map(\.serial))
            return Text.seats(seats, cluster: sharing.ha)
        }
    }
    private static let detail = Exchange(
        "/v1/seats", as: SeatsReport.self, next: { $0.mode == "HA" ? detailInHA($0.license) : nil }
    ) {
        try Text.seatsInDetail($0)
    }
    private static func detailInHA(_ license: LicenseSummary) -> Exchange {
        Exchange("/v1/sharing", as: SharingReport.self, refusal: { $0.ha == nil ? $0.unread : nil }) {
            try Text.seatsInHA($0, license)
        }
    }
    private static let sharing = Exchange("/v1/sharing", as: SharingReport.self) { Text.sharing($0) }
    private static let removal = Exchange("/v1/sharing/members", method: .delete, as: MemberRemoved.self) { Text.removed($0) }
    private static let fabric = Exchange("/v1/sharing", as: SharingReport.self) { Text.fabric($0) }
    private static let cluster = Exchange("/v1/sharing", as: SharingReport.self) { Text.cluster($0) }
    private static func ledger(isAligned: Bool) -> Exchange {
        Exchange("/v1/sharing", as: SharingReport.self, refusal: { $0.ledgerMissing }) {
            try Text.ledger($0, isAligned: isAligned)
        }
    }
    private static let sessions = Exchange("/v1/sessions", query: "limit", as: SessionsReport.self) { Text.sessions($0) }
    private static let clear = Exchange("/v1/sessions", method: .delete, as: SessionsCleared.self) { Text.cleared($0) }
    private static let statistics = Exchange("/v1/sessions/stats", as: SessionStatistics.self) { Text.statistics($0) }
    private static let license = Exchange("/v1/license", as: LicenseReport.self, json: { try JSONLine.license($0) }) {
        Text.license($0)
    }
    // A document for the authority: JSON is its only form.
    private static let hardware = Exchange("/v1/license/hardware", as: HardwareReport.self, json: { try JSONLine.hardware($0) })
    {
        try JSONLine.hardware($0)
    }
    private static let usageReport = Exchange("/v1/usage_report", as: UsageReport.self, json: { try JSONLine.usage($0) }) {
        try JSONLine.usage($0)
    }
    private static let configuration = Exchange("/v1/config", as: ConfigurationReport.self) { Text.configuration($0) }
    /// All settings of a section.
    private static func settings(_ path: String) -> Exchange {
        Exchange("/v1/config", as: ConfigurationReport.self, json: { try JSONLine.section($0.section(path)) }) {
            Text.section(try $0.section(path))
        }
    }
    /// Those that differ from their defaults.
    private static func changed(_ path: String) -> Exchange {
        Exchange("/v1/config", as: ConfigurationReport.self, json: { try JSONLine.section($0.section(path).changed) }) {
            Text.section(try $0.section(path).changed)
        }
    }
    private static let renewal = Exchange(
        "/v1/license/renew", method: .post, seconds: Request.secondsWithAuthority, as: RenewalReport.self,
        refusal: { $0.renewed ? nil : $0.reason ?? "no lease came" }
    ) {
        Text.renewal($0)
    }
    private static let replacement = Exchange(
        "/v1/license/replace_stolen_key", method: .post, seconds: Request.secondsWithAuthority, as: RenewalReport.self,
        body: { arguments throws(Failure) in try KeyReplacement(arguments: arguments) },
        refusal: { $0.renewed ? nil : $0.reason ?? "no lease came" }
    ) {
        Text.renewal($0)
    }
    private static let commit = Exchange(
        "/v1/commit", method: .post, seconds: Request.secondsWithAuthority, as: CommitReport.self,
        refusal: { $0.applied ? nil : $0.messages.isEmpty ? "not applied" : $0.messages.joined(separator: "; ") }
    ) {
        Text.commit($0)
    }
}
