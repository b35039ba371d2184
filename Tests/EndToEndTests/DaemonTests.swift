import Admission
import Foundation
import Synchronization
import Testing

extension EndToEnd {
    /// fpxd, fpx-authority and fpx together, without a proxy.
    @Suite struct DaemonTests {}
}

extension EndToEnd.DaemonTests {
    @Test func aLicenceOfFortySeatsGivesTheThreeLines() throws {
        let daemon = try DaemonControl(cap: nil)
        try daemon.authority(
            "license", "sign", "--key", daemon.folder.path + "/test.key", "--customer", "test", "--seats", "40", "--fcas", "2",
            "--out", daemon.licenseFile)
        #expect(try daemon.fpx("commit").contains("Active"))
        #expect(
            try daemon.fpx("diagnose", "wad", "license", "detail")
                == "Purchased License Seat: 40\nAvailable License Seat: 40\nMax Licensed Session: 1000\n")
        let segment = try daemon.attach()
        #expect(try segment.pool(0).cap == 1000)
        #expect(try segment.pool(1).cap == 0)
        #expect(try segment.pool(2).cap == 50)
        let day = try #require(
            try daemon.fpx("show", "license").wholeMatch(
                of: /Production license for 2000 mbits valid until (\d{4}-\d\d-\d\d)\n/))
        #expect(
            try daemon.fpx("get", "system", "status").contains(
                "\nLicense: Active, seat 40, active seat 40, expiry date \(day.1)\n"))
    }

    @Test func withoutALicenceTheEvaluationIsNamedEverywhere() throws {
        let daemon = try DaemonControl(cap: nil)
        for command in [
            "get system status", "diagnose wad license", "diagnose wad license detail", "show license", "commit",
            "diagnose wad license --json", "get system status --json", "show license --json",
        ] {
            let text = try daemon.ask(command.split(separator: " ").map(String.init)).output
            #expect(text.lowercased().contains("evaluation"), "\(command): \(text)")
        }
        #expect(try daemon.fpx("diagnose", "wad", "license", "detail").contains("Max Licensed Session: 100\n"))
    }

    /// Each bad licence has its own state and message, and no session is licensed.
    @Test func badLicencesGiveCapZeroAndAReason() throws {
        let daemon = try DaemonControl(cap: 3)
        let good = try Data(contentsOf: URL(filePath: daemon.licenseFile))
        try daemon.authority("keys", "new", "--name", "other", "--out", daemon.folder.path)
        try daemon.end(by: SIGTERM)
        func made(_ arguments: String...) throws -> Data {
            let file = daemon.folder.path + "/made.lic"
            try daemon.authority(
                ["license", "sign", "--customer", "test", "--seats", "40", "--out", file] + arguments)
            return try Data(contentsOf: URL(filePath: file))
        }
        let key = daemon.folder.path + "/test.key"
        var tampered = good
        tampered[good.count / 2] ^= 1
        try #"{"cpu_model":"another","logical_cpus_number":640,"total_memory_size":1,"addresses_ipv4":[],"hostname":"x"}"#
            .write(toFile: daemon.folder.path + "/hw.lic", atomically: true, encoding: .utf8)
        var noise = Data(count: 10 << 20)
        for index in noise.indices { noise[index] = UInt8(truncatingIfNeeded: index &* 2_654_435_761 >> 7) }
        let cases: [(state: String, file: Data)] = [
            ("Expired", try made("--key", key, "--not-before", "2020-01-01", "--days", "14")),
            ("Not-yet-valid", try made("--key", key, "--not-before", "2099-01-01")),
            ("Invalid-signature", tampered),
            ("Unknown-key", try made("--key", daemon.folder.path + "/other.key")),
            ("Hardware-mismatch", try made("--key", key, "--hardware", daemon.folder.path + "/hw.lic")),
            ("Truncated", good.prefix(good.count / 2)),
            ("Empty", Data()),
            ("Too-large", noise),
            ("Malformed", noise.prefix(1000)),
        ]
        for (state, file) in cases {
            // From the start, with nothing to fall back to: cap 0.
            try? FileManager.default.removeItem(atPath: daemon.home + "/state")
            try file.write(to: URL(filePath: daemon.licenseFile))
            try daemon.start()
            let status = try daemon.fpx("get", "system", "status")
            #expect(status.contains("License: \(state), seat "), "\(state): \(status)")
            #expect(status.contains("active seat 0"), "\(state): \(status)")
            #expect(status.contains("License reason: "), "\(state): \(status)")
            #expect(try daemon.fpx("diagnose", "wad", "license", "detail").contains("Max Licensed Session: 0\n"), "\(state)")
            let segment = try daemon.attach()
            #expect(try segment.pool(0).admit().verdict == .bypass, "\(state)")
            // Over one in force: that one is kept.
            try good.write(to: URL(filePath: daemon.licenseFile))
            _ = try daemon.fpx("commit")
            #expect(try daemon.fpx("diagnose", "wad", "license", "detail").contains("Max Licensed Session: 3\n"), "\(state)")
            try file.write(to: URL(filePath: daemon.licenseFile))
            let commit = try daemon.ask("commit")
            #expect(commit.output.contains("licence kept"), "\(state): \(commit)")
            #expect(try daemon.fpx("diagnose", "wad", "license", "detail").contains("Max Licensed Session: 3\n"), "\(state)")
            try daemon.end(by: SIGTERM)
        }
    }

    @Test func settingsChangeAtOnceAndLast() throws {
        let daemon = try DaemonControl(cap: 0)
        let file = daemon.home + "/fpxd.yaml"
        try "# ours\nsession-warning: 70  # percent\n".write(toFile: file, atomically: true, encoding: .utf8)
        _ = try daemon.fpx("commit")
        let segment = try daemon.attach()
        let pool = try segment.pool(0)
        #expect(pool.admit().verdict == .bypass)
        #expect(
            try daemon.fpx("show", "full", "system", "global", "|", "grep", "license") == "    set license-overlimit bypass\n")
        try daemon.set(policy: .block)
        #expect(pool.admit().verdict == .block)
        #expect(
            try String(contentsOfFile: file, encoding: .utf8)
                == "# ours\nsession-warning: 70  # percent\nlicense-overlimit: block\n")
        try daemon.end(by: SIGKILL)
        #expect(pool.admit().verdict == .block, "without the daemon the policy stays")
        try daemon.start()
        #expect(pool.admit().verdict == .block)
        #expect(
            try daemon.fpx("show", "full", "system", "global")
                == """
                config system global
                    set license-overlimit block
                    set log-level info
                    set session-warning 70
                    set usage-report enable
                end

                """)
        let refused = try daemon.ask("config", "system", "global", "set", "license-overlimit", "sometimes", "end")
        #expect(refused.status != 0)
        #expect(refused.output.contains("sometimes") && refused.output.contains("bypass or block"), "\(refused)")
        #expect(pool.policy == .block)
    }

    /// What an operator writes by hand counts by itself, and a change by `fpx config` that comes first loses none of it.
    @Test func handEditsCountAndAreKept() throws {
        let daemon = try DaemonControl(cap: 0)
        let file = daemon.home + "/fpxd.yaml"
        func value(_ name: String) throws -> String? {
            let report = Answer(try RawConnection.ask(daemon.controlSocket, "GET /v1/config HTTP/1.1\r\nHost: x\r\n\r\n"))?.json
            let sections = (report as? [String: Any])?["sections"] as? [[String: Any]] ?? []
            let settings = sections.flatMap { $0["settings"] as? [[String: Any]] ?? [] }
            return settings.first { $0["name"] as? String == name }?["value"] as? String
        }
        let text = "session-warning: 70\r\nlog-file: /elsewhere\r\n"
        try text.write(toFile: file, atomically: true, encoding: .utf8)
        try daemon.set(policy: .block)
        #expect(try String(contentsOfFile: file, encoding: .utf8) == text + "license-overlimit: block\r\n")
        for _ in 0..<2 {
            #expect(try value("session-warning") == "70")
            #expect(try value("log-file") == daemon.home + "/fpxd.log", "the value that runs")
            #expect(try daemon.fpx("commit").contains("log-file: a change takes effect when fpxd is restarted"))
        }
        // What cannot be read is not written over.
        try "session-warning: never\n".write(toFile: file, atomically: true, encoding: .utf8)
        let refused = try daemon.ask("config", "system", "global", "set", "license-overlimit", "bypass", "end")
        #expect(refused.status == 1 && refused.output.contains("\(file):1: session-warning: found \"never\""), "\(refused)")
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "session-warning: never\n")
        #expect(try value("license-overlimit") == "block")
    }

    /// The kernel gives up the locks of a process that ends one after the other: a successor may be in between.
    @Test func aSegmentThatIsGivenUpAMomentLater() throws {
        let daemon = try DaemonControl()
        try daemon.end(by: SIGTERM)
        var former: Segment?
        expectEventually("the segment is free") {
            former = try? Segment.attachKeeper(path: daemon.segmentPath)
            return former != nil
        }
        let keeper = try #require(former)
        let ending = BackgroundThread { _ in
            usleep(300_000)
            keeper.detach()
        }
        try daemon.start()
        ending.stop()
        #expect(try daemon.figures().inUse == 0)
    }

    /// A crash in the middle of an event's line costs that event alone.
    @Test func anEventThatWasCutShortSpoilsNoOther() throws {
        let daemon = try DaemonControl()
        try daemon.end(by: SIGKILL)
        let file = try #require(FileHandle(forWritingAtPath: daemon.home + "/state/events.jsonl"))
        try file.seekToEnd()
        try file.write(contentsOf: Data(#"{"at":"2026-01-0"#.utf8))
        try file.close()
        try daemon.start()
        let lines = try String(contentsOfFile: daemon.home + "/state/events.jsonl", encoding: .utf8).split(separator: "\n")
        let damaged = lines.filter { (try? JSONSerialization.jsonObject(with: Data($0.utf8))) == nil }
        #expect(damaged == [#"{"at":"2026-01-0"#])
        #expect(lines.count { $0.contains("started as process") } == 2)
    }

    @Test func hangupIsCommit() throws {
        let daemon = try DaemonControl(cap: 5)
        let segment = try daemon.attach()
        try daemon.sign(cap: 7)
        kill(try #require(daemon.processID), SIGHUP)
        try expectEventually("the new licence is in force") { try segment.pool(0).cap == 7 }
    }

    @Test func badConfigurationIsNamedWithItsLine() throws {
        let fpxd = try Programs.path("fpxd")
        let folder = try TemporaryFolder()
        let file = folder.path + "/fpxd.yaml"
        for (text, complaint) in [
            ("log-level: info\nlicence-overlimit: block\n", ":2: found unknown setting \"licence-overlimit\""),
            ("# a\n\nlicense-overlimit: maybe\n", ":3: license-overlimit: found \"maybe\", expected bypass or block"),
            ("session-warning: 101\n", ":1: session-warning: found \"101\", expected a number from 0 to 100"),
            ("segment: relative\n", ":1: segment: found \"relative\", expected an absolute path"),
            ("log-level: [info]\n", ":1: log-level: found a list or mapping"),
            ("log-level: info\nlog-level: debug\n", ":2: found setting \"log-level\" in lines 1 and 2, expected it in one"),
            ("log-level: \"info\n", "not YAML"), ("- a\n- b\n", "expected lines of the form NAME: VALUE"),
            (String(repeating: "#", count: 70_000), "found more than 65536 bytes"),
        ] {
            try text.write(toFile: file, atomically: true, encoding: .utf8)
            let (status, output) = try run(fpxd, ["--config", file, "--check-config"])
            #expect(status == 1, "\(text.prefix(50)): \(output)")
            #expect(output.contains(complaint), "\(text.prefix(50)): \(output)")
            #expect(output.contains(file), "\(output)")
        }
        #expect(try run(fpxd, ["--config", folder.path + "/none", "--check-config"]).status == 1)
        #expect(try run(fpxd, ["--license-overlimit", "maybe", "--check-config"]).output.contains("flag --license-overlimit"))
        #expect(try run(fpxd, ["--nonsense"]).status == 2)
        try "license-overlimit: block # stay\n".write(toFile: file, atomically: true, encoding: .utf8)
        let (status, output) = try run(fpxd, ["--config", file, "--log-level", "debug", "--check-config"])
        #expect(status == 0)
        #expect(output.contains("license-overlimit: block\nlog-level: debug\n"))
    }

    @Test func aSecondDaemonIsRefused() throws {
        let daemon = try DaemonControl()
        let fpxd = try Programs.path("fpxd")
        let same = try run(fpxd, ["--home", daemon.home, "--segment", daemon.segmentPath])
        #expect(same.status == 1)
        #expect(same.output.contains("found fpxd running there (process \(try #require(daemon.processID)))"), "\(same)")
        let other = try TemporaryFolder()
        let keeper = try run(fpxd, ["--home", other.path, "--segment", daemon.segmentPath])
        #expect(keeper.status == 1)
        #expect(keeper.output.contains("found a keeper already (process \(try #require(daemon.processID)))"), "\(keeper)")
        #expect(try daemon.ask("get", "system", "status").status == 0)
    }

    @Test func aSegmentOfAnotherVersionIsRefusedWhileInUse() throws {
        let daemon = try DaemonControl()
        try daemon.end(by: SIGKILL)
        let copy = daemon.segmentPath + ".copy"
        defer { unlink(copy) }
        // The control's own observer is attached all the time, so this file is in use.
        try overwrite(daemon.segmentPath, at: 8, with: [3])
        let (status, output) = try run(
            try Programs.path("fpxd"), ["--home", daemon.home, "--segment", daemon.segmentPath])
        #expect(status == 1)
        #expect(output.contains("not a segment of this version: found version 3"), "\(output)")
        // A file that nobody has mapped is made anew.
        try Data(repeating: 7, count: 1 << 20).write(to: URL(filePath: copy))
        let other = try DaemonControl(segment: copy, cap: 2)
        #expect(other.log.contains("made anew"), "\(other.log)")
        #expect(try other.attach().pool(0).cap == 2)
    }

    /// Workers admit and release without pause while the daemon is killed and started again and again.
    @Test func killingTheDaemonChangesNothingForWorkers() throws {
        let daemon = try DaemonControl(cap: 50)
        let segment = try daemon.attach()
        let pool = try segment.pool(0)
        let wrong = Atomic(0)
        let rounds = Atomic(0)
        let worker = BackgroundThread { thread in
            while !thread.isStopped {
                // One thread alone: with n < 50 in use there is always room, and with 50 there is none.
                var held = 0
                while held < 50 {
                    if pool.admit().detach() != .inspect { wrong.add(1, ordering: .relaxed) }
                    held += 1
                }
                if pool.admit().verdict != .bypass { wrong.add(1, ordering: .relaxed) }
                for _ in 0..<held { pool.release(.inspect) }
                rounds.add(1, ordering: .relaxed)
            }
        }
        for _ in 0..<5 {
            try daemon.end(by: SIGKILL)
            let before = rounds.load(ordering: .relaxed)
            expectEventually("work goes on without a daemon") { rounds.load(ordering: .relaxed) > before + 100 }
            try daemon.start()
        }
        worker.stop()
        #expect(wrong.load(ordering: .relaxed) == 0)
        #expect(try daemon.inUseByCommand() == 0)
        #expect(pool.conservation()?.holds == true)
    }
}
