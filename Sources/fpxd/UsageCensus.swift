// UsageCensus: counts what the usage report says. What an operator has seen is what is sent: a report that was asked for stays the
// next one until it has gone out.

import Admission
import CAdmission
import ControlAPI
import Foundation
import KeyedSessions
import LicenseClient
import Licensing
import Settings
import Synchronization

final class UsageCensus: Sendable {
    private struct State {
        var hooks: Set<String> = []
        var next: UsageReport?
    }

    private let state = Mutex(State())

    /// Does not change while the kernel runs.
    private static let host = (
        virtualization: Virtualization.detect(), distribution: Distribution.read(),
        cpuFlags: CPUFlags.read((try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""), kernel: kernel()
    )

    /// For the log: what says on what this host runs.
    static var source: String { "Virtualization: \(host.virtualization.name), by \(host.virtualization.source)" }

    private static func kernel() -> String {
        var name = utsname()
        uname(&name)
        return withUnsafeBytes(of: name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// The report that goes out next.
    func next(of daemon: Daemon) -> UsageReport {
        if let next = state.withLock({ $0.next }) { return next }
        let report = take(of: daemon)
        return state.withLock { state in
            // Of two who count at the same time the first one's stays.
            let next = state.next ?? report
            state.next = next
            return next
        }
    }

    func sent() { state.withLock { $0.next = nil } }

    private func take(of daemon: Daemon) -> UsageReport {
        let begin = ContinuousClock.now
        look(at: daemon)
        let clients = Set(daemon.sessions.list(limit: .max).sessions.compactMap { $0.client?.address })
        let sixes = clients.count { $0.contains(":") }
        let speed = daemon.sampler.speed()
        let host = Self.host
        var report = UsageReport(
            version: Version.number, hooks: state.withLock { $0.hooks.sorted() }, incomingSpeed: speed.bitsIn,
            outgoingSpeed: speed.bitsOut, activeClientsIpv4: clients.count - sixes, activeClientsIpv6: sixes,
            sessions: daemon.pools.reduce(0) { $0 + $1.snapshot().inUse },
            admissionsPerSecond: daemon.sampler.report(uptimeSeconds: 0).windows.first?.setupRate ?? 0,
            virtualization: host.virtualization.name, censusMicroseconds: 0, kernel: host.kernel,
            distribution: host.distribution.id, distributionVersion: host.distribution.version, cpuFlags: host.cpuFlags,
            features: Self.features(of: daemon))
        report.censusMicroseconds = Int((ContinuousClock.now - begin) / .microseconds(1))
        return report
    }

    private static func features(of daemon: Daemon) -> [String] {
        var features = ["license-overlimit-\(daemon.settings[Setting.overLimit])", "\(daemon.segment.fenceMode)"]
        if daemon.haproxy != nil { features.append("haproxy-agent") }
        if fpx_rseq_is_registered() { features.append("rseq") }
        if daemon.licenseInForce.claims?.licensedBandwidth ?? 0 > 0 { features.append("bandwidth") }
        return features.sorted()
    }

    /// Remembers which hooks admit: a process may be gone when the hour is over. Call it now and then.
    func look(at daemon: Daemon) {
        var hooks = Set(
            Hook.allCases.filter { hook in
                [.admitted, .bypassed, .blocked].contains { daemon.sessions.count($0, of: hook) > 0 }
            }.map(\.name))
        // What the keeper itself holds is the wire hooks'.
        let names = Dictionary(daemon.segment.processes().map { ($0.slot, $0.name) }) { first, _ in first }
        for holding in daemon.pools.flatMap({ $0.holdings() })
        where holding.slot != daemon.segment.slot && (holding.admissions > 0 || holding.refused > 0) {
            hooks.insert(names[holding.slot] == "nginx" ? "nginx" : "library")
        }
        state.withLock { $0.hooks.formUnion(hooks) }
    }
}
