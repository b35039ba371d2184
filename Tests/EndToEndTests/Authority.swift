// The real authority, and a daemon that has its licence from it.

import Foundation
import Synchronization
import TestSupport
import Testing

/// `fpx-authority serve` with a database of its own, a customer and a subscription of 40 seats.
final class AuthorityControl: Sendable {
    let folder: TemporaryFolder
    let certificates: Certificates
    private let launcher: [String]
    private let certificate: String
    private let key: String
    private let process = Mutex<ProxyProcess?>(nil)
    private let port = Mutex(0)

    var database: String { folder.path + "/authority.db" }
    var keys: String { folder.path + "/keys" }
    var log: String { folder.read("authority.out") }

    /// - Parameters:
    ///   - launcher: a command that starts it.
    ///   - certificate: its certificate, with the key; nil: that of the tests for localhost.
    init(launcher: [String] = [], certificate: String? = nil, key: String? = nil) throws {
        folder = try TemporaryFolder()
        certificates = try Certificates.shared.get()
        self.launcher = launcher
        self.certificate = certificate ?? certificates.path("server.pem")
        self.key = key ?? certificates.path("server.key")
        try start()
        let output = try command("customer", "add", "ACME")
        let key = try #require(output.firstMatch(of: /account key: (\S+)/)?.1)
        try folder.write(key + "\n", to: "account")
        try command(
            "subscription", "add", "--customer", "1", "--plan", "annual", "--paid-until", "2099-01-01", "--seats", "40",
            "--units", "3", "--bandwidth", "2000")
    }

    func start() throws {
        let port = port.withLock { $0 }
        let begun = log.count
        let program = try ProxyProcess(
            launcher + [
                try Programs.path("fpx-authority"), "serve", "--database", database, "--listen", "127.0.0.1:\(port)",
                "--certificate", certificate, "--key", key,
            ], output: folder.path + "/authority.out")
        process.withLock { $0 = program }
        guard
            eventually({
                guard let ready = self.log.dropFirst(begun).firstMatch(of: /ready: https:\/\/127.0.0.1:(\d+)/) else {
                    return false
                }
                self.port.withLock { $0 = Int(ready.1) ?? 0 }
                return true
            })
        else { throw EndToEndError.notReady(what: "fpx-authority serve", log: log) }
    }

    func stop() { process.withLock { $0 = nil } }

    /// A command that must succeed, on the database while the server runs.
    @discardableResult
    func command(_ words: String...) throws -> String {
        let (status, output) = try refusableCommand(words)
        if status != 0 { throw EndToEndError.notReady(what: "fpx-authority \(words)", log: output + log) }
        return output
    }

    func refusableCommand(_ words: [String]) throws -> (status: Int32, output: String) {
        try run(try Programs.path("fpx-authority"), words + ["--database", database])
    }

    struct License: Decodable {
        var id: String
        var epoch: Int
        var state: String
    }

    func licenses() throws -> [License] {
        let decoder = JSONDecoder()
        return try decoder.decode([License].self, from: Data(try command("license", "list", "--json").utf8))
    }

    /// Flags of a daemon that has its licence from here.
    var flags: [String] {
        [
            "--authority", "https://localhost:\(port.withLock { $0 })", "--account-key-file", folder.path + "/account",
            "--authority-ca", certificates.authority,
        ]
    }
}
