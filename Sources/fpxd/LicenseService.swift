// LicenseService: what the daemon does about its licence by itself: renews it, sees a changed file, sends the usage report.

import ControlAPI
import ControlPlane
import Foundation
import LicenseClient
import Licensing
import Logging
import ServiceLifecycle
import Settings

/// The authority that this unit's settings name.
struct Authority: Sendable {
    let url: String
    let client: LicenseClient
    let renewal: LicenseRenewal

    /// Certificates, and the key of ours.
    let files: [String]
    private let keeper: LicenseKeeper

    /// Nil: none is named, or the unit has no id to ask it by.
    ///
    /// - Parameter log: told what renewals do, a line each.
    init?(
        _ settings: Settings, unit: UnitIdentity, keeper: LicenseKeeper,
        log: @escaping @Sendable (Logger.Level, String) -> Void
    ) {
        guard let connection = AuthorityConnection(settings), let unitID = unit.id else { return nil }
        url = connection.url
        files = [connection.authorityFile, connection.certificateFile, connection.privateKeyFile].compactMap { $0 }
        client = LicenseClient(connection, unitID: unitID, unitKey: unit.key)
        renewal = LicenseRenewal(client: client, keeper: keeper, version: Version.number, log: log)
        self.keeper = keeper
    }

    /// What `get system status` says of it.
    func contact() async -> AuthorityContact {
        func date(_ seconds: Int) -> Date { Date(timeIntervalSince1970: TimeInterval(seconds)) }
        let (last, failure) = (keeper.record.lastContact, await renewal.lastFailure)
        return AuthorityContact(
            url: url, lastContact: last > 0 ? date(last) : nil, lastError: failure.map { "\($0.error)" },
            lastErrorAt: failure.map { date($0.at) })
    }
}

extension AuthorityConnection {
    /// Nil: the settings name no authority.
    init?(_ settings: Settings) {
        if settings[Setting.authority].isEmpty { return nil }
        func path(_ name: String) -> String? { settings[name].isEmpty ? nil : settings[name] }
        self.init(
            url: settings[Setting.authority], accountKeyFile: settings[Setting.accountKeyFile],
            authorityFile: path(Setting.authorityCA), certificateFile: path(Setting.authorityCertificate),
            privateKeyFile: path(Setting.authorityPrivateKey))
    }
}

/// Runs until the daemon is told to stop, and then waits for no authority.
struct LicenseService: Service {
    private static let lookedEvery: Duration = .seconds(10)

    let daemon: Daemon

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await withTaskGroup { group in
                let settings = daemon.settings
                group.addTask {
                    await watch(
                        settings[Setting.licenseFile], others: [settings[Setting.trustedKeys]], "licence",
                        changed: daemon.judgeLicenseAnew)
                }
                group.addTask {
                    await watch(settings.file.path, "configuration file") { daemon.configurationFileChanged() }
                }
                group.addTask {
                    await AddressWatch(
                        known: { daemon.keeper.hardware?.addressesIPv4 ?? [] }, changed: daemon.judgeLicenseAnew
                    ).run()
                }
                if let authority = daemon.authority {
                    group.addTask { await keepAlive(authority) }
                    group.addTask {
                        // A file that kept the authority from being asked, or from answering, may be right now.
                        await watch(
                            settings[Setting.accountKeyFile], others: authority.files + [settings[Setting.trustedKeys]],
                            "account key"
                        ) { await authority.renewal.retry() }
                    }
                    group.addTask { await report(to: authority) }
                }
            }
        }
    }

    private func watch(
        _ path: String, others: [String] = [], _ what: String, changed: @escaping @Sendable () async -> Void
    ) async {
        await FileWatch(path: path, others: others, changed: changed).run { error in
            daemon.events.note(
                .warning, .daemon, "A changed \(what) is looked for each second, as the host tells of none: \(error)")
        }
    }

    private func keepAlive(_ authority: Authority) async {
        await withTaskCancellationHandler {
            while !Task.isCancelled {
                if await authority.renewal.renewIfDue() != nil { daemon.applyLicense() }
                try? await Task.sleep(for: .seconds(1))
            }
        } onCancel: {
            Task { await authority.renewal.cancel() }
        }
    }

    private func report(to authority: Authority) async {
        daemon.logger.debug("\(UsageCensus.source)")
        // The first one when figures of a minute are there; then hourly, and units that started together do not report
        // together.
        var next = ContinuousClock.now + .seconds(Int.random(in: 60...660))
        while !Task.isCancelled {
            try? await Task.sleep(for: min(Self.lookedEvery, next - .now))
            daemon.usage.look(at: daemon)
            guard ContinuousClock.now >= next, !Task.isCancelled else { continue }
            next = .now + .seconds(3600 + Int.random(in: -300...300))
            if daemon.settings[Setting.usageReport] == "enable" { await daemon.sendUsageReport(to: authority) }
        }
    }
}

