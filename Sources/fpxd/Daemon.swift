// Daemon: what fpxd holds while it runs. The services around it only call it.

import Admission
import Basics
import ControlAPI
import Foundation
import KeyedSessions
import Licensing
import Logging
import Settings
import Synchronization

final class Daemon: Sendable {
    /// Where sessions stand in relation to their cap, as last told to people.
    private struct Limit {
        var isNear = false
        var refused: UInt64 = 0
        var toldAt: ContinuousClock.Instant?
    }

    private struct State {
        var settings: Settings
        var license: LicenseStatus
        var limits: [Limit]
        var bandwidth = BandwidthWatch()
        /// What was gone from the state folder and is there again, since somebody has committed.
        var restored: [String] = []
        /// Comings and goings of processes that are not in the events yet.
        var untold: [(Logger.Level, String)] = []
    }

    static let limitRemindedEvery: Duration = .seconds(60)

    let places: Places
    let host: HostSegment
    let pools: [HostPool]
    let sharedSeats: SharedSeats
    let sessions: KeyedSessions
    let names: SocketNames
    let haproxy: HAProxyAgent?
    let keeper: LicenseKeeper
    let unit: UnitIdentity
    /// Nil: licences are put in place by hand, or the unit's id is not known.
    let authority: Authority?
    let usage = UsageCensus()
    let events: EventLog
    let sampler: Sampler
    let journal: JournalWatch
    let logger: Logger
    let log: LineLog
    let shares = ConnectionShares()
    let startedAt = Date.now
    private let startedClock = ContinuousClock.now
    private let state: Mutex<State>
    /// Held while licence or settings are made those of the engine, so that what was read later is not overwritten by what was
    /// read before. Files are written under it: `state` is for moments, and may be taken within it.
    private let applying = Mutex(())

    /// Makes or takes over everything: folders, segment, sessions, licence.
    static func start(_ settings: Settings, log: LineLog, logger: Logger) async throws -> Daemon {
        log.level = Logger.Level(rawValue: settings[Setting.logLevel]) ?? .info
        umask(0o007)
        let places = try Places(settings)
        log.open(settings[Setting.logFile])
        for path in [settings.file.path, settings[Setting.licenseFile]] { StoredFile.removeLeftovers(of: path) }
        let unknown = places.unknownBeforeStart
        var findings: [String] = []
        let segment = try places.attach { findings.append($0) }
        let found = places.attachFormer(besides: segment) { findings.append($0) }
        let former = found.compactMap(\.segment)
        let sessions = try KeyedSessions(
            segment: segment, former: former, journal: places.journal, publish: places.publishing(segment))
        let host = HostSegment(
            segment, former: found, pools: LicenseType.allCases.count,
            maker: HostSegment.Maker(make: places.makeNext, publish: places.publishNext))
        // They admit nobody by now.
        sessions.leave(former)
        // Before the licence is read, which may be bound to them.
        let unit = UnitIdentity.load(stateFolder: places.state)
        let (keeper, report) = await LicenseKeeper.load(
            LicenseConfiguration(
                licenseFile: settings[Setting.licenseFile], evaluatesWhenAbsent: !settings.isSet(Setting.licenseFile),
                stateFolder: places.state, trustedKeys: [settings[Setting.trustedKeys]],
                hasAuthority: !settings[Setting.authority].isEmpty, guardedFiles: [settings[Setting.accountKeyFile]]))
        let daemon = try Daemon(
            settings: settings, places: places, host: host, sessions: sessions, unit: unit, keeper: keeper,
            license: report.status, log: log, logger: logger)
        for finding in findings + [unknown].compactMap({ $0 }) { daemon.events.note(.critical, .daemon, finding) }
        // It may be so until somebody has looked.
        if let unknown { daemon.state.withLock { $0.restored.append(unknown) } }
        if let shortage = daemon.shares.shortage { daemon.events.note(.warning, .daemon, shortage) }
        daemon.events.note(
            .info, .daemon,
            "\(Version.line) started as process \(getpid()) on segment \(segment.path), "
                + "\(sessions.takenOver.total) sessions of wire hooks taken over")
        for (level, message) in sessions.takenOver.news(journal: places.journal) { daemon.events.note(level, .hook, message) }
        for line in unit.news { daemon.events.note(unit.isNew ? .info : .warning, .license, line) }
        for line in unit.trouble { daemon.events.note(.error, .license, line) }
        daemon.applying.withLock { _ in daemon.applyPolicy() }
        daemon.applyLicense(force: true)
        return daemon
    }

