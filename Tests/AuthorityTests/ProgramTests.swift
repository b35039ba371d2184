import AuthorityAPI
import ControlAPI
import Foundation
import Licensing
import TestSupport
import Testing

/// The command as a person runs it, with curl for a unit.
@Suite struct ProgramTests {
    let folder: Folder

    init() throws {
        folder = try Folder()
        try #require(access(program, X_OK) == 0, "no \(program)")
    }

    private func authority(_ arguments: String...) async throws -> Outcome {
        let result = try await run([program] + arguments.map { $0.replacing("@", with: folder.path + "/") })
        return (result.status, result.output, result.error.replacing(folder.path + "/", with: "@"))
    }

    /// Runs `serve` until the closure is done; returns its exit status and what it wrote.
    private func serve(_ arguments: [String], _ body: (Int) async throws -> Void) async throws -> (status: Int32, log: String) {
        let certificates = try Certificates.shared.get()
        let log = folder.path + "/serve.log"
        try folder.write("", "serve.log")
        let process = try ChildProcess(
            [
                program, "serve", "--database", folder.path + "/authority.db", "--listen", "127.0.0.1:0", "--certificate",
                certificates.path("server.pem"), "--key", certificates.path("server.key"),
            ] + arguments, output: .inherited, error: .file(log))
        func text() throws -> String { String(decoding: try Data(contentsOf: URL(filePath: log)), as: UTF8.self) }
        while true {
            if let status = process.status {
                Issue.record("serve has ended: \(try text())")
                return (status, try text())
            }
            if let line = try text().split(separator: "\n").first(where: { $0.hasPrefix("ready: ") }),
                let port = line.split(separator: ":").last?.prefix(while: \.isNumber)
            {
                try await body(try #require(Int(port)))
                break
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        process.signal(SIGTERM)
        let status = try await blocking { process.wait() }
        return (status, try text())
    }

    /// A name without a folder is a file in the folder that we are in.
    @Test func aDatabaseHere() async throws {
        let script = "cd \(folder.path) && \(program) customer add ACME --database here.db"
        let made = try await run(["sh", "-c", script])
        #expect(made.status == 0 && made.output.contains("account key: "), "\(made.error)")
        #expect(access(folder.path + "/here.db", R_OK) == 0)
    }

    private func curl(_ port: Int, _ unit: String, _ key: String, _ body: String) async throws -> [String: Any] {
        let result = try await run([
            "curl", "-sS", "--cacert", try Certificates.shared.get().path("ca.pem"), "https://localhost:\(port)/v1/lease",
            "-H",
            "Authorization: Bearer \(key)", "-H", "Fpx-Unit: \(unit)", "-H", "Idempotency-Key: \(newID())", "-d", body,
        ])
        try #require(result.status == 0, "\(result)")
        return try #require(try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
    }

    private func word(_ text: String, after label: String) throws -> String {
        try #require(text.split(separator: "\n").first { $0.hasPrefix(label) }.map { String($0.dropFirst(label.count)) })
    }

    @Test func aDayAtTheAuthority() async throws {
        let database = ["--database", "@authority.db"]
        func command(_ words: String...) async throws -> Outcome {
            let result = try await run([program] + (words + database).map { $0.replacing("@", with: folder.path + "/") })
            return (
                result.status, result.output.replacing(folder.path + "/", with: "@"),
                result.error.replacing(folder.path + "/", with: "@")
            )
        }
        let early = try await command("license", "list")
        #expect(early.status == 1)
        #expect(early.error == "fpx-authority: @authority.db: there is no such database; `customer add` makes one\n")
        let added = try await command("customer", "add", "ACME")
        let key = try word(added.output, after: "account key: ")
        #expect(added.output == "customer: 1\naccount key: \(key)\n")
        let subscribed = try await command(
            "subscription", "add", "--customer", "1", "--plan", "annual", "--paid-until", "2999-01-01", "--seats", "40",
            "--units",
            "2", "--bandwidth", "2000")
        #expect(subscribed.output == "subscription: 1\n", "\(subscribed)")
        let unit = newID()
        let hardware = String(decoding: try ControlJSON.encoder().encode(machine), as: UTF8.self)
        let body = "{\"hardware\":\(hardware),\"version\":\"1.0.0\"}"
        let served = try await serve([]) { port in
            #expect(try await curl(port, unit, key, body)["license"] is String)
            let list = try await command("license", "list").output.split(separator: "\n").map {
                $0.split(separator: " ").map(String.init)
            }
            #expect(list.count == 2 && list[0].first == "LICENCE")
            let license = list[1][0]
            #expect(list[1][1] == unit && list[1][3...5] == ["automatic", "active", "1"])
            #expect(try await command("license", "show", license).output.contains("unit: \(unit)\ncustomer: ACME\n"))
            let suspended = try await command("license", "suspend", license, "--reason", "unpaid")
            #expect(suspended.output == "licence \(license) of unit \(unit) is suspended\n")
            let refusal = try await curl(port, unit, key, body)["error"] as? [String: String]
            #expect(refusal?["code"] == "suspended")
            #expect(try await command("license", "reinstate", license, "--reason", "paid").status == 0)
            #expect(try await curl(port, unit, key, body)["license"] is String)
            // Moved, held, approved.
            let moved = body.replacing("192.0.2.", with: "203.0.113.")
            #expect((try await curl(port, unit, key, moved)["error"] as? [String: String])?["code"] == "held")
            let waiting = try await command("hardware", "list", "--json")
            let rows = try JSONSerialization.jsonObject(with: Data(waiting.output.utf8)) as? [[String: Any]]
            #expect(rows?.first?["reason"] as? String == "address_ipv4 192.0.2.1 -> 203.0.113.1")
            let id = try #require(rows?.first?["id"] as? Int)
            #expect(try await command("hardware", "approve", "\(id)").status == 0)
            #expect(try await curl(port, unit, key, moved)["license"] is String)
            let verified = try await command("ledger", "verify")
            #expect(verified.status == 0 && verified.output.hasPrefix("ledger verifies: 10 entries, last hash "), "\(verified)")
            let backup = try await command("backup", "@copy.db")
            let first = verified.output.prefix { $0 != "\n" }
            #expect(backup.output == "@copy.db: \(first)\n")
            #expect(verified.output.dropFirst(first.count).hasPrefix("\nnoted last beside the keys: entry "))
            #expect(try await command("backup", "@copy.db").status == 1)
            #expect(try await command("license", "cancel", license, "--reason", "sold").status == 0)
            #expect(try await command("license", "reinstate", license, "--reason", "oh").status == 1)
        }
        #expect(served.status == 0, "\(served.log)")
        #expect(served.log.contains("Made key "))
        let copy = try await run([program, "ledger", "verify", "--database", folder.path + "/copy.db"])
        #expect(copy.status == 0 && copy.output.hasPrefix("ledger verifies: 10 entries"), "\(copy)")
        // Behind its back.
        #expect(
            try await run(["sqlite3", folder.path + "/copy.db", "UPDATE license SET lease_expiry = 9999999999"]).status == 0)
        let tampered = try await run([program, "ledger", "verify", "--database", folder.path + "/copy.db"])
        #expect(tampered.status == 1 && tampered.error.contains("lease_expiry 9999999999, expected "))
    }

    @Test func offlineAndKeys() async throws {
        #expect(try await authority("customer", "add", "ACME", "--database", "@authority.db").status == 0)
        for plan in ["monthly", "annual"] {
            let added = try await authority(
                "subscription", "add", "--customer", "1", "--plan", plan, "--paid-until", "2999-01-01", "--seats", "40",
                "--database", "@authority.db")
            #expect(added.status == 0)
        }
        try folder.write(String(decoding: try ControlJSON.encoder().encode(machine), as: UTF8.self), "hw.lic")
        func offline(_ more: String...) async throws -> Outcome {
            let words = ["offline", folder.path + "/hw.lic", "--database", folder.path + "/authority.db"] + more
            return try await run([program] + words)
        }
        let keyless = try await offline("--subscription", "2")
        #expect(keyless.status == 1 && keyless.error.contains("keys rotate") && keyless.output.isEmpty)
        let rotated = try await authority("keys", "rotate", "--name", "k1", "--new", "--database", "@authority.db")
        #expect(rotated.status == 0 && rotated.output.hasPrefix("key k1 signs from "))
        let refused = try await offline("--subscription", "1")
        #expect(refused.status == 1)
        #expect(refused.error == "fpx-authority: subscription 1: found a monthly one, expected an annual one\n")
        let unit = newID()
        try folder.write(
            String(decoding: try ControlJSON.encoder().encode(machine), as: UTF8.self)
                .replacing("{\"addr", with: "{\"unit_id\":\"\(unit)\",\"addr"), "hw.lic")
        let issued = try await offline("--subscription", "2")
        #expect(issued.status == 0 && issued.error.contains(", epoch 1, until 2999-01-01"), "\(issued)")
        try folder.write(issued.output, "license.lic")
        let shown = try await authority("license", "show", "@license.lic", "--trusted", "@keys")
        #expect(shown.status == 0 && shown.output.contains("signature: verifies, by key k1\nstate: Offline-active"))
        #expect(try await authority("license", "list", "--database", "@authority.db").output.contains(unit))
        #expect(
            try await authority("license", "list", "--json", "--database", "@authority.db").output.contains(
                "\"unit_id\":\"\(unit)\"")
        )
        #expect(try await authority("keys", "rotate", "--database", "@authority.db").status == 0)
        let keys = try await authority("keys", "list", "--database", "@authority.db").output.split(separator: "\n")
        #expect(keys.count == 3 && keys[1].hasSuffix("signs") && keys[2].hasSuffix("next"))
        #expect(try await authority("keys", "retire", "k1", "--database", "@authority.db").status == 1)
        #expect(
            try await authority("ledger", "list", "--subject", "key:k1", "--database", "@authority.db").output.contains(
                "key.added"))
        #expect(try await authority("usage", "--database", "@authority.db").output.hasPrefix("LICENCE  AT"))
        #expect(
            try await authority("customer", "list", "--json", "--database", "@authority.db").output
                == "[{\"id\":1,\"name\":\"ACME\"}]\n")
        #expect(
            try await authority("customer", "rotate-key", "1", "--database", "@authority.db").output.hasPrefix(
                "account key: 1."))
        #expect(try await authority("subscription", "change", "2", "--seats", "30", "--database", "@authority.db").status == 0)
        #expect(try await authority("subscription", "list", "--database", "@authority.db").output.contains(" 30 "))
        #expect(try await authority("ledger", "verify", "--database", "@authority.db").status == 0)
    }

    @Test(arguments: [
        ["serve"], ["serve", "--certificate", "c", "--key", "k", "--listen", "nowhere"],
        ["serve", "--certificate", "c", "--key", "k", "--listen", "::1:8443"],
        ["serve", "--certificate", "c", "--key", "k", "--reissues", "-1"], ["customer", "add"],
        ["subscription", "add", "--customer", "1", "--plan", "weekly", "--paid-until", "2027-01-01", "--seats", "1"],
        ["subscription", "add", "--customer", "1", "--plan", "annual", "--paid-until", "tomorrow", "--seats", "1"],
        ["license", "suspend", "x"], ["license", "suspend", "x", "--reason", ""], ["hardware", "approve", "x"],
        ["keys", "rotate", "--overlap-days", "-1"], ["offline", "file"], ["ledger", "list", "--limit", "0"], ["backup"],
    ])
    func usageIsStatus2(_ arguments: [String]) async throws { #expect(try await run([program] + arguments).status == 2) }

    @Test func refusalsAreStatus1() async throws {
        let certificates = try Certificates.shared.get()
        #expect(try await authority("customer", "add", "ACME", "--database", "@authority.db").status == 0)
        for (words, text) in [
            (
                ["subscription", "add", "--customer", "9", "--plan", "annual", "--paid-until", "2999-01-01", "--seats", "1"],
                "no customer 9"
            ),
            (["customer", "add", "ACME"], "customer ACME: found one of that name, expected a new name"),
            (["license", "show", newID()], "there is no licence"),
            (["license", "suspend", newID(), "--reason", "x"], "there is no licence"),
            (["hardware", "approve", "1"], "there is no hardware assignment 1"),
            (["usage", newID()], "there is no licence"),
            (["offline", "/nowhere", "--subscription", "1"], "/nowhere: there is no such file"),
            (
                ["serve", "--certificate", "/nowhere", "--key", certificates.path("server.key")],
                "/nowhere: found no certificate"
            ),
            (
                [
                    "serve", "--certificate", certificates.path("server.pem"), "--key", certificates.path("server.key"),
                    "--listen",
                    "192.0.2.1:1",
                ], "192.0.2.1:1: "
            ),
        ] {
            let result = try await run([program] + words + ["--database", folder.path + "/authority.db"])
            #expect(result.status == 1 && result.error.contains(text), "\(words): \(result)")
        }
    }
}
