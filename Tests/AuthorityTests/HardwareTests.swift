import AuthorityAPI
import AuthorityServer
import ControlAPI
import Foundation
import Licensing
import Testing

@Suite struct HardwareTests {
    private func cpus(_ count: Int) -> HardwareReport { machine.with { $0.logicalCpusNumber = count } }

    @Test func threeChangesInAWeekAndThenAPerson() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        _ = try await authority.ask(unit)
        for (change, count) in [3, 4, 5].enumerated() {
            authority.now += 3600
            let reply = try await authority.ask(unit, cpus(count))
            #expect(reply.lease?.reissuesLeft == 2 - change)
            #expect(reply.claims?.hardware.logicalCPUsNumber == count && reply.claims?.epoch == change + 2)
        }
        let held = try await authority.ask(unit, cpus(6))
        #expect(held.status == 409 && held.error?.code == "held")
        #expect(
            held.error?.message
                == "logical_cpus_number 5 -> 6: waits for a person; it is answered with a lease once it is approved")
        #expect(try await authority.license(of: unit).epoch == 4)
        // The newest question counts, and the same one again is not news.
        for count in [7, 7] { #expect(try await authority.ask(unit, cpus(count)).error?.code == "held") }
        let waiting = try await authority.store.hardware()
        #expect(waiting.map(\.reason) == ["logical_cpus_number 5 -> 7"] && waiting.map(\.hardware.logicalCpusNumber) == [7])
        let license = try await authority.license(of: unit)
        let kinds = try await authority.store.ledger(subject: "license:\(license.id)").map(\.kind)
        #expect(
            kinds == ["license.issued"] + Array(repeating: "license.reissued", count: 3)
                + Array(repeating: "hardware.held", count: 2))

        #expect(try await authority.store.approveHardware(waiting[0].id!).state == .approved)
        let approved = try await authority.ask(unit, cpus(7))
        #expect(approved.claims?.hardware.logicalCPUsNumber == 7 && approved.lease?.reissuesLeft == 0)
        await #expect(
            throws: AuthorityError.state(
                what: "hardware assignment \(waiting[0].id!)", found: "approved", expected: "held")
        ) { try await authority.store.approveHardware(waiting[0].id!) }
        await #expect(throws: AuthorityError.absent(what: "hardware assignment", found: "99")) {
            try await authority.store.approveHardware(99)
        }
        // What a person approved has used up nothing; after a week all three are back.
        #expect(try await authority.ask(unit, cpus(8)).error?.code == "held")
        authority.now += 7 * day
        #expect(try await authority.ask(unit, cpus(8)).lease?.reissuesLeft == 2)
        #expect(try await authority.store.hardware().isEmpty)
        _ = try await authority.store.verifyLedger()
    }

    @Test func hardwareThatComesBackWaitsNoMore() async throws {
        let authority = try await TestAuthority(reissues: 0)
        try await authority.subscribe()
        let unit = newID()
        #expect(try await authority.ask(unit).lease?.reissuesLeft == 0)
        #expect(try await authority.ask(unit, cpus(4)).error?.code == "held")
        #expect(try await authority.store.hardware().count == 1)
        #expect(try await authority.ask(unit).claims?.epoch == 2)
        #expect(try await authority.store.hardware().isEmpty)
        let all = try await authority.store.hardware(all: true)
        #expect(all.map(\.state) == [.first, .withdrawn])
        await #expect(throws: AuthorityError.self) { try await authority.store.approveHardware(all[1].id!) }
    }

    @Test func whatDoesNotBindMayChange() async throws {
        let authority = try await TestAuthority(reissues: 0)
        try await authority.subscribe()
        let unit = newID()
        _ = try await authority.ask(unit)
        let reply = try await authority.ask(
            unit,
            machine.with {
                $0.totalMemorySize = 32010
                $0.hostname = "renamed"
                $0.addressesIpv4 = ["192.0.2.9", "192.0.2.1"]
            })
        #expect(reply.claims?.hardware.totalMemorySize == 32010)
        // The licensed address is still there, though no longer the first.
        #expect(reply.claims?.hardware.addressIPv4 == "192.0.2.1")
    }

    @Test func aMoveAlwaysWaits() async throws {
        let authority = try await TestAuthority(reissues: 100)
        try await authority.subscribe()
        let unit = newID()
        _ = try await authority.ask(unit)
        let moved = machine.with { $0.addressesIpv4 = ["192.0.2.2", "203.0.113.9"] }
        let held = try await authority.ask(unit, moved)
        #expect(held.status == 409 && held.error?.message.hasPrefix("address_ipv4 192.0.2.1 -> 192.0.2.2: ") == true)
        let both = try await authority.ask(unit, moved.with { $0.cpuModel = "Other" })
        #expect(
            both.error?.message.hasPrefix("cpu_model Test CPU @ 3 GHz -> Other; address_ipv4 192.0.2.1 -> 192.0.2.2: ") == true)
        // One that tells of no address has come from somewhere: from this very host, or it has moved. It keeps the one that
        // it had.
        let silent = machine.with { $0.addressesIpv4 = [] }
        #expect(try await authority.ask(unit, silent).error?.message.hasPrefix("address_ipv4 192.0.2.1 -> none: ") == true)
        #expect(try await authority.ask(unit, silent, from: "127.0.0.1").claims?.hardware.addressIPv4 == "192.0.2.1")
        #expect(try await authority.ask(unit, moved).error?.code == "held")
        let waiting = try await authority.store.hardware()
        _ = try await authority.store.approveHardware(try #require(waiting.first?.id))
        #expect(try await authority.ask(unit, moved).claims?.hardware.addressIPv4 == "192.0.2.2")
        #expect(try await authority.ask(unit).status == 200, "192.0.2.2 is one of its addresses")
    }

    @Test func aFirstAddressIsNoMove() async throws {
        let authority = try await TestAuthority(reissues: 0)
        try await authority.subscribe()
        let unit = newID()
        #expect(try await authority.ask(unit, machine.with { $0.addressesIpv4 = [] }).claims?.hardware.addressIPv4 == "")
        #expect(try await authority.ask(unit).claims?.hardware.addressIPv4 == "192.0.2.1")
        #expect(try await authority.ask(unit, machine.with { $0.addressesIpv4 = ["192.0.2.7"] }).error?.code == "held")
    }

    @Test func aCPUWithoutANameBindsToItsCount() async throws {
        let authority = try await TestAuthority(reissues: 0)
        try await authority.subscribe()
        let unit = newID()
        let nameless = machine.with { $0.cpuModel = "" }
        #expect(try await authority.ask(unit, nameless).claims?.hardware.binds == [.logicalCPUsNumber])
        #expect(try await authority.ask(unit, machine).claims?.hardware.binds == [.cpuModel, .logicalCPUsNumber])
        #expect(try await authority.ask(unit, nameless).error?.message.hasPrefix("cpu_model Test CPU @ 3 GHz -> none") == true)
    }

    // MARK: Offline

    @Test func offlineLicences() async throws {
        let authority = try await TestAuthority()
        let monthly = try await authority.subscribe(plan: .monthly)
        let annual = try await authority.subscribe(plan: .annual, units: 1)
        let (id, unit) = (try #require(annual.id), newID())
        await #expect(
            throws: AuthorityError.state(
                what: "subscription \(monthly.id!)", found: "a monthly one", expected: "an annual one")
        ) { _ = try await authority.store.issueOffline(Hardware(machine), subscription: monthly.id!, unitID: unit) }
        let (token, row) = try await authority.store.issueOffline(Hardware(machine), subscription: id, unitID: unit)
        let claims = try await LicenseToken.verify(Array(token.utf8), with: authority.trusted).claims
        #expect(token.hasSuffix("\n") && claims.issuerType == .offline && claims.epoch == 1 && claims.licenseID == row.id)
        #expect(claims.leaseExpiry == annual.paidUntil && claims.paidUntil == annual.paidUntil)
        #expect(
            claims.hardware == HardwareBinding(Hardware(machine), binds: [.cpuModel, .logicalCPUsNumber, .totalMemorySize]))
        // It is not renewed online, and takes its place.
        let online = try await authority.ask(unit)
        #expect(online.status == 409 && online.error?.code == "offline")
        _ = try await authority.store.changeSubscription(monthly.id!) { $0.paidUntil = start }
        #expect(try await authority.ask(newID()).error?.code == "no_subscription")
        await #expect(throws: AuthorityError.self) {
            _ = try await authority.store.issueOffline(Hardware(machine), subscription: id, unitID: newID())
        }
        // Again, on other hardware and for a year more: the next epoch.
        _ = try await authority.store.changeSubscription(id) { $0.paidUntil += 365 * day }
        let larger = Hardware(machine.with { $0.totalMemorySize = 32010 })
        let second = try await authority.store.issueOffline(larger, subscription: id, unitID: unit)
        #expect(second.license.id == row.id && second.license.epoch == 2)
        #expect(second.license.leaseExpiry == start + 730 * day)
        let history = try await authority.store.license(row.id).hardware
        #expect(history.map(\.reason) == ["", "total_memory_size 16005 -> 32010"])
        _ = try await authority.store.suspend(row.id, reason: "unpaid")
        await #expect(throws: AuthorityError.self) {
            _ = try await authority.store.issueOffline(larger, subscription: id, unitID: unit)
        }
        _ = try await authority.store.verifyLedger()
    }

    @Test func offlineUnitsWithoutAnID() async throws {
        let authority = try await TestAuthority()
        let id = try #require(try await authority.subscribe(units: 2).id)
        let first = try await authority.store.issueOffline(Hardware(machine), subscription: id, unitID: nil).license
        let again = try await authority.store.issueOffline(Hardware(machine), subscription: id, unitID: nil).license
        let other = try await authority.store.issueOffline(
            Hardware(machine.with { $0.hostname = "other" }), subscription: id, unitID: nil
        ).license
        #expect(UnitID.isOne(first.unitId) && again.unitId == first.unitId && again.epoch == 2)
        #expect(other.unitId != first.unitId && other.epoch == 1)
        await #expect(throws: AuthorityError.invalid(name: "unit", found: "\"x\"", expected: "a UUID in small letters")) {
            _ = try await authority.store.issueOffline(Hardware(machine), subscription: id, unitID: "x")
        }
        // A unit with an automatic licence must lose that first.
        let unit = newID()
        try await authority.subscribe()
        _ = try await authority.ask(unit)
        await #expect(throws: AuthorityError.self) {
            _ = try await authority.store.issueOffline(Hardware(machine), subscription: id, unitID: unit)
        }
    }
}