    private init(
        settings: Settings, places: Places, host: HostSegment, sessions: KeyedSessions, unit: UnitIdentity,
        keeper: LicenseKeeper, license: LicenseStatus, log: LineLog, logger: Logger
    ) throws {
        self.places = places
        self.host = host
        self.sessions = sessions
        self.keeper = keeper
        self.unit = unit
        self.log = log
        self.logger = logger
        pools = host.hostPools
        let events = EventLog(path: places.events, logger: logger)
        self.events = events
        log.report(to: { events.note($0, .daemon, $1) })
        let names = SocketNames(places) { events.note($0, .daemon, $1) }
        self.names = names
        haproxy = try HAProxyAgent(places, sessions: sessions, meter: pools[0], names: names, shares: shares, logger: logger) {
            events.note(.warning, .hook, $0)
        }
        sharedSeats = try SharedSeats(
            settings, pools: pools, places: places, key: unit.key, keeper: keeper, license: license
        ) { events.note($0, $1, $2) }
        authority = Authority(settings, unit: unit, keeper: keeper) { level, line in
            // What was done as always is for the log; what went wrong is for people.
            if level > .info { events.note(level, .license, line) } else { logger.log(level: level, "\(line)") }
        }
        sampler = Sampler(pools: pools)
        journal = JournalWatch(sessions: sessions, path: places.journal)
        state = Mutex(
            State(settings: settings, license: license, limits: pools.map { Limit(refused: $0.snapshot().refused) }))
    }

    var segment: Segment { host.segment }
    var settings: Settings { state.withLock { $0.settings } }
    var licenseInForce: LicenseStatus { state.withLock { $0.license } }
    var uptimeSeconds: Int { Int((ContinuousClock.now - startedClock).components.seconds) }

    func pool(_ type: LicenseType) -> HostPool { pools[LicenseType.allCases.firstIndex(of: type) ?? 0] }
}

// MARK: - Licence and policy

extension Daemon {
    /// Makes the caps of the licence in force those of the engine, and tells what has changed.
    func applyLicense(force: Bool = false) {
        applying.withLock { _ in
            let license = keeper.status()
            let before = state.withLock { state in
                defer { state.license = license }
                return state.license
            }
            apply(license, before: before, force: force)
        }
    }

    private func apply(_ license: LicenseStatus, before: LicenseStatus, force: Bool) {
        sharedSeats.entitle(license)
        if force || before.state != license.state || before.reason != license.reason || before.claims != license.claims {
            events.note(license.isValid ? .info : .error, .license, license.sentence)
        }
        // The days left are another number each day; people are told of the days that matter.
        if let ending = license.ending, force || ending.step != before.ending?.step {
            events.note(.warning, .license, ending.sentence)
        }
        for warning in license.warnings
        where warning != license.ending?.sentence && (force || !before.warnings.contains(warning)) {
            events.note(.warning, .license, warning)
        }
    }

    /// Within `applying`.
    private func applyPolicy() {
        let policy: OverLimitPolicy = settings[Setting.overLimit] == "block" ? .block : .bypass
        for pool in pools where pool.policy != policy {
            do { try pool.setPolicy(policy) } catch { events.note(.error, .config, "Policy stays: \(error)") }
        }
        log.level = Logger.Level(rawValue: settings[Setting.logLevel]) ?? .info
    }

    /// Within `applying`.
    private func apply(_ settings: Settings, by link: SharedSeats.Link?) {
        state.withLock { $0.settings = settings }
        applyPolicy()
        sharedSeats.configure(settings, by: link)
    }

    /// Changes settings, at once and lasting: all or none.
    ///
    /// - Parameter user: who changes them, for the events.
    /// - Returns: what people should know of how they were saved.
    func change(_ changes: [String: String?], by user: String) throws(SettingsError) -> String? {
        let remark = try applying.withLock { _ throws(SettingsError) in
            // What somebody has written there by hand counts too, and must not be lost.
            for message in try reload() { events.note(.info, .config, message) }
            let changed = try settings.changing(changes)
            let link = try sharedSeats.link(for: changed)
            let remark = try changed.save()
            apply(changed, by: link)
            return remark
        }
        if let remark { events.note(.warning, .config, remark) }
        for (name, value) in changes.sorted(by: { $0.key < $1.key }) {
            events.note(.info, .config, (value.map { "set \(name) \($0)" } ?? "unset \(name)") + ", by \(user)", isAct: true)
        }
        return remark
    }

    /// Reads the configuration file again, within `applying`.
    ///
    /// - Returns: what has another value now, a sentence each.
    private func reload() throws(SettingsError) -> [String] {
        let before = settings
        let after = try before.reloaded()
        if after.file == before.file { return [] }
        apply(after, by: try sharedSeats.link(for: after))
        return Setting.all.map(\.name).filter { after[$0] != before[$0] }.map { "set \($0) \(after[$0])" }
    }

    private static func awaitsRestart(_ name: String) -> String { "\(name): a change takes effect when fpxd is restarted" }

