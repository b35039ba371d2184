import Foundation
import JWTKit
import Licensing
import TestSupport
import Testing

/// What a customer who does not want to pay, or who can write where he should not, does with genuine and other files.
@Suite struct FieldForgeryTests {
    /// Puts licences in place one after the other, each with a start in between; the state after each.
    private func states(_ unit: Unit, _ licenses: [LicenseClaims]) async throws -> [String] {
        var states: [String] = []
        for license in licenses {
            try await unit.put(license)
            states.append(await unit.load().report.status.state.rawValue)
        }
        return states
    }

    // MARK: epochs

    @Test func anEarlierEpochStaysOutWhateverCameBetween() async throws {
        let unit = try Unit()
        let found = try await states(
            unit,
            [
                claims(id: "L1", seats: 40, epoch: 2), claims(id: "L2", seats: 40, epoch: 1),
                claims(id: "L2", seats: 40, epoch: 2), claims(id: "L3", seats: 40), claims(id: "L1", seats: 400, epoch: 1),
            ])
        // The last good copy goes on beside a refused file.
        let (keeper, report) = await unit.load()
        let refused = report.refused?.description.components(separatedBy: "licence L1: ").last ?? "in force"
        let last = "\(report.status.claims?.licenseID ?? "none") with \(report.status.activeSeats(of: .furl)) seats, \(refused)"
        #expect(
            Field.row(
                "forgery.1", "L1 e2 (40 seats), L2 e1 and e2, L3, then L1 e1 (400 seats) again",
                expected: "Active, Active, Active, Active, then L3 with 40 seats, found epoch 1, expected 2 or later",
                found: found.dropLast().joined(separator: ", ") + ", then \(last)"))
        #expect(report.refused?.state == .superseded && keeper.status().cap(of: .furl) == 1000)
    }

    /// Without the record the last two licences are remembered, as files.
    @Test func aLostRecordForgetsNotAll() async throws {
        let unit = try Unit()
        _ = try await states(unit, [claims(id: "L1", epoch: 2), claims(id: "L2", epoch: 2)])
        for name in ["authority", "authority.previous"] { try? unit.folder.remove("var/state/\(name)") }
        #expect(try await states(unit, [claims(id: "L2", epoch: 1), claims(id: "L1", epoch: 1)]) == ["Active", "Active"])
        #expect(await unit.load().report.refused?.state == .superseded)
        #expect(await unit.load().report.status.claims?.epoch == 2)
    }

    @Test func theRecordHasABound() throws {
        var record = AuthorityRecord()
        for number in 1...256 { try record.note(claims(id: "L\(number)", days: number), now: start) }
        let error = #expect(throws: LicensingError.self) { try record.note(claims(id: "more"), now: start) }
        #expect(
            error?.description == "jti: found licence more after 256 others that are not over, expected at most 256 on one unit"
        )
        // Those that are over make room, the first of them first.
        try record.note(claims(id: "more", from: start + 2 * day), now: start + 2 * day)
        #expect(record.epochs.count == 256 && record.epochs["L1"] == nil && record.epochs["L2"] != nil)
        #expect(record.bytes.count < 64 << 10)
        #expect(try AuthorityRecord(bytes: record.bytes, path: "authority") == record)
    }

    // MARK: evaluation

    @Test func aRemovedLicenceIsNoEvaluation() async throws {
        let unit = try Unit(named: false)
        let first = await unit.load().report.status.state.rawValue
        try await unit.put(claims())
        let (keeper, report) = await unit.load()
        try unit.folder.remove("license.lic")
        let removed = await keeper.commit().status
        let restarted = await unit.load().report.status
        let sessions = "\(removed.cap(of: .furl)) sessions" + (restarted == removed ? ", also after a restart" : "")
        #expect(
            Field.row(
                "forgery.3", "the licence file is deleted, on a unit that began with the built-in evaluation",
                expected: "Evaluation, Active, then Absent: 0 sessions, also after a restart",
                found: "\(first), \(report.status.state.rawValue), then \(removed.state.rawValue): \(sessions)"))
        #expect(removed.reason?.contains("the built-in evaluation is for new units") == true)
    }

    @Test func anAuthoritysRefusalEndsTheEvaluation() async throws {
        let unit = try Unit(named: false, hasAuthority: true)
        let (keeper, report) = await unit.load()
        #expect(report.status.state == .evaluation)
        keeper.remember { $0.lastContact = start }
        #expect(keeper.status().state == .absent)
        #expect(await unit.load().report.status.state == .absent)
    }

    // MARK: time

    @Test func aForeignLicenceOfTheFarFuturePoisonsNothing() async throws {
        let unit = try Unit()
        try await unit.put(claims())
        _ = await unit.load()
        var other = machine
        other.cpuModel = "Another CPU"
        var foreign = claims(id: "L9", hardware: HardwareBinding(other, binds: [.cpuModel]))
        (foreign.issuedAt, foreign.leaseExpiry) = (253_000_000_000, 253_100_000_000)
        try await unit.put(foreign)
        let with = await unit.load().report
        let fresh = try Unit()
        try await fresh.put(foreign, by: fresh.key)
        let alone = await fresh.load().report.status.state.rawValue
        try await unit.put(claims(epoch: 2))
        let after = await unit.load().report.status.state.rawValue
        #expect(
            Field.row(
                "forgery.5", "a genuine licence for another machine, signed in the year 9987, is put in place and taken away",
                expected: "Active with the last good copy, Hardware-mismatch alone, Active afterwards",
                found: "\(with.status.state.rawValue) with the last good copy, \(alone) alone, \(after) afterwards"))
        #expect(with.refused?.state == .hardwareMismatch)
    }

    /// One for this machine is refused as long as it is in place, and no longer.
    @Test func aLicenceSignedInTheFutureIsRefusedWhileItIsThere() async throws {
        let unit = try Unit()
        var early = claims()
        early.issuedAt = start + day
        try await unit.put(early)
        #expect(await unit.load().report.status.state == .clockRollback)
        try await unit.put(claims())
        #expect(await unit.load().report.status.state == .active)
    }

    // MARK: who may write

    private func set(_ mode: mode_t, owner: uid_t = 0, _ unit: Unit, _ name: String) throws {
        let path = unit.folder.path + "/" + name
        try #require(chmod(path, mode) == 0)
        if owner != 0 { try #require(chown(path, owner, 0) == 0) }
    }

    @Test(arguments: [("keys", mode_t(0o777)), ("keys/k1.pem", 0o666), ("keys", 0o1777)])
    func keysThatAllCanWriteAreRefused(_ name: String, _ mode: mode_t) async throws {
        let unit = try Unit()
        try await unit.put(claims())
        try set(mode, unit, name)
        let status = await unit.load().report.status
        #expect(
            Field.row(
                "forgery.6", "\(name) has mode \(String(mode, radix: 8))", expected: "Unknown-key, 0 sessions",
                found: "\(status.state.rawValue), \(status.cap(of: .furl)) sessions"))
        #expect(
            status.warnings.contains {
                $0
                    == "\(unit.folder.path)/\(name): found keys writable by all (mode \(String(mode, radix: 8))), expected owned "
                    + "by root or by fpxd's user, and writable by no others"
            }, "\(status.warnings)")
    }

    @Test(.enabled(if: geteuid() == 0, "giving files away takes root"), arguments: ["keys", "keys/k1.pem"])
    func keysOfAnotherUserAreRefused(_ name: String) async throws {
        let unit = try Unit()
        try await unit.put(claims())
        try set(0o755, owner: 12345, unit, name)
        let status = await unit.load().report.status
        #expect(status.state == .unknownKey)
        #expect(status.warnings.contains { $0.contains("/\(name): found keys owned by user 12345") }, "\(status.warnings)")
    }

    @Test func aLicenceThatAllCanWriteIsToldOf() async throws {
        let unit = try Unit()
        try await unit.put(claims())
        try set(0o666, unit, "license.lic")
        let status = await unit.load().report.status
        #expect(status.state == .active)
        #expect(
            status.warnings == [
                "\(unit.folder.path)/license.lic is writable by all (mode 666): whoever writes it can change what is licensed "
                    + "here"
            ])
    }

    // MARK: weak keys

    /// Under the identity any message has the signature (identity, 0): everybody's licence would verify.
    @Test(arguments: [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ])
    func aWeakKeyIsRefused(_ point: String) async throws {
        let unit = try Unit()
        let hexadecimal = Array(point)
        let bytes = stride(from: 0, to: 64, by: 2).compactMap { UInt8(String(hexadecimal[$0...($0 + 1)]), radix: 16) }
        // SubjectPublicKeyInfo of Ed25519, RFC 8410.
        let der = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00] + bytes
        let pem = "-----BEGIN PUBLIC KEY-----\n\(Data(der).base64EncodedString())\n-----END PUBLIC KEY-----\n"
        try unit.folder.write(pem, "keys/k1.pem")
        try await unit.put(claims())
        let status = await unit.load().report.status
        #expect(status.state == .unknownKey)
        #expect(
            status.warnings == [
                "\(unit.folder.path)/keys/k1.pem: found a point of small order, expected a key that a private key was made for"
            ])
    }
}
