// A key of the authority's is stolen: what the thief gets before and after, with real units, the real authority, and a thief
// who runs one himself, at the same place and with a copy of the database.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldStolenKey {}
}

extension AuthorityControl {
    fileprivate func keyID() throws -> String {
        let names = try FileManager.default.contentsOfDirectory(atPath: keys).filter { $0.hasSuffix(".pem") }
        return String(try #require(names.count == 1 ? names.first : nil).dropLast(4))
    }

    /// Somebody else's database and keys in the place of these; the other ones go where those were.
    fileprivate func exchange(with other: String) throws {
        stop()
        let port = try #require(flags[1].split(separator: ":").last.flatMap { UInt16($0) })
        expectEventually("the authority ends") { (try? Socket.connected(to: port)) == nil }
        let files = FileManager.default
        for name in ["authority.db", "authority.db-wal", "authority.db-shm", "keys"] {
            let (own, others) = (folder.path + "/" + name, folder.path + "/" + other + "/" + name)
            let between = own + ".between"
            if files.fileExists(atPath: own) { try files.moveItem(atPath: own, toPath: between) }
            if files.fileExists(atPath: others) { try files.moveItem(atPath: others, toPath: own) }
            if files.fileExists(atPath: between) { try files.moveItem(atPath: between, toPath: others) }
        }
        try start()
    }

    /// What a thief has who has copied key and database.
    fileprivate func steal(_ key: String, to thief: String) throws {
        let files = FileManager.default
        try files.createDirectory(atPath: folder.path + "/" + thief + "/keys", withIntermediateDirectories: true)
        try command("backup", folder.path + "/" + thief + "/authority.db")
        for name in [key + ".key", key + ".pem", "ledger.secret"] {
            try files.copyItem(atPath: keys + "/" + name, toPath: folder.path + "/" + thief + "/keys/" + name)
        }
    }
}

extension DaemonControl {
    fileprivate func renew() throws -> String {
        let (status, output) = try ask("set", "renew_license")
        if status == 0 { return "renewed" }
        return output.contains("kid: found") ? "refused" : output
    }

    fileprivate func names(in folder: String) -> String {
        ((try? FileManager.default.contentsOfDirectory(atPath: home + "/" + folder)) ?? []).sorted().joined(separator: " ")
    }
}

extension EndToEnd.FieldStolenKey {
    @Test func aThiefBeforeAndAfter() throws {
        let authority = try AuthorityControl()
        let old = try authority.keyID()
        // The first one's operator uses the command, the second one's does it by hand.
        let units = [try DaemonControl(authority: authority), try DaemonControl(authority: authority)]
        for unit in units { #expect(try unit.eventualState("Active") == "Active") }
        for thief in ["thief", "later"] { try authority.steal(old, to: thief) }
        func thiefs(_ words: String..., in folder: String) throws {
            let (status, output) = try run(
                try Programs.path("fpx-authority"), words + ["--database", authority.folder.path + "/\(folder)/authority.db"])
            #expect(status == 0, "\(output)")
        }
        // By the stolen key he announces one of his own, which is to count when that one is gone.
        try thiefs("keys", "rotate", "--name", "his", "--new", in: "thief")
        for name in ["his.key", "his.pem"] {
            try FileManager.default.copyItem(
                atPath: authority.folder.path + "/thief/keys/" + name, toPath: authority.folder.path + "/later/keys/" + name)
        }
        try thiefs("keys", "rotate", "--name", "his", "--overlap-days", "0", in: "later")

        try authority.exchange(with: "thief")
        let before = try units.map { try $0.renew() }
        try authority.exchange(with: "thief")
        #expect(
            Field.row(
                "licence.4", "a thief with the key, before anybody knows",
                expected: "renewed, renewed; learned \(old).pem his.pem",
                found: "\(before.joined(separator: ", ")); learned "
                    + units[0].names(in: "state/keys").split(separator: " ").sorted(by: >).joined(separator: " ")))

        let said = try authority.command("keys", "replace-stolen", old)
        let new = try #require(said.firstMatch(of: /key (\S+) signs from now on/).map { String($0.1) }, "\(said)")
        #expect(said.contains("fpx set replace_stolen_key \(old) \(new).pem"), "\(said)")
        #expect(try authority.command("ledger", "list").contains("key.stolen"))
        #expect(try units[0].renew() == "refused")
        let pem = authority.keys + "/\(new).pem"

        try refusals(units[0], authority, old: old, pem: pem)
        let (status, output) = try units[0].ask("set", "replace_stolen_key", old, pem)
        #expect(
            Field.row(
                "licence.4", "one command at the unit",
                expected: "0, License state: Active; keys \(new).pem test.pem, learned \(new).pem",
                found: "\(status), \(output.prefix { $0 != "\n" }); keys \(units[0].names(in: "keys")), learned "
                    + units[0].names(in: "state/keys")), "\(units[0].log)")