    /// The configuration file is another one: what can take effect at once does, the rest is told.
    ///
    /// A file that is gone or empty changes nothing by itself: who edits it may be about to put it back.
    func configurationFileChanged() {
        let path = settings.file.path
        let before = Set(settings.awaitingRestart)
        do {
            guard FileStamp(path).isThere, try !SettingsFile.read(path).isEmpty else {
                if !settings.file.isEmpty {
                    events.note(.warning, .config, "\(path) is gone or empty: its settings stay in force until fpx commit")
                }
                return
            }
            let changes = try applying.withLock { _ throws(SettingsError) in try reload() }
            let waiting = settings.awaitingRestart.filter { !before.contains($0) }.map(Self.awaitsRestart)
            for message in changes + waiting { events.note(.info, .config, "\(path) has changed: \(message)") }
        } catch {
            events.note(.warning, .config, "\(path) has changed and is refused, its settings before stay in force: \(error)")
        }
    }

    /// Reads licence and configuration again. What is not accepted changes nothing.
    ///
    /// - Parameter user: who asks for it, for the events.
    func commit(by user: String) async -> ControlAPI.CommitReport {
        var messages: [String] = []
        var applied = true
        do {
            let changes = try applying.withLock { _ throws(SettingsError) in try reload() }
            messages += settings.awaitingRestart.map(Self.awaitsRestart) + changes
        } catch {
            applied = false
            messages.append("configuration kept: \(error)")
        }
        if let trouble = log.reopen() { messages.append(trouble) }
        var report = await keeper.commit()
        applyLicense()
        tellOfState()
        messages += state.withLock { state in
            defer { state.restored = [] }
            return state.restored.map { "seen before: \($0)" }
        }
        // What the authority has settled meanwhile is in force at once; a unit that has no licence yet asks for its first one.
        if !report.status.isValid || report.status.isBuiltIn, let authority {
            let result = await authority.renewal.renew()
            applyLicense()
            report = await keeper.commit()
            if case .failure(let error) = result {
                applied = false
                messages.append("no licence from the authority (\(authority.url)): \(error)")
            }
        }
        if let refused = report.refused {
            applied = false
            messages.append("licence \(report.status.isValid ? "kept" : "refused"): \(refused)")
        }
        for message in messages.isEmpty ? ["nothing has changed"] : messages {
            events.note(applied ? .info : .warning, .config, "commit by \(user): \(message)", isAct: true)
        }
        return ControlAPI.CommitReport(applied: applied, license: licenseSummary, messages: messages)
    }
}

// MARK: - Work that comes round

extension Daemon {
    /// Each 25 ms: what the dead held comes back. It waits for no disk and for no other thread: telling of it is left to `tick`.
    func reap(_ attendance: inout ProcessWatch) {
        let dead = host.reap()
        if let news = attendance.look(at: segment, dead: dead) { state.withLock { $0.untold += news } }
        sessions.tick()
    }

    /// Each second, on a thread of its own, for it may find memory that makes it slow.
    func lookAtSegment() {
        host.look {
            events.note($0, .daemon, $1)
        } move: { next, replace in
            try sessions.move(to: next, replace: replace)
        }
        journal.look { events.note($0, .hook, $1) }
    }

    /// Each second. It writes files, and so may take as long as the disk does.
    func tick() {
        sampler.sample()
        names.look()
        events.look()
        log.look()
        keeper.restoreState()
        applyLicense()
        sharedSeats.meet(TimeNamespace.strangers(in: segment))
        tellOfState()
        let untold = state.withLock { state in
            defer { state.untold = [] }
            return state.untold
        }
        for (level, message) in untold { events.note(level, .process, message) }
        events.fold()
        for (index, type) in LicenseType.allCases.enumerated() { noteLimit(type, index) }
        noteBandwidth()
        // Nobody else has sessions of wire hooks.
        if haproxy != nil { journal.lookForRoom(verdict: settings[Setting.overLimit]) { events.note($0, .hook, $1) } }
    }

    /// What was gone from the state folder is an event, and stays in the status until somebody commits: the events of before
    /// may be gone too.
    private func tellOfState() {
        let news = keeper.takeNews()
        state.withLock { state in state.restored += news.filter { !state.restored.contains($0) } }
        for line in news { events.note(.error, .license, line) }
    }

    /// What a person must look at, a sentence each.
    var troubles: [String] {
        let (license, restored) = state.withLock { ($0.license, $0.restored) }
        return unit.trouble + license.warnings.filter { $0 != license.summary.reason } + restored + names.trouble
            + host.troublesOfFormer
            + [host.trouble, journal.trouble, journal.roomTrouble, events.trouble, log.trouble].compactMap { $0 }
            + sharedSeats.problems
    }

