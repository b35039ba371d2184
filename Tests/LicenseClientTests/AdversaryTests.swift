import AuthorityAPI
import Foundation
import LicenseClient
import Licensing
import Synchronization
import TestSupport
import Testing

/// Answers that are not the authority's answer to this question of this unit: each is refused by its name, and changes nothing.
@Suite struct AdversaryTests {
    @Test func replayedAnswers() async throws {
        let station = try await Station()
        let kept = Mutex<[UInt8]>([])
        let forge = Forge(station)
        station.server.react { question in
            let bytes = (try? await forge.bytes(for: question)) ?? []
            kept.withLock { $0 = bytes }
            return .send(bytes)
        }
        _ = try await station.renewal.renew().get()
        let replay = kept.withLock { $0 }
        station.server.react { _ in .send(replay) }
        await station.expectRefused("Fpx-Answer: jti: found \"")
        // Also a good answer that was given before, under the new question's name.
        station.set(start + 2 * day)
        var old = forge
        old.time = start + 2 * day
        old.claims.epoch = 0
        await station.expectRefused("licence L1: found epoch 0, expected 1 or later", by: old)
    }

    @Test func answersForAnotherUnit() async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        var forge = Forge(station, epoch: 2)
        forge.unit = UUID().uuidString.lowercased()
        await station.expectRefused("Fpx-Answer: aud: found \"\(forge.unit!)\", expected \"\(station.unitID)\"", by: forge)
        // Sealed for this unit, with a licence for other hardware.
        forge = Forge(station, epoch: 2)
        var other = machine
        other.cpuModel = "Other CPU"
        forge.claims.hardware = HardwareBinding(other, binds: [.cpuModel])
        await station.expectRefused("not to be taken: cpu_model Other CPU -> Test CPU", by: forge)
    }

    @Test func answersByAnotherKey() async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        // Of the same id, and of another one.
        var forge = Forge(station, epoch: 2)
        forge.sealKey = try SigningKey(id: "k1")
        await station.expectRefused(
            "Fpx-Answer: found a signature that key k1 did not make over these bytes, expected its own", by: forge)
        forge.sealKey = try SigningKey(id: "k9")
        await station.expectRefused("Fpx-Answer: kid: found \"k9\", expected one of k1", by: forge)
        // The seal is genuine, the licence is not.
        forge = Forge(station, epoch: 2)
        forge.licenseKey = try SigningKey(id: "k1")
        await station.expectRefused("not to be taken: found a signature that key k1 did not make", by: forge)
        forge.licenseKey = try SigningKey(id: "k9")
        await station.expectRefused("kid: found \"k9\", expected one of k1", by: forge)
        // A licence is no seal, and a seal is no licence.
        forge = Forge(station, epoch: 2)
        forge.isSealed = false
        forge.headers = ["Fpx-Answer: \(station.read("license.lic")!.dropLast())"]
        await station.expectRefused("typ: found \"JWT\", expected \"fpx-answer+jwt\"", by: forge)
    }

    @Test func olderEpochs() async throws {
        let station = try await Station()
        try await station.renew(epoch: 5)
        await station.expectRefused("licence L1: found epoch 4, expected 5 or later", by: Forge(station, epoch: 4))
        await station.expectRefused(
            "licence L1: found another licence of epoch 5, expected the one in hand or a later epoch",
            by: Forge(station, epoch: 5, seats: 400))
        // The very same one is the answer to a question that was asked again.
        #expect(try await station.renew(epoch: 5) == 5)
        await station.expectRefused(
            "jti: found licence L2, expected L1, which is in force", by: Forge(station, epoch: 9, id: "L2"))
    }

    /// Without a file, and with an old one in its place, the unit still knows which epoch it had.
    @Test func olderEpochsAfterTheFileIsGone() async throws {
        let station = try await Station()
        try await station.renew(epoch: 5)
        let fifth = try #require(station.read("license.lic"))
        try FileManager.default.removeItem(atPath: station.folder + "/license.lic")
        _ = await station.keeper.commit()
        await station.expectRefused("licence L1: found epoch 4, expected 5 or later", by: Forge(station, epoch: 4))
        try Data(fifth.utf8).write(to: URL(filePath: station.folder + "/license.lic"))
        _ = await station.keeper.commit()
        // An old file that is superseded is not what is held, also when the newer one is over.
        station.answer(Forge(station, epoch: 6))
        _ = try await station.renewal.renew().get()
        try Data(fifth.utf8).write(to: URL(filePath: station.folder + "/license.lic"))
        _ = await station.keeper.commit()
        station.set(start + 20 * day)
        #expect(station.keeper.status().state == .superseded && station.keeper.held?.claims.epoch == 6)
        await station.expectRefused("licence L1: found epoch 5, expected 6 or later", by: Forge(station, epoch: 5))
    }

    @Test(arguments: [301, 3600, day, 365 * day, -301, -3600, -day, -365 * day])
    func serverTimesFarOff(_ seconds: Int) async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        var forge = Forge(station, epoch: 2)
        forge.time += seconds
        await station.expectRefused(
            "found the authority's clock at \(Timestamp.text(start + seconds)) and ours at 2026-11-21T00:00:00Z, "
                + "expected at most 300 seconds between them", by: forge)
    }

    @Test func serverTimesALittleOffAreGood() async throws {
        let station = try await Station()
        for (epoch, seconds) in [(1, 300), (2, -300)] {
            var forge = Forge(station, epoch: epoch)
            forge.time += seconds
            station.answer(forge)
            #expect(try await station.renewal.renew().get().epoch == epoch)
        }
    }

    @Test func changedBodies() async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        var forge = Forge(station, epoch: 2)
        forge.spoil = { Array(String(decoding: $0, as: UTF8.self).replacing("203.0.113.7", with: "203.0.113.8").utf8) }
        await station.expectRefused("Fpx-Answer: sha256: found \"", by: forge)
        // Refusals are sealed too: nobody on the way can suspend a unit, or turn a refusal into another.
        var refusal = Forge.refusal(station, "suspended", status: 403)
        refusal.isSealed = false
        await station.expectRefused("found an answer (status 403) without Fpx-Answer, expected a signed one", by: refusal)
        refusal = Forge.refusal(station, "held", status: 403)
        refusal.spoil = { Array(String(decoding: $0, as: UTF8.self).replacing("held", with: "suspended").utf8) }
        await station.expectRefused("Fpx-Answer: sha256: found \"", by: refusal)
    }

    @Test func otherStatuses() async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        // The seal says 200, the line says something else.
        let forge = Forge(station, epoch: 2)
        station.server.react { question in
            let bytes = (try? await forge.bytes(for: question)) ?? []
            return .send(Array(String(decoding: bytes, as: UTF8.self).replacing("HTTP/1.1 200", with: "HTTP/1.1 403").utf8))
        }
        await station.expectRefused("Fpx-Answer: status: found 200, expected 403")
        station.server.react { _ in .send(Forge.http(302, ["Location: https://localhost:1/v1/lease"], [])) }
        await station.expectRefused("found an answer (status 302) without Fpx-Answer, expected a signed one")
        station.server.react { _ in .send(Forge.http(502, [], Array("<html>".utf8))) }
        await station.expectRefused("found an answer (status 502) without Fpx-Answer")
    }

    @Test func truncatedAnswers() async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        let forge = Forge(station, epoch: 2)
        for share in [1, 5, 9] {
            station.server.react { question in
                let bytes = (try? await forge.bytes(for: question)) ?? []
                return .send(Array(bytes.prefix(bytes.count * share / 10)))
            }
            await station.expectRefused("\(station.server.url): found an answer that breaks off (")
        }
        station.server.react { _ in .send([]) }
        await station.expectRefused("found an answer that breaks off (")
        station.server.react { _ in .send(Array("SSH-2.0-OpenSSH_9.2\r\n".utf8)) }
        await station.expectRefused("found an answer that breaks off (")
    }

    @Test func answersWithoutEnd() async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        var forge = Forge(station, epoch: 2)
        forge.spoil = { $0 + [UInt8](repeating: UInt8(ascii: " "), count: LicenseClient.bytesMax) }
        await station.expectRefused("found an answer of more than 262144 bytes, expected at most that", by: forge)
        // Without a length, for as long as the connection lasts.
        station.server.react { _ in
            .send(Array("HTTP/1.1 200 OK\r\n\r\n".utf8) + [UInt8](repeating: 0x20, count: 1 << 20))
        }
        await station.expectRefused("found an answer of more than 262144 bytes, expected at most that")
    }

    /// A byte every 20 ms is never silence, and never an answer.
    @Test func aServerThatDrips() async throws {
        let station = try await Station(answerSeconds: 2)
        let forge = Forge(station)
        for stall in [0, 1, 2] {
            station.server.react { question in
                let bytes = (try? await forge.bytes(for: question)) ?? []
                return stall == 0
                    ? .silence : .drip(stall == 1 ? bytes : Array("HTTP/1.1 200 OK\r\nX: ".utf8) + bytes, milliseconds: 20)
            }
            await station.expectRefused("\(station.server.url): found no whole answer, expected one within 2 seconds")
        }
        #expect(station.keeper.status().state == .absent)
    }

    @Test func certificatesOfOthers() async throws {
        let other = try await Station(certificate: "other")
        other.answer(Forge(other))
        await other.expectRefused("\(other.server.url): certificate not trusted: set authority-ca (")
        #expect(other.server.questions.withLock { $0.isEmpty }, "the account key went to nobody")
        // Of a host that an authority vouches for whom nobody has named.
        let stranger = try await Station { $0.authorityFile = try? Certificates.shared.get().path("stranger-ca.pem") }
        stranger.answer(Forge(stranger))
        await stranger.expectRefused("certificate not trusted: set authority-ca (")
        let system = try await Station { $0.authorityFile = nil }
        system.answer(Forge(system))
        await system.expectRefused("certificate not trusted: set authority-ca (")
        #expect(stranger.server.questions.withLock { $0.isEmpty } && system.server.questions.withLock { $0.isEmpty })
    }

    @Test func contentsThatBreakTheContract() async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        var forge = Forge(station, epoch: 2)
        forge.body = Array("{\"license\":1}".utf8)
        await station.expectRefused("body: found 13 bytes, expected LeaseAnswer in JSON", by: forge)
        forge.status = 418
        await station.expectRefused("body: found status 418 with 13 bytes, expected one of the authority's refusals", by: forge)
        forge = Forge(station, epoch: 2)
        forge.externalAddress = "\u{1B}[2J"
        await station.expectRefused("external_address: found \"\\u{1B}[2J\", expected an IP address", by: forge)
        forge = Forge(station, epoch: 2)
        forge.reissuesLeft = -1
        await station.expectRefused("reissues_left: found -1, expected a number from 0 to 1000000", by: forge)
        forge = Forge(station, epoch: 2)
        forge.keys.append(.init(kid: "../../license", pem: station.key.publicPEM))
        await station.expectRefused("keys: found the key id \"../../license\", expected a file name", by: forge)
        forge = Forge(station, epoch: 2)
        forge.keys.append(.init(kid: "k2", pem: "junk"))
        await station.expectRefused("k2: found 4 bytes that are not PEM, expected an Ed25519 public key", by: forge)
        forge = Forge(station, epoch: 2)
        forge.keys = [.init(kid: "k1", pem: try SigningKey(id: "k1").publicPEM)]
        await station.expectRefused("k1: found another key than the trusted one of this id, expected a new id", by: forge)
        forge = Forge(station, epoch: 2)
        forge.keys = (0..<65).map { .init(kid: "k\($0)", pem: station.key.publicPEM) }
        await station.expectRefused("keys: found 65, expected at most 64", by: forge)
        // A licence that is over, or not begun.
        forge = Forge(station, epoch: 2)
        forge.claims.notBefore -= 20 * day
        forge.claims.leaseExpiry -= 14 * day
        await station.expectRefused("found a lease until 2026-11-21T00:00:00Z, expected one that is not over", by: forge)
        forge = Forge(station, epoch: 2)
        forge.claims.notBefore += day
        await station.expectRefused("found a lease from 2026-11-22T00:00:00Z, expected one that has begun", by: forge)
    }

    /// The unit's own clock is wrong: no answer makes it longer, and the state says what is wrong.
    @Test(arguments: [3600, day, 365 * day]) func aClockSetBack(_ seconds: Int) async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        station.set(start - seconds)
        #expect(station.keeper.status().state == .clockRollback && station.keeper.status().cap(of: .furl) == 0)
        var forge = Forge(station, epoch: 2)
        forge.time = start
        await station.expectRefused("found the authority's clock at 2026-11-21T00:00:00Z and ours at", by: forge)
        // An authority whose clock was set back too: the witness remembers.
        forge.time = start - seconds
        await station.expectRefused(
            "found a clock that was set back, to before 2026-11-21T00:00:00Z, expected it to be later", by: forge)
        station.set(start)
        #expect(station.keeper.status().state == .active && station.keeper.status().cap(of: .furl) == 1000)
    }

    @Test(arguments: [(3600, LicenseState.active), (day, .active), (365 * day, .expired)])
    func aClockSetForward(_ seconds: Int, _ state: LicenseState) async throws {
        let station = try await Station()
        try await station.renew(epoch: 1)
        var forge = Forge(station, epoch: 2)
        station.set(start + seconds)
        #expect(station.keeper.status().state == state)
        await station.expectRefused("found the authority's clock at 2026-11-21T00:00:00Z and ours at", by: forge)
        // Set right again it is a clock set back, until a person says otherwise; no answer lengthens anything meanwhile.
        station.set(start + 400)
        forge.time = start + 400
        await station.expectRefused("found a clock that was set back, to before", by: forge)
        #expect(station.keeper.status().state == .clockRollback)
        try FileManager.default.removeItem(atPath: station.folder + "/state/clock")
        #expect(await station.keeper.commit().status.state == .active)
        station.answer(forge)
        #expect(try await station.renewal.renew().get().epoch == 2)
    }

    @Test func aLicenceCopiedFromAnotherHost() async throws {
        let other = try await Station()
        try await other.renew(epoch: 7)
        let station = try await Station()
        try FileManager.default.copyItem(atPath: other.folder + "/license.lic", toPath: station.folder + "/license.lic")
        // The other host is another machine, with a key that we trust.
        try FileManager.default.copyItem(atPath: other.folder + "/keys/k1.pem", toPath: station.folder + "/keys/other.pem")
        try Data(other.key.publicPEM.utf8).write(to: URL(filePath: station.folder + "/keys/k1.pem"))
        station.world.hardware.withLock { $0.logicalCPUsNumber = 64 }
        let report = await station.keeper.commit()
        #expect(report.refused?.description == "logical_cpus_number 2 -> 64")
        #expect(report.status.state == .hardwareMismatch && report.status.cap(of: .furl) == 0)
    }
}
