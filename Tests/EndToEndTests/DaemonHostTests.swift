import Admission
import Foundation
import Testing

extension EndToEnd {
    /// fpxd and its host: service manager, owners and modes of files, a disk that does not answer.
    @Suite struct DaemonOnItsHost {}
}

extension EndToEnd.DaemonOnItsHost {
    /// Ready when it answers, alive all the time, and stopping when the end begins: not when all is over.
    @Test func theServiceManagerIsTold() throws {
        let manager = try NotifySocket()
        let daemon = try DaemonControl(
            launcher: ["/usr/bin/env", "NOTIFY_SOCKET=\(manager.path)", "WATCHDOG_USEC=200000"])
        var heard: [String] = []
        while heard.count(where: { $0 == "WATCHDOG=1" }) < 5 || !heard.contains("READY=1") {
            heard.append(manager.receive())
            try #require(heard.last != "", "nothing came for 10 seconds after \(heard)")
        }
        #expect(heard.count { $0 == "READY=1" } == 1)
        #expect(Set(heard) == ["READY=1", "WATCHDOG=1"])
        // A request in progress keeps it from stopping at once.
        let late = try RawConnection(daemon.controlSocket)
        late.send("PATCH /v1/config HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
        #expect(try daemon.ask("get", "system", "status").status == 0)
        kill(try #require(daemon.processID), SIGTERM)
        var last = manager.receive()
        while last == "WATCHDOG=1" { last = manager.receive() }
        #expect(last == "STOPPING=1")
        late.send("}")
        #expect(late.receive().flatMap(Answer.init)?.errorCode == "bad_request", "the request in progress is answered")
        expectEventually("fpxd stops") { daemon.log.contains("stopped") }
        #expect(daemon.log.contains("[INFO] \(try daemon.version()) stopped"))
    }

    /// A disk that does not answer holds up what is written, not the giving back of what the dead held.
    @Test func aDiskThatHangsHoldsUpNoReaping() throws {
        let manager = try NotifySocket()
        let daemon = try DaemonControl(
            cap: 1, launcher: ["/usr/bin/env", "NOTIFY_SOCKET=\(manager.path)", "WATCHDOG_USEC=200000"])
        // A full pipe in the place of the file: who writes to it waits.
        let events = daemon.home + "/state/events.jsonl"
        let hanging = daemon.home + "/state/pipe"
        try expectEventually("this process is noted, so that the next event is the one below") {
            try String(contentsOfFile: events, encoding: .utf8).contains("(\(getpid())) attached")
        }
        try #require(mkfifo(hanging, 0o600) == 0)
        let pipe = open(hanging, O_RDWR | O_NONBLOCK)
        defer { _ = close(pipe) }
        let block = [UInt8](repeating: UInt8(ascii: "\n"), count: 4096)
        while write(pipe, block, block.count) > 0 {}
        try #require(rename(hanging, events) == 0)
        let segment = try daemon.attach()
        let pool = try segment.pool(0)
        #expect(pool.admit().detach() == .inspect)
        expectEventually("an event is about to be written") { daemon.log.contains("Licensed sessions of furl: 1 of 1 in use") }
        manager.forget()
        for _ in 0..<10 { try #require(manager.receive() == "WATCHDOG=1") }
        try daemon.end(by: SIGKILL)
    }

    @Test func filesAreForTheGroupAlone() throws {
        let daemon = try DaemonControl()
        let group = try #require(getgrnam("www-data")).pointee.gr_gid
        for (path, mode) in [
            (daemon.segmentPath, 0o660), (daemon.controlSocket, 0o660), (daemon.runFolder + "/spoa.sock", 0o660),
            (daemon.runFolder + "/ring.sock", 0o660), (daemon.runFolder, 0o750),
        ] {
            var status = stat()
            #expect(stat(path, &status) == 0)
            #expect(status.st_mode & 0o777 == mode_t(mode), "\(path)")
            if geteuid() == 0 { #expect(status.st_gid == group, "\(path)") }
        }
        // The log has the time, and the level in brackets.
        let log = try String(contentsOfFile: daemon.home + "/fpxd.log", encoding: .utf8)
        for line in log.split(separator: "\n") {
            #expect(try /\d{4}-\d\d-\d\dT[0-9:]+Z \[(INFO|WARNING)\] .+/.wholeMatch(in: line) != nil, "\(line)")
        }
    }

    /// The folders may be there before fpxd, made by the service manager, and the segment from a time of another group.
    @Test(.enabled(if: geteuid() == 0, "needs root, to give files away"))
    func theGroupIsLetInAtEachStart() throws {
        let folder = newSegmentPath()
        let daemon = try DaemonControl(segment: folder + "/segment")
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try daemon.end(by: SIGTERM)
        for path in [daemon.runFolder, folder, daemon.segmentPath] { #expect(chown(path, 0, 0) == 0) }
        #expect(chmod(daemon.segmentPath, 0o600) == 0)
        try daemon.start()
        let group = try #require(getgrnam("www-data")).pointee.gr_gid
        for (path, mode) in [(daemon.runFolder, 0o750), (folder, 0o750), (daemon.segmentPath, 0o660)] {
            var status = stat()
            #expect(stat(path, &status) == 0)
            #expect(status.st_gid == group, "\(path)")
            #expect(status.st_mode & 0o777 == mode_t(mode), "\(path)")
        }
        // A folder that is open to everybody is not for fpxd alone.
        try daemon.end(by: SIGTERM)
        #expect(chown(folder, 0, 0) == 0 && chmod(folder, 0o755) == 0)
        try daemon.start()
        var status = stat()
        #expect(stat(folder, &status) == 0)
        #expect(status.st_gid == 0 && status.st_mode & 0o777 == 0o755)
    }

    /// Whoever comes first in /dev/shm could otherwise write what caps and counts there are.
    @Test(.enabled(if: geteuid() == 0, "needs root, to give files away"))
    func aSegmentInAnothersFolderIsRefused() throws {
        let home = try TemporaryFolder()
        let folder = newSegmentPath()
        let files = FileManager.default
        func refusal() throws -> String {
            let fpxd = try Programs.path("fpxd")
            // One that is not refused would serve for ever.
            let (status, output) = try run(
                "/usr/bin/timeout", ["10", fpxd, "--home", home.path, "--segment", folder + "/segment"])
            #expect(status == 1, "\(output)")
            return output
        }
        defer { try? files.removeItem(atPath: folder) }
        try files.createDirectory(atPath: folder, withIntermediateDirectories: false)
        #expect(chown(folder, 65534, 0) == 0 && chmod(folder, 0o755) == 0)
        #expect(try refusal().contains("\(folder): found a folder of user 65534 with mode 755, expected one of root"))
        #expect(chown(folder, 0, 0) == 0 && chmod(folder, 0o777) == 0)
        #expect(try refusal().contains("\(folder): found a folder of user 0 with mode 777, expected one of root"))
        // In a sticky folder a file can still be another's.
        #expect(chmod(folder, 0o1777) == 0)
        try Data().write(to: URL(filePath: "\(folder)/segment"))
        #expect(chown("\(folder)/segment", 65534, 0) == 0)
        #expect(try refusal().contains("\(folder)/segment: found a file of user 65534, expected a file of root"))
        unlink("\(folder)/segment")
        try files.removeItem(atPath: folder)
        try files.createSymbolicLink(atPath: folder, withDestinationPath: "/dev/shm")
        #expect(try refusal().contains("\(folder): found a link of user 0, expected a folder of root"))
    }
}
