import Foundation
import Licensing
import Testing

@Suite struct AuthorityRecordTests {
    static let full = {
        var record = AuthorityRecord()
        record.lastContact = start + 2
        record.lastSuccess = start + 1
        record.refusal = .init(licenseID: "L1", kind: .cancelled, at: start + 2)
        record.question = .init(id: "0b2c", body: "{\"a\":\"\u{E4}\\n\"}", askedAt: start)
        try? record.note(claims(id: "L\u{E4}", epoch: 7), now: start)
        return record
    }()
    static let bare = AuthorityRecord()

    @Test(arguments: [full, bare]) func whatIsWrittenIsRead(_ record: AuthorityRecord) throws {
        #expect(try AuthorityRecord(bytes: record.bytes, path: "authority") == record)
    }

    /// No byte can be lost or changed without notice, whatever it means.
    @Test func everyChangeIsNoticed() throws {
        let bytes = Self.full.bytes
        for index in bytes.indices.dropLast() {
            for bit in 0..<8 {
                var changed = bytes
                changed[index] ^= 1 << bit
                let read = try? AuthorityRecord(bytes: changed, path: "authority")
                #expect(read == nil, "byte \(index), bit \(bit)")
            }
            #expect((try? AuthorityRecord(bytes: Array(bytes[..<index]), path: "authority")) == nil, "cut at \(index)")
        }
    }

    @Test(arguments: [
        ("", "0 bytes that are no JSON object"), ("[]", "2 bytes that are no JSON object"),
        ("{}", "a record of the authority in which sum: found nothing, expected "),
        ("{\"sum\":1}", "a record of the authority in which sum: found 1, expected "),
    ])
    func whatIsWrongIsNamed(_ text: String, _ found: String) throws {
        let error = #expect(throws: LicensingError.self) { try AuthorityRecord(bytes: Array(text.utf8), path: "/s/authority") }
        #expect(error?.description.hasPrefix("/s/authority: found \(found)") == true, "\(String(describing: error))")
    }

    /// The one before it serves where the file is damaged; two damaged ones stop nobody.
    @Test func aDamagedRecordIsNamedAndStopsNobody() async throws {
        let unit = try Unit(hasAuthority: true)
        try await unit.put(claims())
        let keeper = await unit.load().keeper
        keeper.remember { $0.refusal = .init(licenseID: "L1", kind: .suspended, at: start) }
        keeper.remember { $0.lastContact = start + 1 }
        try unit.folder.write("junk", "var/state/authority")
        let status = await unit.load().report.status
        #expect(status.state == .suspended, "by the one before it")
        #expect(
            status.warnings == [
                "\(unit.configuration.recordFile): found 4 bytes that are no JSON object, expected a record of the authority"
            ])
        try unit.folder.write("junk", "var/state/authority.previous")
        #expect(await unit.load().report.status.state == .active)
    }

    @Test func aRecordThatCannotBeWrittenIsTold() async throws {
        let unit = try Unit(hasAuthority: true)
        try await unit.put(claims())
        let keeper = await unit.load().keeper
        try FileManager.default.createDirectory(
            atPath: unit.configuration.recordFile + ".tmp/x", withIntermediateDirectories: true)
        keeper.remember { $0.refusal = .init(licenseID: "L1", kind: .suspended, at: start) }
        let status = keeper.status()
        #expect(status.state == .suspended, "in memory it counts")
        #expect(status.warnings.first?.hasPrefix("the record of the authority is not on disk: ") == true, "\(status.warnings)")
        try FileManager.default.removeItem(atPath: unit.configuration.recordFile + ".tmp")
        keeper.remember { $0.lastContact = start }
        #expect(keeper.status().warnings == [])
        #expect(await unit.load().report.status.state == .suspended)
    }

    /// A refusal for a unit that held nothing is for whatever it finds; a licence that was issued later ends any.
    @Test func whatARefusalEnds() {
        let refusal = AuthorityRecord.Refusal(licenseID: "L1", kind: .suspended, at: start)
        #expect(refusal.ends(claims()) && !refusal.ends(claims(id: "L2")))
        var later = claims()
        later.issuedAt = start + 1
        #expect(!refusal.ends(later))
        let any = AuthorityRecord.Refusal(licenseID: nil, kind: .suspended, at: start)
        #expect(any.ends(claims()) && any.ends(claims(id: "L2")) && !any.ends(later))
    }

    @Test func learnedKeys() async throws {
        let unit = try Unit(hasAuthority: true)
        let learned = try SigningKey(id: "k2")
        try await unit.put(claims(), by: learned)
        #expect(await unit.load().report.status.state == .unknownKey)
        try FileManager.default.createDirectory(atPath: unit.configuration.learnedKeys, withIntermediateDirectories: true)
        let file = URL(filePath: unit.configuration.learnedKeys + "/k2.pem")
        try Data(learned.publicPEM.utf8).write(to: file)
        let stranger = await unit.load().report.status
        #expect(stranger.state == .unknownKey && stranger.warnings.first?.contains("found nobody who vouches for it") == true)
        try Data("vouched for by k1 \(unit.key.publicText)\n\(learned.publicPEM)".utf8).write(to: file)
        // The operator's key of the same id is the one that counts, without a word.
        let other = try SigningKey(id: "k1")
        try Data(other.publicPEM.utf8).write(to: URL(filePath: unit.configuration.learnedKeys + "/k1.pem"))
        let (keeper, report) = await unit.load()
        #expect(report.status.state == .active && report.status.keyID == "k2" && report.status.warnings == [])
        #expect(keeper.trustedKeys().ids == ["k1", "k2"])
        #expect(keeper.trustedKeys()["k1"]?.pemRepresentation == unit.key.privateKey.publicKey.pemRepresentation)
    }
}
