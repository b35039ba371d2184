// The first hour of whoever runs the authority: mistyped names, files that are there, dates that have passed.

import Foundation
import TestSupport
import Testing

@Suite struct FieldFirstHourAuthorityTests {
    let folder: Folder

    init() throws {
        folder = try Folder()
        try #require(access(program, X_OK) == 0, "no \(program)")
    }

    /// Runs a command on the database; `@` stands for the folder, in what is asked and in what is told.
    private func authority(_ words: String...) async throws -> (status: Int32, output: String, error: String) {
        let words = words.map { $0.replacing("@", with: folder.path + "/") }
        let ended = try await run([program] + words + ["--database", folder.path + "/authority.db"])
        func shown(_ text: String) -> String {
            text.replacing(folder.path + "/", with: "@").trimmingCharacters(in: .whitespacesAndNewlines)
        }
        return (ended.status, shown(ended.output), shown(ended.error))
    }

    private var names: [String] {
        get throws { try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() }
    }

    private func addCustomer() async throws { try #require(try await authority("customer", "add", "ACME").status == 0) }

    @Test func aBackupOntoAFile() async throws {
        try await addCustomer()
        try folder.write("a letter", "letter")
        let found = try await authority("backup", "@letter")
        #expect(
            Field.row(
                "first.10", "backup onto a file that is there",
                expected:
                    "1 fpx-authority: @letter: there is such a file already, and it is not overwritten; take another name",
                found: "\(found.status) \(found.error)"))
        #expect(try String(contentsOfFile: folder.path + "/letter", encoding: .utf8) == "a letter")
    }

