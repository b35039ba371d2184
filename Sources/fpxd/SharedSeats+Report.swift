// What people are told of shared seats: events when something changes, and the report.

import Admission
import ControlAPI
import Foundation
import Logging
import SeatSharing
import struct SeatSharing.Unit
import Settings

extension SharedSeats {
    /// What was told last.
    struct Told {
        var isConnected = false
        var trouble: String?
        /// What troubles now, and since when.
        var troubleSeen: (text: String?, at: Instant) = (nil, Instant(.min))
        var lent: [String: Steady<Seats>] = [:]
        var borrowed: [String: Steady<Seats>] = [:]
        var stale: Set<String> = []
        var conserving: [SeatType: Steady<Bool>] = [:]
        var hints: Set<String> = []
    }

    private static func sums(_ partners: [Unit.Partner]) -> [String: Seats] {
        partners.reduce(into: [:]) { $0[$1.serial, default: .zero] += $1.seats }
    }

    /// Notes what is not as it was told.
    func tell(_ state: inout State) {
        guard state.way != nil, let unit = state.unit else {
            state.told = Told()
            return
        }
        var told = state.told
        func note(_ level: Logger.Level, _ line: String) { state.note(level, line) }
        tellOfContact(unit, state.trouble, &told, note)
        for (line, seats) in Self.changes(&told.lent, to: Self.sums(unit.partnersBorrowing)) {
            note(.info, "Lent to \(line): \(seats)")
        }
        for (line, seats) in Self.changes(&told.borrowed, to: Self.sums(unit.partnersLending)) {
            note(.info, "Borrowed from \(line): \(seats)")
        }
        tellOfPool(unit, &told, note)
        let hints = Set(hints(unit, state))
        for hint in hints.subtracting(told.hints).sorted() { note(.warning, "Seat sharing: \(hint)") }
        told.hints = hints
        state.told = told
    }

    private func tellOfContact(
        _ unit: Unit, _ trouble: String?, _ told: inout Told, _ note: (Logger.Level, String) -> Void
    ) {
        let now = Clock.now
        if trouble != told.troubleSeen.text { told.troubleSeen = (trouble, now) }
        if unit.isConnected != told.isConnected {
            let pool = "pool \(unit.configuration.cluster)"
            if unit.isConnected {
                note(.info, "Seat sharing: in contact with \(pool)")
                told.trouble = nil
            } else {
                note(.warning, "Seat sharing: out of contact with \(pool): \(trouble ?? "no answer in time")")
                told.trouble = trouble
            }
            told.isConnected = unit.isConnected
        } else if let trouble {
            // One question that fails is no news where the next is answered. What stands is: an etcd at its quota answers, and
            // takes nothing.
            guard trouble != told.trouble, !unit.isConnected || now - told.troubleSeen.at >= .second else { return }
            note(.warning, "Seat sharing: \(trouble)")
            told.trouble = trouble
        } else if told.trouble != nil, unit.isConnected {
            note(.info, "Seat sharing: etcd answers, and takes what this unit writes")
            told.trouble = nil
        }
    }

    private static func changes(_ told: inout [String: Steady<Seats>], to seats: [String: Seats]) -> [(String, String)] {
        var lines: [(String, String)] = []
        for serial in Set(told.keys).union(seats.keys).sorted() {
            var steady = told[serial] ?? Steady(.zero)
            let now = seats[serial] ?? .zero
            if let before = steady.look(now, now: Clock.now) {
                lines.append((serial, "\(now) seats, before \(before) (furl/fnbi/fcas)"))
            }
            told[serial] = now == .zero && steady.told == .zero ? nil : steady
        }
        return lines
    }

    private func tellOfPool(_ unit: Unit, _ told: inout Told, _ note: (Logger.Level, String) -> Void) {
        guard unit.isConnected, let pool = unit.pool else { return }
        let stale = Set(zip(pool.rows, pool.isStale).filter { $0.1 }.map(\.0.serial))
        for serial in stale.subtracting(told.stale).sorted() {
            note(.warning, "Stale: \(serial) has not spoken for \(unit.pace.staleAfter / .second) seconds")
        }
        for serial in told.stale.subtracting(stale).sorted() where pool.places[serial] != nil {
            note(.info, "\(serial) speaks again")
        }
        told.stale = stale
        guard let place = unit.place else { return }
        let cap = unit.cap(at: Clock.now)
        for type in SeatType.allCases {
            let target = pool.plan.shares[place].target[type]
            // The cap has fallen when the shrink begins; what is in use falls as sessions end.
            let has = max(cap[type], unit.used[type])
            let isShort = pool.plan.wanted[type] > pool.plan.available[type] && has > target
            guard told.conserving[type, default: Steady(false)].look(isShort, now: Clock.now) != nil else { continue }
            if isShort {
                note(
                    .warning, "Conserve: the pool is short of \(type.rawValue) seats, \(has) here are to become \(target)"
                )
            } else {
                note(.info, "Conserve of \(type.rawValue) has ended")
            }
        }
    }
}

