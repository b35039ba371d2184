// What happens to fpxd's folders: sockets, run-folder and state that are removed, spoilt or exchanged, while it runs and while
// it does not.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldFolderTests {}
}

extension DaemonControl {
    fileprivate var stateFolder: String { home + "/state" }

    /// The lines of `get system status` that a person must look at.
    fileprivate func troubles() throws -> [String] {
        try fpx("get", "system", "status").split(separator: "\n").filter { $0.hasPrefix("Trouble: ") }
            .map { String($0.dropFirst(9)) }
    }

    /// In one step: while files are removed one after the other fpxd may write some of them anew.
    fileprivate func removeState() throws {
        let away = folder.path + "/away"
        try #require(rename(stateFolder, away) == 0)
        try FileManager.default.removeItem(atPath: away)
    }

    fileprivate func unitID() throws -> String {
        struct Report: Decodable { var unit_id: String? }
        let text = try fpx("show", "license_hardware_data", "--json")
        return try JSONDecoder().decode(Report.self, from: Data(text.utf8)).unit_id ?? "none"
    }

    fileprivate func hasEvent(_ text: String) throws -> Bool {
        try eventually(within: 20) { try fpx("get", "system", "events").contains(text) }
    }

    /// What is in the files of these names in the state folder.
    fileprivate func state(_ names: [String]) -> [String: Data] {
        Dictionary(
            uniqueKeysWithValues: names.map { ($0, (try? Data(contentsOf: URL(filePath: stateFolder + "/" + $0))) ?? Data()) })
    }
}

extension EndToEnd.FieldFolderTests {
    private func row(_ point: String, _ situation: String, _ expected: String, _ found: String) {
        #expect(Field.row("folders.\(point)", situation, expected: expected, found: found))
    }

    private static let questionOfStatus = "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"

    // MARK: Sockets

