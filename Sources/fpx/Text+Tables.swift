// Text of what has many rows, and of the configuration.

import ControlAPI

extension Text {
    /// Columns as wide as their widest cell, two blanks between; numbers to the right.
    static func table(_ rows: [[String]], header: [String] = []) -> String {
        let cells = ([header].filter { !$0.isEmpty } + rows).map { $0.map(\.shown) }
        let columns = cells.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in cells.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
        let numeric = (0..<columns).map { column in
            !header.isEmpty && !rows.isEmpty && rows.allSatisfy { column < $0.count && Int($0[column]) != nil }
        }
        return joined(
            cells.map { row in
                var line = ""
                for (column, cell) in row.enumerated() {
                    let blanks = String(repeating: " ", count: widths[column] - cell.count)
                    line += (column == 0 ? "" : "  ") + (numeric[column] ? blanks + cell : cell + blanks)
                }
                while line.last == " " { line.removeLast() }
                return line
            })
    }

    /// `diagnose wad session list`
    static func sessions(_ report: SessionsReport) -> String {
        let rows = report.sessions.map {
            [
                $0.id, $0.hook, $0.type, $0.verdict, $0.client ?? "-", String($0.processId), time($0.startedAt), $0.key,
            ]
        }
        let header = ["ID", "HOOK", "TYPE", "VERDICT", "CLIENT", "PROCESS", "STARTED", "KEY"]
        let listed = rows.count < report.total ? ", the \(rows.count) oldest listed" : ""
        return (rows.isEmpty ? "" : table(rows, header: header)) + "Total: \(counted(report.total))\(listed)\n"
    }

    /// `diagnose wad session clear`
    static func cleared(_ report: SessionsCleared) -> String { "Cleared: \(counted(report.cleared))\n" }

    private static func counted(_ sessions: Int) -> String { "\(sessions) session\(sessions == 1 ? "" : "s")" }

    /// `diagnose wad session stats`
    static func statistics(_ report: SessionStatistics) -> String {
        let hooks = report.hooks.flatMap { hook in
            hook.counters.sorted { $0.key < $1.key }.map { [hook.hook, $0.key, String($0.value)] }
        }
        let processes = report.processes.map {
            [
                String($0.slot), String($0.processId), $0.name.isEmpty ? "-" : $0.name, $0.alive ? "yes" : "no", $0.type,
                String($0.inUse), String($0.spare), String($0.bypassed), String($0.admissions), String($0.refused),
            ]
        }
        let cpus = report.cpus.map {
            [String($0.cpu), $0.type, String($0.held), String($0.spare), String($0.admissions)]
        }
        return table(hooks, header: ["HOOK", "COUNTER", "VALUE"]) + "\n"
            + table(
                processes,
                header: [
                    "SLOT", "PROCESS", "NAME", "ALIVE", "TYPE", "IN_USE", "SPARE", "BYPASSED", "ADMISSIONS", "REFUSED",
                ]) + "\n" + table(cpus, header: ["CPU", "TYPE", "HELD", "SPARE", "ADMISSIONS"])
            + (report.refusedProcesses > 0 ? "\nProcesses refused, no slot was free: \(report.refusedProcesses)\n" : "")
    }

    /// `get system events`
    static func events(_ report: EventsReport) -> String {
        table(report.events.map { [time($0.at), $0.level, $0.subject, $0.message] })
    }

    /// `commit`: what changed; where something was refused, that goes to standard error.
    static func commit(_ report: CommitReport) -> String {
        let license = report.license
        let reason = license.valid ? "" : license.reason.map { " (\($0.shown))" } ?? ""
        let lines = (report.applied ? report.messages.map(\.shown) : []) + ["License state: \(license.state.shown)\(reason)"]
        return joined(lines)
    }

    /// `set renew_license`: the licence in force after it.
    static func renewal(_ report: RenewalReport) -> String {
        let license = report.license
        let reason = license.valid ? "" : license.reason.map { " (\($0.shown))" } ?? ""
        let days = license.daysLeft.map { ["License days left: \($0)"] } ?? []
        return joined(["License state: \(license.state.shown)\(reason)"] + days)
    }

    /// `show full-configuration`
    static func configuration(_ report: ConfigurationReport) -> String { report.sections.map(section).joined() }

    /// A section in the form that may be typed in again. What another value is in force of until a restart is a remark.
    static func section(_ section: Section) -> String {
        let settings = section.settings.flatMap { setting in
            let name = setting.name.shown
            let line = "    set \(name) \(Line.quoting(setting.configured))"
            guard setting.valueAfterRestart != nil else { return [line] }
            return [line, "    # \(name) is \(Line.quoting(setting.value)) until fpxd is restarted"]
        }
        return joined(["config \(section.path.shown)"] + settings + ["end"])
    }

    /// `end`: what to know of how a change was saved.
    static func changed(_ report: ConfigurationReport) -> String { joined((report.remarks ?? []).map(\.shown)) }

    /// `help`
    static func help() -> String {
        func rows(_ mode: Command.Mode) -> [[String]] {
            CommandTable.commands.filter { $0.mode == mode }.map { [$0.usage, $0.help] }
        }
        return table(rows(.top)) + "\nWithin config:\n" + table(rows(.configuration))
            + "\nAny command may be followed by | \(Filter.usage). A word may be abbreviated; ? shows what may come next.\n"
    }
}
