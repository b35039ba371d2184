@testable import Admission
import Foundation
import Synchronization
import TestSupport
import Testing

extension EndToEnd {
    /// Real nginx and fpxd: the file system of the segment is full, its file goes away, old workers are many.
    @Suite struct FieldSegmentTests {}
}

private let mayMount = ConditionTrait.enabled(
    if: TemporaryFileSystem.isPermitted, "mounting a tmpfs takes root: run this as root")

extension NGINX {
    /// Deaths of workers that nobody asked for.
    fileprivate var signals: Int { log.components(separatedBy: "exited on signal").count - 1 }

    /// Whether a worker, old or new, still has a segment without a name in its memory.
    fileprivate func hasRemovedSegment(_ path: String) throws -> Bool {
        try (workers() + oldWorkers()).contains { worker in
            let maps = (try? String(contentsOfFile: "/proc/\(worker)/maps", encoding: .utf8)) ?? ""
            return maps.contains("\(path) (deleted)")
        }
    }

    /// Opens sessions until so many are inspected: what is free again is so after the next reaping.
    fileprivate func openInspected(_ count: Int, _ face: Face) throws -> [Client] {
        var clients: [Client] = []
        expectEventually("\(count) sessions are inspected, \(log.suffix(500))") {
            if let client = try? open(face), client.outcome == .inspect { clients.append(client) }
            return clients.count == count
        }
        return clients
    }
}

extension DaemonControl {
    fileprivate var replacements: Int { log.components(separatedBy: "replaced: new sessions are counted").count - 1 }

    fileprivate func awaitReplacement() { expectEventually("fpxd replaces the segment: \(log)") { replacements == 1 } }
}

// MARK: - A full file system

extension EndToEnd.FieldSegmentTests {
    @Test(mayMount, arguments: Face.allCases, ["open", "closed"])
    func nginxIsReloadedOnAFullFileSystem(_ face: Face, _ fail: String) throws {
        let disk = try TemporaryFileSystem(bytes: 4 << 20)
        let control = try DaemonControl(segment: disk.path + "/segment", cap: 5)
        var settings = NGINXSettings()
        settings.workers = 2
        settings.httpServer += "fpx_fail \(fail);"
        settings.stream += "fpx_fail \(fail);"
        let nginx = try NGINX(segment: control.segmentPath, settings)
        let held = try nginx.open(3, face)
        try disk.fill()
        // Workers that are attached go on, exactly.
        let more = try nginx.open(4, face)
        let before = "\((held + more).count(of: .inspect)) inspected, \(more.count(of: .bypass)) bypassed"
        try nginx.reload()
        let outcome: Outcome = fail == "open" ? .bypass : .refused
        let late = try nginx.open(4, face)
        let after = "\(late.count(of: outcome)) \(outcome)"
        #expect(try control.figures().inUse == 5)
        #expect(try control.ask("get", "system", "status").status == 0)
        (held + more).close()
        disk.makeRoom()
        let again = try nginx.openInspected(5, face)
        #expect(
            Field.row(
                "nginx.1", "the segment's tmpfs fills up, cap 5, then nginx is reloaded: \(face), fpx_fail \(fail)",
                expected: "5 inspected, 2 bypassed; reloaded: 4 \(outcome); with room: 5 inspected; no signal",
                found: "\(before); reloaded: \(after); with room: \(again.count) inspected; "
                    + (nginx.signals == 0 ? "no signal" : "\(nginx.signals) signals")))
        #expect(nginx.log.contains("fpx: \(control.segmentPath): found no room for"))
        late.close()
    }

    @Test(mayMount) func fpxdStartsOnAFullFileSystem() throws {
        let disk = try TemporaryFileSystem(bytes: 4 << 20)
        let control = try DaemonControl(segment: disk.path + "/segment", cap: 5)
        let nginx = try NGINX(segment: control.segmentPath)
        let held = try nginx.open(3, .stream)
        try disk.fill()
        try control.end(by: SIGKILL)
        try control.start()
        let restarted = try control.inUseByCommand()
        // Where there is no segment yet, none can be made.
        let folder = try TemporaryFolder()
        let first = try ChildProcess.run(
            [Programs.path("fpxd"), "--home", folder.path + "/home", "--segment", disk.path + "/first"], within: .seconds(60))
        let error = first.text.split(separator: "\n").last.map(String.init) ?? ""
        #expect(
            Field.row(
                "nginx.2", "fpxd starts on a full tmpfs: again, and for the first time",
                expected: "3 in use; status 1, found no room",
                found: "\(restarted) in use; status \(first.status), "
                    + (error.contains("found no room for 8192 bytes (ENOSPC)") ? "found no room" : first.text)))
        #expect(!FileManager.default.fileExists(atPath: disk.path + "/first"))
        held.close()
    }
}

