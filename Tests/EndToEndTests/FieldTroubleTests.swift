import Admission
import Foundation
import Synchronization
import TestSupport
import Testing

extension EndToEnd {
    /// What a host may lack or do to fpxd: no inotify, nobody who reads its log, disks that are full or hang.
    @Suite(.enabled(if: geteuid() == 0, "needs root, for disks and other users")) struct FieldTrouble {
        /// Time that a command takes, or nil where it did not succeed within 10 seconds.
        private func time(_ daemon: DaemonControl, _ words: String...) throws -> Duration? {
            let start = ContinuousClock.now
            return try daemon.ask(["--timeout", "10"] + words).status == 0 ? .now - start : nil
        }

        private func answer(_ time: Duration?) -> String { time.map { $0 < .seconds(5) ? "answers" : "\($0)" } ?? "silent" }

        /// The user that fpxd runs as has all inotify instances that it may have.
        @Test func noInotifyInstanceLeft() throws {
            let exhausting = """
                import ctypes, os, sys
                while ctypes.CDLL(None).inotify_init() >= 0: pass
                os.execv(sys.argv[1], sys.argv[1:])
                """
            let daemon = try DaemonControl(launcher: [
                "/bin/sh", "-c",
                // That user may not see where the program was built.
                "cp \"$1\" \"$3\"; program=\"$3/fpxd\"; chown -R 54321:33 \"$3\"; shift; ulimit -n 4096; "
                    + "exec setpriv --reuid 54321 --regid 33 --clear-groups /usr/bin/python3 -c '\(exhausting)' "
                    + "\"$program\" \"$@\"", "sh",
            ])
            let isTold = try eventually {
                try daemon.fpx("get", "system", "events").contains("A changed licence is looked for each second")
            }
            #expect(
                Field.row("daemon.7", "no inotify instance is left", expected: "an event", found: isTold ? "an event" : "none"))
            try daemon.sign(cap: 7)
            let isInForce = try eventually(within: 5) {
                try daemon.fpx("diagnose", "wad", "license", "detail").contains("Max Licensed Session: 7")
            }
            #expect(
                Field.row(
                    "daemon.7", "no inotify instance is left: a changed licence", expected: "in force within seconds",
                    found: isInForce ? "in force within seconds" : "not in force"))
            #expect(try daemon.ask("get", "system", "status").status == 0, "fpxd lives on")
        }

        @Test func nobodyReadsStandardError() throws {
            let folder = try TemporaryFolder()
            let path = folder.path + "/stderr"
            try #require(mkfifo(path, 0o600) == 0)
            let pipe = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)
            defer { _ = close(pipe) }
            func read() -> String {
                var bytes = [UInt8](repeating: 0, count: 1 << 20)
                let count = Foundation.read(pipe, &bytes, bytes.count)
                return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
            }
            let daemon = try DaemonControl(launcher: ["/bin/sh", "-c", "exec \"$@\" 2>\(path)", "sh"])
            let block = [UInt8](repeating: UInt8(ascii: "x"), count: 512)
            while write(pipe, block, block.count) > 0 {}
            // More lines than there is room for.
            let connection = try RawConnection(daemon.controlSocket)
            var answers = 0
            for round in 0..<600 {
                let settings =
                    #"{"license-overlimit":"bypass","log-level":"info","session-warning":"\#(round % 90)","#
                    + #""usage-report":"enable"}"#
                let body = #"{"path":"system global","set":\#(settings)}"#
                connection.send("PATCH /v1/config HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
                guard connection.isReadable(by: .now + .seconds(5)), connection.receive().flatMap(Answer.init)?.status == 200
                else { break }
                answers += 1
            }
            #expect(
                Field.row(
                    "daemon.7", "nobody reads standard error: 600 changes of settings", expected: "600 answered",
                    found: "\(answers) answered"))
            #expect(
                Field.row(
                    "daemon.7", "nobody reads standard error: the control socket", expected: "answers",
                    found: answer(try time(daemon, "get", "system", "status"))))
            // It is read again.
            var text = ""
            let isTold = eventually {
                text += read()
                return text.contains("log lines are missing here: standard error did not take them in time")
            }
            let missing = text.firstMatch(of: /\[WARNING\] (\d+) log lines are missing here/).flatMap { Int($0.1) } ?? 0
            let present = text.components(separatedBy: "[INFO] set ").count - 1
            #expect(isTold && missing > 0)
            #expect(
                Field.row(
                    "daemon.7", "standard error is read again: lines that are there, and lines that are told to be missing",
                    expected: "2400", found: "\(present + missing)"))
            try daemon.end(by: SIGTERM)
        }

        @Test func standardErrorIsClosed() throws {
            let folder = try TemporaryFolder()
            let calls = folder.path + "/calls"
            let daemon = try DaemonControl(launcher: [
                "/bin/sh", "-c", "exec strace -f -qq -y -e trace=write -o \(calls) /bin/sh -c 'exec \"$@\" 2>&-' sh \"$@\"",
                "sh",
            ])
            _ = try daemon.fpx("config", "system", "global", "set", "session-warning", "70", "end")
            try daemon.end(by: SIGTERM)
            let lines = folder.read("calls").split(separator: "\n").filter { $0.contains("[INFO]") }
            #expect(lines.contains { $0.contains("session-warning 70") }, "the log file has them")
            #expect(
                Field.row(
                    "daemon.7", "fpxd starts without a standard error: log lines that go to what has its number",
                    expected: "0", found: "\(lines.count { !$0.contains("</dev/null>") && !$0.contains("/fpxd.log>") })"))
        }

        /// Log and events lie on a disk that stops answering.
        @Test func theDiskOfTheLogHangs() throws {
            let disk = try Disk()
            let manager = try NotifySocket()
            let daemon = try DaemonControl(
                cap: 1, launcher: ["/usr/bin/env", "NOTIFY_SOCKET=\(manager.path)", "WATCHDOG_USEC=400000"])
            try daemon.end(by: SIGTERM)
            try "log-file: \(disk.path)/fpxd.log\n".write(toFile: daemon.home + "/fpxd.yaml", atomically: true, encoding: .utf8)
            let events = daemon.home + "/state/events.jsonl"
            try disk.mount("events.jsonl", over: events)
            defer { try? disk.unmount(events) }
            try daemon.start()
            try disk.freeze()
            defer { try? disk.thaw() }
            let segment = try Segment.attach(path: daemon.segmentPath)
            defer { segment.detach() }
            #expect(try segment.pool(0).admit().detach() == .inspect)
            #expect(
                Field.row(
                    "daemon.7", "the disk of log and events hangs: a changed setting", expected: "answers",
                    found: answer(
                        try time(daemon, "config", "system", "global", "set", "session-warning", "70", "end"))))
            var found = ""
            _ = try eventually {
                found = try daemon.fpx("get", "system", "events")
                return found.contains("Licensed sessions of furl: 1 of 1 in use")
            }
            #expect(
                Field.row(
                    "daemon.7", "the disk of log and events hangs: the events of now", expected: "shown",
                    found: found.contains("Licensed sessions of furl: 1 of 1 in use") ? "shown" : "missing"))
            #expect(
                Field.row(
                    "daemon.7", "the disk of the log hangs: commit, which opens the log anew", expected: "answers",
                    found: answer(try time(daemon, "commit"))))
            manager.forget()
            #expect(
                Field.row(
                    "daemon.7", "the disk of log and events hangs: the watchdog hears", expected: "WATCHDOG=1",
                    found: manager.receive(within: 3)))
            try disk.thaw()
            let isWritten = try eventually {
                try String(contentsOfFile: events, encoding: .utf8).contains("1 of 1 in use")
            }
            #expect(
                Field.row(
                    "daemon.7", "the disk answers again: the events of meanwhile are in the file", expected: "yes",
                    found: isWritten ? "yes" : "no"))
            try daemon.end(by: SIGTERM)
        }

        @Test func theDiskOfTheLogIsFull() throws {
            let disk = try Disk(megabytes: 2)
            let daemon = try DaemonControl()
            try daemon.end(by: SIGTERM)
            let log = disk.path + "/fpxd.log"
            try "log-file: \(log)\n".write(toFile: daemon.home + "/fpxd.yaml", atomically: true, encoding: .utf8)
            try daemon.start()
            try disk.fill()
            for percent in 1...100 {
                _ = try daemon.fpx("config", "system", "global", "set", "session-warning", "\(percent % 99 + 1)", "end")
            }
            try disk.makeRoom()
            var there = 0
            let isWhole = try eventually {
                let text = try String(contentsOfFile: log, encoding: .utf8)
                there = (1...100).count { text.contains(" set session-warning \($0 % 99 + 1), by ") }
                return there == 100
            }
            #expect(
                Field.row(
                    "daemon.7", "the disk of the log was full and has room again: lines of meanwhile that are in the log",
                    expected: "100 of 100", found: isWhole ? "100 of 100" : "\(there) of 100"))
            let trouble = "Log lines are not on disk: \(log): write failed: No space left on device"
            #expect(try daemon.fpx("get", "system", "events", "200").contains(trouble))
            try daemon.end(by: SIGTERM)
        }

        /// The watchdog is fed by what serves: neither a socket that does not answer nor a licence that is not judged goes
        /// unseen.
        @Test func theWatchdogSeesWhatDoesNotServe() throws {
            let disk = try Disk()
            let manager = try NotifySocket()
            let daemon = try DaemonControl(
                launcher: ["/usr/bin/env", "NOTIFY_SOCKET=\(manager.path)", "WATCHDOG_USEC=800000"])
            func heard(within seconds: Int) -> String {
                manager.forget()
                return manager.receive(within: seconds)
            }
            #expect(heard(within: 5) == "WATCHDOG=1")
            // Somebody who takes connections and answers nothing, in place of the control socket. Mounted, for fpxd would take
            // the place of any other.
            let mute = try NotifySocket(SOCK_STREAM, at: daemon.runFolder + "/mute.sock")
            let mount = ["--bind", mute.path, daemon.controlSocket]
            try #require(try run("/bin/mount", mount).status == 0)
            _ = heard(within: 1)
            #expect(
                Field.row(
                    "daemon.7", "the control socket answers nothing: the watchdog hears", expected: "",
                    found: heard(within: 2)))
            try disk.unmount(daemon.controlSocket)
            withExtendedLifetime(mute) {}
            #expect(heard(within: 5) == "WATCHDOG=1")
            #expect(daemon.log.contains("The service manager is not told that fpxd lives: the control socket does not answer"))

            // The last good copy of a licence is written to a disk that hangs: nothing is judged meanwhile.
            try daemon.end(by: SIGTERM)
            let copy = daemon.home + "/state"
            _ = try run("/bin/sh", ["-c", "cp -a \(copy)/. \(disk.path)/ && mount --bind \(disk.path) \(copy)"])
            defer { try? disk.unmount(copy) }
            try daemon.start()
            #expect(heard(within: 5) == "WATCHDOG=1")
            try disk.freeze()
            defer { try? disk.thaw() }
            try daemon.sign(cap: 5)
            expectEventually("the new licence is read") { daemon.log.contains("is not told that fpxd lives: housekeeping") }
            #expect(
                Field.row(
                    "daemon.7", "the disk of the state hangs, and no licence is judged: the watchdog hears", expected: "",
                    found: heard(within: 2)))
            try disk.thaw()
            #expect(heard(within: 5) == "WATCHDOG=1")
            try daemon.end(by: SIGTERM)
        }
    }
}
