// SharedSeats: the caps of the engine. They are the licence's own, or what the unit's steps make of them where it shares seats:
// this runs the steps, and makes what they decide that of engine, disk and etcd.
//
// A unit lives by one licence and one way to its pool. Another of either is another unit, which begins as after a restart of
// fpxd: it finds on disk what the one before may have lent, and has nothing borrowed. Whatever was under way for the one before
// comes to nothing.

import Admission
import Foundation
import Licensing
import Logging
import SeatSharing
import struct SeatSharing.Unit
import Settings
import Synchronization

final class SharedSeats: Sendable {
    struct State {
        var settings: Settings
        var license: LicenseStatus
        /// Nil: the licence in force is everybody's.
        var identity: Identity?
        /// Nil: by the settings this unit shares nothing.
        var link: Link?
        /// Nil: this unit shares nothing, by settings or by its licence.
        var way: Link? { identity?.reason == nil ? link : nil }
        /// Nil: this licence is not shared, and the caps are its own.
        var unit: Unit?
        var reader: PoolReader?
        var sessionsPerSeat: Int { identity?.sessionsPerSeat ?? 1 }
        /// Counts units: what was asked for one tells nothing to the next.
        var life = 0
        /// The record of which a copy is known to be there, as far as this process goes.
        var confirmed: UInt64 = 0
        var wish = Wish()
        /// Processes that go by another clock than fpxd: they would not know when borrowed seats end.
        var strangers: [String] = []
        /// Shrinks that are not complete: the engine is asked again how far they have come.
        var drains: [SeatType: (number: Int, to: Int)] = [:]
        /// What could not be written to disk.
        var unwritten: LentRecord?
        var isReading = false
        var readAt = Instant(0)
        /// Somebody else has written since.
        var isNudged = false
        /// Why the last reading and the last write failed: etcd may answer questions and take nothing.
        var readingTrouble: String?
        var writingTrouble: String?
        var trouble: String? { writingTrouble ?? readingTrouble }
        var told = Told()
        var aside = Aside()
        var untold: [(Logger.Level, EventLog.Subject, String)] = []

        mutating func note(_ level: Logger.Level, _ line: String, _ subject: EventLog.Subject = .sharing) {
            untold.append((level, subject, line))
        }
    }

    /// Who a unit is, by its licence: another of these is another unit.
    struct Identity: Equatable {
        /// A unit is known by the id of its licence, so that no licence can be in a pool twice.
        let serial: String
        let sessionsPerSeat: Int
        /// Why it shares no seats by this licence; nil: it does.
        let reason: String?

        /// Nil for built-in licences.
        init?(_ license: LicenseStatus, key: SigningKey?) {
            guard license.keyID != nil, let claims = license.claims else { return nil }
            serial = claims.licenseID
            sessionsPerSeat = max(1, claims.sessionsPerSeat)
            if key == nil {
                reason = "this unit's key cannot be read: without it nobody can trust what it lends, and it shares no seats"
            } else if claims.unitKey == nil {
                reason =
                    "licence \(claims.licenseID) names no unit's key, so that nobody can trust what is lent of it: it shares no seats; "
                    + "have it issued for unit_key of fpx show license_hardware_data"
            } else if claims.unitKey != key?.publicText {
                reason = "licence \(claims.licenseID) is for another unit's key: it shares no seats here"
            } else {
                reason = nil
            }
        }
    }

    private static let lookedEvery: Nanoseconds = 250 * .millisecond

    let pools: [HostPool]
    let proofs: RowProofs
    let key: SigningKey?
    private let keeper: LicenseKeeper
    private let records: LentRecords
    let note: @Sendable (Logger.Level, EventLog.Subject, String) -> Void
    let state: Mutex<State>

    /// - Parameters:
    ///   - pools: of each licence type.
    ///   - key: the unit's own; nil: it cannot be read.
    ///   - note: told what people should know.
    init(
        _ settings: Settings, pools: [HostPool], places: Places, key: SigningKey?, keeper: LicenseKeeper,
        license: LicenseStatus,
        note: @escaping @Sendable (Logger.Level, EventLog.Subject, String) -> Void
    ) throws {
        self.pools = pools
        self.note = note
        self.key = key
        self.keeper = keeper
        proofs = RowProofs { keeper.trustedKeys() }
        records = LentRecords(stateFolder: places.state, segment: places.segment)
        state = Mutex(State(settings: settings, license: license, link: try Link.Way(settings).map(Link.init)))
    }

    // MARK: what the daemon tells

    /// The licence in force. When it returns, the caps are those that follow from it.
    func entitle(_ license: LicenseStatus) {
        withState { state in
            state.license = license
            let identity = Identity(license, key: key)
            if state.identity != identity {
                let former = state.identity
                state.identity = identity
                start(after: former, &state)
            }
            applyLicense(&state)
        }
    }