extension EndToEnd.FieldSegmentTests {
    /// What was removed keeps its room while somebody has it: fpxd is not to be the one.
    @Test(mayMount) func theRemovedSegmentHasTheRoomOfTheNewOne() throws {
        let disk = try TemporaryFileSystem(bytes: 2 << 20)
        let control = try DaemonControl(segment: disk.path + "/segment", cap: 25)
        let workers = try (0..<3).map { _ in try Segment.attach(path: control.segmentPath) }
        try disk.fill()
        unlink(control.segmentPath)
        try expectEventually("fpxd says that there is no room") {
            try control.ask("get", "system", "status").output.contains("no new one can be made")
        }
        let held = try workers.reduce(0) { $0 + fill(try $1.pool(0)) }
        control.leaveSegment()  // this process has it open by its observer too
        for worker in workers { worker.detach() }
        control.awaitReplacement()
        let new = try control.attachToCurrent()
        let more = fill(try new.pool(0))
        new.detach()
        let status = try control.ask("get", "system", "status").output
        #expect(
            Field.row(
                "segment.9", "the segment is removed on a full tmpfs, its 3 workers go on, and then leave, cap 25",
                expected: "25 in the old one; 25 in a new one when they have left; no trouble",
                found: "\(held) in the old one; \(more) in a new one when they have left; "
                    + (status.contains("Trouble: \(control.segmentPath)") ? status : "no trouble")),
            "\(control.log.suffix(2000))")
    }
}

// MARK: - The file goes away

extension EndToEnd.FieldSegmentTests {
    @Test(arguments: Face.allCases) func theFileIsRemovedUnderLoad(_ face: Face) throws {
        let control = try DaemonControl(cap: 20)
        var settings = NGINXSettings()
        settings.workers = 2
        let nginx = try NGINX(segment: control.segmentPath, settings)
        var held = try nginx.open(10, face)
        #expect(held.count(of: .inspect) == 10)
        let load = Load(nginx, face)
        defer { load.stop() }
        expectEventually("the load is inspected") { load.inspected > 20 }
        let sampler = try Sampler(control.segmentPath)
        unlink(control.segmentPath)
        let (silence, deadline) = try longestSilence(load, until: { sampler.newAdmissions > 0 })
        #expect(!deadline, "no worker has come to the new segment: \(control.log) \(nginx.log)")
        control.awaitReplacement()
        load.stop()
        // Workers see the end of the load's last connections a moment later.
        try expectEventually("the held ones are left") { try control.inUseByCommand() == 10 }
        let more = try nginx.open(30, face)
        held += more
        let highest = sampler.stop()
        #expect(
            Field.row(
                "nginx.3", "the segment's file is removed under load, 10 of 20 sessions held: \(face)",
                expected: "inspected again within 2 s, 10 more of 30, never more than 20",
                found: (silence < .seconds(2) ? "inspected again within 2 s" : "nobody is inspected for \(silence)")
                    + ", \(more.count(of: .inspect)) more of 30, "
                    + (highest <= 20 ? "never more than 20" : "\(highest) at once")))
        print("nginx \(face): the longest time without an inspected session after the removal: \(silence)")
        // What ends in the old one is free in the new one, and then nothing is left of the old one.
        held.close()
        let again = try nginx.openInspected(20, face)
        #expect(try nginx.open(face).outcome == .bypass)
        try expectEventually("workers have left the old segment") { try !nginx.hasRemovedSegment(control.segmentPath) }
        #expect(nginx.signals == 0)
        again.close()
    }

    /// The longest time in which no session of the load was inspected, and whether the end has not come within a minute.
    private func longestSilence(_ load: Load, until isOver: () -> Bool) throws -> (Duration, isLate: Bool) {
        var longest = Duration.zero
        var latest = (count: load.inspected, at: ContinuousClock.now)
        let came = eventually {
            let now = ContinuousClock.now
            longest = max(longest, now - latest.at)
            if load.inspected != latest.count { latest = (load.inspected, now) }
            return isOver()
        }
        return (longest, !came)
    }

    /// The old fault: after a restart of fpxd and a reload, old and new workers had the full cap each.
    @Test(arguments: Face.allCases, ["while fpxd runs", "while fpxd is down"])
    func theFileIsRemovedThenAllIsRestarted(_ face: Face, _ moment: String) throws {
        let control = try DaemonControl(cap: 20)
        var settings = NGINXSettings()
        settings.workers = 2
        let nginx = try NGINX(segment: control.segmentPath, settings)
        let held = try nginx.open(20, face)
        #expect(held.count(of: .inspect) == 20)
        if moment == "while fpxd runs" {
            unlink(control.segmentPath)
            control.awaitReplacement()
            try control.end(by: SIGTERM)
        } else {
            try control.end(by: SIGKILL)
            unlink(control.segmentPath)
            unlink(control.segmentPath + ".sessions")
        }
        try control.start()
        try nginx.reload()
        // New workers have come to the new segment.
        try expectEventually("new workers attach: \(nginx.log)") {
            try Segment.attachedProcesses(path: control.segmentPath) == 3
        }
        let fresh = try nginx.open(20, face)
        let inUse = try control.inUseByCommand()
        held.close()
        let again = try nginx.openInspected(20, face)
        #expect(
            Field.row(
                "nginx.4", "the segment's file is removed \(moment), cap 20 in use, then fpxd and nginx start anew: \(face)",
                expected: "20 + 0 in use, fpx says 20; 20 when they have ended",
                found: "20 + \(fresh.count(of: .inspect)) in use, fpx says \(inUse); \(again.count) when they have ended"))
        #expect(nginx.signals == 0)
        (fresh + again).close()
    }
}

