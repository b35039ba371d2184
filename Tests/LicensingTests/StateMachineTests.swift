import Foundation
import Licensing
import Testing

/// The state machine of docs/operations/licence.md: what happens to a unit, and where it ends.
@Suite struct StateMachineTests {
    enum Event: Sendable {
        case install(LicenseClaims)
        case remove
        /// Seconds after the beginning.
        case clock(Int)
        case hardware(Hardware)
        /// Signed by the authority, at the time of the clock.
        case refusal(kind: AuthorityRecord.Refusal.Kind)
        /// A renewal: as `LicenseRenewal` does it, the file first.
        case lease(epoch: Int)
    }

    struct Row: Sendable, CustomTestStringConvertible {
        var named = true
        var events: [Event]
        var state: LicenseState
        var cap: Int
        /// Part of the reason, or of the first warning.
        var text = ""

        var testDescription: String { "\(events.count) events to \(state.rawValue)" }
    }

    static let bound = HardwareBinding(machine, binds: [.cpuModel, .logicalCPUsNumber])
    static let larger = Hardware(
        cpuModel: machine.cpuModel, logicalCPUsNumber: 4, totalMemorySize: 16005, addressesIPv4: [], hostname: "unit")
    static let automatic = claims(hardware: bound)
    static let offline = claims(days: 365, issuer: .offline, hardware: bound)
    static let unpaid = {
        var claims = claims(days: 30)
        claims.paidUntil = start + 3 * day
        return claims
    }()
    static let silence = 2 * day + 1

    static let rows = [
        Row(named: false, events: [], state: .evaluation, cap: 100),
        Row(named: false, events: [.clock(9000 * day)], state: .evaluation, cap: 100),
        Row(named: false, events: [.install(automatic)], state: .active, cap: 1000),
        Row(
            named: false, events: [.install(automatic), .remove], state: .absent, cap: 0,
            text: "the built-in evaluation is for new units"),
        Row(events: [], state: .absent, cap: 0, text: "there is no such file"),
        Row(events: [.install(automatic), .remove], state: .absent, cap: 0, text: "there is no such file"),
        // Leases.
        Row(events: [.install(automatic)], state: .active, cap: 1000),
        Row(events: [.install(automatic), .clock(silence - 1)], state: .active, cap: 1000),
        Row(
            events: [.install(automatic), .clock(silence)], state: .grace, cap: 1000, text: "it ends on 2026-12-04, in 12 days"),
        Row(events: [.install(automatic), .clock(14 * day - 1)], state: .grace, cap: 1000, text: "in 1 day"),
        Row(events: [.install(automatic), .clock(14 * day)], state: .expired, cap: 0, text: "found a lease until 2026-12-05"),
        Row(events: [.install(automatic), .clock(silence), .lease(epoch: 2)], state: .active, cap: 1000),
        Row(events: [.install(automatic), .clock(20 * day), .lease(epoch: 2)], state: .active, cap: 1000),
        Row(
            events: [.install(claims(business: .evaluation)), .clock(silence)], state: .grace, cap: 1000,
            text: "The authority has not extended the lease of licence L1 since 2026-11-21T00:00:00Z"),
        Row(events: [.install(unpaid), .clock(3 * day)], state: .paidUntilPassed, cap: 0, text: "paid until 2026-11-23"),
        // Refusals.
        Row(
            events: [.install(automatic), .clock(day), .refusal(kind: .suspended)], state: .suspended, cap: 0,
            text: "licence L1: found it suspended by the authority at 2026-11-22T00:00:00Z, expected it in force"),
        Row(
            events: [.install(automatic), .clock(day), .refusal(kind: .cancelled)], state: .suspended, cap: 0,
            text: "licence L1: found it cancelled by the authority at 2026-11-22T00:00:00Z, expected it in force"),
        Row(events: [.install(automatic), .refusal(kind: .suspended)], state: .suspended, cap: 0, text: "suspended"),
        Row(
            events: [.install(automatic), .refusal(kind: .suspended), .clock(day), .lease(epoch: 2)], state: .active,
            cap: 1000),
        Row(
            events: [.install(automatic), .refusal(kind: .suspended), .clock(20 * day)], state: .suspended, cap: 0,
            text: "suspended"),
        Row(
            events: [.install(automatic), .clock(20 * day), .refusal(kind: .suspended)], state: .suspended, cap: 0,
            text: "suspended"),
        Row(
            events: [.install(automatic), .refusal(kind: .suspended), .hardware(larger)], state: .suspended, cap: 0,
            text: "suspended"),
        // Another licence is another matter; what was refused stays refused.
        Row(
            events: [.install(automatic), .refusal(kind: .cancelled), .install(claims(id: "L2"))], state: .active, cap: 1000),
        Row(
            events: [.install(automatic), .refusal(kind: .cancelled), .remove, .install(automatic)], state: .suspended, cap: 0,
            text: "cancelled"),
        // Hardware.
        Row(
            events: [.install(automatic), .hardware(larger)], state: .hardwareMismatch, cap: 0,
            text: "logical_cpus_number 2 -> 4"),
        Row(events: [.install(automatic), .hardware(larger), .hardware(machine)], state: .active, cap: 1000),
        // The clock.
        Row(events: [.install(automatic), .clock(-3600)], state: .clockRollback, cap: 0, text: "a clock that was set back"),
        Row(events: [.install(automatic), .clock(-3600), .clock(1)], state: .active, cap: 1000),
        Row(
            events: [.install(automatic), .clock(silence), .clock(day)], state: .clockRollback, cap: 0,
            text: "a clock that was set back"),
        Row(
            events: [.install(automatic), .clock(day), .refusal(kind: .suspended), .clock(0)], state: .clockRollback, cap: 0,
            text: "a clock that was set back"),
        // Offline.
        Row(events: [.install(offline)], state: .offlineActive, cap: 1000),
        Row(events: [.install(offline), .clock(silence)], state: .offlineActive, cap: 1000),
        Row(
            events: [.install(offline), .clock(335 * day)], state: .offlineActive, cap: 1000,
            text: "Offline licence L1 ends on 2027-11-20, in 30 days: ask the authority for the next one"),
        Row(
            events: [.install(offline), .clock(365 * day)], state: .offlineExpired, cap: 0,
            text: "found a lease until 2027-11-20"),
        Row(
            events: [.install(offline), .hardware(larger)], state: .hardwareMismatch, cap: 0,
            text: "logical_cpus_number 2 -> 4"),
    ]

