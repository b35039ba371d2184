import AuthorityAPI
import ControlAPI
import Foundation
import LicenseClient
import Licensing
import Synchronization
import Testing

@Suite struct RenewalTests {
    @Test func theFirstLicence() async throws {
        let station = try await Station()
        #expect(station.keeper.status().state == .absent)
        station.answer(Forge(station))
        let renewal = try await station.renewal.renew().get()
        #expect(
            renewal
                == Renewal(licenseID: "L1", epoch: 1, daysLeft: 14, externalAddress: "203.0.113.7", reissuesLeft: 3))
        #expect(station.keeper.status().state == .active && station.keeper.status().cap(of: .furl) == 1000)
        #expect(
            station.world.lines.withLock { $0 } == [
                "[info] Start automatic license refresh process",
                "[info] External IP address of this server: 203.0.113.7",
                "[info] We have license for: 14 days",
                "[info] Correctly received and checked license",
                "[info] We store license on disk",
            ])
        #expect(station.read("license.lic") == station.read("state/license.lic"))
        #expect(
            station.read("state/keys/k1.pem") == "vouched for by k1 \(station.key.publicText)\n" + station.key.publicPEM)
        #expect(station.keeper.record.lastSuccess == start && station.keeper.record.question == nil)
        // What was asked.
        let question = try #require(station.server.questions.withLock { $0.first })
        #expect(question.line == "POST /v1/lease HTTP/1.1" && question.unit == station.unitID)
        #expect(question.headers["authorization"] == "Bearer secret-account-key")
        #expect(UUID(uuidString: question.id) != nil)
        let request = try ControlJSON.decoder().decode(LeaseRequest.self, from: Data(question.body))
        #expect(request.licenseId == nil && request.epoch == nil && request.version == "1.2.3")
        #expect(request.hardware.cpuModel == "Test CPU" && request.hardware.totalMemorySize == 16005)
    }

    @Test func theNextOne() async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        let first = station.read("license.lic")
        station.set(start + day)
        try await station.renew(epoch: 2, seats: 80)
        #expect(station.keeper.status().cap(of: .furl) == 2000 && station.keeper.status().expiryDate == "2026-12-05")
        #expect(station.read("license.lic.previous") == first)
        let questions = station.server.questions.withLock { $0 }
        #expect(questions.count == 2 && questions[0].id != questions[1].id)
        let request = try ControlJSON.decoder().decode(LeaseRequest.self, from: Data(questions[1].body))
        #expect(request.licenseId == "L1" && request.epoch == 1)
        // All that is remembered is remembered by the next process.
        let again = await LicenseKeeper.load(
            station.keeper.configuration, hardware: { () throws(LicensingError) in machine },
            clock: { Timestamp.date(start + day) })
        #expect(again.report.status == station.keeper.status() && again.keeper.record == station.keeper.record)
    }

    /// One question is the same question until it is answered, also after a restart.
    @Test func aQuestionIsAskedAgainUnderItsName() async throws {
        let station = try await Station()
        station.server.react { _ in .send([]) }
        _ = await station.renewal.renew()
        station.set(start + 60)
        _ = await station.renewal.renew()
        let (ids, bodies) = station.server.questions.withLock { ($0.map(\.id), $0.map(\.body)) }
        #expect(ids.count == 2 && Set(ids).count == 1 && Set(bodies).count == 1)
        #expect(AuthorityRecord.read(station.keeper.configuration.recordFile).record.question?.id == ids[0])
        // Other hardware is another question.
        station.world.hardware.withLock { $0.totalMemorySize += 1 }
        _ = await station.renewal.renew()
        #expect(Set(station.server.questions.withLock { $0.map(\.id) }).count == 2)
        // After an hour it is asked anew.
        station.set(start + 60 + 3601)
        _ = await station.renewal.renew()
        #expect(Set(station.server.questions.withLock { $0.map(\.id) }).count == 3)
        // A refusal is an answer.
        station.answer(Forge.refusal(station, "held", status: 403))
        await station.renewal.renew().expect("the authority refuses (held): because  [31mof it")
        await station.renewal.renew().expect("the authority refuses (held)")
        let last = station.server.questions.withLock { $0.suffix(2).map(\.id) }
        #expect(last[0] != last[1])
    }

    @Test func whoAsksMeanwhileGetsTheSameOutcome() async throws {
        let station = try await Station()
        station.answer(Forge(station))
        let renewal = station.renewal
        let outcomes = await withTaskGroup(of: Result<Renewal, LicenseClientError>.self) { group in
            for _ in 0..<8 { group.addTask { await renewal.renew() } }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(outcomes.allSatisfy { (try? $0.get().epoch) == 1 })
        #expect(station.server.questions.withLock { $0.count } < 8)
    }

    @Test(arguments: [("suspended", false), ("cancelled", true)])
    func aRefusalEndsTheLease(_ code: String, _ isCancelled: Bool) async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        let file = station.read("license.lic")
        station.set(start + day)
        station.answer(Forge.refusal(station, code, status: 403))
        await station.renewal.renew().expect("the authority refuses (\(code)): because")
        let status = station.keeper.status()
        #expect(status.state == .suspended && status.cap(of: .furl) == 0 && status.seats(of: .furl) == 40)
        #expect(
            status.reason?.hasPrefix(
                "licence L1: found it \(code) by the authority at 2026-11-22T00:00:00Z, expected it in force; ") == true)
        #expect(status.reason?.contains("`fpx commit`") == !isCancelled)
        #expect(station.read("license.lic") == file, "the file stays")
        // After a commit and a restart it is the same.
        #expect(await station.keeper.commit().status.state == .suspended)
        let again = await LicenseKeeper.load(
            station.keeper.configuration, hardware: { () throws(LicensingError) in machine },
            clock: { Timestamp.date(start + day) })
        #expect(again.report.status.state == .suspended && again.report.status.reason == status.reason)
        // The same licence once more lifts nothing in the next process; the next lease does.
        station.set(start + 2 * day)
        try await station.renew(epoch: 2)
        #expect(station.keeper.status().state == .active && station.keeper.record.refusal == nil)
        #expect(station.keeper.status().cap(of: .furl) == 1000)
    }

    /// Reinstated within the second of the refusal.
    @Test func aLeaseOfTheSameSecondEndsTheRefusal() async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        station.answer(Forge.refusal(station, "suspended", status: 403))
        await station.renewal.renew().expect("suspended")
        #expect(station.keeper.status().state == .suspended, "the refusal is not older than the licence")
        try await station.renew(epoch: 2)
        #expect(station.keeper.status().state == .active)
    }

    @Test(arguments: [
        "bad_request", "unauthorized", "no_subscription", "paid_until_passed", "held", "offline", "rate_limited", "unavailable",
        "internal", "idempotency_conflict",
    ])
    func otherRefusalsLeaveTheLease(_ code: String) async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        let before = station.everything.filter { $0.key != "record" }
        station.answer(Forge.refusal(station, code, status: 403))
        await station.renewal.renew().expect("the authority refuses (\(code)): because")
        #expect(station.everything.filter { $0.key != "record" } == before)
        #expect(station.keeper.record.refusal == nil)
    }

    @Test func silenceIsAGrace() async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        station.server.stop()
        station.set(start + 2 * day)
        #expect(station.keeper.status().state == .active && station.keeper.status().warnings == [])
        for (days, word) in [(2, "12 days"), (3, "11 days"), (12, "2 days"), (13, "1 day")] {
            station.set(start + days * day + 1)
            let status = station.keeper.status()
            #expect(status.state == .grace && status.isValid && status.cap(of: .furl) == 1000)
            #expect(
                status.warnings == [
                    "The authority has not extended the lease of licence L1 since 2026-11-21T00:00:00Z: "
                        + "it ends on 2026-12-04, in \(word)"
                ])
            #expect(status.ending?.step == status.daysLeft)
            await station.renewal.renew().expect("is out of reach: ")
            #expect(station.keeper.status() == status)
        }
        station.set(start + 14 * day)
        #expect(station.keeper.status().state == .expired && station.keeper.status().cap(of: .furl) == 0)
        #expect(station.keeper.status().ending == nil)
    }

    /// Keys come and go by what the authority announces; the operator's stay.
    @Test func keysRotate() async throws {
        let station = try await Station()
        let second = try SigningKey(id: "k2")
        var forge = Forge(station)
        // Signed by a key that is announced in the same answer, vouched for by the one that is trusted.
        forge.licenseKey = second
        forge.keys.append(.init(kid: "k2", pem: second.publicPEM))
        station.answer(forge)
        _ = try await station.renewal.renew().get()
        #expect(station.keeper.status().keyID == "k2" && station.keeper.status().warnings == [])
        let vouched = "vouched for by k1 \(station.key.publicText)\n"
        #expect(station.read("state/keys/k2.pem") == vouched + second.publicPEM)
        // From now on the second alone.
        station.set(start + day)
        forge = Forge(station, epoch: 2)
        forge.licenseKey = second
        forge.sealKey = second
        forge.keys = [.init(kid: "k2", pem: second.publicPEM)]
        station.answer(forge)
        _ = try await station.renewal.renew().get()
        #expect(station.read("state/keys/k1.pem") == nil && station.read("state/keys/k2.pem") != nil)
        #expect(station.read("keys/k1.pem") != nil)
        // A key that is announced no more does not count any more, though it did. What it vouched for does.
        let third = try SigningKey(id: "k3")
        station.set(start + 2 * day)
        forge = Forge(station, epoch: 3)
        forge.sealKey = second
        forge.licenseKey = third
        forge.keys = [.init(kid: "k3", pem: third.publicPEM)]
        station.answer(forge)
        _ = try await station.renewal.renew().get()
        #expect(
            station.read("state/keys/k3.pem") == vouched + "vouched for by k2 \(second.publicText)\n" + third.publicPEM)
        forge = Forge(station, epoch: 4)
        forge.sealKey = second
        await station.expectRefused("kid: found \"k2\", expected one of k1, k3", by: forge)
        // The key of the operator's is gone, or another one of its name: nothing that it vouched for counts.
        for other in [nil, try SigningKey(id: "k1").publicPEM] {
            try? FileManager.default.removeItem(atPath: station.folder + "/keys/k1.pem")
            if let other { try Data(other.utf8).write(to: URL(filePath: station.folder + "/keys/k1.pem")) }
            #expect(station.keeper.trustedKeys().ids == (other == nil ? [] : ["k1"]))
            let (keeper, _) = try await station.restarted()
            #expect(keeper.status().state == .unknownKey, "\(keeper.status())")
        }
    }

    /// A lease that is refused must not keep a key alive that the authority has retired: it is forgotten before the lease is
    /// judged.
    @Test func keysGoBeforeTheLeaseIsJudged() async throws {
        let station = try await Station()
        let second = try SigningKey(id: "k2")
        var forge = Forge(station)
        forge.keys.append(.init(kid: "k2", pem: second.publicPEM))
        station.answer(forge)
        _ = try await station.renewal.renew().get()
        #expect(station.keeper.trustedKeys().ids == ["k1", "k2"])
        forge = Forge(station, epoch: 0)
        station.answer(forge)
        await station.renewal.renew().expect("found epoch 0, expected 1 or later")
        #expect(station.keeper.trustedKeys().ids == ["k1"])
        #expect(station.read("state/keys/k2.pem") == nil)
    }

    /// Else whoever has a stolen key once gives an epoch that the authority never reaches.
    @Test(arguments: [1002, 4_294_967_295]) func anEpochThatNoRenewalsExplain(_ epoch: Int) async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        await station.expectRefused(
            "epoch: found \(epoch) after 1 of licence L1, more than renewals explain, expected at most 1001",
            by: Forge(station, epoch: epoch))
        // Nor as a file.
        let token = try await LicenseToken.sign(Forge(station, epoch: epoch).claims, with: station.key)
        let file = try #require(station.read("license.lic"))
        try Data(token.utf8).write(to: URL(filePath: station.folder + "/license.lic"))
        let report = await station.keeper.commit()
        #expect(report.refused?.state == .invalidClaims && report.status.claims?.epoch == 1, "\(report)")
        try Data(file.utf8).write(to: URL(filePath: station.folder + "/license.lic"))
        #expect(try await station.renew(epoch: 1001) == 1001)
    }

    @Test func aLicenceThatIsNotInForceGivesWayToAnother() async throws {
        let station = try await Station()
        try await station.renew(epoch: 5)
        station.set(start + 15 * day)
        #expect(station.keeper.status().state == .expired)
        station.answer(Forge(station, epoch: 1, id: "L2"))
        #expect(try await station.renewal.renew().get().licenseID == "L2")
        #expect(station.keeper.status().state == .active)
    }

    /// A bad file is replaced by the next lease, whatever it is.
    @Test(arguments: ["", "junk", String(repeating: "x", count: 1 << 20)])
    func aBadFileGivesWay(_ text: String) async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        try Data(text.utf8).write(to: URL(filePath: station.folder + "/license.lic"))
        #expect(await station.keeper.commit().status.warnings.count == 1)
        try await station.renew(epoch: 2)
        #expect(station.keeper.status().state == .active && station.keeper.status().warnings == [])
    }

    @Test func aLicenceThatCannotBeKeptIsNamed() async throws {
        let station = try await Station()
        try FileManager.default.createDirectory(
            atPath: station.folder + "/license.lic", withIntermediateDirectories: true)
        station.answer(Forge(station))
        await station.renewal.renew().expect("the licence cannot be kept: \(station.folder)/license.lic: ")
        #expect(station.keeper.status().state == .unreadable)
    }
}

extension Result where Success == Renewal, Failure == LicenseClientError {
    func expect(_ text: String, sourceLocation: SourceLocation = #_sourceLocation) {
        switch self {
        case .success(let renewal): Issue.record("found \(renewal), expected \(text)", sourceLocation: sourceLocation)
        case .failure(let error):
            #expect("\(error)".contains(text), "found: \(error)", sourceLocation: sourceLocation)
        }
    }
}
