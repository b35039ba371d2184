// Section: a section of the configuration, and the changes an operator makes to it.

import ControlAPI

typealias Section = ConfigurationReport.Section
typealias Setting = ConfigurationReport.Setting

extension ConfigurationReport {
    /// What a daemon of another version would lack.
    struct MissingSection: Error, Equatable, CustomStringConvertible {
        let path: String
        let found: [String]
        var description: String { "no section \(path), but \(found.joined(separator: ", "))" }
    }

    func section(_ path: String) throws(MissingSection) -> Section {
        guard let section = sections.first(where: { $0.path == path }) else {
            throw MissingSection(path: path, found: sections.map(\.path))
        }
        return section
    }
}

extension Setting {
    /// What the configuration says, whether or not it is in force before a restart.
    var configured: String { valueAfterRestart ?? value }
}

extension Section {
    /// The settings that differ from their defaults, or will when fpxd has been restarted.
    var changed: Section {
        Section(
            path: path,
            settings: settings.filter { $0.configured != $0.defaultValue || $0.value != $0.defaultValue })
    }

    /// The setting that a name or an abbreviation of it stands for.
    func setting(_ name: String, after: String) throws(Failure) -> Setting {
        let name = try match(name, among: settings.map(\.name), .setting, after: after)
        // The name is one of theirs.
        return settings.first { $0.name == name }!
    }
}

/// A section while an operator changes it: nothing of it is in force before `end`.
struct Draft {
    private(set) var section: Section
    private(set) var change: ConfigurationChange

    init(_ section: Section) {
        self.section = section
        change = ConfigurationChange(path: section.path, set: [:])
    }

    var isEmpty: Bool { change.set.isEmpty && (change.unset ?? []).isEmpty }

    mutating func set(_ name: String, to value: String) throws(Failure) {
        let setting = try section.setting(name, after: "set")
        var value = value
        if let allowed = setting.allowed { value = try match(value, among: allowed, .value, after: "set \(setting.name)") }
        forget(setting.name)
        change.set[setting.name] = value
        show(setting.name, value)
    }

    mutating func unset(_ name: String) throws(Failure) {
        let setting = try section.setting(name, after: "unset")
        forget(setting.name)
        change.unset = (change.unset ?? []) + [setting.name]
        show(setting.name, setting.defaultValue)
    }

    /// What was said last holds.
    private mutating func forget(_ name: String) {
        change.set[name] = nil
        change.unset = change.unset?.filter { $0 != name }
    }

    private mutating func show(_ name: String, _ value: String) {
        for index in section.settings.indices where section.settings[index].name == name {
            section.settings[index].value = value
        }
    }
}
