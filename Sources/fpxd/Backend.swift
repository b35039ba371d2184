// Backend: the daemon's answers to the control plane.

import Admission
import ControlAPI
import ControlPlane
import Foundation
import KeyedSessions
import LicenseClient
import Licensing
import SeatSharing
import Settings

extension Daemon: ControlBackend {
    func status() async -> SystemStatus {
        let contact = await authority?.contact()
        let troubles = troubles
        return SystemStatus(
            version: Version.number, build: Version.build, date: Version.date, tag: Version.tag,
            license: licenseSummary,
            processId: Int(getpid()), startedAt: startedAt, uptimeSeconds: uptimeSeconds, segment: segment.path,
            configurationFile: settings.file.path, mode: sharedSeats.summary().mode, authority: contact,
            troubles: troubles.isEmpty ? nil : troubles)
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
            summary: licenseSummary, licenseId: claims?.licenseID, customer: claims?.customer, keyId: status.keyID,
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
        report.unitId = unit.id
        return report
    }

    func seats() -> SeatsReport {
        let status = licenseInForce
        let sharing = sharedSeats.summary()
        return SeatsReport(
            mode: sharing.mode, license: licenseSummary,
            types: LicenseType.allCases.map { type in
                let (snapshot, isKnown) = pool(type).figures
                let seatType = SeatType(rawValue: type.rawValue) ?? .furl
                let borrowed = sharing.borrowed[seatType]
                return SeatsOfType(
                    type: type.rawValue, modelMax: status.claims?.modelMax[type] ?? 0,
                    activeSeats: sharing.cap?[seatType] ?? status.activeSeats(of: type),
                    purchasedSeats: sharing.cap == nil ? status.seats(of: type) : sharing.own[seatType],
                    fabricSeats: sharing.mode == "HA" ? 0 : borrowed, haSeats: sharing.mode == "HA" ? borrowed : 0,
                    maxSessions: snapshot.cap,
                    currentSessions: isKnown ? snapshot.inUse : nil, currentBypassed: snapshot.bypassed,
                    maxBypassed: snapshot.bypassedPeak)
            })
    }

    func sharing() -> SharingReport { sharedSeats.report() }

    func removeMember(serial: String, by user: String) async throws(ControlFailure) -> MemberRemoved {
        guard Row.isName(serial) else {
            throw ControlFailure(
                .invalidValue,
                "serial: found \"\(serial.prefix(64))\", expected 1 to 64 letters, digits, dots, dashes and underscores")
        }
        return try await sharedSeats.removeRow(serial, by: user)
    }

    func sessions(limit: Int) -> SessionsReport {
        let (total, listed) = sessions.list(limit: limit)
        return SessionsReport(
            total: total,
            sessions: listed.map { session in
                SessionEntry(
                    id: session.id, key: session.key, hook: session.hook?.name ?? "unknown",
                    type: Self.typeName(pool: session.pool),
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
        let segment = segment
        let attached = Dictionary(segment.processes().map { ($0.slot, $0) }) { first, _ in first }
        for type in LicenseType.allCases {
            for holding in pool(type).holdings() {
                let process = SessionStatistics.Process(
                    slot: holding.slot, processId: holding.processID, name: attached[holding.slot]?.name ?? "",
                    alive: attached[holding.slot]?.isAlive ?? false, type: type.rawValue, inUse: holding.inUse,
                    spare: holding.spare,
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
            processes: processes, cpus: cpus, refusedProcesses: segment.refusedProcesses)
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
            sum.admissions &+= Int(truncatingIfNeeded: writer.fastAdmissions &+ writer.poolAdmissions)
            byCPU[cpu] = sum
        }
        return byCPU.values.sorted { $0.cpu < $1.cpu }
    }

    func configuration() -> ConfigurationReport {
        let settings = self.settings
        return ConfigurationReport(
            sections: Setting.Section.allCases.map { section in
                ConfigurationReport.Section(
                    path: section.rawValue,
                    settings: section.settings.map { setting in
                        let value = settings[setting.name]
                        let configured = settings.configured(setting.name)
                        return ConfigurationReport.Setting(
                            name: setting.nameInSection, value: value,
                            valueAfterRestart: configured == value ? nil : configured,
                            defaultValue: settings.defaults.values[setting.name] ?? "", allowed: setting.allowed,
                            help: "\(setting.help): \(setting.expectation)", changeable: setting.changeable)
                    })
            })
    }

    func performance() -> PerformanceReport { sampler.report(uptimeSeconds: uptimeSeconds) }

    func events(limit: Int) -> EventsReport { EventsReport(events: events.latest(limit)) }

    func change(_ change: ConfigurationChange, by user: String) throws(ControlFailure) -> ConfigurationReport {
        let sections = Setting.Section.allCases.filter { $0 != .daemon }
        guard let section = sections.first(where: { $0.rawValue == change.path }) else {
            throw ControlFailure(
                .notFound,
                "found section \"\(change.path)\", expected one of \(sections.map(\.rawValue).joined(separator: ", "))")
        }
        var changes: [String: String?] = [:]
        for (name, value) in change.set.sorted(by: { $0.key < $1.key }) {
            changes[try Self.setting(name, of: section)] = value
        }
        for name in change.unset ?? [] {
            if change.set[name] != nil { throw ControlFailure(.badRequest, "\(name): found both set and unset") }
            changes.updateValue(nil, forKey: try Self.setting(name, of: section))
        }
        let remark: String?
        do {
            remark = try self.change(changes, by: user)
        } catch {
            switch error {
            case .file, .line: throw ControlFailure(.unavailable, "\(error)")
            case .value, .name, .combination, .sharing: throw ControlFailure(.invalidValue, "\(error)")
            }
        }
        var report = configuration()
        report.remarks = remark.map { [$0] }
        return report
    }

    private static func setting(_ name: String, of section: Setting.Section) throws(ControlFailure) -> String {
        guard let setting = section.setting(name) else {
            throw ControlFailure(
                .invalidValue,
                "found unknown setting \"\(name)\" of \(section.rawValue), expected one of "
                    + section.settings.map(\.nameInSection).joined(separator: ", "))
        }
        return setting.name
    }

    func clearSessions(id: String?, by user: String) throws(ControlFailure) -> SessionsCleared {
        guard let id else {
            let count = sessions.clearAll()
            events.note(.warning, .hook, "\(count) sessions cleared by \(user)", isAct: true)
            return SessionsCleared(cleared: count)
        }
        if id == "unknown" {
            let count = sessions.clearUnknown()
            events.note(.warning, .hook, "\(count) sessions of unknown proxies cleared by \(user)", isAct: true)
            return SessionsCleared(cleared: count)
        }
        guard let handle = SessionHandle(id: id) else {
            throw ControlFailure(.invalidValue, "id: found \"\(id.prefix(40))\", expected 16 hexadecimal digits or unknown")
        }
        guard sessions.clear(handle) else {
            throw ControlFailure(.notFound, "found no session \(id) in progress, expected one of `diagnose wad session list`")
        }
        events.note(.warning, .hook, "Session \(id) cleared by \(user)", isAct: true)
        return SessionsCleared(cleared: 1)
    }
}