    @Test(arguments: rows) func everyPathEndsWhereItShould(_ row: Row) async throws {
        let unit = try Unit(named: row.named, hasAuthority: true)
        let keeper = await unit.load().keeper
        for event in row.events { try await happen(event, to: unit, keeper) }
        let restarted = await unit.load().keeper
        for status in [keeper.status(), await keeper.commit().status, restarted.status(), await restarted.commit().status] {
            #expect(status.state == row.state && status.cap(of: .furl) == row.cap)
            #expect(status.isValid == (row.cap > 0) && (status.reason == nil) == status.isValid)
            let shown = status.reason ?? status.warnings.first ?? ""
            #expect(row.text.isEmpty ? shown.isEmpty : shown.contains(row.text), "\(shown)")
        }
    }

    private func happen(_ event: Event, to unit: Unit, _ keeper: LicenseKeeper) async throws {
        switch event {
        case .install(let claims):
            try await unit.put(claims)
            _ = await keeper.commit()
        case .remove:
            try unit.folder.remove("license.lic")
            _ = await keeper.commit()
        case .clock(let seconds):
            unit.set(clock: start + seconds)
            _ = keeper.status()
        case .hardware(let hardware):
            unit.hardware.withLock { $0 = hardware }
            _ = await keeper.commit()
        case .refusal(let kind):
            let id = keeper.held?.claims.licenseID
            keeper.remember {
                $0.refusal = .init(licenseID: id, kind: kind, at: unit.now.withLock { $0 })
            }
        case .lease(let epoch):
            let now = unit.now.withLock { $0 }
            var claims = claims(from: now, hardware: Self.bound, epoch: epoch)
            claims.issuedAt = now
            try await unit.put(claims)
            _ = await keeper.commit()
            keeper.remember {
                $0.lastSuccess = now
                $0.refusal = nil
            }
        }
    }

    /// Each state that the document draws is reached by a row.
    @Test func nothingIsLeftOut() {
        let drawn: Set<LicenseState> = [
            .absent, .evaluation, .active, .grace, .expired, .paidUntilPassed, .suspended, .hardwareMismatch, .clockRollback,
            .offlineActive, .offlineExpired,
        ]
        #expect(Set(Self.rows.map(\.state)) == drawn)
    }

    /// 30, 14, 7 and 1 days before the end, each once; each names the days that are left.
    @Test func offlineWarnings() async throws {
        let unit = try Unit()
        try await unit.put(Self.offline)
        let keeper = await unit.load().keeper
        var told: [String] = []
        var step: Int?
        for half in 0..<730 {
            unit.set(clock: start + half * day / 2)
            let status = keeper.status()
            #expect(status.warnings == (status.ending.map { [$0.sentence] } ?? []))
            if let ending = status.ending, ending.step != step {
                step = ending.step
                told.append(ending.sentence)
            }
        }
        #expect(
            told
                == ["30 days", "14 days", "7 days", "1 day"].map {
                    "Offline licence L1 ends on 2027-11-20, in \($0): ask the authority for the next one"
                })
        // After a restart the one that applies, with the days that are left then.
        unit.set(clock: start + 355 * day)
        let late = try Unit()
        try await late.put(Self.offline)
        late.set(clock: start + 355 * day)
        let ending = await late.load().report.status.ending
        #expect(ending?.step == 14 && ending?.sentence.contains("in 10 days") == true)
    }

    /// Without an authority nobody extends anything, and nobody waits for it.
    @Test func noAuthorityNoGrace() async throws {
        let unit = try Unit()
        try await unit.put(Self.automatic)
        let keeper = await unit.load().keeper
        unit.set(clock: start + 13 * day)
        #expect(keeper.status().state == .active && keeper.status().warnings == [])
    }
}