        try FileManager.default.copyItem(atPath: pem, toPath: units[1].home + "/keys/\(new).pem")
        try FileManager.default.removeItem(atPath: units[1].home + "/keys/\(old).pem")
        _ = try units[1].ask("commit")
        #expect(try units[1].renew() == "renewed", "\(units[1].log)")

        for thief in ["thief", "later"] {
            try authority.exchange(with: thief)
            for place in ["", ", after a restart"] {
                if !place.isEmpty {
                    for unit in units {
                        try unit.end(by: SIGKILL)
                        try unit.start()
                    }
                }
                let found = try units.map { "\(try $0.renew()) \(try $0.eventualState("Active"))" }.joined(separator: ", ")
                #expect(
                    Field.row(
                        "licence.4", "the thief comes again, with \(thief == "thief" ? "the stolen key" : "his own")\(place)",
                        expected: "refused Active, refused Active", found: found), "\(units[0].log)\(units[1].log)")
            }
            try authority.exchange(with: thief)
        }
        for unit in units { #expect(try unit.renew() == "renewed", "\(unit.log)") }
        #expect(try authority.command("ledger", "verify").contains("entries"))
    }

    /// Each step that fails says so, and changes nothing.
    private func refusals(_ unit: DaemonControl, _ authority: AuthorityControl, old: String, pem: String) throws {
        let folder = authority.folder.path
        _ = try run(try Programs.path("fpx-authority"), ["keys", "new", "--name", "stranger", "--out", folder + "/strangers"])
        try authority.folder.write("this is a letter", to: "letter.pem")
        let keys = unit.names(in: "keys")
        let same = folder + "/same.pem"
        try FileManager.default.copyItem(atPath: unit.home + "/keys/\(old).pem", toPath: same)
        for (what, words, status, reason) in [
            ("a file that is not there", [old, folder + "/none.pem"], 2, "expected a file KID.pem that can be read"),
            (
                "a file that is no key", [old, folder + "/letter.pem"], 1,
                "the new key: letter: found 16 bytes that are not PEM"
            ),
            ("a stolen key that is none", ["none", pem], 1, "the stolen key: found no key none, expected one of "),
            ("the stolen key as the new one", [old, same], 1, "the new key: found the stolen one, expected another"),
            (
                "a key that is not the authority's", [old, folder + "/strangers/stranger.pem"], 1,
                "nothing has changed, and key \(old) still counts, as no lease came by stranger: "
            ),
        ] as [(String, [String], Int32, String)] {
            let answer = try unit.ask(["set", "replace_stolen_key"] + words)
            #expect(
                Field.row(
                    "licence.4", "set replace_stolen_key with \(what)", expected: "\(status), named, the same keys",
                    found: "\(answer.status), \(answer.output.contains(reason) ? "named" : answer.output), "
                        + (unit.names(in: "keys") == keys ? "the same keys" : unit.names(in: "keys"))), "\(answer)")
        }
    }

    /// The operator of the authority has forgotten to retire it.
    @Test func aStolenKeyThatIsStillAnnounced() throws {
        let authority = try AuthorityControl()
        let old = try authority.keyID()
        let unit = try DaemonControl(authority: authority)
        #expect(try unit.eventualState("Active") == "Active")
        try authority.command("keys", "rotate", "--name", "next", "--new", "--overlap-days", "0")
        let early = try unit.ask("set", "replace_stolen_key", old, authority.keys + "/next.pem")
        #expect(
            Field.row(
                "licence.4", "set replace_stolen_key while the authority announces the stolen key", expected: "1, named",
                found: "\(early.status), "
                    + (early.output.contains("still counts, as the authority announces it") ? "named" : early.output)))
        try authority.command("keys", "retire", old)
        let (status, output) = try unit.ask("set", "replace_stolen_key", old, authority.keys + "/next.pem")
        #expect(status == 0 && unit.names(in: "keys") == "next.pem test.pem", "\(output)\(unit.log)")
    }
}