// MARK: - While fpxd is down

/// What happens to the file of the segment before fpxd starts again.
enum Misfortune: String, CaseIterable, Sendable {
    case removed = "is removed"
    case cut = "is cut to 100000 bytes"
    case emptied = "is cut to 0 bytes"
    case header = "has junk in its first word"

    func happen(to path: String) throws {
        switch self {
        case .removed: unlink(path)
        case .cut: try #require(truncate(path, 100_000) == 0)
        case .emptied: try #require(truncate(path, 0) == 0)
        case .header: try overwrite(path, at: 0, with: [0xDEAD_BEEF])
        }
    }
}

extension EndToEnd.FieldSegmentTests {
    /// Workers that nobody tells anything count in the old segment, beside those that attach to the new one. So do those that have
    /// found it gone.
    @Test(arguments: Misfortune.allCases, [(before: 0, meanwhile: 0), (10, 0), (10, 3)])
    func whileFpxdIsDown(_ misfortune: Misfortune, _ sessions: (before: Int, meanwhile: Int)) throws {
        let (before, meanwhile) = sessions
        let control = try DaemonControl(cap: 20)
        var settings = NGINXSettings()
        settings.workers = 2
        let nginx = try NGINX(segment: control.segmentPath, settings)
        let held = try nginx.open(before, .stream)
        #expect(held.count(of: .inspect) == before)
        try control.end(by: SIGKILL)
        try misfortune.happen(to: control.segmentPath)
        let late = try nginx.open(meanwhile, .stream)
        try control.start()
        _ = try control.figures()  // this process leaves the old one
        // Another hook takes what there is; then come those of nginx.
        let other = try control.attachToCurrent()
        let taken = fill(try other.pool(0), atMost: 30)
        let more = try nginx.open(30, .stream)
        let sum = (held + late + more).count(of: .inspect) + taken
        for _ in 0..<taken { try other.pool(0).release(.inspect) }
        other.detach()
        (held + late + more).close()
        // A worker that has had no session since knows of nothing.
        if misfortune == .cut || misfortune == .emptied { try nginx.reload() }
        let again = try nginx.openInspected(20, .stream)
        #expect(
            Field.row(
                "nginx.7",
                "while fpxd is down the segment's file \(misfortune.rawValue), \(before) of 20 sessions held, "
                    + "\(meanwhile) more before it starts",
                expected: "at most 20 at once; 20 when they have ended; no signal",
                found: (sum <= 20 ? "at most 20 at once" : "\(sum) at once") + "; \(again.count) when they have ended; "
                    + (nginx.signals == 0 ? "no signal" : "\(nginx.signals) signals")))
        if misfortune == .removed { #expect(sum == 20) }
        #expect(control.log.contains("removed segment"), "\(control.log)")
        again.close()
    }
}

