// Hardware that waits, usage reports, the ledger, the backup and its way back.

import ArgumentParser
import AuthorityServer
import Foundation
import Licensing

struct HardwareCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hardware", abstract: "Lists and approves changed hardware.", subcommands: [List.self, Approve.self])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists changed hardware that waits for a person.")

        @OptionGroup var database: DatabaseFile
        @OptionGroup var form: ListForm
        @Flag(help: "Lists all hardware that there ever was.")
        var all = false

        func run() async throws {
            try form.print(
                try await database.open().hardware(all: all), ["ID", "LICENCE", "SINCE", "STATE", "HOST", "CHANGED"]
            ) {
                [
                    String($0.id ?? 0), $0.licenseId, Timestamp.text($0.at), $0.state.rawValue, $0.hardware.hostname,
                    $0.reason.isEmpty ? "-" : $0.reason,
                ]
            }
        }
    }

    struct Approve: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Accepts changed hardware.",
            discussion: "The unit's next renewal, or its `commit`, fetches a lease for it.")

        @OptionGroup var database: DatabaseFile
        @Argument(help: "As `hardware list` shows it.")
        var id: Int64

        func run() async throws {
            let row = try await database.open().approveHardware(id)
            print("approved for licence \(row.licenseId): \(row.reason)")
        }
    }
}

struct Usage: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Shows usage reports: of each licence the newest, or all that are kept of one.")

    @OptionGroup var database: DatabaseFile
    @OptionGroup var form: ListForm
    @Argument(help: ArgumentHelp("A licence.", valueName: "id"))
    var license: String?

    /// A report with when and whose it is.
    private struct Shown: Codable {
        var licenseId: String
        var at: Date
        var report: [String: JSONValue]

        init(_ row: UsageRow) throws {
            licenseId = row.licenseId
            at = Timestamp.date(row.at)
            report = try JSONValue.object(in: row.body.utf8)
        }

        func text(_ name: String) -> String {
            guard case .string(let text)? = report[name] else { return report[name]?.description ?? "-" }
            return text
        }
    }

    func run() async throws {
        let reports = try await database.open().usage(license: license).map(Shown.init)
        let names = [
            "sessions", "admissions_per_second", "incoming_speed", "outgoing_speed", "version", "kernel", "virtualization",
        ]
        let titles = [
            "LICENCE", "AT", "SESSIONS", "PER SECOND", "BITS/S IN", "BITS/S OUT", "VERSION", "KERNEL", "VIRTUALIZATION",
        ]
        try form.print(reports, titles) { shown in [shown.licenseId, shown.at.formatted(.iso8601)] + names.map(shown.text) }
    }
}

struct LedgerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ledger", abstract: "Shows and verifies what happened.", subcommands: [Verify.self, List.self])

    struct Verify: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Checks that the ledger is unbroken, and that the tables are as it tells.",
            discussion: """
                Exit status 1, with the first row that is wrong, if not. A database that was put back whole passes: note the \
                last hash elsewhere, and look for it with `ledger list`.
                """)

        @OptionGroup var database: DatabaseFile

        func run() async throws {
            let summary = try await database.open().verifyLedger()
            print("ledger verifies: \(summary.entries) entries, last hash \(summary.head)")
            let noted = summary.notedEntry.map { "entry \($0) at \(Timestamp.text(summary.notedAt ?? 0))" } ?? "none"
            print("noted last beside the keys: \(noted)")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists what happened, newest last.")

        @OptionGroup var database: DatabaseFile
        @OptionGroup var form: ListForm
        @Option(help: ArgumentHelp("Only of license:ID, customer:ID, subscription:ID or key:KID.", valueName: "subject"))
        var subject: String?
        @Option(help: ArgumentHelp("The newest so many.", valueName: "n"))
        var limit = 100

        private struct Shown: Codable {
            var seq: Int
            var at: Date
            var kind: String
            var subject: String
            /// Who did it; nil in entries of versions that did not write it down.
            var by: String?
            var body: [String: JSONValue]
            var hash: String

            init(_ entry: LedgerEntry) throws {
                (seq, at, kind, subject) = (entry.seq, Timestamp.date(entry.at), entry.kind, entry.subject)
                body = try JSONValue.object(in: entry.body.utf8)
                if case .string(let who)? = body.removeValue(forKey: "by") { by = who }
                hash = entry.hash.hexadecimal
            }

            var text: String {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
                // It was read from JSON, so it can be written as such.
                return (try? encoder.encode(body)).map { String(decoding: $0, as: UTF8.self) } ?? ""
            }
        }

        func validate() throws {
            if limit < 1 { throw ValidationError("--limit: found \(limit), expected 1 or more") }
        }

        func run() async throws {
            let entries = try await database.open().ledger(subject: subject, limit: limit).map(Shown.init)
            try form.print(entries, ["SEQ", "AT", "KIND", "SUBJECT", "BY", "HASH", "WHAT"]) {
                [
                    String($0.seq), $0.at.formatted(.iso8601), $0.kind, $0.subject, $0.by ?? "-", String($0.hash.prefix(12)),
                    $0.text,
                ]
            }
        }
    }
}

