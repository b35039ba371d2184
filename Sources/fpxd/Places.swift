// Places: the folders and files of a daemon, made with the owner and mode that they must have.

import Admission
import AdmissionNUMA
import Basics
import Foundation
import Settings
import Synchronization

/// Where everything of one daemon lies. The run-folder's lock is held as long as this lives.
final class Places: Sendable {
    let segment: String
    let state: String
    let run: String
    /// Who may use segment and sockets besides the daemon's user; nil: nobody.
    let group: gid_t?
    /// The descriptor of the pid file, which holds its lock.
    private let lock: Mutex<Int32>

    var processFile: String { run + "/fpxd.pid" }
    var controlSocket: String { run + "/control.sock" }
    /// Where HAProxy asks, and where it tells of ends; nil: not served.
    let haproxy: (agent: String, ring: String)?
    var journal: String { segment + ".sessions" }
    var events: String { state + "/events.jsonl" }
    /// The one that was sent last.
    var usageReport: String { state + "/usage_report.json" }

    private var segmentFolder: String { (segment as NSString).deletingLastPathComponent }

    /// Makes the folders, and refuses a run-folder that another daemon uses and a segment that is not ours to trust.
    init(_ settings: Settings) throws(DaemonError) {
        segment = settings[Setting.segment]
        state = settings[Setting.stateFolder]
        run = settings[Setting.runFolder]
        let folder = settings[Setting.haproxyFolder]
        haproxy = folder.isEmpty ? nil : (folder + "/spoa.sock", folder + "/ring.sock")
        group = try Self.group(settings[Setting.group])
        try Self.makeFolder(state, mode: 0o750, group: nil)
        try Self.makeFolder(run, mode: 0o750, group: group)
        if !folder.isEmpty { try Self.makeFolder(folder, mode: 0o750, group: group) }
        lock = Mutex(try Self.lock(run + "/fpxd.pid", waits: true))
        // The service manager makes this folder for the daemon's user alone.
        try Self.letIn(group, to: run)
        try Self.makeFolder(segmentFolder, mode: 0o750, group: group)
        try checkSegmentFolder()
    }

    deinit { lock.withLock { _ = close($0) } }

    /// Makes the folders of the sockets anew where they are gone, and the pid file where it is not ours.
    ///
    /// - Returns: whether there was no pid file of ours.
    func holdRunFolder() throws(DaemonError) -> Bool {
        for path in [controlSocket] + (haproxy.map { [$0.agent] } ?? []) {
            try Self.makeFolder((path as NSString).deletingLastPathComponent, mode: 0o750, group: group)
        }
        return try lock.withLock { lock throws(DaemonError) in
            if FileIdentity(processFile, followsLinks: true) == FileIdentity(descriptor: lock) { return false }
            let new = try Self.lock(processFile, waits: false)
            close(lock)
            lock = new
            try Self.letIn(group, to: run)
            return true
        }
    }

    private static func group(_ name: String) throws(DaemonError) -> gid_t? {
        if name.isEmpty { return nil }
        if let number = gid_t(name) { return number }
        guard let found = getgrnam(name) else { throw .group(name: name) }
        return found.pointee.gr_gid
    }

    /// A folder that is there stays as it is.
    private static func makeFolder(_ path: String, mode: mode_t, group: gid_t?) throws(DaemonError) {
        var status = stat()
        if stat(path, &status) == 0 {
            if status.st_mode & S_IFMT == S_IFDIR { return }
            throw .foreign(path: path, found: FileKind.name(of: status.st_mode), expected: "a folder")
        }
        let parent = (path as NSString).deletingLastPathComponent
        if parent != path, !parent.isEmpty { try makeFolder(parent, mode: 0o755, group: nil) }
        if mkdir(path, mode) != 0, errno != EEXIST { throw .system(call: "mkdir", path: path, code: errno) }
        // The process' umask is for files that others must not read.
        if chmod(path, mode) != 0 { throw .system(call: "chmod", path: path, code: errno) }
        try give(path, to: group)
    }

    /// Lets the group have a file. What is so already is left alone: it may be root's, and the daemon's user another.
    static func give(_ path: String, to group: gid_t?, mode: mode_t? = nil) throws(DaemonError) {
        let status = try status(of: path)
        if let group, status.st_gid != group, chown(path, .max, group) != 0 {
            throw .system(call: "chown", path: path, code: errno)
        }
        if let mode, status.st_mode & 0o7777 != mode, chmod(path, mode) != 0 {
            throw .system(call: "chmod", path: path, code: errno)
        }
    }