    /// The link that settings ask for: the one in use, where they ask for no other way; nil: nothing is shared by them.
    ///
    /// - Throws: what would keep a unit from living by them. Nothing is stopped for the question.
    func link(for settings: Settings) throws(SettingsError) -> Link? {
        let (current, serial) = state.withLock { ($0.link, $0.identity?.serial) }
        do {
            guard let way = try Link.Way(settings) else { return nil }
            if let current, current.way == way { return current }
            if let serial { _ = try settings.unitConfiguration(serial: serial) }
            return try Link(way)
        } catch {
            throw .sharing(reason: "\(error)")
        }
    }

    /// Told each second which attached processes go by another clock.
    func meet(_ strangers: [String]) {
        withState { state in
            guard strangers != state.strangers else { return }
            state.strangers = strangers
            enforce(&state)
            guard state.way != nil else { return }
            if let sentence = Self.sentence(ofStrangers: strangers) {
                state.note(.error, sentence)
            } else {
                state.note(.info, "All processes go by the clock of fpxd: borrowed seats are used again")
            }
        }
    }

    static func sentence(ofStrangers strangers: [String]) -> String? {
        guard let first = strangers.first else { return nil }
        let others = strangers.count > 1 ? ", as well as \(strangers.count - 1) others" : ""
        return "\(first) in another time namespace than fpxd\(others), where borrowed seats end at another time: none are used"
    }

    /// Settings have changed. When it returns, what they ask for is in force.
    ///
    /// - Parameter link: theirs, by `link(for:)`.
    func configure(_ settings: Settings, by link: Link?) {
        withState { state in
            state.settings = settings
            if link !== state.link {
                state.link = link
                state.told = Told()
                state.note(.info, link.map { "Seat sharing begins with \($0)" } ?? "Seat sharing is off")
                start(after: state.identity, &state)
                return applyLicense(&state)
            }
            guard state.way != nil, let serial = state.unit?.configuration.serial else { return }
            do throws(SharingError) {
                if let configuration = try settings.unitConfiguration(serial: serial) {
                    step(.configure(configuration), &state)
                }
            } catch {
                state.note(.error, "\(error)")
            }
        }
    }

    // MARK: the unit

    private func applyLicense(_ state: inout State) {
        if state.unit == nil { useOwn(&state) } else { step(.entitle(entitlement(state)), &state) }
    }

    /// A unit of its own for each licence, for each way, and after etcd has forgotten: whatever was lent before is on record.
    ///
    /// - Parameter identity: as it was until now.
    func start(after identity: Identity?, _ state: inout State) {
        let isSame = identity?.serial == state.identity?.serial && identity?.sessionsPerSeat == state.identity?.sessionsPerSeat
        // A file that is lost meanwhile is known to the unit that had it written.
        let inMemory = isSame ? state.unit?.record : nil
        state.unit = nil
        state.life += 1
        state.drains = [:]
        state.unwritten = nil
        state.confirmed = 0
        (state.isReading, state.isNudged, state.aside) = (false, false, Aside())
        (state.readingTrouble, state.writingTrouble) = (nil, nil)
        guard let identity = state.identity else { return }
        let serial = identity.serial
        if let reason = identity.reason, state.link != nil { state.note(.error, "Seat sharing: \(reason)") }
        do throws(SharingError) {
            let former =
                inMemory.map(Former.known)
                ?? records.former(
                    serial, sessionsPerSeat: identity.sessionsPerSeat, in: state.way?.pool,
                    wasShared: keeper.record.epochs[serial]?.wasShared ?? false)
            let configuration: UnitConfiguration
            if state.way != nil, let shared = try state.settings.unitConfiguration(serial: serial) {
                configuration = shared
                if case .lost = former {
                    state.note(
                        .warning,
                        "No record of what \(serial) has lent, or an old one: its seats come into use when all that may be is over"
                    )
                } else if former == .none {
                    state.note(
                        .warning, "No record of what \(serial) has lent: its seats come into use when all that may be is over")
                }
                keeper.remember { $0.noteSharing(serial) }
            } else {
                guard try mayBeLent(former, identity, &state) else { return }
                configuration = try UnitConfiguration(
                    cluster: "none", serial: serial, mode: .fabric, role: .member,
                    term: Nanoseconds(state.settings.number(Setting.sharingTerm)) * .second)
            }
            state.unit = Unit(
                configuration, entitlement: entitlement(state), incarnation: newIncarnation(after: former.latestID),
                former: former, now: Clock.now, unixTime: Int(Date.now.timeIntervalSince1970))
            state.reader = PoolReader(
                cluster: configuration.cluster, mode: configuration.mode, term: configuration.term,
                sessionsPerSeat: identity.sessionsPerSeat)
            // Before it reads the pool: what is in use from before this start is not lent.
            state.wish = Wish()
            lookAtUse(&state)
        } catch {
            state.note(.error, "\(error): no seats are shared")
        }
    }