// MARK: - The file is cut

extension EndToEnd.FieldSegmentTests {
    /// What was counted in memory that is lost goes on, unseen. A worker counts with all that it can have there until it has closed
    /// the file, with its last session of before.
    @Test(arguments: Face.allCases) func theFileIsCut(_ face: Face) throws {
        let control = try DaemonControl(cap: 20)
        var settings = NGINXSettings()
        settings.workers = 2
        let nginx = try NGINX(segment: control.segmentPath, settings)
        let before = Set(try nginx.workers())
        let held = try nginx.open(10, face)
        #expect(held.count(of: .inspect) == 10)
        try #require(truncate(control.segmentPath, 0) == 0)
        let lost = try nginx.open(4, face)
        control.awaitReplacement()
        let more = try nginx.open(30, face)
        let inUse = 10 + (lost + more).count(of: .inspect)
        _ = try control.figures()  // this process leaves the old one
        (held + lost + more).close()
        let again = try nginx.openInspected(20, face)
        #expect(try Set(nginx.workers()) == before)
        #expect(
            Field.row(
                "nginx.6", "truncate -s 0 of the segment, 10 of 20 sessions held: \(face)",
                expected: "no signal, at most 20 in use; 20 when they have ended",
                found: (nginx.signals == 0 ? "no signal" : "\(nginx.signals) signals") + ", "
                    + (inUse <= 20 ? "at most 20 in use" : "\(inUse) in use") + "; \(again.count) when they have ended"))
        #expect(nginx.log.contains("found the segment lost or replaced by another"))
        again.close()
    }
}

// MARK: - Many old workers

extension EndToEnd.FieldSegmentTests {
    @Test func fortyFiveReloadsWithLongLivedConnections() throws {
        let control = try DaemonControl(cap: 500)
        var settings = NGINXSettings()
        settings.workers = 2
        let nginx = try NGINX(segment: control.segmentPath, settings)
        var held: [Client] = []
        for _ in 0..<45 {
            // Whichever worker takes them, most often both have one.
            held += try nginx.open(6, .http)
            try nginx.reload()
        }
        let old = try nginx.oldWorkers().count
        #expect(old > 63, "the slots of former versions")
        let fresh = try nginx.open(20, .http)
        #expect(
            Field.row(
                "nginx.5", "45 reloads with long-lived connections, more than 63 old workers",
                expected: "270 of 270 inspected, then 20 of 20",
                found: "\(held.count(of: .inspect)) of 270 inspected, then \(fresh.count(of: .inspect)) of 20"))
        #expect(try control.figures() == Figures(inUse: 290, bypassed: 0, workers: old + 2))
        (held + fresh).close()
        try expectEventually("old workers exit") { try nginx.oldWorkers().isEmpty }
    }
}

/// Adds up the sessions in use of a segment and of the one that takes its name, as often as can be.
private final class Sampler: Sendable {
    private let highest = Atomic(0)
    private let admissions = Atomic<UInt64>(0)
    private let thread = Mutex<BackgroundThread?>(nil)

    init(_ path: String) throws {
        let old = try Segment.attach(path: path)
        let thread = BackgroundThread { [self] thread in
            var new: Segment?
            while !thread.isStopped {
                if new == nil, !old.isCurrent { new = try? Segment.attach(path: path) }
                // One reading adds up what moves meanwhile; what is really too much is there in the next ones as well.
                let sums = (0..<3).map { _ in
                    [old, new].reduce(0) { $0 + ((try? $1?.pool(0).snapshot().inUse) ?? 0) }
                }
                highest.max(sums.min() ?? 0, ordering: .relaxed)
                if let figures = try? new?.pool(0).snapshot() {
                    admissions.store(figures.fastAdmissions + figures.poolAdmissions, ordering: .relaxed)
                }
            }
            for segment in [old, new] { segment?.detach() }
        }
        self.thread.withLock { $0 = thread }
    }

    deinit { _ = stop() }

    /// Sessions that have begun in the new segment, a moment ago.
    var newAdmissions: UInt64 { admissions.load(ordering: .relaxed) }

    /// - Returns: the most that were in use at once.
    func stop() -> Int {
        thread.withLock { $0?.stop() }
        return highest.load(ordering: .relaxed)
    }
}
