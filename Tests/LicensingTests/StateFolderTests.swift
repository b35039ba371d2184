import Foundation
import Testing

@testable import Licensing

/// What is removed or spoilt in the state folder, before a start and while a keeper lives.
@Suite struct StateFolderTests {
    private func load(_ unit: Unit) -> UnitIdentity { UnitIdentity.load(stateFolder: unit.configuration.stateFolder) }

    @Test func aNewUnitHasTheIDOfItsKey() throws {
        let unit = try Unit()
        let first = load(unit)
        let id = try #require(first.id)
        #expect(first.isNew && first.trouble == [] && first.news == ["This is a new unit: \(id)"])
        #expect(id == UnitIdentity.id(of: try #require(first.key).publicText))
        let again = load(unit)
        #expect(again.id == id && again.key?.publicText == first.key?.publicText && again.news == [] && !again.isNew)
        try unit.folder.remove("var/state/unit")
        let found = load(unit)
        #expect(found.id == id && !found.isNew && found.trouble == [])
        #expect(found.news.first?.contains("/var/state/unit is lost: unit \(id) goes on") == true)
        #expect(load(unit).news == [])
        // The same for the same text, for ever.
        #expect(UnitIdentity.id(of: "") == "e3b0c442-98fc-8c14-9afb-f4c8996fb924")
    }

    /// Units of before have an id that was drawn at random.
    @Test func anIDOfBeforeStays() throws {
        let unit = try Unit()
        let id = "3b9dbf2c-7d53-4f0e-9a43-0d5f4a4a2f10"
        try FileManager.default.createDirectory(atPath: unit.configuration.stateFolder, withIntermediateDirectories: true)
        try unit.folder.write("\u{FEFF}" + id + "\r\n", "var/state/unit")
        let found = load(unit)
        #expect(found.id == id && !found.isNew)
        #expect(found.news == ["Unit \(id) has a new key: an authority that knows another one holds it for a person"])
    }

    @Test(arguments: ["", "junk", "3B9DBF2C-7D53-4F0E-9A43-0D5F4A4A2F10", String(repeating: "x", count: 5000)])
    func whatIsNoIDIsNotOverwritten(_ text: String) throws {
        let unit = try Unit()
        _ = load(unit)
        try unit.folder.write(text, "var/state/unit")
        let found = load(unit)
        #expect(found.id == nil && found.key != nil && found.news == [])
        #expect(found.trouble.first?.hasPrefix("The unit's id: \(unit.folder.path)/var/state/unit: found ") == true, "\(found)")
        #expect(unit.folder.read("var/state/unit") == text)
        // A spoilt key is no key to derive an id from.
        try unit.folder.write(text, "var/state/unit.key")
        try unit.folder.remove("var/state/unit")
        let none = load(unit)
        #expect(none.id == nil && none.key == nil && none.trouble.count == 2, "\(none)")
        #expect(unit.folder.read("var/state/unit.key") == text && unit.folder.read("var/state/unit") == nil)
    }

