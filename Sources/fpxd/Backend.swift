// Backend: the daemon's answers to the control plane.

import Admission
import ControlAPI
import ControlPlane
import Foundation
import KeyedSessions
import LicenseClient
import Licensing
import Settings

extension Daemon: ControlBackend {
    private static let mode = "None"

    func status() -> SystemStatus {
        SystemStatus(
            version: Version.number, build: Version.build, date: Version.date, tag: Version.tag,
            license: licenseInForce.summary,
            processId: Int(getpid()), startedAt: startedAt, uptimeSeconds: uptimeSeconds, segment: segment.path,
            configurationFile: settings.file.path, mode: Self.mode)
    }

    func license() -> LicenseReport {
        let status = licenseInForce
        let hardware = keeper.hardware
        let claims = status.claims
        func date(_ seconds: Int?) -> Date? { seconds.map { Date(timeIntervalSince1970: TimeInterval($0)) } }
        func perType(_ value: (LicenseType) -> Int) -> [String: Int] {
            Dictionary(uniqueKeysWithValues: LicenseType.allCases.map { ($0.rawValue, value($0)) })
        }
        return LicenseReport(
            summary: status.summary, licenseId: claims?.licenseID, customer: claims?.customer, keyId: status.keyID,
            epoch: claims?.epoch, issuedAt: date(claims?.issuedAt), notBefore: date(claims?.notBefore),
            leaseExpiresAt: date(claims?.leaseExpiry), paidUntil: date(claims?.paidUntil),
            sessionsPerSeat: claims?.sessionsPerSeat ?? 0, seats: perType { claims?.seats[$0] ?? 0 },
            modelMax: perType { claims?.modelMax[$0] ?? 0 }, addressIpv4: hardware?.addressIPv4 ?? "",
            totalMemorySize: hardware?.totalMemorySize ?? 0, logicalCpusNumber: hardware?.logicalCPUsNumber ?? 0,
            cpuModel: hardware?.cpuModel ?? "", licensedBandwidth: claims?.licensedBandwidth ?? 0,
            licensedBandwidthUnit: claims?.licensedBandwidthUnit ?? "mbits",
            issuerType: claims?.issuerType.rawValue ?? "automatic",
            businessType: claims?.businessType.rawValue ?? "")
    }

    func hardware() -> HardwareReport {
        var report = HardwareReport(keeper.hardware)
        report.unitId = unitID
        return report
    }

    func seats() -> SeatsReport {
        let status = licenseInForce
        return SeatsReport(
            mode: Self.mode, license: status.summary,
            types: LicenseType.allCases.map { type in
                let snapshot = pool(type).snapshot()
                return SeatsOfType(
                    type: type.rawValue, modelMax: status.claims?.modelMax[type] ?? 0,
                    activeSeats: status.activeSeats(of: type),
                    purchasedSeats: status.seats(of: type), fabricSeats: 0, haSeats: 0, maxSessions: snapshot.cap,
                    currentSessions: snapshot.inUse, currentBypassed: snapshot.bypassed, maxBypassed: snapshot.bypassedPeak)
            })
    }

    func sessions(limit: Int) -> SessionsReport {
        let (total, listed) = sessions.list(limit: limit)
        return SessionsReport(
            total: total,
            sessions: listed.map { session in
                SessionEntry(
                    id: session.id, key: session.key, hook: session.hook.name, type: Self.typeName(pool: session.pool),
                    verdict: "\(session.verdict)", client: session.client.map { "\($0)" }, processId: session.processID,
                    startedAt: Date(timeIntervalSince1970: TimeInterval(session.started) / 1000))
            })
    }

    private static func typeName(pool: Int) -> String {
        LicenseType.allCases.first { $0.poolIndex == pool }?.rawValue ?? "\(pool)"
    }

