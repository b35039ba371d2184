import Admission
import Foundation
import TestSupport
import Testing

extension EndToEnd {
    /// Real haproxy and fpxd: the journal of haproxy's sessions is lost, or the segment, or the memory for both.
    @Suite struct FieldJournalTests {}
}

private let mayMount = ConditionTrait.enabled(
    if: TemporaryFileSystem.isPermitted, "mounting a tmpfs takes root: run this as root")

/// What befalls the file.
enum JournalFate: String, CaseIterable, Sendable {
    case removed = "rm"
    case emptied = "truncate -s 0"
    case cut = "truncate -s 200000"
    case junk = "junk over all of it"
    case zeros = "zeros over its records"
    case folder = "a folder in its place"

    fileprivate func befall(_ path: String) throws {
        let commands =
            switch self {
            case .removed: "rm \(path)"
            case .emptied: "truncate -s 0 \(path)"
            case .cut: "truncate -s 200000 \(path)"
            case .junk: "dd if=/dev/urandom of=\(path) bs=64k count=200 conv=notrunc status=none"
            case .zeros: "dd if=/dev/zero of=\(path) bs=4k seek=1 count=4000 conv=notrunc status=none"
            case .folder: "rm \(path) && mkdir \(path)"
            }
        let (status, output) = try run("/bin/sh", ["-c", commands])
        if status != 0 { throw EndToEndError.notReady(what: commands, log: output) }
    }
}

private struct Site {
    static let cap = 3
    let control: DaemonControl
    let haproxy: HAProxy
    var journal: String { control.segmentPath + ".sessions" }

    init(segment: String = newSegmentPath(), cap: Int = cap) throws {
        control = try DaemonControl(segment: segment, cap: cap)
        haproxy = try HAProxy(agent: control.runFolder)
    }

    func cleanUp() { _ = try? run("/bin/rm", ["-rf", journal + ".damaged", journal]) }

    /// Starts fpxd again, and waits until haproxy has found it.
    func restart(_ signal: Int32, _ between: () throws -> Void = {}) throws {
        try control.end(by: signal)
        try haproxy.awaitAgent(false)
        try between()
        try control.start()
        try haproxy.awaitAgent()
    }

    func awaitInUse(_ count: Int, sourceLocation: SourceLocation = #_sourceLocation) throws {
        try expectEventually("\(count) in use: \(control.log.suffix(3000))", sourceLocation: sourceLocation) {
            try control.inUseByCommand() == count
        }
    }

    /// Critical events about the sessions of wire hooks.
    func critical() throws -> [Substring] {
        try control.fpx("get", "system", "events").split(separator: "\n").filter {
            $0.contains("critical") && $0.contains("hook")
        }
    }
}