extension SharedSeats {
    /// How seats are shared now, for reports that say little of it.
    struct Summary {
        /// `None`, `HA`, `fabric`, `fabric-disconn`
        var mode = "None"
        /// Nil: the caps are the licence's.
        var cap: Seats?
        var own = Seats.zero
        var borrowed = Seats.zero
    }

    func summary() -> Summary {
        state.withLock { state in
            guard let unit = state.unit else { return Summary() }
            let balance = unit.balance
            return Summary(
                mode: mode(unit, state), cap: unit.cap(at: Clock.now), own: balance.own, borrowed: balance.borrowed)
        }
    }

    private func mode(_ unit: Unit, _ state: State) -> String {
        if state.way == nil { return "None" }
        if unit.configuration.mode.isHA { return "HA" }
        return unit.isConnected ? "fabric" : "fabric-disconn"
    }

    func report() -> SharingReport {
        state.withLock { state in
            guard let link = state.link else { return SharingReport(mode: "None") }
            let isHA = state.settings.sharingMode?.isHA == true
            var report = SharingReport(mode: isHA ? "HA" : "fabric-disconn")
            report.group = state.settings[isHA ? Setting.haGroupName : Setting.csfGroupName]
            report.role = state.settings[isHA ? Setting.haRole : Setting.csfRole]
            report.endpoints = link.client.endpoints.map { SharingReport.Endpoint(url: $0.url, state: $0.state) }
            report.hasPassword = !state.settings[Setting.sharingPasswordFile].isEmpty
            report.policy = state.settings[Setting.sharingReclaim]
            report.reclaimAfter = state.settings[Setting.sharingReclaimAfter]
            report.sessionsPerSeat = state.sessionsPerSeat
            report.sessions = pools[0].snapshot().inUse
            report.problems = Self.problems(state)
            guard let unit = state.unit else { return report }
            if state.way != nil { report.mode = mode(unit, state) }
            fill(&report, unit)
            report.problems += hints(unit, state)
            return report
        }
    }

    /// What keeps this unit from seats, or others from its own: a sentence each.
    var problems: [String] { state.withLock { Self.problems($0) } }

    private static func problems(_ state: State) -> [String] {
        var problems: [String] = []
        if state.link != nil {
            problems += [state.trouble, sentence(ofStrangers: state.strangers), state.identity?.reason].compactMap { $0 }
            if state.unit == nil, state.identity?.reason == nil {
                problems.append("the licence in force is not one that can be shared")
            }
        }
        guard let unit = state.unit else { return problems }
        if unit.isFenced {
            problems.append(
                "a copy of this unit runs, for another process writes its row: this one uses no seats. "
                    + "Stop one of the two, and restart fpxd of the other")
        }
        if let learning = unit.learningEnd {
            problems.append(
                "\(learning.seats.counted) may be lent from before this start and stay unused until that is over")
        }
        if state.way == nil, unit.balance.lent != .zero {
            problems.append(
                "\(unit.balance.lent.counted) are lent from when this unit shared and stay unused until they are back")
        }
        return problems + (unit.pool?.problems.map { "\($0)" } ?? [])
    }

    private func fill(_ report: inout SharingReport, _ unit: Unit) {
        let now = Clock.now
        func partner(_ partner: Unit.Partner) -> SharingReport.Partner {
            SharingReport.Partner(
                serial: partner.serial, seats: partner.seats,
                endsInSeconds: partner.end == .forever ? nil : Int(max(0, partner.end - now) / .second))
        }
        let balance = unit.balance
        report.serial = unit.configuration.serial
        report.isEntitled = unit.isEntitled
        report.isConnected = unit.isConnected
        report.isFenced = unit.isFenced
        report.overUse = unit.configuration.policy.overUse
        report.termSeconds = Int(unit.pace.term / .second)
        report.heartbeatMilliseconds = Int(unit.pace.heartbeat / .millisecond)
        report.lenders = unit.partnersLending.map(partner)
        report.borrowers = unit.partnersBorrowing.map(partner)
        (report.own, report.lent, report.borrowed) = balance
        report.cap = unit.cap(at: now)
        report.used = unit.used
        report.demand = unit.demand
        report.usedTwice = unit.usedTwice
        report.debt = unit.debt
        guard let pool = unit.pool else { return }
        report.members = pool.rows.count
        report.staleMembers = pool.isStale.count { $0 }
        if unit.configuration.mode.isHA {
            report.ha = HASeats(pool: pool)
        } else {
            report.ledger = Ledger(pool: pool, viewer: unit.configuration.serial, isDisconnected: !unit.isConnected)
        }
    }
}