struct Backup: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Copies the database while it is in use, and verifies the copy.",
        discussion: "The folder of keys is not in it: keep that elsewhere, and as well.")

    @OptionGroup var database: DatabaseFile
    @Argument(help: ArgumentHelp("Where to; must not be there yet.", valueName: "file"))
    var file: String

    func run() async throws {
        let summary = try await database.open().backup(to: file)
        print("\(file): ledger verifies: \(summary.entries) entries, last hash \(summary.head)")
    }
}

struct Restore: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Puts a backup in the place of the database; stop `serve` first.",
        discussion: """
            Checks the backup as `backup` does. The database that was there stays as FILE.previous. What was done after the \
            backup is lost, but for the licences that units have got since: who asks with one keeps it. So that no place is \
            given away that is another unit's, no unit gets a first licence for as long as such a lease can run. Without a \
            file: changes --hold-days of the last restoration.
            """)

    @OptionGroup var files: DatabaseFile
    @Option(
        help: ArgumentHelp(
            "For how many days no unit gets a first licence; 0: where none was licensed since the backup (default: 14, the "
                + "longest lease).", valueName: "n"))
    var holdDays: Int?
    @Argument(help: ArgumentHelp("What `backup` wrote.", valueName: "backup"))
    var file: String?

    func validate() throws {
        if file == nil, holdDays == nil { throw ValidationError("found no backup, expected one, or --hold-days") }
        if let holdDays, !(0...3660).contains(holdDays) {
            throw ValidationError("--hold-days: found \(holdDays), expected 0 to 3660")
        }
    }

    func run() async throws {
        let hold = holdDays.map { $0 * 86_400 } ?? AuthorityStore.leaseSeconds
        guard let file else {
            let row = try await files.open().hold(seconds: hold)
            return print(Self.end(of: row))
        }
        let path = files.database
        let hasPrevious = access(path, F_OK) == 0
        let now = Timestamp.seconds(Date())
        let restored = try await AuthorityStore.restore(
            file, to: path, keysFolder: files.keysFolder, holdSeconds: hold, now: now)
        print("\(path): ledger verifies: \(restored.summary.entries) entries, last hash \(restored.summary.head)")
        if hasPrevious { print("the database before it: \(path).previous") }
        print(Self.end(of: restored.row))
        Authority.note(
            "what was done after \(Timestamp.text(restored.row.backupAt)) is not in it: before you start `serve`, "
                + "enter customers, subscriptions, suspensions and cancellations again, and issue offline licences again")
        for kid in restored.unknownKeys {
            Authority.note("key \(kid) is not in it: `keys rotate --name \(kid) --overlap-days 0` if units trust no other key")
        }
    }

    private static func end(of row: RestorationRow) -> String {
        row.holdsUntil > row.at
            ? "first licences are issued from \(Timestamp.text(row.holdsUntil)) on; `restore --hold-days 0` ends the wait"
            : "first licences are issued"
    }
}
