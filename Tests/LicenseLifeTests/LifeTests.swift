import Admission
import AuthorityServer
import Foundation
import LicenseClient
import Licensing
import TestSupport
import Testing

/// The whole life of a licence, as product and contract promise it.
@Suite struct LifeTests {
    @Test func aWholeLife() async throws {
        let life = try await Life(paidDays: 365)
        try life.expect(.absent)
        try await firstIssue(life)
        try await dailyRenewals(life)
        try await outages(life)
        try await suspension(life)
        try await changedHardware(life)
        try await changedAddress(life)
        try await keyRotation(life)
        try await paidUntil(life)
        try await offline(life)
        let summary = try await life.store.verifyLedger()
        #expect(summary.entries > 100)
    }

    private func firstIssue(_ life: Life) async throws {
        let renewal = try #require(await life.renewal.renewIfDue()).get()
        #expect(renewal.epoch == 1 && renewal.daysLeft == 14 && renewal.reissuesLeft == 3)
        try life.expect(.active)
        #expect(
            life.world.lines.withLock { $0 } == [
                "[INFO] Start automatic license refresh process", "[INFO] External IP address of this server: 127.0.0.1",
                "[INFO] We have license for: 14 days", "[INFO] Correctly received and checked license",
                "[INFO] We store license on disk",
            ])
        #expect(life.keeper.status().claims?.licenseID == (try await life.license().id))
        #expect(try await life.license().epoch == 1)
    }

    private func dailyRenewals(_ life: Life) async throws {
        let begun = life.now
        var (time, end) = (begun, try #require(life.keeper.status().claims?.end))
        for count in 1...30 {
            let lived = try await life.live(until: await life.renewal.nextAt)
            #expect(lived == (1, 0))
            let claims = try #require(life.keeper.status().claims)
            #expect(claims.epoch == 1 + count)
            // A day more for each day that has gone, and never more than 14 in hand.
            #expect(claims.end - end == life.now - time)
            #expect(claims.end - life.now == 14 * day)
            (time, end) = (life.now, claims.end)
        }
        #expect(abs(time - begun - 30 * day) <= day)
        try life.expect(.active)
    }

    private func outages(_ life: Life) async throws {
        await life.stopServer()
        let sessions = (0..<5).map { _ in life.pool.admit().detach() }
        #expect(sessions == Array(repeating: .inspect, count: 5))
        var stopped = life.now
        let epoch = life.epoch

        let soon = try await life.live(until: stopped + 30 * 3600)
        #expect(soon.renewed == 0 && soon.failed > 0)
        try life.expect(.active)
        try await life.live(until: stopped + 13 * day)
        try life.expect(.grace)
        let status = life.keeper.status()
        #expect(status.daysLeft == 1 && status.warnings.contains { $0.contains("in 1 day") }, "\(status.warnings)")
        try await life.startServer()
        let back = try await life.live(until: life.now + 2 * 3600)
        #expect(back.renewed == 1)
        try life.expect(.active)
        #expect(life.keeper.status().daysLeft == 14 && life.epoch == epoch + 1)

        await life.stopServer()
        stopped = life.now
        try await life.live(until: stopped + 14 * day - 3 * 3600)
        try life.expect(.grace)
        try await life.live(until: stopped + 15 * day)
        try life.expect(.expired)
        // What was in progress when it ended is counted, and was not cut.
        #expect(life.pool.snapshot().inUse == 5)
        try await life.startServer()
        let late = try await life.live(until: life.now + 2 * 3600)
        #expect(late.renewed == 1)
        try life.expect(.active)
        #expect(life.pool.snapshot().inUse == 5)
        for _ in 0..<5 { life.pool.release(.inspect) }
        #expect(life.pool.snapshot().inUse == 0)
    }

    private func suspension(_ life: Life) async throws {
        let id = try await life.license().id
        _ = try await life.store.suspend(id, reason: "an invoice")
        try life.expect(.active)
        try await life.expectRefused("suspended")
        try life.expect(.suspended)
        // Neither a restart nor reading the file again brings it back.
        _ = await life.keeper.commit()
        try life.expect(.suspended)
        _ = try await life.store.reinstate(id, reason: "paid")
        try life.expect(.suspended)
        _ = try await life.renewal.renew().get()
        try life.expect(.active)
    }

    private func changedHardware(_ life: Life) async throws {
        for left in [2, 1, 0] {
            life.world.machine.withLock { $0.logicalCPUsNumber += 2 }
            _ = await life.keeper.commit()
            try life.expect(.hardwareMismatch)
            #expect(try await life.renewal.renew().get().reissuesLeft == left)
            try life.expect(.active)
            life.pass(3600)
        }
        let epoch = life.epoch
        life.world.machine.withLock { $0.logicalCPUsNumber = 64 }
        try await life.expectRefused("logical_cpus_number 8 -> 64")
        try life.expect(.hardwareMismatch)
        let held = try #require(try await life.store.hardware().first)
        #expect(held.state == .held)
        life.pass(3600)
        try await life.expectRefused("held")
        _ = try await life.store.approveHardware(try #require(held.id))
        _ = try await life.renewal.renew().get()
        try life.expect(.active)
        #expect(life.epoch == epoch + 1)
        // A week later the budget is whole again.
        try await life.live(until: life.now + 8 * day)
        life.world.machine.withLock { $0.cpuModel = "Other CPU" }
        #expect(try await life.renewal.renew().get().reissuesLeft == 2)
        try life.expect(.active)
    }

    private func changedAddress(_ life: Life) async throws {
        life.world.machine.withLock { $0.addressesIPv4 = ["192.0.2.77"] }
        try await life.expectRefused("address_ipv4 192.0.2.1 -> 192.0.2.77")
        // The lease in hand is bound to no address: it runs on.
        try life.expect(.active)
        let held = try #require(try await life.store.hardware().first)
        _ = try await life.store.approveHardware(try #require(held.id))
        _ = try await life.renewal.renew().get()
        try life.expect(.active)
    }

    private func keyRotation(_ life: Life) async throws {
        let old = try #require(life.keeper.status().keyID)
        let new = try await life.store.rotateKey(kid: "second", creates: true, overlapSeconds: 30 * day).kid
        try await life.live(until: life.now + 2 * day)
        #expect(life.keeper.status().keyID == old)
        #expect(life.keeper.trustedKeys().ids == [old, new].sorted())
        try await life.live(until: life.now + 30 * day)
        #expect(life.keeper.status().keyID == new)
        try life.expect(.active)
        _ = try await life.store.retireKey(old)
        try await life.live(until: life.now + 2 * day)
        try life.expect(.active)
        // The operator's own folder is as it was; what the authority announces no longer is in no other place.
        let learned = try FileManager.default.contentsOfDirectory(atPath: life.keeper.configuration.learnedKeys)
        #expect(learned == ["second.pem"])
    }

    private func paidUntil(_ life: Life) async throws {
        let end = life.now + 5 * day
        let id = try #require(life.subscription.id)
        _ = try await life.store.changeSubscription(id) { $0.paidUntil = end }
        _ = try await life.renewal.renew().get()
        #expect(life.keeper.status().claims?.end == end)
        try await life.live(until: end - 1)
        try life.expect(.active)
        try await life.live(until: end)
        #expect(!life.keeper.status().isValid && !life.admits())
        try await life.expectRefused("paid_until_passed")
        _ = try await life.store.changeSubscription(id) { $0.paidUntil = end + 400 * day }
        _ = try await life.renewal.renew().get()
        try life.expect(.active)
        #expect(life.keeper.status().daysLeft == 14)
    }

    private func offline(_ life: Life) async throws {
        let world = Life.World()
        world.now.withLock { $0 = life.now }
        let folder = life.folder + "/offline"
        let keeper = await LicenseKeeper.load(
            LicenseConfiguration(
                licenseFile: folder + "/license.lic", evaluatesWhenAbsent: false, stateFolder: folder,
                trustedKeys: [life.keeper.configuration.learnedKeys]),
            hardware: { () throws(LicensingError) in world.machine.withLock { $0 } }, clock: world.clock
        ).keeper
        let (token, _) = try await life.store.issueOffline(
            world.machine.withLock { $0 }, subscription: try #require(life.subscription.id), unitID: nil)
        try Data(token.utf8).write(to: URL(filePath: folder + "/license.lic"))
        #expect(await keeper.commit().status.state == .offlineActive)
        let end = try #require(keeper.status().claims?.end)
        #expect(end == (try await life.store.subscriptions().first?.paidUntil))

        // One warning for each of the four marks.
        var told: [String] = []
        while world.now.withLock({ $0 }) < end {
            let status = keeper.status()
            #expect(status.state == .offlineActive)
            if let ending = status.ending, told.last != "\(ending.step)" { told.append("\(ending.step)") }
            #expect((status.ending != nil) == ((status.daysLeft ?? 0) <= 30))
            world.now.withLock { $0 += day / 2 }
        }
        #expect(told == ["30", "14", "7", "1"])
        #expect(keeper.status().state == .offlineExpired && keeper.status().cap(of: .furl) == 0)

        // Memory binds an offline licence.
        world.now.withLock { $0 = life.now }
        let other = await LicenseKeeper.load(
            LicenseConfiguration(
                licenseFile: folder + "/license.lic", evaluatesWhenAbsent: false, stateFolder: folder + "/other",
                trustedKeys: [life.keeper.configuration.learnedKeys]),
            hardware: { () throws(LicensingError) in
                var machine = world.machine.withLock { $0 }
                machine.totalMemorySize = 32010
                return machine
            }, clock: world.clock)
        #expect(other.report.status.state == .hardwareMismatch)
        #expect(other.report.status.reason == "total_memory_size 16005 -> 32010")
    }
}