    /// HAProxy's sessions go on, and a HAProxy that is loaded anew finds fpxd again.
    @Test(arguments: [["spoa.sock", "ring.sock"], ["."]]) func haproxysSocketsAreRemoved(_ names: [String]) throws {
        let daemon = try DaemonControl(cap: 10)
        let haproxy = try HAProxy(agent: daemon.runFolder)
        let before = try haproxy.open(.stream)
        let paths = names.map { daemon.runFolder + "/" + $0 }
        let situation = names == ["."] ? "the run-folder is removed" : "\(names.joined(separator: ", ")) are removed"
        for path in paths { try FileManager.default.removeItem(atPath: (path as NSString).standardizingPath) }
        let areBack = eventually(within: 20) {
            ["spoa.sock", "ring.sock", "control.sock", "fpxd.pid"].allSatisfy {
                access(daemon.runFolder + "/" + $0, F_OK) == 0
            }
        }
        row("1", situation, "made anew", areBack ? "made anew" : "gone")
        row(
            "1", "\(situation): what is told", "an event",
            try daemon.hasEvent("spoa.sock was removed: a new socket is made") ? "an event" : "nothing")
        if names == ["."] { #expect(try daemon.hasEvent("fpxd.pid was removed: it is made anew")) }
        try haproxy.reload()
        let after = try haproxy.open(.stream)
        row(
            "1", "\(situation): sessions before and after it", "inspect, inspect, 2 in use",
            "\(before.outcome), \(after.outcome), \(try daemon.settledInUse()) in use")
        for client in [before, after] { client.socket.close() }
        let areEnded = try eventually { try daemon.figures().inUse == 0 }
        row("1", "\(situation): both sessions end", "0 in use", areEnded ? "0 in use" : "\(try daemon.figures().inUse) in use")
        #expect(try daemon.troubles() == [])
        try daemon.end(by: SIGTERM)
    }

    /// Whoever is connected goes on to be answered, and others are again.
    @Test func theControlSocketIsRemoved() throws {
        let daemon = try DaemonControl()
        let connection = try RawConnection(daemon.controlSocket)
        connection.send(Self.questionOfStatus)
        #expect(connection.receive().flatMap(Answer.init)?.status == 200)
        for round in 1...3 {
            unlink(daemon.controlSocket)
            let (status, output) = try daemon.ask("get", "system", "status")
            if status != 0 {
                let advice = "start fpxd, or see whether it runs: pgrep -LF \(daemon.runFolder)/fpxd.pid\n"
                #expect(output.hasSuffix(advice), "\(output)")
            }
            let isBack = try eventually(within: 20) { try daemon.ask("get", "system", "status").status == 0 }
            row("2", "control.sock is removed, time \(round)", "answers again", isBack ? "answers again" : "silent")
            connection.send(Self.questionOfStatus)
            row(
                "2", "control.sock is removed, time \(round): a connection of before", "200",
                "\(connection.receive().flatMap(Answer.init)?.status ?? 0)")
        }
        #expect(try daemon.hasEvent("control.sock was removed: a new socket is made, and connections go on"))
        let group = try #require(getgrnam("www-data")).pointee.gr_gid
        var status = stat()
        #expect(stat(daemon.controlSocket, &status) == 0 && status.st_mode & 0o777 == 0o660 && status.st_gid == group)
        try daemon.end(by: SIGTERM)
        #expect(access(daemon.controlSocket, F_OK) != 0, "what fpxd has made it removes")
    }

    @Test func aStrangerHasTheControlSocketsName() throws {
        let daemon = try DaemonControl()
        unlink(daemon.controlSocket)
        let stranger = try NotifySocket(SOCK_STREAM, at: daemon.controlSocket)
        let isBack = try eventually(within: 30) {
            try daemon.ask("--timeout", "2", "get", "system", "status").status == 0
        }
        row("2", "another process listens on control.sock", "answers again", isBack ? "answers again" : "silent")
        #expect(try daemon.hasEvent("control.sock"))
        withExtendedLifetime(stranger) {}
        // What is somebody's is not taken from him where two fpxd may share a folder: it is told, and tried again.
        let agent = daemon.runFolder + "/spoa.sock"
        unlink(agent)
        try Data("mine".utf8).write(to: URL(filePath: agent))
        let isTold = try eventually(within: 20) {
            try daemon.troubles().contains { $0.contains("found a file that is no socket") }
        }
        row("2", "a file has the name of spoa.sock", "told in the status", isTold ? "told in the status" : "nothing")
        unlink(agent)
        let isAnew = try eventually(within: 20) { try daemon.troubles() == [] && access(agent, F_OK) == 0 }
        row("2", "the file is taken away", "made anew", isAnew ? "made anew" : "gone")
        // Or somebody puts back what he has moved away.
        try Data("mine".utf8).write(to: URL(filePath: agent + ".mine"))
        try #require(rename(agent, agent + ".away") == 0 && rename(agent + ".mine", agent) == 0)
        #expect(try eventually(within: 20) { try !daemon.troubles().isEmpty })
        try #require(rename(agent + ".away", agent) == 0)
        let isOver = try eventually(within: 20) { try daemon.troubles().isEmpty }
        row("2", "spoa.sock is put back", "no trouble", isOver ? "no trouble" : "\(try daemon.troubles())")
        try daemon.end(by: SIGTERM)
    }

    /// The lock of the pid file keeps others out of the run-folder.
    @Test func thePidFileIsRemoved() throws {
        let daemon = try DaemonControl()
        let path = daemon.runFolder + "/fpxd.pid"
        let id = try #require(daemon.processID)
        unlink(path)
        let isBack = eventually(within: 20) { daemon.processID == id }
        row("3", "fpxd.pid is removed", "made anew", isBack ? "made anew" : "gone")
        let (status, output) = try run("/usr/bin/pgrep", ["-LF", path])
        row(
            "3", "fpxd.pid is removed: pgrep -LF", "\(id)",
            status == 0 ? output.trimmingCharacters(in: .newlines) : "\(status)")
        let (second, complaint) = try run(
            try Programs.path("fpxd"), ["--home", daemon.home, "--segment", daemon.segmentPath + ".second"])
        let found = complaint.firstMatch(of: /found fpxd running there \(process \d+\)/).map { "\($0.0)" }
        row(
            "3", "fpxd.pid is removed: a second fpxd with this run-folder", "1, found fpxd running there (process \(id))",
            "\(second), \(found ?? complaint)")
        try daemon.end(by: SIGTERM)
    }

    /// Who puts a link there has the lock in another place, and a file in the place of the folder can be taken away again.
    @Test func somethingElseInTheRunFoldersPlace() throws {
        let daemon = try DaemonControl()
        let path = daemon.runFolder + "/fpxd.pid"
        unlink(path)
        try #require(symlink(daemon.home + "/elsewhere.pid", path) == 0)
        #expect(try daemon.hasEvent("another file has the name \(path): it is made anew"))
        // At the second look it is its own.
        sleep(2)
        let (status, output) = try run("/usr/bin/pgrep", ["-LF", path])
        let found = status == 0 ? Int32(output.trimmingCharacters(in: .newlines)) : nil
        row(
            "3", "fpxd.pid is a link", "locked by fpxd, no trouble",
            "\(found == daemon.processID ? "locked by fpxd" : output), "
                + (try daemon.troubles().isEmpty ? "no trouble" : "trouble"))
        try FileManager.default.removeItem(atPath: daemon.runFolder)
        try Data().write(to: URL(filePath: daemon.runFolder))
        let sentence = "\(daemon.runFolder): found a file, expected a folder"
        let isTold = eventually(within: 20) { daemon.log.contains(sentence) }
        row("3", "a file has the place of the run-folder", "told in the log", isTold ? "told in the log" : daemon.log)
        unlink(daemon.runFolder)
        let isBack = try eventually(within: 20) {
            try daemon.ask("get", "system", "status").status == 0 && daemon.troubles() == []
        }
        row("3", "the file is taken away", "answers again", isBack ? "answers again" : "silent")
        try daemon.end(by: SIGTERM)
    }

    // MARK: The unit

    @Test(arguments: ["empty", "junk", "a pipe", "a folder", "1 GB", "a link that leads nowhere"])
    func theUnitsIDIsSpoilt(_ kind: String) throws {
        let daemon = try DaemonControl(flags: ["--authority", "https://127.0.0.1:9"])
        let id = try daemon.unitID()
        try daemon.end(by: SIGTERM)
        let path = daemon.stateFolder + "/unit"
        unlink(path)
        switch kind {
        case "empty": try Data().write(to: URL(filePath: path))
        case "junk": try Data("6B7E\u{0}\n".utf8).write(to: URL(filePath: path))
        case "a pipe": try #require(mkfifo(path, 0o600) == 0)
        case "a folder": try #require(mkdir(path, 0o700) == 0)
        case "1 GB": try #require(try run("/usr/bin/truncate", ["-s", "1G", path]).status == 0)
        default: try #require(symlink(path + ".none", path) == 0)
        }
        var before = stat()
        try #require(lstat(path, &before) == 0)
        try daemon.start()
        var after = stat()
        row(
            "4", "the unit's id is \(kind)", "left as it is",
            lstat(path, &after) == 0 && after.st_ino == before.st_ino && after.st_size == before.st_size
                ? "left as it is" : "overwritten")
        let trouble = try daemon.troubles().first { $0.contains("The unit's id: \(path): found ") } ?? "nothing"
        row(
            "4", "the unit's id is \(kind): the status", "the authority is not asked",
            trouble.contains("the authority is not asked") ? "the authority is not asked" : trouble)
        #expect(try daemon.hasEvent("The unit's id: \(path): found "))
        let (status, answer) = try daemon.ask("set", "renew_license")
        #expect(status != 0 && answer.contains("The unit's id: "), "\(answer)")
        // As it says: without the file the id is the one of the key.
        try FileManager.default.removeItem(atPath: path)
        try daemon.end(by: SIGTERM)
        try daemon.start()
        row("4", "the unit's id is \(kind), and is removed", id, try daemon.unitID())
        try daemon.end(by: SIGTERM)
    }

    @Test func theUnitsIDIsLost() throws {
        let daemon = try DaemonControl()
        let id = try daemon.unitID()
        #expect(try daemon.hasEvent("This is a new unit: \(id)"))
        try daemon.end(by: SIGTERM)
        unlink(daemon.stateFolder + "/unit")
        try daemon.start()
        row("4", "the unit's id is lost, and its key is there", id, try daemon.unitID())
        #expect(try daemon.hasEvent("unit \(id) goes on by the id that is derived from unit.key"))
        try daemon.end(by: SIGTERM)
        // A key that is lost is another unit's to the authority.
        unlink(daemon.stateFolder + "/unit.key")
        try daemon.start()
        #expect(try daemon.unitID() == id)
        #expect(try daemon.hasEvent("Unit \(id) has a new key"))
        try daemon.end(by: SIGTERM)
        try Data("junk".utf8).write(to: URL(filePath: daemon.stateFolder + "/unit.key"))
        try daemon.start()
        #expect(try daemon.troubles().contains { $0.hasPrefix("The unit's key: ") })
        #expect(daemon.state(["unit.key"])["unit.key"] == Data("junk".utf8))
        try daemon.end(by: SIGTERM)
    }

    // MARK: The state folder while fpxd runs

    private static let kept = ["unit", "unit.key", "license.lic", "authority", "clock"]

    @Test func theStateFolderIsRemoved() throws {
        let authority = try AuthorityControl()
        let daemon = try DaemonControl(authority: authority)
        try expectEventually("the first licence") { try daemon.fpx("get", "system", "status").contains("License: Active") }
        let names = Self.kept.filter { $0 != "clock" } + ["keys/" + (try Self.announcedKey(daemon))]
        let before = daemon.state(names)
        #expect(!before.values.contains(Data()))
        try daemon.removeState()
        let isBack = eventually(within: 20) {
            daemon.state(names) == before && daemon.state(["clock"])["clock"] != Data()
        }
        row("5", "the state folder is removed", "as it was", isBack ? "as it was" : "not: \(daemon.state(names))")
        var status = stat()
        #expect(stat(daemon.stateFolder, &status) == 0 && status.st_mode & 0o777 == 0o750)
        #expect(try daemon.hasEvent("\(daemon.stateFolder) was removed: "))
        let trouble = try daemon.troubles().first { $0.contains("was removed: ") }
        row("5", "the state folder is removed: the status", "told", trouble == nil ? "nothing" : "told")
        let commit = try daemon.fpx("commit")
        row("5", "the state folder is removed: commit", "told", commit.contains("was removed: ") ? "told" : commit)
        #expect(try daemon.troubles() == [])
        let id = try daemon.unitID()
        // With what is there again the unit is the same, to itself and to the authority.
        try daemon.end(by: SIGKILL)
        try daemon.start()
        row("5", "the state folder is removed: the unit after a restart", id, try daemon.unitID())
        let renewed = try daemon.fpx("set", "renew_license")
        #expect(try daemon.fpx("get", "system", "status").contains("License: Active"), "\(renewed)")
        #expect(try authority.licenses().count == 1)
        try daemon.end(by: SIGTERM)
    }

    private static func announcedKey(_ daemon: DaemonControl) throws -> String {
        try #require(try FileManager.default.contentsOfDirectory(atPath: daemon.stateFolder + "/keys").first)
    }

    /// At the moment of the removal a commit may be the first to see it.
    @Test func aCommitAfterTheRemoval() throws {
        let daemon = try DaemonControl()
        try daemon.removeState()
        let commit = try daemon.fpx("commit")
        row(
            "5", "commit right after the state folder is removed", "told",
            commit.contains("\(daemon.stateFolder) was removed: ") ? "told" : commit)
        #expect(access(daemon.stateFolder + "/unit.key", F_OK) == 0)
        try daemon.end(by: SIGTERM)
    }

    @Test(arguments: ["unit", "unit.key", "license.lic", "authority"]) func aFileOfTheStateIsRemoved(_ name: String) throws {
        let daemon = try DaemonControl()
        let before = daemon.state([name])
        try #require(before[name] != Data())
        unlink(daemon.stateFolder + "/" + name)
        let isBack = eventually(within: 20) { daemon.state([name]) == before }
        row("6", "\(name) is removed from the state folder", "as it was", isBack ? "as it was" : "gone")
        #expect(try daemon.hasEvent("\(daemon.stateFolder): \(name) was removed, and is written anew from memory"))
        try daemon.end(by: SIGTERM)
    }

    @Test func theStateCannotBeWritten() throws {
        let daemon = try DaemonControl()
        let away = daemon.stateFolder + ".away"
        try #require(rename(daemon.stateFolder, away) == 0)
        // Nobody can make a folder where a file is.
        try Data().write(to: URL(filePath: daemon.stateFolder))
        let isTold = try eventually(within: 20) { try daemon.troubles().contains { $0.contains(daemon.stateFolder) } }
        row("6", "a file has the place of the state folder", "told in the status", isTold ? "told in the status" : "nothing")
        unlink(daemon.stateFolder)
        let isBack = try eventually(within: 20) {
            try access(daemon.stateFolder + "/unit.key", F_OK) == 0
                && !daemon.troubles().contains { $0.contains("is not on disk") }
        }
        row("6", "the file is taken away", "written anew", isBack ? "written anew" : "\(try daemon.troubles())")
        try daemon.end(by: SIGTERM)
    }

    /// What lies in the way is named, and not the system call that failed.
    @Test(arguments: ["license.lic", "clock"]) func aFolderHasTheNameOfAFile(_ name: String) throws {
        let daemon = try DaemonControl()
        try daemon.end(by: SIGTERM)
        let path = daemon.stateFolder + "/" + name
        unlink(path)
        try #require(mkdir(path, 0o700) == 0)
        try daemon.start()
        let status = try daemon.fpx("get", "system", "status")
        let trouble = status.split(separator: "\n").first { $0.contains("is not on disk: ") } ?? "nothing"
        row(
            "6", "a folder has the name of \(name)", "\(path): found a folder, expected a regular file",
            trouble.components(separatedBy: "is not on disk: ").last ?? "")
        try daemon.end(by: SIGTERM)
    }

    // MARK: Events

    @Test(arguments: ["a folder", "a pipe", "a link to /dev/full"]) func eventsCannotBeWritten(_ kind: String) throws {
        let daemon = try DaemonControl()
        let path = daemon.stateFolder + "/events.jsonl"
        unlink(path)
        switch kind {
        case "a folder": try #require(mkdir(path, 0o700) == 0)
        case "a pipe": try #require(mkfifo(path, 0o600) == 0)
        default: try #require(symlink("/dev/full", path) == 0)
        }
        _ = try daemon.fpx("config", "system", "global", "set", "session-warning", "71", "end")
        let isTold = try eventually(within: 20) {
            try daemon.troubles().contains { $0.hasPrefix("Events are not on disk: \(path): found a ") }
                && daemon.log.contains("[ERROR] Events are not on disk: ")
        }
        row("7", "events.jsonl is \(kind)", "told in log and status", isTold ? "told in log and status" : daemon.log)
        try FileManager.default.removeItem(atPath: path)
        let isWritten = eventually(within: 20) {
            (try? String(contentsOfFile: path, encoding: .utf8))?.contains("session-warning 71") == true
        }
        row("7", "events.jsonl was \(kind): events of meanwhile", "written", isWritten ? "written" : "lost")
        #expect(try daemon.troubles() == [])
        try daemon.end(by: SIGTERM)
    }

    /// Each event is there once and whole when there is room again, also the one that the disk took a part of.
    @Test(.enabled(if: TemporaryFileSystem.isPermitted, "mounting takes root")) func eventsOnAFullDisk() throws {
        let daemon = try DaemonControl()
        try daemon.end(by: SIGTERM)
        let disk = try TemporaryFileSystem(bytes: 64 << 10)
        try FileManager.default.removeItem(atPath: daemon.stateFolder)
        try FileManager.default.createSymbolicLink(atPath: daemon.stateFolder, withDestinationPath: disk.path)
        try daemon.start()
        try disk.fill()
        for percent in 11...70 {
            _ = try daemon.fpx("config", "system", "global", "set", "session-warning", "\(percent)", "end")
        }
        let path = daemon.stateFolder + "/events.jsonl"
        let trouble = "Events are not on disk: \(path): write failed: No space left on device"
        let isTold = try eventually(within: 20) { try daemon.troubles().contains(trouble) }
        row("7", "the disk of the events is full", "told in the status", isTold ? "told in the status" : "nothing")
        disk.makeRoom()
        let isOver = try eventually(within: 20) { try !daemon.troubles().contains(trouble) }
        #expect(isOver && daemon.log.components(separatedBy: trouble).count == 2, "told once")
        struct Event: Decodable { var message: String }
        let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
        let messages = lines.compactMap { try? JSONDecoder().decode(Event.self, from: Data($0.utf8)).message }
        let there = (11...70).count { percent in messages.count { $0.hasPrefix("set session-warning \(percent),") } == 1 }
        row(
            "7", "the disk of the events has room again: events of meanwhile", "60 of 60, each line whole",
            "\(there) of 60, "
                + (messages.count == lines.count ? "each line whole" : "\(lines.count - messages.count) broken lines"))
        try daemon.end(by: SIGTERM)
    }

    // MARK: Names and values that are none

    @Test func emptyNamesAndUnknownVariables() throws {
        let folder = try TemporaryFolder()
        let fpxd = try Programs.path("fpxd")
        for (situation, command, expected) in [
            ("--home ''", "\(fpxd) -t --home ''", "flag --home: found \"\", expected a path"),
            ("--config ''", "\(fpxd) -t --home \(folder.path) --config ''", "flag --config: found \"\", expected a path"),
            ("FPX_HOME=", "FPX_HOME= \(fpxd) -t", "environment variable FPX_HOME: found \"\", expected a path"),
        ] {
            let (status, output) = try run("/bin/sh", ["-c", command])
            row("8", "fpxd \(situation)", "1, \(expected)", "\(status), \(output.contains(expected) ? expected : output)")
        }
        let (status, output) = try run("/bin/sh", ["-c", "FPX_LOGLEVEL=debug \(fpxd) -t --home \(folder.path)"])
        let expected =
            "environment variable FPX_LOGLEVEL: found none of that name, expected one of a setting, so it is ignored; did you "
            + "mean FPX_LOG_LEVEL?"
        row("8", "FPX_LOGLEVEL=debug", "0, told", "\(status), \(output.contains("[WARNING] " + expected) ? "told" : output)")
    }

    @Test func aMarkBeforeCommandsAndANameOfFpxd() throws {
        let daemon = try DaemonControl()
        let fpx = "\(try Programs.path("fpx")) --socket \(daemon.controlSocket)"
        let (status, output) = try run("/bin/bash", ["-c", "printf '\\xEF\\xBB\\xBFget system status\\r\\n' | \(fpx)"])
        row("8", "commands from a file with a byte order mark", "0", status == 0 ? "0" : "\(status): \(output)")
        let id = "\(try #require(daemon.processID))"
        var names: Set<String> = []
        for line in try daemon.fpx("diagnose", "wad", "session", "stats").split(separator: "\n") {
            let words = line.split(separator: " ").map(String.init)
            if words.count > 6, words[1] == id { names.insert(words[2]) }
        }
        row("8", "what session stats calls fpxd", "fpxd", names.sorted().joined(separator: ", "))
        try daemon.end(by: SIGTERM)
    }
}
