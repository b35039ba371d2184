// The journal that the daemon's next life finds: whatever stands in it, a session stays counted unless its record says that there is
// none, and is followed if its record is one that a daemon writes.
//
// The first byte says what of the input is used: bit 0 the header, bits 1 to 4 the handles of the records, which would hardly
// be guessed, bit 5 their namespaces, bit 6 their sums. Then the header of 32 bytes, if it is used, and four records.

import Admission
import CKeyedTable
import Glibc

private let segment: Segment = {
    let path = files[1].path
    unlink(path)
    defer { unlink(path) }
    do {
        try Segment.create(path: path, cpus: 1)
        let keeper = try Segment.attachKeeper(path: path)
        try keeper.pool(0).setCap(2)
        return keeper
    } catch { fatalError("\(error)") }
}()

private let sessionsKept = 4

/// A session as its record names it.
private struct Name: Hashable {
    let hook: UInt8
    let key: [UInt8]
}

private struct Written {
    /// Of the records that make sense, by their handles.
    var names: [SessionHandle: Name] = [:]
    /// Those that nothing but a proxy or an operator ends.
    var withoutOwner: Set<SessionHandle> = []
    /// Whose records say that there is no session.
    var free: Set<SessionHandle> = []
}

/// A session as its record names it; nil: it makes no sense.
private func name(in record: fpx_record, of handle: SessionHandle) -> Name? {
    let isWhole =
        record.handle == handle.rawValue && (0...2).contains(record.hook)
        && (1...FPX_KEY_BYTES).contains(Int32(record.key_length))
        && record.owner_pid >= 0 && record.verdict == (handle.isBypassed ? Verdict.bypass : .inspect).rawValue
        && (record.cookie == 0 || record.client_port != 0 && record.local_port != 0)
    guard isWhole else { return nil }
    return Name(hook: record.hook, key: withUnsafeBytes(of: record.key) { Array($0.prefix(Int(record.key_length))) })
}

private func writeJournal(_ input: [UInt8], handles: [SessionHandle], path: String) throws -> Written {
    let flags = input.first ?? 0
    var rest = input.dropFirst()
    func take(_ count: Int) -> [UInt8] {
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count)) + [UInt8](repeating: 0, count: count - min(count, rest.count))
    }
    let known = handles.map { fpx_record(unknown: $0, found: 0) }
    try Journal(path: path, describing: known).publish()
    let descriptor = open(path, O_WRONLY)
    defer { close(descriptor) }
    if flags & 1 == 1 { expect(pwrite(descriptor, take(32), 32, 0) == 32, "header") }
    var written = Written()
    for (index, handle) in handles.enumerated() {
        var record = take(MemoryLayout<fpx_record>.size).withUnsafeBytes { $0.loadUnaligned(as: fpx_record.self) }
        if flags >> (1 + index) & 1 == 0 { record.handle = handle.rawValue }
        if flags >> 5 & 1 == 0 {
            (record.network_namespace, record.process_namespace, record.time_namespace) = (
                Namespace.network, Namespace.process, Namespace.time
            )
        }
        if flags >> 6 & 1 == 0 { fpx_record_seal(&record, UInt32(handle.entry)) }
        let bytes = MemoryLayout<fpx_record>.size
        expect(pwrite(descriptor, &record, bytes, 4096 + handle.entry * bytes) == bytes, "record")
        switch fpx_record_kind_of(&record, UInt32(handle.entry)) {
        case FPX_RECORD_FREE: written.free.insert(handle)
        case FPX_RECORD_SESSION:
            guard let name = name(in: record, of: handle) else { continue }
            written.names[handle] = name
            if record.owner_pid == 0 { written.withoutOwner.insert(handle) }
        default: break
        }
    }
    return written
}

func fuzzJournal(_ bytes: [UInt8]) {
    let path = files[0].path
    do {
        let pool = try segment.pool(0)
        while segment.handlesInUse().count < sessionsKept { _ = try segment.handle(pool.admit()) }
        let kept = segment.handlesInUse()
        let written = try writeJournal(bytes, handles: kept, path: path)
        let sessions = try KeyedSessions(segment: segment, journal: path)
        let listed = sessions.list(limit: sessionsKept)
        let inUse = Set(segment.handlesInUse())
        expect(Set(listed.sessions.map(\.handle)) == inUse && listed.total == inUse.count, "\(listed) of \(inUse)")
        expect(inUse.isSubset(of: kept) && inUse.isDisjoint(with: written.free), "sessions that nobody had: \(inUse)")
        // Each of them once; none is given back but where a record says so, or its process has died.
        let names = listed.sessions.filter { $0.hook != nil }.compactMap { written.names[$0.handle] }
        expect(names.count == listed.sessions.count { $0.hook != nil }, "taken over: \(listed) of \(written)")
        expect(Set(names).count == names.count, "twice: \(names)")
        expect(written.withoutOwner.isSubset(of: inUse), "lost: \(written.withoutOwner.subtracting(inUse))")
        // Of two with one key the second is unknown.
        for handle in written.withoutOwner where written.names.values.count(where: { $0 == written.names[handle] }) == 1 {
            expect(
                names.contains { $0 == written.names[handle] } == (written.names[handle]?.hook != 0), "not followed: \(handle)")
        }
        for handle in kept where written.names[handle] == nil && !written.free.contains(handle) {
            expect(inUse.contains(handle), "given back unseen: \(handle)")
        }
        for session in listed.sessions where session.hook != nil {
            expect(!session.key.isEmpty && session.key.utf8.count <= 3 * Int(FPX_KEY_BYTES), "the key \(session.key)")
        }
        let fault = sessions.takenOver.fault ?? ""
        expect(isPlain(fault), "an error that moves a terminal: \(fault)")
        expect(
            sessions.journalFault() == nil, "a journal that is not in order after the start: \(sessions.journalFault() ?? "")")
        let bound = sessions.boundSockets()
        expect(bound.count <= inUse.count && !bound.contains { $0.cookie == 0 }, "bound to \(bound)")
        let ended = sessions.release(sockets: bound.map(\.cookie))
        expect(ended >= bound.count && segment.handlesInUse().count == inUse.count - ended, "ended \(ended)")
        let remaining = segment.handlesInUse()
        expect(sessions.clearAll() == remaining.count, "ended others than \(remaining)")
        let snapshot = pool.snapshot()
        expect(segment.handlesInUse().isEmpty && sessions.list(limit: 1).total == 0, "sessions that do not end")
        expect(snapshot.inUse == 0 && snapshot.bypassed == 0, "found \(snapshot), expected none in use")
    } catch { expect(false, "\(error)") }
    unlink(path + ".damaged")
}
