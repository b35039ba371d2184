import Foundation
import Testing

extension EndToEnd {
    /// Daemon and authority killed at every step of a renewal that changes a file.
    ///
    /// After each kill the licence in place verifies, the ledger verifies, and the renewal, asked for again, is neither lost nor
    /// doubled. `FPX_KILLS=200` for more of them.
    @Suite struct LicenseCrash {
        /// Where a process is to die.
        private struct KillPoint {
            let arm: String
            let launcher: [String]

            /// - Parameter files: parts of the paths that count.
            init(_ folder: TemporaryFolder, name: String, files: String) {
                arm = folder.path + "/" + name
                launcher = [
                    "env", "LD_PRELOAD=\(folder.path)/killpoint.so", "FPX_KILL_ARM=\(arm)", "FPX_KILL_IN=\(files)",
                ]
            }

            func set(round: Int, step: Int, when: String) throws {
                try "\(round) \(step) \(when)".write(toFile: arm, atomically: true, encoding: .utf8)
            }

            /// The process that died, if any did; disarmed in any case.
            func outcome() -> pid_t? {
                unlink(arm)
                defer { unlink(arm + ".done") }
                return (try? String(contentsOfFile: arm + ".done", encoding: .utf8)).flatMap { pid_t($0) }
            }
        }

        private static func build(in folder: TemporaryFolder) throws {
            let source = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "KillPoint/killpoint.c").path
            let library = folder.path + "/killpoint.so"
            let (status, output) = try run(
                "/usr/bin/env", ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source])
            if status != 0 { throw EndToEndError.missing(what: library, expected: "one: \(output)") }
        }

        private struct Record: Decodable {
            struct Question: Decodable { var id: String }
            var question: Question?
        }

        @Test func noRenewalIsLostOrDoubled() throws {
            let environment = ProcessInfo.processInfo.environment
            let kills = environment["FPX_KILLS"].flatMap { Int($0) } ?? 30
            let tools = try TemporaryFolder()
            try Self.build(in: tools)
            let points = [
                KillPoint(tools, name: "fpxd", files: "/home/state/:/home/license.lic"),
                KillPoint(tools, name: "authority", files: "/authority.db"),
            ]
            let authority = try AuthorityControl(launcher: points[1].launcher)
            let daemon = try DaemonControl(launcher: points[0].launcher, authority: authority)

            #expect(try eventually { try authority.licenses().first?.epoch == 1 })
            #expect(try eventually { try daemon.fpx("get", "system", "status").contains("License: Active") })
            var steps = [1, 1]
            var killed = [0, 0]
            var passes = [0, 0]
            var round = 0
            let whens = ["before", "middle", "after"]
            while killed.reduce(0, +) < kills {
                round += 1
                let victim = round % 2
                let before = try #require(authority.licenses().first?.epoch)
                try points[victim].set(round: round, step: steps[victim], when: whens[(round / 2 + passes[victim]) % 3])
                _ = try daemon.ask("set", "renew_license")
                let dead = points[victim].outcome()
                // The last step of a renewal is behind us: from the beginning, and by another half of each call.
                if dead == nil {
                    steps[victim] = 1
                    passes[victim] += 1
                } else {
                    steps[victim] += 1
                    killed[victim] += 1
                }
                try check(authority, daemon, round)
                if let dead {
                    #expect(eventually { kill(dead, 0) != 0 || ProcessEntry.isZombie(dead) })
                    if victim == 0 { try daemon.start() } else { try authority.start() }
                }
                try renewAgain(authority, daemon, before: before, wasKilled: dead != nil, round)
                if round > 20 * kills { break }
            }
            print("killed: fpxd \(killed[0]) times, fpx-authority \(killed[1]) times, in \(round) renewals")
            #expect(killed.reduce(0, +) >= kills && killed.allSatisfy { $0 > kills / 4 })
        }

        /// A restoration that dies at any step leaves the database as it was, or restored; the next one does all of it.
        @Test func aRestoreIsWholeOrNotDone() throws {
            let isLong = ProcessInfo.processInfo.environment["FPX_KILLS"] != nil
            let tools = try TemporaryFolder()
            try Self.build(in: tools)
            let point = KillPoint(tools, name: "restore", files: "/authority.db")
            let authority = try AuthorityControl()
            let backup = authority.folder.path + "/backup"
            try authority.command("backup", backup)
            try authority.command("customer", "add", "since the backup")
            authority.stop()
            let restore = [try Programs.path("fpx-authority"), "restore", backup, "--database", authority.database]
            var killed = 0
            var restored = 0
            for shift in 0..<(isLong ? 3 : 1) {
                var step = 0
                var dead: pid_t?
                repeat {
                    step += 1
                    try point.set(round: step, step: step, when: ["before", "middle", "after"][(step + shift) % 3])
                    let ended = try run("env", point.launcher.dropFirst() + restore)
                    dead = point.outcome()
                    if dead == nil { #expect(ended.status == 0, "step \(step): \(ended.output)") } else { killed += 1 }
                    let (status, text) = try authority.refusableCommand(["ledger", "verify"])
                    #expect(status == 0, "step \(step): \(text)")
                    if try authority.command("ledger", "list").contains("authority.restored") { restored += 1 }
                } while dead != nil
                #expect(try authority.command("customer", "list").contains("ACME"))
                #expect(try !authority.command("customer", "list").contains("since"))
            }
            print("killed: restore \(killed) times; the database was a restored one after \(restored) of them")
            #expect(killed > 20 && restored > 0 && restored < killed)
        }

        /// With one of them dead.
        private func check(_ authority: AuthorityControl, _ daemon: DaemonControl, _ round: Int) throws {
            let (verified, text) = try run(
                try Programs.path("fpx-authority"), ["license", "show", daemon.licenseFile, "--trusted", authority.keys])
            #expect(verified == 0, "round \(round): \(text)")
            let (ledger, why) = try authority.refusableCommand(["ledger", "verify"])
            #expect(ledger == 0, "round \(round): \(why)")
        }

        private func renewAgain(
            _ authority: AuthorityControl, _ daemon: DaemonControl, before: Int, wasKilled: Bool, _ round: Int
        ) throws {
            // In force as it was, or renewed already; the daemon, when it was the one, has read it again.
            #expect(try daemon.fpx("get", "system", "status").contains("License: Active"), "round \(round)")
            let record = try? JSONDecoder().decode(
                Record.self, from: Data(contentsOf: URL(filePath: daemon.home + "/state/authority")))
            let isAnswered = record?.question == nil
            let between = try #require(authority.licenses().first?.epoch)
            #expect((before...before + 1).contains(between), "round \(round)")
            let (status, output) = try daemon.ask("set", "renew_license")
            #expect(status == 0, "round \(round): \(output)\(daemon.log)")
            let after = try #require(authority.licenses().first?.epoch)
            // An open question is asked again, and is worth one renewal in all. Without one this was another renewal.
            #expect(after == (isAnswered ? between + 1 : before + 1), "round \(round): \(before), \(between), \(after)")
            let shown = try daemon.fpx("show", "license", "--json")
            #expect(shown.contains("expiration_date"))
            let license = try run(try Programs.path("fpx-authority"), ["license", "show", daemon.licenseFile]).output
            #expect(license.contains("\"epoch\" : \(after)"), "round \(round): \(license)")
        }
    }
}