    /// Whether a unit that shares nothing goes without seats that it has lent while it did.
    private func mayBeLent(_ former: Former, _ identity: Identity, _ state: inout State) throws(SharingError) -> Bool {
        switch former {
        case .none:
            // So that a unit that will share knows that nothing is lent.
            let nothing = LentRecord.nothing(id: newIncarnation(after: nil))
            try? records.write(nothing, identity.serial, sessionsPerSeat: identity.sessionsPerSeat, in: nil)
            return false
        case .known(let record) where record.seats == .zero:
            records.confirm(identity.serial)
            return false
        case .known(let record):
            state.note(
                .warning, "Lent before and perhaps not back yet: \(record.seats) seats of \(identity.serial)")
        case .doubtful, .lost:
            state.note(.warning, "Lent before and perhaps not back yet: all seats of \(identity.serial), as no record tells")
        }
        return true
    }

    private func newIncarnation(after last: UInt64?) -> UInt64 {
        Incarnation.new(
            unixMilliseconds: Int(Date.now.timeIntervalSince1970 * 1000), random: .random(in: 0...UInt64.max), after: last ?? 0)
    }

    private func entitlement(_ state: State) -> Entitlement {
        let license = state.license
        guard license.isValid, let claims = license.claims else { return .none }
        let now = Clock.now
        let seconds = Nanoseconds(clamping: claims.end) - Nanoseconds(Date.now.timeIntervalSince1970)
        let (left, isEndless) = seconds.multipliedReportingOverflow(by: .second)
        var until = isEndless ? .forever : now + left
        // The same end, read from clocks that are read one after the other.
        if let known = state.unit?.entitlement.until, abs(known - until) < 2 * .second { until = known }
        return Entitlement(
            purchased: Self.seats { license.seats(of: $0) }, modelMax: Self.seats { claims.modelMax[$0] }, until: until)
    }

    static func seats(_ number: (LicenseType) -> Int) -> Seats {
        Seats(furl: number(.furl), fnbi: number(.fnbi), fcas: number(.fcas))
    }

    /// Runs a step and all that follows from it at once. Within `state`.
    func step(_ event: Event, _ state: inout State) {
        var events = [event]
        while let event = events.first, state.unit != nil {
            events.removeFirst()
            let effects = state.unit?.step(event, now: Clock.now) ?? []
            enforce(&state)
            for effect in effects { events += perform(effect, &state) }
        }
    }

    /// - Returns: what is known of its outcome already.
    private func perform(_ effect: Effect, _ state: inout State) -> [Event] {
        switch effect {
        case .setCap(let type, _): state.drains[type] = nil
        case .drain(let type, let to, let number):
            state.drains[type] = (number, to)
            return [.drained(type, number: number, to: taken(type, state))]
        case .write(let row, let revision): send(row, revision, state)
        case .read: read(&state)
        case .remember(let record): return remember(record, &state)
        case .notice(let notice):
            let (level, line) = Self.line(notice)
            state.note(level, line)
        }
        return []
    }

    /// Makes what the unit stands on that of the engine.
    private func enforce(_ state: inout State) {
        guard let unit = state.unit else { return }
        for (type, pool) in zip(SeatType.allCases, pools) {
            let seats = unit.enforcement(of: type)
            let own = min(seats.own * state.sessionsPerSeat, Limits.cap)
            let mayBorrow = state.strangers.isEmpty
            let borrowed = mayBorrow ? min(seats.borrowed * state.sessionsPerSeat, Limits.cap - own) : 0
            set(pool, type, own, borrowed, until: seats.until.nanoseconds, &state)
        }
    }

    /// The licence's own caps, as they are without any sharing.
    private func useOwn(_ state: inout State) {
        for (type, pool) in zip(LicenseType.allCases, pools) {
            let cap = state.license.cap(of: type)
            let before = pool.limits
            set(pool, SeatType(rawValue: type.rawValue) ?? .furl, cap, 0, until: 0, &state)
            if before.cap != cap { state.note(.info, "Max licensed sessions of \(type.rawValue): \(cap)", .license) }
        }
    }

    private func set(
        _ pool: HostPool, _ type: SeatType, _ own: Int, _ borrowed: Int, until: Nanoseconds, _ state: inout State
    ) {
        let now = pool.limits
        let deadline = max(0, until) / .millisecond * .millisecond
        if now.cap == own, now.borrowed == borrowed, borrowed == 0 || now.deadline == deadline { return }
        do {
            try pool.setCap(own, borrowed: borrowed, until: until)
        } catch {
            // The licence is checked against the engine's limit before; if it fails all the same the old cap stays.
            state.note(.error, "Cap of \(type.rawValue) stays: \(error)")
        }
    }

