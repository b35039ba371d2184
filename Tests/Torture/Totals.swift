// Totals: what a run has seen, and how it says so.

import Admission

/// What must hold. The first violation ends the run.
enum Law: String, CaseIterable {
    /// Licensed sessions in use never exceed the cap.
    case neverOver = "S1"
    /// Nobody is refused while a licensed session is free.
    case neverUnder = "S2"
    /// What a killed process held is back, once.
    case comesBack = "S3"
    /// Nobody waits for a stopped thread.
    case neverWaits = "S4"
    /// Free and granted sessions add up to the cap.
    case conservation = "conservation"
    /// Something else: a child ended by itself, or found a call's answer wrong.
    case other = "other"
}

struct Violation: Error {
    let law: Law
    let text: String

    init(_ law: Law, _ text: String) {
        self.law = law
        self.text = text
    }
}

struct Totals {
    var rounds = 0
    var operations: UInt64 = 0
    var logged: UInt64 = 0
    var admitted: UInt64 = 0
    var refused: UInt64 = 0
    var foreignReleases: UInt64 = 0
    var doubleReleases: UInt64 = 0
    var kills = 0
    var stops = 0
    var naps = 0
    /// Instructions that threads were taken through one at a time.
    var steps = 0
    var migrations = 0
    var forks: UInt64 = 0
    var capChanges = 0
    var audits = 0
    var probes = 0
    var collects: UInt64 = 0
    var violations: [Law: Int] = [:]
    /// Nanoseconds from a process' death until all it held was back: given back by the conductor, by other children.
    var longestReap: UInt64 = 0
    var longestReapBySiblings: UInt64 = 0

    private var figures: [(name: String, value: String)] {
        [
            ("rounds", "\(rounds)"), ("operations", "\(operations)"), ("logged", "\(logged)"), ("admitted", "\(admitted)"),
            ("refused", "\(refused)"), ("foreign_releases", "\(foreignReleases)"), ("double_releases", "\(doubleReleases)"),
            ("kills", "\(kills)"), ("stops", "\(stops)"), ("naps", "\(naps)"), ("steps", "\(steps)"),
            ("affinity_changes", "\(migrations)"),
            ("forks", "\(forks)"), ("cap_changes", "\(capChanges)"), ("audits", "\(audits)"), ("probes", "\(probes)"),
            ("collects", "\(collects)"),
        ] + Law.allCases.map { ("violations_\($0.rawValue)", "\(violations[$0] ?? 0)") }
            + [
                ("longest_reap_ms", milliseconds(longestReap)),
                ("longest_reap_by_siblings_ms", milliseconds(longestReapBySiblings)),
            ]
    }

    var json: String { "{" + figures.map { "\"\($0.name)\": \($0.value)" }.joined(separator: ", ") + "}" }

    var text: String {
        figures.map { "\($0.name.replacing("_", with: " ")) \($0.value)" }.joined(separator: ", ")
    }
}

/// Nanoseconds as milliseconds with two places.
func milliseconds(_ nanoseconds: UInt64) -> String {
    let hundredths = (nanoseconds + 5000) / 10_000
    let rest = hundredths % 100
    return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
}