    private func noteBandwidth() {
        let speed = sampler.speed()
        let (licensed, news) = state.withLock { state in
            let licensed = state.license.isValid ? state.license.claims?.licensedBandwidth ?? 0 : 0
            return (licensed, state.bandwidth.judge(speed, licensed: licensed))
        }
        let sentence = "Bandwidth: \(speed.sentence) over \(Sampler.speedWindow) seconds"
        switch news {
        case .over: events.note(.warning, .limit, "\(sentence), more than the licensed \(licensed) mbits")
        case .below: events.note(.info, .limit, "\(sentence), within the licensed \(licensed) mbits again")
        case nil: break
        }
    }

    private func noteLimit(_ type: LicenseType, _ index: Int) {
        let (snapshot, isKnown) = pool(type).figures
        let inUse = isKnown ? "\(snapshot.inUse)" : "an unknown number"
        let threshold = settings.number(Setting.sessionWarning)
        let name = type.rawValue
        enum Told { case near, below, refused(UInt64) }
        let told: [Told] = state.withLock { state in
            var told: [Told] = []
            var limit = state.limits[index]
            let share = snapshot.cap > 0 ? snapshot.inUse * 100 / snapshot.cap : 0
            if threshold > 0, snapshot.cap > 0, share >= threshold, !limit.isNear {
                limit.isNear = true
                told.append(.near)
            } else if limit.isNear, share < max(1, threshold - 5) {
                limit.isNear = false
                told.append(.below)
            }
            // The counter falls when a process goes.
            if snapshot.refused > limit.refused,
                limit.toldAt.map({ ContinuousClock.now - $0 > Self.limitRemindedEvery }) ?? true
            {
                told.append(.refused(snapshot.refused - limit.refused))
                limit.toldAt = .now
                limit.refused = snapshot.refused
            }
            limit.refused = min(limit.refused, snapshot.refused)
            state.limits[index] = limit
            return told
        }
        for event in told {
            switch event {
            case .near:
                events.note(
                    .warning, .limit,
                    "Licensed sessions of \(name): \(inUse) of \(snapshot.cap) in use, \(threshold)% reached")
            case .below:
                events.note(
                    .info, .limit,
                    snapshot.cap > 0
                        ? "Licensed sessions of \(name): \(inUse) of \(snapshot.cap) in use, below \(threshold)% again"
                        : "Licensed sessions of \(name): \(inUse) in use, and no more may be: the cap is 0 now")
            case .refused(let count):
                events.note(
                    .warning, .limit,
                    "License limit of \(name) reached: \(count) new sessions over \(snapshot.cap), verdict \(snapshot.policy)")
            }
        }
    }
}

extension Daemon {
    /// Of the licence in force, with the seats that may be used now.
    var licenseSummary: LicenseSummary {
        var summary = licenseInForce.summary
        if let cap = sharedSeats.summary().cap { summary.activeSeats = cap.furl }
        return summary
    }
}

extension LicenseStatus {
    var isBuiltIn: Bool { state == .evaluation && keyID == nil }

    var summary: LicenseSummary {
        LicenseSummary(
            state: state.rawValue, valid: isValid,
            reason: reason ?? warnings.first ?? (isBuiltIn ? "built-in evaluation licence, not for production" : nil),
            purchasedSeats: seats(of: .furl), activeSeats: activeSeats(of: .furl), expiryDate: expiryDate, daysLeft: daysLeft)
    }

    /// For the log.
    var sentence: String {
        let kind = isBuiltIn ? "built-in evaluation licence" : "licence \(claims?.licenseID ?? "")"
        return isValid
            ? "License: \(state.rawValue) (\(kind)), seat \(seats(of: .furl)), active seat \(activeSeats(of: .furl)), expiry date \(expiryDate ?? "none")"
            : "License: \(state.rawValue), no session is licensed: \(reason ?? "")"
    }
}

/// Sees processes come and go. For one thread.
struct ProcessWatch {
    private static let roundsBetween = 40

    private var rounds = 0
    private var attached: [Int: String] = [:]

    /// - Returns: what is new, for the events; nil: nothing was looked for in this round.
    mutating func look(at segment: Segment, dead: Int) -> [(Logger.Level, String)]? {
        rounds += 1
        guard dead > 0 || rounds % Self.roundsBetween == 1 else { return nil }
        var now: [Int: String] = [:]
        for process in segment.processes() where process.slot != segment.slot { now[process.processID] = process.name }
        var news: [(Logger.Level, String)] = []
        for (process, name) in now where attached[process] == nil { news.append((.debug, "\(name) (\(process)) attached")) }
        for (process, name) in attached where now[process] == nil {
            news.append(
                dead > 0
                    ? (.info, "\(name) (\(process)) died: its sessions are back in the pool")
                    : (.debug, "\(name) (\(process)) detached"))
        }
        attached = now
        return news
    }
}
