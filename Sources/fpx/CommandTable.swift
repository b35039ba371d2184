// CommandTable: every command there is. Parsing, `?`, completion, help and the test of the manual all read this table.

import ControlAPI

enum CommandTable {
    static let commands: [Command] = [
        Command("get system status", help: "Version, licence and state of fpxd", .ask(status)),
        Command("get system performance status", help: "CPU, memory, sessions, set-up rate, uptime", .ask(performance)),
        Command("get system events", count, help: "What happened last: licence, limit, processes, configuration", .ask(events)),
        Command("diagnose wad license", help: "Mode, seats and sessions of each licence type", .ask(seats)),
        Command("diagnose wad license detail", help: "Purchased and available seats, max licensed session", .ask(detail)),
        Command("diagnose wad session list", limit, help: "Sessions of the wire hooks, oldest first", .ask(sessions)),
        Command("diagnose wad session clear", session, help: "End one session of the wire hooks, or all", .ask(clear)),
        Command("diagnose wad session stats", help: "Counters of each hook, process and CPU", .ask(statistics)),
        Command("show license", help: "The licence in force, in one line", .ask(license)),
        Command("show license_hardware_data", help: "What identifies this hardware, for an offline licence", .ask(hardware)),
        Command("show usage_report", help: "The usage report that goes to the authority next", .ask(usageReport)),
        Command("show system global", help: "Settings of system global that differ from their defaults", .ask(changedSettings)),
        Command("show full-configuration", help: "The whole configuration", .ask(configuration)),
        Command("show full-configuration system global", help: "All settings of system global", .ask(globalSettings)),
        Command("config system global", help: "Change settings", .configure),
        Command("set", setting, value, mode: .configuration, help: "Give a setting a value", .set),
        Command("unset", setting, mode: .configuration, help: "Give a setting its default value", .unset),
        Command("show", mode: .configuration, help: "The settings, with the changes made so far", .show),
        Command("abort", mode: .configuration, help: "Leave without changing anything", .abort),
        Command("end", mode: .configuration, help: "Apply and save all changes, or none, and leave", .end),
        Command("commit", help: "Read the licence and the configuration again", .ask(commit)),
        Command("set renew_license", help: "Ask the authority for a lease now", .ask(renewal)),
        Command("help", help: "All commands", .help),
        Command("exit", help: "Leave the shell", .exit),
        Command("quit", help: "Leave the shell", .exit),
    ]

    /// What the words say that begin several commands.
    static let groups: [String: String] = [
        "get": "State of the system",
        "get system": "State of fpxd and of this host",
        "get system performance": "Load of this host",
        "diagnose": "What is behind a verdict",
        "diagnose wad": "Licensing of proxy sessions",
        "diagnose wad session": "Sessions of the wire hooks",
        "show": "Licence and configuration",
        "show system": "Settings that differ from their defaults",
        "show full-configuration system": "All settings of one section",
        "config": "Change the configuration",
        "config system": "Settings of the system",
    ]

    private static let count = Parameter(name: "N", help: "How many, 100 unless told", kind: .number(1...1000))
    private static let limit = Parameter(name: "LIMIT", help: "How many, 1000 unless told", kind: .number(1...100_000))
    private static let session = Parameter(name: "ID", help: "Its id from the list; all unless told", kind: .sessionID)
    private static let setting = Parameter(name: "NAME", help: "Name of a setting", kind: .setting, isOptional: false)
    private static let value = Parameter(name: "VALUE", help: "Its value", kind: .value, isOptional: false)
}

extension CommandTable {
    private static let status = Exchange("/v1/status", as: SystemStatus.self) { Text.status($0) }
    private static let performance = Exchange("/v1/performance", as: PerformanceReport.self) { Text.performance($0) }
    private static let events = Exchange("/v1/events", query: "limit", as: EventsReport.self) { Text.events($0) }
    private static let seats = Exchange("/v1/seats", as: SeatsReport.self) { Text.seats($0) }
    private static let detail = Exchange("/v1/seats", as: SeatsReport.self) { try Text.seatsInDetail($0) }
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
    private static let globalSettings = Exchange(
        "/v1/config", as: ConfigurationReport.self, json: { try JSONLine.section($0.global) }
    ) {
        Text.section(try $0.global)
    }
    private static let changedSettings = Exchange(
        "/v1/config", as: ConfigurationReport.self, json: { try JSONLine.section($0.global.changed) }
    ) {
        Text.section(try $0.global.changed)
    }
    private static let renewal = Exchange(
        "/v1/license/renew", method: .post, seconds: Request.secondsWithAuthority, as: RenewalReport.self,
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
