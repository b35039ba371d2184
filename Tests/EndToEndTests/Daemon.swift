// The real daemon, with a real licence, under test.

import Admission
import Foundation
import Synchronization
import Testing

/// Where the programs under test are built: beside the test runner.
enum Programs {
    static let folder = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().path

    static func path(_ name: String) throws(EndToEndError) -> String {
        try required("\(folder)/\(name)", "swift build --product \(name)")
    }
}

/// What pool furl looks like now.
struct Figures: Equatable, Sendable {
    var inUse: Int
    var bypassed: Int
    /// Worker processes that are attached.
    var workers: Int
}

func newSegmentPath() -> String { "/dev/shm/fpx-test.\(getpid()).\(UInt32.random(in: 0...UInt32.max))" }

/// fpxd in a folder of its own, with a key and a licence made by fpx-authority, and the command line to ask it.
final class DaemonControl: Sendable {
    let folder: TemporaryFolder
    let segmentPath: String
    private let command: [String]
    private let process: Mutex<ProxyProcess?>
    /// Looks at the segment without going by the daemon: quick enough to sample, and there while the daemon is not.
    private let observer: Mutex<Segment?>
    private let attachments = Mutex<[Segment]>([])
    private let epoch = Atomic(0)

    var home: String { folder.path + "/home" }
    var controlSocket: String { home + "/run/control.sock" }
    /// Of the sockets for haproxy, too.
    var runFolder: String { home + "/run" }
    var licenseFile: String { home + "/license.lic" }
    var log: String { folder.read("fpxd.out") }

    /// - Parameters:
    ///   - cap: licensed sessions of the licence; nil: none is put in place.
    ///   - launcher: a command that starts fpxd with less than this process may do.
    ///   - authority: where its licences come from, in place of one that is signed here.
    ///   - flags: more of fpxd's; what is said twice holds as it is said last.
    ///   - prepare: changes what lies in its home before it starts for the first time.
    init(
        segment path: String = newSegmentPath(), cap: Int? = 3, policy: OverLimitPolicy = .bypass, launcher: [String] = [],
        authority: AuthorityControl? = nil, flags: [String] = [], prepare: (_ home: String) throws -> Void = { _ in }
    ) throws {
        folder = try TemporaryFolder()
        segmentPath = path
        process = Mutex(nil)
        observer = Mutex(nil)
        // nginx gives up root; its workers must be able to open the segment.
        command =
            launcher + [try Programs.path("fpxd"), "--home", folder.path + "/home", "--segment", path, "--group", "www-data"]
            + (authority?.flags ?? []) + flags
        try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
        try self.authority("keys", "new", "--name", "test", "--out", folder.path)
        try FileManager.default.createDirectory(atPath: home + "/keys", withIntermediateDirectories: true)
        try FileManager.default.copyItem(atPath: folder.path + "/test.pem", toPath: home + "/keys/test.pem")
        if let authority {
            for name in try FileManager.default.contentsOfDirectory(atPath: authority.keys) where name.hasSuffix(".pem") {
                try FileManager.default.copyItem(atPath: authority.keys + "/" + name, toPath: home + "/keys/" + name)
            }
        } else if let cap {
            try sign(cap: cap)
        }
        try prepare(home)
        try start()
        if policy != .bypass { try set(policy: policy) }
    }

    deinit {
        observer.withLock { $0?.detach() }
        attachments.withLock { for segment in $0 { segment.detach() } }
        process.withLock { $0 = nil }
        for end in ["", ".next", ".lent", ".sessions", ".sessions.next", ".sessions.damaged"] { unlink(segmentPath + end) }
    }

    // MARK: Licence

    @discardableResult
    func authority(_ arguments: String...) throws -> String { try authority(arguments) }

    @discardableResult
    func authority(_ arguments: [String]) throws -> String {
        let (status, output) = try run(try Programs.path("fpx-authority"), arguments)
        if status != 0 { throw EndToEndError.notReady(what: "fpx-authority \(arguments)", log: output) }
        return output
    }

    /// Puts a licence in place, or in `file`; it is in force within seconds, after a start or a commit.
    ///
    /// - Parameter key: id of one in `folder`.
    func sign(cap: Int, _ more: String..., by key: String = "test", to file: String? = nil) throws {
        try sign(cap: cap, more, by: key, to: file)
    }

    func sign(cap: Int, _ more: [String], by key: String = "test", to file: String? = nil) throws {
        let number = epoch.add(1, ordering: .relaxed).newValue
        try authority(
            [
                "license", "sign", "--key", folder.path + "/\(key).key", "--customer", "test", "--seats", "\(cap)",
                "--sessions-per-seat", "1", "--id", "test", "--epoch", "\(number)", "--out", file ?? licenseFile,
            ] + more)
    }