    @Test func whatIsGoneIsWrittenAnew() async throws {
        let unit = try Unit(hasAuthority: true)
        _ = load(unit)
        try await unit.put(claims())
        let state = unit.configuration.stateFolder
        try FileManager.default.createDirectory(atPath: state + "/keys", withIntermediateDirectories: true)
        let learned = "vouched for by k1 \(unit.key.publicText)\n" + (try SigningKey(id: "k2").publicPEM)
        try unit.folder.write(learned, "var/state/keys/k2.pem")
        let (keeper, _) = await unit.load()
        keeper.remember { $0.lastContact = start }
        let names = ["unit", "unit.key", "license.lic", "authority", "clock", "keys/k2.pem"]
        // The witness in memory is ahead of the one on disk by up to a minute.
        unit.set(clock: start + 60)
        _ = keeper.status()
        let before = names.map { unit.folder.read("var/state/" + $0) }
        #expect(!before.contains(nil))
        keeper.restoreState()
        #expect(keeper.takeNews() == [])
        try unit.folder.remove("var")
        keeper.restoreState()
        #expect(names.map { unit.folder.read("var/state/" + $0) } == before)
        #expect(
            keeper.takeNews() == [
                "\(state) was removed: authority, clock, keys/k2.pem, license.lic, unit, unit.key are written anew from "
                    + "memory"
            ])
        #expect(keeper.status().warnings == [])
        for name in names.dropLast() {
            try unit.folder.remove("var/state/" + name)
            keeper.restoreState()
            #expect(keeper.takeNews() == ["\(state): \(name) was removed, and is written anew from memory"])
        }
        // Whom a person does not trust any more stays away.
        try unit.folder.remove("var/state/keys/k2.pem")
        keeper.restoreState()
        #expect(unit.folder.read("var/state/keys/k2.pem") == nil && keeper.takeNews() == [])
        try unit.folder.remove("var")
        keeper.restoreState()
        #expect(unit.folder.read("var/state/keys/k2.pem") == nil)
        #expect(names.dropLast().map { unit.folder.read("var/state/" + $0) } == before.dropLast())
    }

    @Test func aStolenKeyDoesNotComeBack() async throws {
        let unit = try Unit(hasAuthority: true)
        _ = load(unit)
        let stolen = try SigningKey(id: "k2")
        try FileManager.default.createDirectory(atPath: unit.configuration.learnedKeys, withIntermediateDirectories: true)
        try unit.folder.write(
            "vouched for by k1 \(unit.key.publicText)\n\(stolen.publicPEM)", "var/state/keys/k2.pem")
        let (keeper, _) = await unit.load()
        try keeper.distrust(Voucher(id: "k2", key: stolen.publicText))
        try unit.folder.remove("var")
        keeper.restoreState()
        #expect(unit.folder.read("var/state/unit") != nil && unit.folder.read("var/state/keys/k2.pem") == nil)
    }

    /// Removing the witness is what a person does after the clock ran far ahead; removing the folder is not.
    @Test func aWitnessThatIsInTheWay() async throws {
        let unit = try Unit()
        try await unit.put(claims(from: start - day, days: 10_000))
        let (keeper, _) = await unit.load()
        unit.set(clock: start + 1000 * day)
        _ = keeper.status()
        unit.set(clock: start + day)
        #expect(keeper.status().state == .clockRollback)
        try unit.folder.remove("var")
        keeper.restoreState()
        #expect(await keeper.commit().status.state == .clockRollback)
        try unit.folder.remove("var/state/clock")
        keeper.restoreState()
        #expect(unit.folder.read("var/state/clock") == nil)
        #expect(await keeper.commit().status.state == .active)
    }

    @Test func anotherUnitsKeyIsTold() async throws {
        let unit = try Unit()
        _ = load(unit)
        let (keeper, _) = await unit.load()
        let ours = unit.folder.read("var/state/unit.key")
        let another = try SigningKey(id: "another").privatePEM
        try unit.folder.write(another, "var/state/unit.key")
        keeper.restoreState()
        let path = unit.configuration.stateFolder + "/unit.key"
        #expect(
            keeper.status().warnings == [
                "\(path): found another than fpxd has read, expected the same; remove it, and fpxd writes it anew from memory"
            ])
        #expect(unit.folder.read("var/state/unit.key") == another)
        try unit.folder.remove("var/state/unit.key")
        keeper.restoreState()
        #expect(unit.folder.read("var/state/unit.key") == ours)
        #expect(keeper.status().warnings == [])
    }

    @Test func aFolderInTheWayIsNamed() throws {
        let folder = try Folder()
        let path = folder.path + "/file"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        let expected = LicensingError.damaged(path: path, found: "a folder", expected: "a regular file")
        #expect(throws: expected) { try StoredFile.write([1], to: path) }
        #expect(throws: expected) { try StoredFile.replace([1], at: path, mode: 0o600) }
        let link = folder.path + "/link"
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: path + "/none")
        #expect(throws: LicensingError.damaged(path: link, found: "a link", expected: "a folder")) {
            try StoredFile.makeFolder(link)
        }
        try folder.remove("link")
        #expect(folder.names == ["file"])
    }
}