    /// What fails leaves no half of a copy, which the next backup would meet.
    @Test func aBackupThatFails() async throws {
        try await addCustomer()
        let tampered = try await run([
            "sqlite3", folder.path + "/authority.db", "UPDATE customer SET account_key_hash = zeroblob(32)",
        ])
        try #require(tampered.status == 0, "\(tampered)")
        let found = try await authority("backup", "@copy.db")
        #expect(found.status == 1 && found.error.contains("customer:1: found account_key_hash"), "\(found)")
        #expect(
            Field.row(
                "first.10", "a backup that fails leaves", expected: "authority.db keys",
                found: try names.filter { !$0.hasSuffix("-wal") && !$0.hasSuffix("-shm") }.joined(separator: " ")))
    }

    @Test func anUnknownLicence() async throws {
        try await addCustomer()
        let word = try await authority("license", "show", "no-such")
        #expect(
            Field.row(
                "first.10", "license show no-such",
                expected: "1 fpx-authority: no-such: found neither a licence of this id nor a file of this name; "
                    + "`license list` has the ids", found: "\(word.status) \(word.error)"))
        let id = newID()
        let unknown = try await authority("license", "show", id)
        #expect(
            Field.row(
                "first.10", "license show of an unknown id", expected: "1 fpx-authority: there is no licence ID",
                found: "\(unknown.status) \(unknown.error)".replacing(id, with: "ID")))
    }

    @Test func aFileThatIsNoLicence() async throws {
        try await addCustomer()
        try folder.write("garbage", "license.lic")
        let found = try await authority("license", "show", "@license.lic")
        #expect(
            Field.row(
                "first.text", "a file that is no licence",
                expected: "1 fpx-authority: @license.lic is not a licence (Malformed)",
                found: "\(found.status) " + (found.error.split(separator: ":", maxSplits: 2).prefix(2).joined(separator: ":"))))
    }

    @Test func aMistypedKey() async throws {
        try await addCustomer()
        let typo = try await authority("keys", "rotate", "--name", "typo")
        #expect(
            Field.row(
                "first.10", "keys rotate --name of no key",
                expected:
                    "1 fpx-authority: @keys/typo.key: found no such file, expected a pair in the folder of keys, or --new "
                    + "to make one", found: "\(typo.status) \(typo.error)"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path + "/keys").allSatisfy { !$0.contains("typo") })
        #expect(try await authority("keys", "rotate", "--name", "k1", "--new").status == 0)
        // Its own pair, and the name of one that signs already.
        for (name, flags, text) in [("k1", [], "a key that is in use"), ("k1", ["--new"], "a key that is in use")] {
            let again = try await run(
                [program, "keys", "rotate", "--name", name, "--database", folder.path + "/authority.db"] + flags)
            #expect(again.status == 1 && again.error.contains(text), "\(again)")
        }
        #expect(try await run([program, "keys", "new", "--name", "k2", "--out", folder.path + "/keys"]).status == 0)
        let new = try await authority("keys", "rotate", "--name", "k2", "--new")
        #expect(new.status == 1 && new.error.contains("@keys/k2.pem: there is such a file already"), "\(new)")
        #expect(try await authority("keys", "rotate", "--name", "k2").status == 0)
        // Nor does it make a database.
        let nowhere = try await run([program, "keys", "rotate", "--database", folder.path + "/typo.db"])
        #expect(nowhere.status == 1 && nowhere.error.contains("there is no such database"), "\(nowhere)")
        #expect(try await run([program, "keys", "rotate", "--new"]).status == 2)
    }

    @Test func aDateThatHasPassed() async throws {
        try await addCustomer()
        let terms = ["--customer", "1", "--plan", "annual", "--seats", "4"]
        func add(_ date: String) async throws -> (status: Int32, output: String, error: String) {
            try await authority(
                "subscription", "add", terms[0], terms[1], terms[2], terms[3], terms[4], terms[5], "--paid-until", date)
        }
        let found = try await add("2020-06-15")
        #expect(
            Field.row(
                "first.10", "subscription add --paid-until 2020-06-15",
                expected: "1 fpx-authority: paid until: found 2020-06-15, expected a date that has not passed",
                found: "\(found.status) \(found.error)"))
        #expect(try await add(String(Date.now.formatted(.iso8601).prefix(10))).status == 0)
        // To end a contract is no mistake, and may be one.
        let changed = try await authority("subscription", "change", "1", "--paid-until", "2020-06-15")
        #expect(changed.status == 0 && changed.error.contains("warning: that date has passed"), "\(changed)")
    }

    /// The ledger says who: the user of the operating system, also one who has become root, or the unit that asked.
    @Test func theLedgerSaysWho() async throws {
        try await addCustomer()
        let list = try await authority("ledger", "list", "--json")
        let user = try await run(["id", "-un"]).output.trimmingCharacters(in: .whitespacesAndNewlines)
        let login = try await run(["cat", "/proc/self/loginuid"]).output
        let own = try await run(["id", "-u"]).output.trimmingCharacters(in: .whitespacesAndNewlines)
        var expected = "user \(user)"
        if login != "4294967295", !login.isEmpty, login != own {
            let name = try await run(["id", "-un", login]).output.trimmingCharacters(in: .whitespacesAndNewlines)
            expected = "user \(name) as \(user)"
        }
        let by = list.output.firstMatch(of: /"by":"([^"]*)"/).map { String($0.1) } ?? list.output
        #expect(Field.row("first.10", "ledger list after customer add, by", expected: expected, found: by))
        // As nobody, whom the password file knows, and as one whom it does not.
        if getuid() == 0 {
            for (id, name) in [("65534", "nobody"), ("64321", "64321")] {
                try #require(try await run(["chown", "-R", id, folder.path]).status == 0)
                let added = try await run([
                    "setpriv", "--reuid", id, "--clear-groups", program, "customer", "add", "of \(id)", "--database",
                    folder.path + "/authority.db",
                ])
                try #require(added.status == 0, "\(added)")
                let last = try await authority("ledger", "list", "--limit", "1").output.split(separator: "\n").last ?? ""
                #expect(
                    Field.row(
                        "first.10", "the same by user \(id)", expected: "yes",
                        found: last.contains("user \(name)") || last.contains("as \(name)") ? "yes" : String(last)))
            }
        }
        #expect(try await authority("ledger", "verify").status == 0)
    }

    /// A limit of the model is a limit for as long as it is said; none follows what is sold.
    @Test func theModelFollowsWhatIsSold() async throws {
        try await addCustomer()
        let terms = ["--customer", "1", "--plan", "annual", "--seats", "40", "--paid-until", "2999-01-01"]
        func command(_ words: [String]) async throws -> Outcome {
            try await run([program, "subscription"] + words + ["--database", folder.path + "/authority.db"])
        }
        for more in [[], ["--model-max", "50"]] { #expect(try await command(["add"] + terms + more).status == 0) }
        let sold = try await command(["change", "1", "--seats", "60"])
        #expect(sold.status == 0 && sold.error.isEmpty, "\(sold)")
        let limited = try await command(["change", "2", "--seats", "60"])
        #expect(limited.status == 0 && limited.error.contains("warning: units can use 50 of the 60 seats of type furl"))
        let rows = try await command(["list"]).output.split(separator: "\n").dropFirst().map {
            $0.split(whereSeparator: \.isWhitespace)[5...8].joined(separator: " ")
        }
        #expect(
            Field.row(
                "first.1", "subscription list: furl, fnbi, fcas, model max", expected: "60 0 0 sold; 60 0 0 50",
                found: rows.joined(separator: "; ")))
    }

    @Test(arguments: ["certificate", "key", "client-ca", "other key", "address", "port"])
    func aServerThatCannotBegin(_ fault: String) async throws {
        let certificates = try Certificates.shared.get()
        try folder.write("not PEM", "letter")
        let taken = try Listener()
        let letter = folder.path + "/letter"
        let place = ["address": "192.0.2.1:8443", "port": "127.0.0.1:\(taken.port)"][fault] ?? "127.0.0.1:0"
        var words = [
            "serve", "--database", folder.path + "/authority.db", "--listen", place, "--certificate",
            fault == "certificate" ? letter : certificates.path("server.pem"), "--key",
            fault == "key" ? letter : certificates.path(fault == "other key" ? "client.key" : "server.key"),
        ]
        if fault == "client-ca" { words += ["--client-ca", letter] }
        let ended = try await run([program] + words)
        let reasons = [
            "certificate": "letter: found no certificate", "key": "letter: found no private key",
            "client-ca": "letter: found no certificate", "other key": "client.key",
            "address": "192.0.2.1:8443: Cannot assign requested address", "port": ": Address already in use",
        ]
        #expect(ended.status == 1 && ended.error.contains(reasons[fault] ?? ""), "\(ended)")
        #expect(
            Field.row(
                "first.10", "serve with a bad \(fault) makes", expected: "",
                found: try names.filter { $0 != "letter" }.joined(separator: " ")))
    }
}

/// A port of this machine that is taken.
private final class Listener {
    private let descriptor: Int32
    let port: Int

    init() throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isListening = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, size) == 0 && listen(descriptor, 1) == 0 && getsockname(descriptor, $0, &size) == 0
            }
        }
        self.descriptor = descriptor
        port = Int(UInt16(bigEndian: address.sin_port))
        try #require(isListening)
    }

    deinit { close(descriptor) }
}