extension Daemon {
    private var noAuthority: ControlFailure {
        if unit.id == nil { return ControlFailure(.unavailable, unit.trouble.joined(separator: "; ")) }
        return ControlFailure(
            .unavailable, "authority: found none, expected one to ask: set it in \(settings.file.path) and restart fpxd")
    }

    func renewLicense(by user: String) async throws(ControlFailure) -> RenewalReport {
        guard let authority else { throw noAuthority }
        events.note(.info, .license, "License renewal requested by \(user)", isAct: true)
        let result = await authority.renewal.renew()
        applyLicense()
        let license = licenseSummary
        switch result {
        case .success: return RenewalReport(renewed: true, reason: nil, license: license)
        case .failure(let error): return RenewalReport(renewed: false, reason: "\(error)", license: license)
        }
    }

    /// After the theft of one of the authority's keys. Each step may be done again: who gives the command again goes on where
    /// it stopped.
    func replaceStolenKey(_ replacement: KeyReplacement) async throws(ControlFailure) -> RenewalReport {
        guard let authority else { throw noAuthority }
        let (old, new) = (replacement.stolen, replacement.kid)
        func refuse(_ reason: String) -> RenewalReport {
            applyLicense()
            return RenewalReport(renewed: false, reason: reason, license: licenseSummary)
        }
        var keys = TrustedKeys(paths: [])
        do { try keys.add(id: new, pem: replacement.pem) } catch {
            throw ControlFailure(.invalidValue, "the new key: \(error)")
        }
        let known = keeper.trustedKeys()
        guard let stolen = known.vouchers(by: old).last else {
            throw ControlFailure(
                .invalidValue, "the stolen key: found no key \(old), expected one of \(known.ids.joined(separator: ", "))")
        }
        if keys.vouchers(by: new).last?.key == stolen.key {
            throw ControlFailure(.invalidValue, "the new key: found the stolen one, expected another")
        }
        let isNew: Bool
        do { isNew = try keeper.trust(new, pem: replacement.pem) } catch {
            throw ControlFailure(.unavailable, "key \(new) cannot be put in place, and \(old) still counts: \(error)")
        }
        if case .failure(let error) = await authority.renewal.renew(by: keys) {
            // Nothing has shown that it is the authority's.
            if isNew, let key = keys.vouchers(by: new).last { try? keeper.distrust(key) }
            return refuse("nothing has changed, and key \(old) still counts, as no lease came by \(new): \(error)")
        }
        if LearnedKeys(folder: keeper.configuration.learnedKeys).holds(stolen) {
            return refuse(
                "key \(old) still counts, as the authority announces it: there, `fpx-authority keys replace-stolen \(old)`, "
                    + "then give this command again")
        }
        do { try keeper.distrust(stolen) } catch { return refuse("renewed by \(new), but key \(old) still counts: \(error)") }
        await judgeLicenseAnew()
        events.note(
            .warning, .license, "Key \(old) was stolen: \(new) is in its place, and nothing that it vouched for counts any more"
        )
        return RenewalReport(renewed: true, reason: nil, license: licenseSummary)
    }

    /// What the licence is judged by is different now: its file, the trusted keys, or this machine.
    func judgeLicenseAnew() async {
        _ = await keeper.commit()
        applyLicense()
    }

    func usageReport() -> UsageReport { usage.next(of: self) }

    /// Whatever becomes of it, nobody waits for it.
    func sendUsageReport(to authority: Authority) async {
        do {
            let bytes = try LicenseClient.encode(usage.next(of: self))
            let receipt = try await authority.client.send(usage: bytes, keys: keeper.trustedKeys())
            usage.sent()
            try StoredFile.replace(bytes, at: places.usageReport, mode: 0o640)
            logger.debug("Usage report sent, the authority has \(receipt.reports)")
        } catch {
            logger.debug("Usage report not sent or not kept: \(error)")
        }
    }
}