extension EndToEnd.FieldJournalTests {
    /// The old fault: nobody was told, and the next life of fpxd counted nobody.
    @Test(arguments: JournalFate.allCases) func theJournalIsLostWhileFpxdRuns(_ fate: JournalFate) throws {
        let site = try Site()
        defer { site.cleanUp() }
        let held = try site.haproxy.open(3, .stream)
        try #require(held.count(of: .inspect) == 3)
        try fate.befall(site.journal)
        try expectEventually("it is written anew: \(site.control.log)") { try !site.critical().isEmpty }
        try site.restart(SIGKILL)
        let more = try site.haproxy.open(3, .stream)
        let events = try site.critical()
        let atOnce = (held + more).count(of: .inspect)
        held.close()
        try site.awaitInUse(0)
        #expect(
            Field.row(
                "journal.1",
                "\(fate.rawValue) of segment.sessions while fpxd runs, 3 of 3 in use; then fpxd is killed and started",
                expected: "3 inspected at once; 1 critical event, written anew, 3 sessions; 0 in use when they have ended",
                found: "\(atOnce) inspected at once; \(events.count) critical event, "
                    + (events.first?.contains("written anew, and 3 sessions") == true
                        ? "written anew, 3 sessions" : "\(events)")
                    + "; \(try site.control.inUseByCommand()) in use when they have ended"))
        more.close()
    }

    /// The old faults: fpxd did not start, or counted nobody.
    @Test(arguments: JournalFate.allCases) func theJournalIsLostWhileFpxdIsDown(_ fate: JournalFate) throws {
        let site = try Site()
        defer { site.cleanUp() }
        let held = try site.haproxy.open(5, .stream)
        try #require(held.count(of: .inspect) == 3)
        try site.restart(SIGTERM) { try fate.befall(site.journal) }
        let more = try site.haproxy.open(3, .stream)
        let atOnce = (held + more).count(of: .inspect)
        let log = site.control.log
        // A file that was cut may have kept all records.
        let unknown = log.contains("sessions of wire hooks stay counted though")
        #expect(unknown || fate == .cut)
        let isAside = FileManager.default.fileExists(atPath: site.journal + ".damaged")
        #expect(isAside == (fate != .removed))
        #expect(log.contains("[CRITICAL] \(site.journal): "))
        // Their proxy's word does not end them, and fpxd's next life knows them as well.
        held.close()
        more.close()
        try expectEventually("the others end") {
            try !site.control.fpx("diagnose", "wad", "session", "list").contains("haproxy")
        }
        try site.restart(SIGKILL)
        let inUse = try site.control.inUseByCommand()
        if unknown { #expect(inUse == 3) }
        let cleared = try site.control.fpx("diagnose", "wad", "session", "clear", "unknown")
        if unknown { #expect(cleared == "Cleared: 5 sessions\n") }
        try site.awaitInUse(0)
        let again = try site.haproxy.open(4, .stream)
        #expect(
            Field.row(
                "journal.2", "\(fate.rawValue) of segment.sessions while fpxd is down, 3 of 3 in use",
                expected: "3 inspected at once; 3 again after `session clear unknown`",
                found: "\(atOnce) inspected at once; \(again.count(of: .inspect)) again after `session clear unknown`"))
        again.close()
    }

    /// The old fault: "sessions of wire hooks in a removed segment cannot be followed", 7 of 3.
    @Test(arguments: ["found through /proc", "gone", "cut to 100000 bytes"])
    func theSegmentIsLostWhileFpxdIsDown(_ former: String) throws {
        let site = try Site()
        defer { site.cleanUp() }
        var held = try site.haproxy.open(5, .stream)
        try #require(held.count(of: .inspect) == 3)
        // This process has the segment open.
        if former != "found through /proc" { site.control.leaveSegment() }
        try site.restart(SIGKILL) {
            // One ends while nobody looks.
            held.removeFirst().socket.close()
            let path = site.control.segmentPath
            if former.hasPrefix("cut") { try #require(truncate(path, 100_000) == 0) } else { unlink(path) }
        }
        try site.awaitInUse(2)
        let listed = try site.control.counters()["listed"] ?? 0
        let more = try site.haproxy.open(3, .stream)
        let atOnce = (held + more).count(of: .inspect)
        held.close()
        more.close()
        try site.awaitInUse(0)
        let again = try site.haproxy.open(4, .stream)
        #expect(
            Field.row(
                "journal.3",
                "the segment is lost while fpxd is down, 3 of 3 in use and 2 bypassed, one ends; the former is \(former)",
                expected: "4 followed; 3 inspected at once; 3 of 4 when they have ended",
                found: "\(listed) followed; \(atOnce) inspected at once; \(again.count(of: .inspect)) of 4 when they have ended"
            ))
        #expect(site.control.log.contains("The segment is a new one: "))
        again.close()
    }

    /// Both at once, while a worker has the former segment: its handles are all that is left.
    @Test func segmentAndJournalAreRemovedWhileFpxdIsDown() throws {
        let site = try Site()
        defer { site.cleanUp() }
        let held = try site.haproxy.open(5, .stream)
        try #require(held.count(of: .inspect) == 3)
        try site.restart(SIGKILL) {
            unlink(site.control.segmentPath)
            unlink(site.journal)
        }
        let more = try site.haproxy.open(3, .stream)
        #expect(
            Field.row(
                "journal.4", "rm of segment and segment.sessions while fpxd is down, a worker has the segment, 3 of 3 in use",
                expected: "3 inspected at once, 5 unknown",
                found: "\((held + more).count(of: .inspect)) inspected at once, "
                    + (site.control.log.contains("5 sessions of wire hooks stay counted though") ? "5" : "other than 5")
                    + " unknown"))
        (held + more).close()
    }

    @Test(mayMount) func noMemoryForSessions() throws {
        let disk = try TemporaryFileSystem(bytes: 8 << 20)
        let site = try Site(segment: disk.path + "/segment", cap: 200)
        func count(_ text: String) throws -> Int {
            try site.control.fpx("get", "system", "events").split(separator: "\n").count { $0.contains(text) }
        }
        let (short, enough) = ("No room for new sessions of wire hooks", "Room for new sessions of wire hooks again")
        #expect(try count(short) == 0)
        try disk.fill()
        try expectEventually("it is told") { try count(short) == 1 }
        func isInTheStatus() throws -> Bool {
            try site.control.fpx("get", "system", "status").contains("Trouble: \(short)")
        }
        #expect(try isInTheStatus())
        // Sessions find room in pages that are there, and then none.
        var held: [Client] = []
        try expectEventually("sessions are bypassed") {
            held += try site.haproxy.open(10, .stream)
            return held.contains { $0.outcome == .bypass }
        }
        let inspected = held.count(of: .inspect)
        #expect(try site.control.counters()["exhausted"] ?? 0 > 0)
        #expect(try site.control.inUseByCommand() == inspected)
        try site.restart(SIGKILL)
        try expectEventually("it is told at a start") { try count(short) == 2 }
        #expect(try site.control.inUseByCommand() == inspected)
        let before = try count(enough)
        disk.makeRoom()
        try expectEventually("it is told when it is over") { try count(enough) == 1 }
        #expect(try !isInTheStatus())
        let late = try site.haproxy.open(5, .stream)
        #expect(
            Field.row(
                "journal.5", "the tmpfs of the segment is full with free seats; fpxd is started anew; room is made",
                expected: "told 2 times, then 1 end; 5 of 5 inspected",
                found: "told \(try count(short)) times, then \(try count(enough) - before) end; "
                    + "\(late.count(of: .inspect)) of 5 inspected"))
        (held + late).close()
    }
}