    private static func status(of path: String) throws(DaemonError) -> stat {
        var status = stat()
        if stat(path, &status) != 0 { throw .system(call: "stat", path: path, code: errno) }
        return status
    }

    /// Lets the group have a folder that was there, unless everybody may enter it: that one is not for the daemon alone.
    private static func letIn(_ group: gid_t?, to folder: String) throws(DaemonError) {
        if try status(of: folder).st_mode & 0o001 == 0 { try give(folder, to: group) }
    }

    /// Lets the group of its folder have a file.
    static func giveAsFolder(_ path: String) throws(DaemonError) {
        let folder = (path as NSString).deletingLastPathComponent
        try give(path, to: try status(of: folder).st_gid)
    }

    /// Folders in memory are there anew after each boot, below one that all may write to: whoever comes first could put a
    /// segment there, and write what caps and counts the workers see.
    private func checkSegmentFolder() throws(DaemonError) {
        let user = geteuid()
        let expected = user == 0 ? "root" : "root or user \(user)"
        var status = stat()
        if lstat(segmentFolder, &status) != 0 { throw .system(call: "lstat", path: segmentFolder, code: errno) }
        let mode = String(status.st_mode & 0o7777, radix: 8)
        guard status.st_mode & S_IFMT == S_IFDIR else {
            throw .foreign(
                path: segmentFolder, found: "\(FileKind.name(of: status.st_mode)) of user \(status.st_uid)",
                expected: "a folder of \(expected)")
        }
        // In a sticky folder nobody can take away another's file.
        let isOpen = status.st_mode & 0o002 != 0 && status.st_mode & S_ISVTX == 0
        guard [0, user].contains(status.st_uid), !isOpen else {
            throw .foreign(
                path: segmentFolder, found: "a folder of user \(status.st_uid) with mode \(mode)",
                expected: "one of \(expected) that others cannot write to")
        }
        // The journal looks at its own file.
        if lstat(segment, &status) == 0 {
            guard [0, user].contains(status.st_uid), status.st_mode & S_IFMT == S_IFREG else {
                throw .foreign(
                    path: segment, found: "\(FileKind.name(of: status.st_mode)) of user \(status.st_uid)",
                    expected: "a file of \(expected)")
            }
        }
    }

    /// - Parameter waits: for the lock of one that may be on its way out.
    private static func lock(_ path: String, waits: Bool) throws(DaemonError) -> Int32 {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        if descriptor < 0 { throw .system(call: "open", path: path, code: errno) }
        // One that was killed holds its lock until its last thread is gone, which is after its parent has heard of it.
        let start = ContinuousClock.now
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            let holder = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
            if waits, Self.mayEnd(Int(holder.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0, since: start) {
                usleep(10_000)
                continue
            }
            close(descriptor)
            throw .running(
                path: path, processID: holder.isEmpty ? "unknown" : holder.trimmingCharacters(in: .whitespacesAndNewlines))
        }
        let text = "\(getpid())\n"
        guard ftruncate(descriptor, 0) == 0, pwrite(descriptor, text, text.utf8.count, 0) == text.utf8.count else {
            let code = errno
            close(descriptor)
            throw .system(call: "write", path: path, code: code)
        }
        return descriptor
    }