    func statistics() -> SessionStatistics {
        var processes: [SessionStatistics.Process] = []
        var cpus: [SessionStatistics.CPU] = []
        let alive = Set(segment.processes().filter(\.isAlive).map(\.slot))
        for type in LicenseType.allCases {
            for holding in pool(type).holdings() {
                let process = SessionStatistics.Process(
                    slot: holding.slot, processId: holding.processID, name: Host.name(ofProcess: holding.processID),
                    alive: alive.contains(holding.slot), type: type.rawValue, inUse: holding.inUse, spare: holding.spare,
                    bypassed: holding.bypassed, admissions: Int(clamping: holding.admissions),
                    refused: Int(clamping: holding.refused))
                // Types that a process has never used are left out.
                if type == .furl || process.admissions > 0 || process.refused > 0 { processes.append(process) }
            }
            cpus += statisticsByCPU(type)
        }
        return SessionStatistics(
            hooks: [
                SessionStatistics.Hook(
                    hook: Hook.haproxy.name,
                    counters: sessions.statistics(of: .haproxy).merging(haproxy?.counters ?? [:]) { $1 })
            ],
            processes: processes, cpus: cpus)
    }

    private func statisticsByCPU(_ type: LicenseType) -> [SessionStatistics.CPU] {
        var byCPU: [Int: SessionStatistics.CPU] = [:]
        for writer in pool(type).writers() {
            // Types that nobody has used are left out.
            guard case .shard(let cpu) = writer.kind,
                writer.held != 0 || writer.fastAdmissions &+ writer.poolAdmissions > 0
            else { continue }
            var sum = byCPU[cpu] ?? SessionStatistics.CPU(cpu: cpu, type: type.rawValue, held: 0, spare: 0, admissions: 0)
            sum.held += writer.held
            sum.spare += writer.spare
            sum.admissions += Int(clamping: writer.fastAdmissions &+ writer.poolAdmissions)
            byCPU[cpu] = sum
        }
        return byCPU.values.sorted { $0.cpu < $1.cpu }
    }

    func configuration() -> ConfigurationReport {
        let settings = self.settings
        func section(_ path: String, changeable: Bool) -> ConfigurationReport.Section {
            ConfigurationReport.Section(
                path: path,
                settings: Setting.all.filter { $0.changeable == changeable }.map { setting in
                    ConfigurationReport.Setting(
                        name: setting.name, value: settings[setting.name],
                        defaultValue: settings.defaults.values[setting.name] ?? "", allowed: setting.allowed,
                        help: "\(setting.help): \(setting.expectation)", changeable: setting.changeable)
                })
        }
        return ConfigurationReport(sections: [
            section("system global", changeable: true), section("system daemon", changeable: false),
        ])
    }

    func performance() -> PerformanceReport { sampler.report(uptimeSeconds: uptimeSeconds) }

    func events(limit: Int) -> EventsReport { EventsReport(events: events.latest(limit)) }

    func change(_ change: ConfigurationChange) throws(ControlFailure) -> ConfigurationReport {
        guard change.path == "system global" else {
            throw ControlFailure(.notFound, "found section \"\(change.path)\", expected \"system global\"")
        }
        var changes: [String: String?] = change.set.mapValues { $0 }
        for name in change.unset ?? [] {
            if changes[name] != nil { throw ControlFailure(.badRequest, "\(name): found both set and unset") }
            changes.updateValue(nil, forKey: name)
        }
        do {
            try self.change(changes)
        } catch {
            switch error {
            case .file, .line: throw ControlFailure(.unavailable, "\(error)")
            case .value, .name: throw ControlFailure(.invalidValue, "\(error)")
            }
        }
        return configuration()
    }

    func clearSessions(id: String?) throws(ControlFailure) -> SessionsCleared {
        guard let id else {
            let count = sessions.clearAll()
            events.note(.warning, .hook, "\(count) sessions cleared by an operator")
            return SessionsCleared(cleared: count)
        }
        guard let handle = SessionHandle(id: id) else {
            throw ControlFailure(.invalidValue, "id: found \"\(id.prefix(40))\", expected 16 hexadecimal digits")
        }
        guard sessions.clear(handle) else {
            throw ControlFailure(.notFound, "found no session \(id) in progress, expected one of `diagnose wad session list`")
        }
        events.note(.warning, .hook, "Session \(id) cleared by an operator")
        return SessionsCleared(cleared: 1)
    }
}
