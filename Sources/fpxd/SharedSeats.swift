// SharedSeats: the caps of the engine. They are the licence's own, or what the unit's steps make of them where it shares seats: this
// runs the steps, and makes what they decide that of engine, disk and etcd.
//
// A unit lives by one licence and one way to its pool. Another of either is another unit, which begins as after a restart of fpxd: it
// finds on disk what the one before may have lent, and has nothing borrowed. Whatever was under way for the one before comes to nothing.

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
        /// Of the licence in force, where it has one.
        var serial: String?
        /// Nil: by the settings this unit shares nothing.
        var link: Link?
        /// Nil: this licence is not shared, and the caps are its own.
        var unit: Unit?
        var reader: PoolReader?
        var sessionsPerSeat = 1
        var wish = Wish()
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

    private static let lookedEvery: Nanoseconds = 250 * .millisecond

    let pools: [HostPool]
    private let records: LentRecords
    let note: @Sendable (Logger.Level, EventLog.Subject, String) -> Void
    let state: Mutex<State>

    /// - Parameters:
    ///   - pools: of each licence type.
    ///   - note: told what people should know.
    init(
        _ settings: Settings, pools: [HostPool], stateFolder: String, license: LicenseStatus,
        note: @escaping @Sendable (Logger.Level, EventLog.Subject, String) -> Void
    ) throws {
        self.pools = pools
        self.note = note
        records = LentRecords(stateFolder: stateFolder)
        state = Mutex(State(settings: settings, license: license, link: try Link.Way(settings).map(Link.init)))
    }

    // MARK: what the daemon tells

    /// The licence in force. When it returns, the caps are those that follow from it.
    func entitle(_ license: LicenseStatus) {
        withState { state in
            state.license = license
            state.sessionsPerSeat = max(1, license.claims?.sessionsPerSeat ?? 1)
            let serial = Self.serial(of: license)
            if state.serial != serial { start(serial, &state) }
            applyLicense(&state)
        }
    }

    /// The link that settings ask for: the one in use, where they ask for no other way; nil: nothing is shared by them.
    ///
    /// - Throws: what would keep a unit from living by them. Nothing is stopped for the question.
    func link(for settings: Settings) throws(SettingsError) -> Link? {
        let (current, serial) = state.withLock { ($0.link, $0.serial) }
        do {
            guard let way = try Link.Way(settings) else { return nil }
            if let current, current.way == way { return current }
            if let serial { _ = try settings.unitConfiguration(serial: serial) }
            return try Link(way)
        } catch {
            throw .sharing(reason: "\(error)")
        }
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
                start(state.serial, &state)
                return applyLicense(&state)
            }
            guard link != nil, let serial = state.unit?.configuration.serial else { return }
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

    /// A unit is known by the id of its licence, so that no licence can be in a pool twice. Built-in licences are everybody's.
    private static func serial(of license: LicenseStatus) -> String? {
        guard license.keyID != nil, let id = license.claims?.licenseID else { return nil }
        return id
    }

    private func applyLicense(_ state: inout State) {
        if state.unit == nil { useOwn(&state) } else { step(.entitle(entitlement(state)), &state) }
    }

    /// A unit of its own for each licence, for each way, and after etcd has forgotten: whatever was lent before is on record.
    func start(_ serial: String?, _ state: inout State) {
        let former = state.unit?.configuration.serial == serial ? state.unit : nil
        state.serial = serial
        state.unit = nil
        state.drains = [:]
        state.unwritten = nil
        (state.isReading, state.isNudged, state.aside) = (false, false, Aside())
        (state.readingTrouble, state.writingTrouble) = (nil, nil)
        guard let serial else { return }
        do throws(SharingError) {
            let stored = records.read(serial)
            // A file that is lost meanwhile is known to the unit that had it written.
            let record = stored?.record ?? former?.record
            let configuration: UnitConfiguration
            if let shared = try state.settings.unitConfiguration(serial: serial) {
                configuration = shared
                if record == nil {
                    state.note(
                        .warning, "No record of what \(serial) has lent: its seats come into use when all that may be is over")
                }
            } else {
                // It shares nothing, so that a unit that will knows that nothing is lent.
                if record == nil, !records.exists(serial) {
                    try? records.write(LentRecords.nothing, serial, in: nil)
                    return
                }
                // What it has lent while it did is not its own yet.
                if record?.seats == .zero { return }
                configuration = try UnitConfiguration(cluster: "none", serial: serial, mode: .fabric, role: .member)
                state.note(
                    .warning,
                    "Lent before and perhaps not back yet: \((record?.seats ?? Seats(Seats.limit)).counted) of \(serial)")
            }
            var isElsewhere = stored == nil && record != nil
            if let pool = stored?.pool, let link = state.link { isElsewhere = !pool.isSame(as: link.pool) }
            state.unit = Unit(
                configuration, entitlement: entitlement(state), incarnation: UInt64.random(in: 1...UInt64.max), record: record,
                isElsewhere: isElsewhere, now: Clock.now)
            state.reader = PoolReader(
                cluster: configuration.cluster, mode: configuration.mode, term: configuration.term)
        } catch {
            state.note(.error, "\(error): no seats are shared")
        }
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
            let borrowed = min(seats.borrowed * state.sessionsPerSeat, Limits.cap - own)
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
            try records.write(record, serial, in: state.link?.pool)
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
            (.error, "The pool does not say what is lent for longer than time: \(seats.counted) stay unused")
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
    /// What is due.
    ///
    /// - Returns: nanoseconds until the next is.
    func tick() -> Nanoseconds {
        withState { state in
            let now = Clock.now
            if let seen = state.wish.look(
                at: pools, sessionsPerSeat: state.sessionsPerSeat, available: state.unit?.pool?.plan.available ?? .zero,
                now: now)
            {
                step(.use(used: seen.used, demand: seen.demand), &state)
            }
            for (type, drain) in state.drains {
                let level = taken(type, state)
                step(.drained(type, number: drain.number, to: level), &state)
                if level <= drain.to { state.drains[type] = nil }
            }
            if let record = state.unwritten { for event in remember(record, &state) { step(event, &state) } }
            step(.tick(unixTime: Int(Date.now.timeIntervalSince1970)), &state)
            if state.isNudged, now - state.readAt >= readGap(state) { read(&state) }
            retire(&state)
            lookAside(&state)
            tell(&state)
            guard let unit = state.unit else { return .second }
            let waits = state.isNudged && !state.isReading ? state.readAt + readGap(state) - now : .forever
            return max(5 * .millisecond, min(unit.wake - now, Self.lookedEvery, waits))
        }
    }

    /// A unit that shares nothing any more goes on by its licence alone as soon as what it had lent is back.
    private func retire(_ state: inout State) {
        guard state.link == nil, let unit = state.unit, unit.learningEnd == nil else { return }
        do {
            try records.write(LentRecords.nothing, unit.configuration.serial, in: nil)
            state.unit = nil
            useOwn(&state)
        } catch {
            // It is tried again.
        }
    }
}