    /// Whether the process that has what this one wants may be on its way out: for a second, and for longer if it has died
    /// already: a busy host takes its time to clear away.
    private static func mayEnd(_ process: Int, since start: ContinuousClock.Instant) -> Bool {
        let waited = ContinuousClock.now - start
        if waited < .seconds(1) { return true }
        let status = (try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)) ?? ""
        let state = status.split(separator: ")").last?.first { $0 != " " } ?? "X"
        return "ZX".contains(state) && waited < .seconds(10)
    }

    /// Attaches as the segment's keeper; makes the segment where there is none, and anew where it is of another version and
    /// nobody uses it. A new one gets its name by `publish`.
    ///
    /// - Parameter note: told what had to be replaced.
    func attach(note: (String) -> Void) throws -> Segment {
        if access(segment, F_OK) != 0 { return try makeNext() }
        do {
            let attached = try attachKeeper()
            // It may be from a time when the group was another one.
            try prepare(attached, file: segment)
            return attached
        } catch SegmentError.format(let path, let field, let found, let expected) {
            let error = SegmentError.format(path: path, field: field, found: found, expected: expected)
            let users = try Segment.attachedProcesses(path: segment)
            // What processes of another version count in stays theirs; what is damaged they cannot count in any more.
            guard users == 0 || field != "version" else { throw error }
            note("\(error); " + (users == 0 ? "nobody holds a slot of it, so" : "it is damaged, and") + " it is made anew")
            // It is found again as a former one, also by whose lock is gone with its memory.
            unlink(segment)
            return try makeNext()
        }
    }

    /// What cannot be known at a start: who still counts in a segment that was removed, where fpxd does not see all processes.
    /// To be asked before `attach`; nil: nothing.
    var unknownBeforeStart: String? {
        guard access(segment, F_OK) != 0, access(journal, F_OK) == 0, !ProcessNamespace.isOfHost else { return nil }
        return
            "\(segment): it was removed while no fpxd ran, and this one is in a process namespace of its own: processes outside "
            + "may count sessions in the removed one, which the cap does not cover. Reload the proxies"
    }

    /// Of a fpxd that has ended, the lock of the run-folder may be gone a moment before that of the segment.
    private func attachKeeper() throws(SegmentError) -> Segment {
        let start = ContinuousClock.now
        while true {
            do throws(SegmentError) { return try Segment.attachKeeper(path: segment) } catch {
                guard case .keeper(_, let process) = error, Self.mayEnd(process, since: start) else { throw error }
                usleep(20_000)
            }
        }
    }

    private func prepare(_ attached: Segment, file: String) throws(DaemonError) {
        try Self.letIn(group, to: segmentFolder)
        try Self.give(file, to: group, mode: group == nil ? 0o600 : 0o660)
        attached.placeShardsOnNodes()
    }

    // MARK: a successor for the segment

    private var nextSegment: String { segment + ".next" }

    /// A new segment that does not have its name yet, with us as keeper.
    func makeNext() throws -> Segment {
        try Self.makeFolder(segmentFolder, mode: 0o750, group: group)
        try checkSegmentFolder()
        unlink(nextSegment)
        try Segment.create(path: nextSegment)
        let attached = try Segment.attachKeeper(path: segment, file: nextSegment)
        try prepare(attached, file: nextSegment)
        return attached
    }

    /// Gives the new segment the name, whatever has it.
    func publishNext() throws(DaemonError) {
        if rename(nextSegment, segment) != 0 { throw .system(call: "rename", path: segment, code: errno) }
    }

    /// How a segment that `attach` has made gets its name; nil: it has it.
    func publishing(_ attached: Segment) -> (() throws -> Void)? {
        switch attached.place {
        case .there, .cut: nil
        case .taken: publishNext
        // Another daemon may have made one meanwhile.
        case .gone:
            { [self] in
                if link(nextSegment, segment) != 0 { throw DaemonError.system(call: "link", path: segment, code: errno) }
                unlink(nextSegment)
            }
        }
    }

    /// Segments that have lost this name and that processes of this host still use: an earlier daemon has replaced them, or
    /// somebody has removed the file while there was none.
    ///
    /// - Parameter note: told what is there.
    func attachFormer(besides current: Segment, note: (String) -> Void) -> [FoundSegment] {
        var seen: Set<FileNumber> = []
        var former: [FoundSegment] = []
        for descriptor in OpenFiles.named([segment, nextSegment])
        where descriptor.isRemoved && seen.insert(descriptor.file).inserted {
            do {
                let found = try Segment.attachKeeper(path: segment, file: descriptor.link)
                let held = found.processes().filter { $0.slot != found.slot && $0.isAlive }
                if held.isEmpty, found.handlesInUse().isEmpty {
                    found.detach()
                    continue
                }
                former.append(FoundSegment(found))
                if !held.isEmpty {
                    note(
                        "Found a removed segment that \(SessionCount.text(processes: held.count)) may still have sessions in: they "
                            + "stay counted until they end. New sessions are counted in the present segment")
                }
            } catch {
                let file = FoundSegment.File(path: segment, number: descriptor.file)
                try? Segment.closeDamaged(file: descriptor.link, path: segment)
                former.append(FoundSegment(file))
                note(
                    "Found a removed segment that is damaged (\(error)), with an unknown number of sessions of "
                        + SessionCount.text(users: Array(OpenFiles.holders(of: file)))
                        + ": no session is licensed until they have ended. A reload of the proxies is faster")
            }
        }
        return former
    }
}
