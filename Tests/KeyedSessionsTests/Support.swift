import CKeyedTable
import Foundation
import TestSupport
import Testing

@testable import Admission
@testable import KeyedSessions

/// A segment and a journal of their own, a keeper with keyed sessions, and an observer who is not the keeper.
final class Fixture {
    let segmentPath: String
    let journalPath: String
    let observer: Segment
    private(set) var keeper: Segment
    private(set) var sessions: KeyedSessions

    init(cap: Int) throws {
        let name = "/dev/shm/fpx-keyed.\(getpid()).\(UInt32.random(in: 0...UInt32.max))"
        segmentPath = name
        journalPath = name + ".sessions"
        try Segment.create(path: name)
        observer = try Segment.attach(path: name)
        for pool in 0..<3 { try observer.pool(pool).setCap(cap) }
        keeper = try Segment.attachKeeper(path: name)
        sessions = try KeyedSessions(segment: keeper, journal: journalPath)
    }

    deinit {
        keeper.detach()
        observer.detach()
        unlink(segmentPath)
        for end in ["", ".next", ".damaged"] { unlink(journalPath + end) }
    }

    /// What a restart of the daemon does.
    func restart(_ between: () throws -> Void = {}) throws {
        keeper.detach()
        try between()
        keeper = try Segment.attachKeeper(path: segmentPath)
        sessions = try KeyedSessions(segment: keeper, journal: journalPath)
    }

    /// Changes a field of an entry's record in the journal, as a daemon would that says so.
    func overwrite<Value>(_ entry: Int, _ field: WritableKeyPath<fpx_record, Value>, _ value: Value) throws {
        try change(entry) { $0[keyPath: field] = value }
    }

    func change(_ entry: Int, _ change: (inout fpx_record) -> Void) throws {
        var record = try record(entry)
        change(&record)
        fpx_record_seal(&record, UInt32(entry))
        try write(withUnsafeBytes(of: record) { Array($0) }, at: 4096 + entry * 256)
    }

    func record(_ entry: Int) throws -> fpx_record {
        let file = try #require(FileHandle(forReadingAtPath: journalPath))
        defer { try? file.close() }
        try file.seek(toOffset: UInt64(4096 + entry * 256))
        let bytes = try #require(try file.read(upToCount: 256))
        return bytes.withUnsafeBytes { $0.loadUnaligned(as: fpx_record.self) }
    }

    /// Writes into the journal, as no daemon would.
    func write(_ bytes: [UInt8], at offset: Int) throws {
        let file = try #require(FileHandle(forUpdatingAtPath: journalPath))
        try file.seek(toOffset: UInt64(offset))
        try file.write(contentsOf: bytes)
        try file.close()
    }

    /// Those that a daemon knows by their hook, and those of which it knows the handle alone.
    var listed: (known: [KeyedSession], unknown: [KeyedSession]) {
        let all = sessions.list(limit: .max).sessions
        return (all.filter { $0.hook != nil }, all.filter { $0.hook == nil })
    }

    func watch(_ process: IdleProcess) throws -> WatchedOwner {
        let owner = try #require(Owner(runningProcess: process.id))
        return try #require(sessions.watch(owner))
    }

    func snapshot(_ pool: Int = 0) throws -> PoolSnapshot { try observer.pool(pool).snapshot() }

    /// - Parameter localPort: the proxy's port at the same address: the session is bound to the real socket between the two.
    func admit(
        _ key: String, hook: Hook = .haproxy, pool: Int = 0, owner: WatchedOwner? = nil, client: String? = nil, port: Int = 0,
        localPort: UInt16? = nil
    ) throws -> Verdict {
        sessions.admit(
            try SessionRequest(
                key: SessionKey(key), hook: hook, pool: pool, owner: owner, client: client.map { try Endpoint($0, port: port) },
                local: localPort.map { try Endpoint(client ?? "", port: Int($0)) }))
    }

    /// Admits a session of a client at 192.0.2.1 as one that is bound to a socket of this cookie.
    func admit(_ key: String, owner: WatchedOwner? = nil, port: Int = 1000, cookie: UInt64) throws -> Verdict {
        let client = try Endpoint("192.0.2.1", port: port)
        let socket = ProxySocket(local: try Endpoint("192.0.2.2", port: 80), client: client, cookie: cookie)
        return sessions.admit(
            try SessionRequest(key: SessionKey(key), hook: .haproxy, pool: 0, owner: owner, client: client),
            boundTo: socket, news: sessions.socketNews.load(ordering: .sequentiallyConsistent))
    }

    @discardableResult
    func release(_ key: String, hook: Hook = .haproxy) throws -> Bool { sessions.release(key: try SessionKey(key), hook: hook) }

    func count(_ counter: SessionCounter, _ hook: Hook = .haproxy) -> Int { sessions.count(counter, of: hook) }

    /// Nothing is in use, nothing is listed, and the engine's own law holds.
    func expectEmpty(sourceLocation: SourceLocation = #_sourceLocation) throws {
        for pool in 0..<3 {
            let snapshot = try snapshot(pool)
            #expect(snapshot.inUse == 0 && snapshot.bypassed == 0, "\(snapshot)", sourceLocation: sourceLocation)
            #expect(snapshot.conservation?.holds == true, sourceLocation: sourceLocation)
        }
        #expect(sessions.list(limit: 10).total == 0, sourceLocation: sourceLocation)
        #expect(keeper.handlesInUse().isEmpty, sourceLocation: sourceLocation)
    }
}

/// Waits for a condition, and gives up after some seconds.
func eventually(within seconds: Double = 5, _ condition: () throws -> Bool) rethrows -> Bool {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while try !condition() {
        if ContinuousClock.now > deadline { return false }
        usleep(2000)
    }
    return true
}

/// A process that does nothing, for tests to kill.
final class IdleProcess {
    let process: ChildProcess

    init() throws { process = try ChildProcess(["sleep", "1000"]) }

    var id: Int32 { process.processID }
    func kill() { process.signal(SIGKILL) }
}