    /// Seats that are in use or spare, a begun one counted.
    private func taken(_ type: SeatType, _ state: State) -> Int {
        let pool = pools[SeatType.allCases.firstIndex(of: type) ?? 0]
        return (max(0, pool.taken) + state.sessionsPerSeat - 1) / state.sessionsPerSeat
    }

    private func remember(_ record: LentRecord, _ state: inout State) -> [Event] {
        guard let serial = state.unit?.configuration.serial else { return [] }
        do {
            try records.write(record, serial, sessionsPerSeat: state.sessionsPerSeat, in: state.way?.pool)
            state.unwritten = nil
            return [.remembered(record)]
        } catch {
            if state.unwritten == nil {
                state.note(.error, "What is lent cannot be put on record, so nothing more is lent: \(error)")
            }
            state.unwritten = record
            return []
        }
    }

    private static func line(_ notice: Notice) -> (Logger.Level, String) {
        switch notice {
        case .problem(let problem): (.warning, "Seat sharing: \(problem)")
        case .missedTime(let lender, let nanoseconds):
            (
                .error,
                "This host has stood still for \(nanoseconds / .millisecond) ms and its clock with it, as \(lender) shows: all "
                    + "borrowed seats are dropped"
            )
        case .forced(let lender, let seats):
            (
                .warning,
                "Given back though sessions are on them: \(seats) seats, which \(lender) has asked for longer than it waits"
            )
        case .learned: (.info, "What was lent before this start is back, or known")
        case .lentUnknown(let seats):
            (.error, "It is not known what is lent for longer than time: \(seats.counted) stay unused")
        }
    }

    /// Calls `body` and then tells what it has left to be told: telling writes files.
    func withState<Result: Sendable>(_ body: (inout State) -> Result) -> Result {
        let (result, lines) = state.withLock { state in
            let result = body(&state)
            defer { state.untold = [] }
            return (result, state.untold)
        }
        for (level, subject, line) in lines { note(level, subject, line) }
        return result
    }
}

// MARK: - Time

extension SharedSeats {
    /// Tells the unit what is in use and wanted, where it is time to look.
    private func lookAtUse(_ state: inout State) {
        guard
            let seen = state.wish.look(
                at: pools, sessionsPerSeat: state.sessionsPerSeat, available: state.unit?.pool?.plan.available ?? .zero,
                now: Clock.now)
        else { return }
        // What cannot be used is left to others.
        let most = state.strangers.isEmpty ? seen.demand : state.unit?.entitlement.purchased ?? .zero
        step(.use(used: seen.used, demand: seen.demand.lowered(to: most)), &state)
    }

    /// What is due.
    ///
    /// - Returns: nanoseconds until the next is.
    func tick() -> Nanoseconds {
        withState { state in
            let now = Clock.now
            lookAtUse(&state)
            for (type, drain) in state.drains {
                let level = taken(type, state)
                step(.drained(type, number: drain.number, to: level), &state)
                if level <= drain.to { state.drains[type] = nil }
            }
            keepRecord(&state)
            if let record = state.unwritten { for event in remember(record, &state) { step(event, &state) } }
            step(.tick(unixTime: Int(Date.now.timeIntervalSince1970)), &state)
            if state.isNudged, now - state.readAt >= readGap(state) { read(&state) }
            confirm(&state)
            retire(&state)
            lookAside(&state)
            tell(&state)
            guard let unit = state.unit else { return .second }
            let waits = state.isNudged && !state.isReading ? state.readAt + readGap(state) - now : .forever
            return max(5 * .millisecond, min(unit.wake - now, Self.lookedEvery, waits))
        }
    }

    /// Somebody may remove what is on record, and the next process would wait for all that may be lent.
    private func keepRecord(_ state: inout State) {
        guard state.unwritten == nil, let unit = state.unit, let record = unit.record, records.isGone(unit.configuration.serial)
        else { return }
        state.note(.error, "The record of what is lent was removed: it is written anew from memory")
        _ = remember(record, &state)
    }

    /// What is on disk was found to be the latest, as after a boot: the next process need not ask again.
    private func confirm(_ state: inout State) {
        guard let unit = state.unit, let id = unit.record?.id, id != state.confirmed else { return }
        records.confirm(unit.configuration.serial)
        state.confirmed = id
    }

    /// A unit that shares nothing any more goes on by its licence alone as soon as what it had lent is back.
    private func retire(_ state: inout State) {
        guard state.way == nil, let unit = state.unit, unit.isAllHome else { return }
        do {
            let nothing = LentRecord.nothing(id: newIncarnation(after: unit.record?.id))
            try records.write(nothing, unit.configuration.serial, sessionsPerSeat: state.sessionsPerSeat, in: nil)
            state.unit = nil
            useOwn(&state)
        } catch {
            // It is tried again.
        }
    }
}