    // MARK: Life

    /// Starts the daemon and waits until it answers.
    func start() throws {
        let daemon = try ProxyProcess(command, output: folder.path + "/fpxd.out")
        process.withLock { $0 = daemon }
        guard try eventually({ try ask("get", "system", "status").status == 0 }) else {
            throw EndToEndError.notReady(what: "fpxd", log: log)
        }
        try observer.withLock { if $0 == nil { $0 = try Segment.attach(path: segmentPath) } }
    }

    /// An attachment of this process, as a worker; it ends with this object.
    func attach() throws -> Segment {
        let segment = try Segment.attach(path: segmentPath)
        attachments.withLock { $0.append(segment) }
        return segment
    }

    /// Until the next start this process has no segment open.
    func leaveSegment() {
        observer.withLock { observer in
            observer?.detach()
            observer = nil
        }
    }

    var processID: pid_t? {
        (try? String(contentsOfFile: home + "/run/fpxd.pid", encoding: .utf8)).flatMap {
            pid_t($0.trimmingCharacters(in: .whitespacesAndNewlines))
        }
    }

    /// Sends a signal and waits for the end of the process, if it ends it.
    func end(by signal: Int32) throws {
        let id = try #require(processID)
        kill(id, signal)
        expectEventually("fpxd ends") { kill(id, 0) != 0 || ProcessEntry.isZombie(id) }
    }

    // MARK: The command line

    /// `fpx WORDS`: its exit status and what it printed.
    func ask(_ words: String...) throws -> (status: Int32, output: String) { try ask(words) }

    func ask(_ words: [String]) throws -> (status: Int32, output: String) {
        try run(try Programs.path("fpx"), ["--socket", controlSocket] + words)
    }

    /// The same, which must succeed.
    func fpx(_ words: String...) throws -> String {
        let (status, output) = try ask(words)
        if status != 0 { throw EndToEndError.notReady(what: "fpx \(words)", log: output + log) }
        return output
    }

    /// `fpxd v0.2.0,build...`
    func version() throws -> String {
        try run(try Programs.path("fpxd"), ["--version"]).output.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    func set(cap: Int) throws {
        try sign(cap: cap)
        _ = try fpx("commit")
    }

    func set(policy: OverLimitPolicy) throws {
        _ = try fpx("config", "system", "global", "set", "license-overlimit", "\(policy)", "end")
    }

    /// The segment that has the name now, as far as there is one.
    private func current() throws -> Segment {
        try observer.withLock { observer in
            let segment = try #require(observer)
            if !segment.isCurrent, let next = try? Segment.attach(path: segmentPath) {
                segment.detach()
                observer = next
            }
            return try #require(observer)
        }
    }

    func figures() throws -> Figures {
        let segment = try current()
        let snapshot = try segment.pool(0).snapshot()
        let workers = segment.processes().count { $0.slot != segment.slot && $0.slot != Limits.processes - 1 }
        return Figures(inUse: snapshot.inUse, bypassed: snapshot.bypassed, workers: workers)
    }

    /// Counters of the hook haproxy, and `listed`: sessions in the list.
    func counters() throws -> [String: Int] {
        struct Statistics: Decodable {
            struct Hook: Decodable {
                var hook: String
                var counters: [String: Int]
            }
            var hooks: [Hook]
        }
        struct List: Decodable { var total: Int }
        let decoder = JSONDecoder()
        let statistics = try decoder.decode(
            Statistics.self, from: Data(try fpx("diagnose", "wad", "session", "stats", "--json").utf8))
        var counters = statistics.hooks.first { $0.hook == "haproxy" }?.counters ?? [:]
        counters["listed"] = try decoder.decode(
            List.self, from: Data(try fpx("diagnose", "wad", "session", "list", "--json").utf8)
        ).total
        return counters
    }

    /// What `diagnose wad license` says is in use of type furl.
    func inUseByCommand() throws -> Int {
        let text = try fpx("diagnose", "wad", "license")
        let line = try #require(text.split(separator: "\n").first { $0.contains("Current Licensed Sessions:") })
        return try #require(Int(line.split(separator: " ").last ?? ""))
    }
}

extension ProcessEntry {
    static func isZombie(_ id: pid_t) -> Bool {
        guard let stat = try? String(contentsOfFile: "/proc/\(id)/stat", encoding: .utf8),
            let name = stat.lastIndex(of: ")")
        else { return true }
        return stat[name...].dropFirst(2).first == "Z"
    }
}

extension DaemonControl {
    /// Sessions in use at one moment. A single reading adds up writers one after the other, so that a session that moves
    /// meanwhile is seen twice; one that is really too many is there in the next readings as well.
    func settledInUse() throws -> Int {
        min(try figures().inUse, try figures().inUse, try figures().inUse)
    }
}
