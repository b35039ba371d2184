import Foundation
import Licensing
import Testing

@Suite struct KeeperTests {
    @Test func noFileIsEvaluationOrAbsent() async throws {
        let (evaluating, report) = await (try Unit(named: false)).load()
        #expect(report.status.state == .evaluation && report.refused == nil)
        #expect(report.status.seats(of: .furl) == 4 && report.status.activeSeats(of: .furl) == 4)
        #expect(LicenseType.allCases.map(report.status.cap) == [100, 0, 0])
        #expect(report.status.expiryDate == "9999-12-31" && report.status.daysLeft == nil && report.status.warnings == [])
        #expect(report.status.claims?.businessType == .evaluation && report.status.claims?.issuerType == .automatic)
        #expect(evaluating.hardware == machine)

        let named = try Unit()
        let (_, absent) = await named.load()
        #expect(absent.status.state == .absent && absent.status.cap(of: .furl) == 0)
        #expect(absent.status.reason == "\(named.folder.path)/license.lic: there is no such file")
    }

    @Test func aLicenceGivesItsSeats() async throws {
        let unit = try Unit()
        try await unit.put(claims())
        let status = await unit.load().report.status
        #expect(status.state == .active && status.isValid && status.reason == nil && status.warnings == [])
        #expect(LicenseType.allCases.map(status.seats) == [40, 3, 2])
        #expect(LicenseType.allCases.map(status.activeSeats) == [40, 1, 2], "model_max of fnbi is 1")
        #expect(LicenseType.allCases.map(status.cap) == [1000, 25, 50])
        #expect(status.expiryDate == "2026-12-04" && status.daysLeft == 14 && status.keyID == "k1")
        #expect(unit.folder.read("var/state/license.lic") == unit.folder.read("license.lic"))
    }

