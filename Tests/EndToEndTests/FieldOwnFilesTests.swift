// Log file and events of a running fpxd that somebody removes or spoils, descriptors that run out, and places that cannot be.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldOwnFiles {}
}

extension EndToEnd.FieldOwnFiles {
    private func row(_ situation: String, _ expected: String, _ found: String) {
        #expect(Field.row("daemon.12", situation, expected: expected, found: found))
    }

    private func troubles(_ daemon: DaemonControl) throws -> [String] {
        try daemon.fpx("get", "system", "status").split(separator: "\n").filter { $0.hasPrefix("Trouble: ") }
            .map { String($0.dropFirst(9)) }
    }

    private func events(_ daemon: DaemonControl) throws -> String { try daemon.fpx("get", "system", "events", "200") }

    private func set(_ percent: Int, _ daemon: DaemonControl) throws {
        _ = try daemon.fpx("config", "system", "global", "set", "session-warning", "\(percent)", "end")
    }

    private func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }

    // MARK: log file and events

    @Test(arguments: [
        ("a folder", "Log lines are not on disk: PATH: found a folder, expected a file"),
        ("/dev/full", "Log lines are not on disk: /dev/full: write failed: No space left on device"),
    ])
    func aLogFileThatCannotBeWritten(_ kind: String, _ expected: String) throws {
        let folder = try TemporaryFolder()
        let path = kind == "/dev/full" ? kind : folder.path + "/log"
        if kind != path { try #require(mkdir(path, 0o700) == 0) }
        let trouble = expected.replacing("PATH", with: path)
        let daemon = try DaemonControl(flags: ["--log-file", path])
        let isTold = try eventually { try troubles(daemon) == [trouble] }
        row("log-file: \(kind)", trouble, isTold ? trouble : "\(try troubles(daemon))")
        #expect(try events(daemon).contains(trouble))
        try set(61, daemon)
        #expect(daemon.log.components(separatedBy: trouble).count == 2, "told once")
        if kind == path { return try daemon.end(by: SIGTERM) }
        try #require(rmdir(path) == 0)
        let isWhole = try eventually { try troubles(daemon) == [] && text(path).contains("session-warning 61") }
        row(
            "log-file: \(kind), which is removed", "lines of meanwhile are in it, no trouble",
            isWhole ? "lines of meanwhile are in it, no trouble" : "\(try troubles(daemon))")
        #expect(try events(daemon).contains("Log lines are on disk again: \(path)"))
        try daemon.end(by: SIGTERM)
    }

    @Test(arguments: ["fpxd.log", "state/events.jsonl"]) func oneThatIsRemoved(_ name: String) throws {
        let daemon = try DaemonControl()
        let path = daemon.home + "/" + name
        expectEventually("it is there") { access(path, F_OK) == 0 }
        unlink(path)
        // Nobody writes a line meanwhile.
        let isAnew = eventually(within: 3) { access(path, F_OK) == 0 }
        row("rm \(name)", "made anew", isAnew ? "made anew" : "gone")
        let isTold = try eventually { try events(daemon).contains("\(path) was removed: it is made anew") }
        row("rm \(name): an event", "told", isTold ? "told" : try events(daemon))
        try set(62, daemon)
        #expect(eventually { text(path).contains("session-warning 62") })
        #expect(try troubles(daemon) == [])
        // As logrotate does it, without a word to fpxd.
        try #require(rename(path, path + ".old") == 0 && access(path, F_OK) != 0)
        try set(63, daemon)
        #expect(eventually { text(path).contains("session-warning 63") })
        try daemon.end(by: SIGTERM)
    }

    @Test func aFolderInThePlaceOfTheLogFile() throws {
        let daemon = try DaemonControl()
        let path = daemon.home + "/fpxd.log"
        unlink(path)
        try #require(mkdir(path, 0o700) == 0 || (unlink(path) == 0 && mkdir(path, 0o700) == 0))
        try set(64, daemon)
        let trouble = "Log lines are not on disk: \(path): found a folder, expected a file"
        let isTold = try eventually { try troubles(daemon) == [trouble] }
        row("fpxd.log is a folder", trouble, isTold ? trouble : "\(try troubles(daemon))")
        #expect(try daemon.fpx("commit").contains(trouble))
        try #require(rmdir(path) == 0)
        let isWhole = try eventually { try troubles(daemon) == [] && text(path).contains("session-warning 64") }
        row("fpxd.log was a folder", "lines of meanwhile", isWhole ? "lines of meanwhile" : "\(try troubles(daemon))")
        try daemon.end(by: SIGTERM)
    }

    // MARK: descriptors

    /// Connections that ask nothing.
    private func idle(_ path: String, count: Int) throws -> ProxyProcess {
        let folder = try TemporaryFolder()
        let process = try ProxyProcess(
            [
                "/usr/bin/python3", "-c",
                """
                import socket, sys, time
                held = []
                for i in range(\(count)):
                    s = socket.socket(socket.AF_UNIX)
                    s.settimeout(5)
                    try: s.connect(sys.argv[1])
                    except OSError: continue
                    held.append(s)
                print('held', flush=True)
                time.sleep(600)
                """, path,
            ], output: folder.path + "/output")
        expectEventually("connections are made") { folder.read("output").contains("held") }
        return process
    }

    @Test func fewDescriptors() throws {
        let daemon = try DaemonControl(launcher: ["/usr/bin/prlimit", "--nofile=64:64"])
        #expect(try events(daemon).contains("Open files: found a limit of 64, expected 1856 or more"))
        for name in ["control.sock", "spoa.sock", "ring.sock"] {
            let held = try idle(daemon.runFolder + "/" + name, count: 100)
            let (status, output) = try daemon.ask("--timeout", "5", "get", "system", "status")
            row(
                "64 descriptors, 100 idle connections on \(name): fpx", "answers, no trouble",
                status == 0 && !output.contains("Trouble") ? "answers, no trouble" : "\(status): \(output)")
            withExtendedLifetime(held) {}
        }
        let found = try events(daemon)
        #expect(
            found.contains("/spoa.sock: 4 connections are open, and it takes no more: new ones are refused")
                && found.contains("/ring.sock: 4 connections are open, and it takes no more: for each new one the one that was")
                && !found.contains("Too many open files"), "\(found)")
        try daemon.end(by: SIGTERM)
    }

    /// A file that cannot be opened for want of a descriptor is as good as before.
    @Test func noDescriptorLeft() throws {
        let daemon = try DaemonControl()
        let process = try #require(daemon.processID)
        func limit(_ soft: String) throws {
            let (status, output) = try run("/usr/bin/prlimit", ["--pid", "\(process)", "--nofile=\(soft):"])
            try #require(status == 0, "\(output)")
        }
        try limit("3")
        expectEventually("it is told") { daemon.log.contains("unit: open failed: Too many open files") }
        Thread.sleep(forTimeInterval: 2)
        try limit("4096")
        let isWhole = try eventually { try troubles(daemon) == [] }
        row("descriptors again", "no trouble", isWhole ? "no trouble" : "\(try troubles(daemon))")
        row(
            "no descriptor left: files to remove", "none",
            daemon.log.contains("remove it") ? daemon.log : "none")
        #expect(daemon.log.contains("unit: open failed: Too many open files; fpxd goes on with what it has read"))
        try daemon.end(by: SIGTERM)
    }

    // MARK: the command line

    /// A library that is loaded before the program has moved the environment, by which Swift finds the words.
    @Test(arguments: ["fpxd", "fpx", "fpx-authority"]) func aPreloadedLibraryThatSetsAVariable(_ program: String) throws {
        // It sets and unsets variables before the program runs, after which the words are not where they were.
        let library = try #require(
            ["x86_64", "aarch64"].map { "/usr/lib/\($0)-linux-gnu/faketime/libfaketimeMT.so.1" }.first {
                FileManager.default.fileExists(atPath: $0)
            })
        let (status, found) = try run(
            "/usr/bin/env", ["FAKETIME=+0", "LD_PRELOAD=\(library)", try Programs.path(program), "--nonsense"])
        row("\(program) --nonsense, with a library before it", "status 2", "status \(status)")
        #expect(found.contains("--nonsense"), "\(found)")
    }

    // MARK: processes that cannot be seen

    @Test func theSegmentIsRemovedAndItsUsersCannotBeSeen() throws {
        let folder = try TemporaryFolder()
        let elsewhere = "/usr/bin/unshare --fork --kill-child --pid --mount-proc"
        let daemon = try DaemonControl(
            launcher: [
                "/bin/sh", "-c", "[ -e \(folder.path)/elsewhere ] || exec \"$@\"; exec \(elsewhere) \"$@\"", "sh",
            ])
        func told() throws -> String {
            let trouble = try troubles(daemon).filter { $0.contains("it was removed while no fpxd ran") }
            let count = try events(daemon).components(separatedBy: "no fpxd ran").count - 1
            return "\(trouble.count) in the status, \(count) events"
        }
        for (place, expected) in [("here", "0 in the status, 0 events"), ("elsewhere", "1 in the status, 1 events")] {
            try daemon.end(by: SIGKILL)
            unlink(daemon.segmentPath)
            try folder.write("", to: place)
            try daemon.start()
            row("the segment is removed while fpxd is stopped, which starts \(place)", expected, try told())
        }
        _ = try daemon.fpx("commit")
        // A commit tells what it puts away.
        row("a person has looked (commit)", "0 in the status, 2 events", try told())
    }

    // MARK: places

    @Test func placesThatCannotBe() throws {
        let folder = try TemporaryFolder()
        let long = folder.path + "/" + String(repeating: "r", count: 120)
        let socket = long + "/control.sock"
        for (flag, value, expected) in [
            ("run-folder", long, "found \(socket), a path of \(socket.utf8.count) bytes, expected at most 106 for a socket"),
            ("segment", "/dev/shm", "found a folder /dev/shm, expected a file or the name of a new one"),
            (
                "segment", "/dev/shm/x/",
                "found /dev/shm/x/, which ends as the name of a folder, expected a file or the name of a new one"
            ),
        ] {
            for check in [["-t"], []] {
                let (status, output) = try run(
                    "/usr/bin/timeout",
                    ["10", try Programs.path("fpxd"), "--home", folder.path + "/home", "--\(flag)", value] + check)
                let text = "flag --\(flag): \(flag): \(expected)"
                row(
                    "fpxd \(check.joined()) --\(flag) \(value.suffix(12))", "1, \(text)",
                    "\(status), \(output.contains(text) ? text : output)")
            }
        }
    }
}