    @Test func timePasses() async throws {
        let unit = try Unit()
        try await unit.put(claims(from: start + day))
        let (keeper, report) = await unit.load()
        #expect(
            report.status.state == .notYetValid && report.status.cap(of: .furl) == 0 && report.status.seats(of: .furl) == 40)
        #expect(report.status.reason == "found a lease from 2026-11-22T00:00:00Z, expected one that has begun")
        unit.set(clock: start + day - 301)
        #expect(keeper.status().state == .notYetValid)
        unit.set(clock: start + day - 300)
        #expect(keeper.status().state == .active)
        unit.set(clock: start + 15 * day - 1)
        #expect(keeper.status().state == .active && keeper.status().daysLeft == 1)
        unit.set(clock: start + 15 * day)
        let status = keeper.status()
        #expect(status.state == .expired && status.cap(of: .furl) == 0 && status.daysLeft == 0)
        #expect(
            status.reason
                == "found a lease until 2026-12-06T00:00:00Z, expected one that is not over")
    }

    @Test func whatIsNotPaidForIsNamed() async throws {
        let unit = try Unit()
        var unpaid = claims(days: 30)
        unpaid.paidUntil = start + day
        try await unit.put(unpaid)
        let (keeper, report) = await unit.load()
        #expect(report.status.state == .active && report.status.expiryDate == "2026-11-21" && report.status.daysLeft == 1)
        unit.set(clock: start + 40 * day)
        #expect(keeper.status().state == .paidUntilPassed)
        #expect(
            keeper.status().reason
                == "found a licence paid until 2026-11-21, expected one that is paid for now")
        // Whatever became of the lease.
        for lease in [start + day / 2, start + day] {
            unpaid.leaseExpiry = lease
            unpaid.epoch += 1
            try await unit.put(unpaid)
            #expect(await keeper.commit().status.state == .paidUntilPassed)
        }
    }

    @Test func statesOfTypes() async throws {
        for (business, issuer, valid, over) in [
            (BusinessType.production, IssuerType.automatic, LicenseState.active, LicenseState.expired),
            (.production, .offline, .offlineActive, .offlineExpired), (.evaluation, .automatic, .evaluation, .expired),
            (.evaluation, .offline, .evaluation, .offlineExpired),
        ] {
            let unit = try Unit()
            try await unit.put(claims(business: business, issuer: issuer))
            let (keeper, report) = await unit.load()
            #expect(report.status.state == valid && report.status.isValid)
            unit.set(clock: start + 20 * day)
            #expect(keeper.status().state == over && !keeper.status().isValid)
        }
    }

    @Test func wrongHardwareIsNamed() async throws {
        let unit = try Unit()
        try await unit.put(claims(hardware: HardwareBinding(machine, binds: [.cpuModel, .totalMemorySize])))
        let (keeper, report) = await unit.load()
        #expect(report.status.state == .active)
        unit.hardware.withLock { $0?.totalMemorySize = 32010 }
        #expect(keeper.status().state == .active, "hardware is read by a commit")
        #expect(await keeper.commit().status.state == .hardwareMismatch)
        #expect(keeper.status().reason == "total_memory_size 16005 -> 32010" && keeper.status().cap(of: .furl) == 0)
        unit.hardware.withLock { $0 = nil }
        let status = await keeper.commit().status
        #expect(status.reason?.hasSuffix("total_memory_size 16005 -> unreadable") == true)
        #expect(status.warnings == ["/proc/cpuinfo: there is no such file"])
        unit.hardware.withLock { $0 = machine }
        #expect(await keeper.commit().status.state == .active)
    }

    /// The unit's id lies beside the licence, and a licence that is not bound to one asks for none.
    @Test func anotherUnitIsNamed() async throws {
        let unit = try Unit()
        let ids = ["3b9dbf2c-7d53-4f0e-9a43-0d5f4a4a2f10", "6b7e5c1e-2f64-4f0b-9d0e-0c5d7c9a4f11"]
        var licensed = machine
        licensed.unitID = ids[0]
        try await unit.put(claims(issuer: .offline, hardware: HardwareBinding(licensed, binds: [.cpuModel, .unitID])))
        let (keeper, report) = await unit.load()
        #expect(report.status.state == .hardwareMismatch && report.status.reason == "unit_id \(ids[0]) -> none")
        for (id, state, reason) in [
            (ids[0], LicenseState.offlineActive, nil), (ids[1], .hardwareMismatch, "unit_id \(ids[0]) -> \(ids[1])"),
        ] {
            try unit.folder.write(id + "\n", "var/state/unit")
            let status = await keeper.commit().status
            #expect(status.state == state && status.reason == reason, "\(status)")
        }
        try await unit.put(claims(id: "L2", issuer: .offline, hardware: HardwareBinding(machine, binds: [.cpuModel])))
        #expect(await keeper.commit().status.state == .offlineActive)
    }

    /// Every kind of bad file; each leaves the licence in force where there is one, now and after a restart.
    @Test(arguments: [
        LicenseState.empty, .malformed, .truncated, .tooLarge, .unknownKey, .invalidSignature, .unsupportedVersion,
        .invalidClaims, .expired, .notYetValid, .hardwareMismatch, .superseded, .unreadable, .paidUntilPassed, .clockRollback,
    ])
    func aBadFileReplacesNothing(_ state: LicenseState) async throws {
        let unit = try Unit()
        try await unit.put(claims(epoch: 5))
        let (keeper, _) = await unit.load()
        let good = keeper.status()
        try await spoil(unit, state)

        let report = await keeper.commit()
        #expect(report.refused?.state == state)
        #expect(report.status.state == .active && report.status.claims == good.claims && report.status.cap(of: .furl) == 1000)
        #expect(report.status.warnings.count == 1)
        #expect(report.status.warnings.first?.contains("is refused (\(state.rawValue)): \(report.refused!)") == true)
        #expect(report.status.warnings.first?.hasSuffix("licence L1, epoch 5, stays in force") == true)
        #expect(keeper.status() == report.status)

        // The same after a restart, and another one.
        for _ in 0..<2 { #expect(await unit.load().report == report) }

        // Without a copy there is nothing to fall back to.
        if state != .superseded {
            try FileManager.default.removeItem(atPath: unit.configuration.stateFolder)
            let bare = await unit.load().report
            #expect(bare.status.state == state && !bare.status.isValid && bare.refused?.state == state)
            #expect(LicenseType.allCases.map(bare.status.cap) == [0, 0, 0] && bare.status.reason == bare.refused?.description)
        }
    }

    private func spoil(_ unit: Unit, _ state: LicenseState) async throws {
        let text = unit.folder.read("license.lic")!
        switch state {
        case .empty: try unit.put("")
        case .malformed: try unit.put("not a licence")
        case .truncated: try unit.put(String(text.dropLast(40)))
        case .tooLarge: try unit.put(String(repeating: "x", count: 10 << 20))
        case .unknownKey: try await unit.put(claims(), by: SigningKey(id: "k2"))
        case .invalidSignature:
            // The first character of the signature is another one.
            let rest = text.suffix(86)
            let first = text.dropLast(86).last!
            try unit.put(text.dropLast(87) + (first == "A" ? "B" : "A") + rest)
        case .unsupportedVersion, .invalidClaims:
            var members = claims().members
            if state == .invalidClaims { members["sub"] = nil } else { members["ver"] = .integer(2) }
            try unit.put(try await LicenseToken.sign(members, with: unit.key))
        case .expired: try await unit.put(claims(id: "L2", from: start - 20 * day))
        case .notYetValid: try await unit.put(claims(id: "L2", from: start + day))
        case .paidUntilPassed:
            var unpaid = claims(id: "L2", from: start - day)
            unpaid.paidUntil = start - 1
            try await unit.put(unpaid)
        case .hardwareMismatch:
            var other = machine
            other.logicalCPUsNumber = 4
            try await unit.put(claims(id: "L2", hardware: HardwareBinding(other, binds: [.logicalCPUsNumber])))
        case .superseded: try await unit.put(claims(seats: 100, epoch: 4))
        case .clockRollback:
            // Signed tomorrow, says the authority.
            var future = claims(id: "L2")
            future.issuedAt = start + day
            try await unit.put(future)
        case .unreadable:
            try unit.folder.remove("license.lic")
            try FileManager.default.createDirectory(
                atPath: unit.folder.path + "/license.lic", withIntermediateDirectories: true)
        default: Issue.record("no way to make \(state)")
        }
    }

    @Test func aNewerLicenceReplacesTheOldOne() async throws {
        let unit = try Unit()
        try await unit.put(claims())
        let (keeper, _) = await unit.load()
        try await unit.put(claims(seats: 80, epoch: 2))
        #expect(await keeper.commit().status.cap(of: .furl) == 2000)
        #expect(unit.folder.names.contains("license.lic"))
        #expect(unit.folder.read("var/state/license.lic") == unit.folder.read("license.lic"))
        #expect(unit.folder.read("var/state/license.lic.previous") != unit.folder.read("license.lic"))
        // The old one, which is genuine and has not ended, does not come back, by a restart neither.
        try await unit.put(claims())
        let report = await keeper.commit()
        #expect(report.refused?.description == "licence L1: found epoch 1, expected 2 or later")
        #expect(report.status.cap(of: .furl) == 2000)
        #expect(await unit.load().report == report)
    }

    @Test func aLicenceForLaterTakesOverInTime() async throws {
        let unit = try Unit()
        try await unit.put(claims(days: 10))
        let (keeper, _) = await unit.load()
        try await unit.put(claims(seats: 80, from: start + 9 * day, epoch: 2))
        #expect(await keeper.commit().refused?.state == .notYetValid)
        #expect(keeper.status().cap(of: .furl) == 1000)
        unit.set(clock: start + 9 * day)
        #expect(keeper.status().cap(of: .furl) == 2000 && keeper.status().warnings == [])
        // It was in force, so it is what a bad file cannot replace.
        try unit.put("")
        #expect(await keeper.commit().status.cap(of: .furl) == 2000)
        #expect(await unit.load().report.status.cap(of: .furl) == 2000)
    }

    @Test func theCopyEndsToo() async throws {
        let unit = try Unit()
        try await unit.put(claims())
        let (keeper, _) = await unit.load()
        try unit.put("x")
        #expect(await keeper.commit().status.state == .active)
        unit.set(clock: start + 14 * day)
        #expect(keeper.status().state == .malformed && keeper.status().cap(of: .furl) == 0)
        #expect(await unit.load().report.status == keeper.status())
    }

    @Test(arguments: [true, false]) func aRemovedFileIsARemoval(_ named: Bool) async throws {
        let unit = try Unit(named: named)
        try await unit.put(claims(epoch: 3))
        let (keeper, _) = await unit.load()
        try unit.folder.remove("license.lic")
        #expect(keeper.status().state == .active, "until a commit")
        // The evaluation is for units that never had a licence.
        #expect(await keeper.commit().status.state == .absent)
        #expect(await unit.load().report.status.state == .absent)
        // What was removed does not come back by way of a bad file.
        try unit.put("")
        #expect(await keeper.commit().status.state == .empty)
        #expect(await unit.load().report.status.state == .empty)
        // Nor does an epoch before it.
        try await unit.put(claims(epoch: 2))
        #expect(await unit.load().report.status.state == .superseded)
        try await unit.put(claims(epoch: 3))
        #expect(await keeper.commit().status.state == .active)
    }

    @Test func aDamagedCopyIsNamed() async throws {
        let unit = try Unit()
        try await unit.put(claims())
        _ = await unit.load()
        try unit.folder.write("junk", "var/state/license.lic")
        try unit.put("junk")
        let status = await unit.load().report.status
        #expect(status.state == .malformed)
        #expect(status.warnings.first?.contains("var/state/license.lic: found a last good copy that is none") == true)
        // A good file heals it.
        try await unit.put(claims())
        let healed = await unit.load()
        #expect(healed.report.status.state == .active)
        #expect(await healed.keeper.commit().status.warnings == [])
    }

    @Test func aStateFolderThatCannotBeWrittenIsToldAndNoMore() async throws {
        let unit = try Unit()
        try await unit.put(claims())
        try unit.folder.write("", "var")
        let status = await unit.load().report.status
        #expect(status.state == .active && status.cap(of: .furl) == 1000)
        #expect(status.warnings.contains { $0.hasPrefix("the last good copy is not on disk: ") }, "\(status.warnings)")
        #expect(status.warnings.contains { $0.hasPrefix("the clock witness is not on disk: ") })
    }

    @Test func aBadKeyFileStopsNoOtherKey() async throws {
        let unit = try Unit()
        try await unit.put(claims())
        try unit.folder.write("junk", "keys/bad.pem")
        try unit.folder.write("junk", "keys/README")
        let status = await unit.load().report.status
        #expect(status.state == .active)
        #expect(
            status.warnings == [
                "\(unit.folder.path)/keys/bad.pem: found 4 bytes that are not PEM, expected an Ed25519 public key in PEM "
                    + "(BEGIN PUBLIC KEY)"
            ])
    }

    @Test func aKeyThatIsGoneTakesItsLicenceAtTheNextStart() async throws {
        let unit = try Unit()
        try await unit.put(claims())
        let (keeper, _) = await unit.load()
        try unit.folder.remove("keys/k1.pem")
        let report = await keeper.commit()
        #expect(report.refused?.state == .unknownKey && report.status.state == .active)
        #expect(await unit.load().report.status.state == .unknownKey)
    }

    @Test func commitsAtTheSameTimeAreDoneOneByOne() async throws {
        let unit = try Unit()
        try await unit.put(claims())
        let (keeper, _) = await unit.load()
        let files = [
            try await LicenseToken.sign(claims(epoch: 2), with: unit.key), "junk", "",
            try await LicenseToken.sign(claims(from: start - 20 * day, epoch: 9), with: unit.key),
        ]
        await withTaskGroup { group in
            for index in 0..<100 {
                group.addTask {
                    // In one step, as whoever installs a licence should.
                    try? StoredFile.replace(Array(files[index % 4].utf8), at: unit.folder.path + "/files-\(index)", mode: 0o600)
                    rename(unit.folder.path + "/files-\(index)", unit.folder.path + "/license.lic")
                    let report = await keeper.commit()
                    #expect(report.status.state == .active)
                    #expect(keeper.status().cap(of: .furl) == 1000)
                }
            }
        }
        try await unit.put(claims(seats: 80, epoch: 3))
        #expect(await keeper.commit().status.cap(of: .furl) == 2000)
        #expect(await unit.load().report.status.cap(of: .furl) == 2000)
    }

    @Test func asking() async throws {
        // A question is cheap: no file but the witness is touched, and that once a minute.
        let unit = try Unit()
        try await unit.put(claims())
        let (keeper, _) = await unit.load()
        try unit.folder.remove("license.lic")
        try unit.folder.remove("var/state/license.lic")
        let witness = unit.folder.read("var/state/clock")
        unit.set(clock: start + 59)
        #expect(keeper.status().state == .active && unit.folder.read("var/state/clock") == witness)
        unit.set(clock: start + 60)
        #expect(keeper.status().state == .active && unit.folder.read("var/state/clock") != witness)
    }
}
