// The journal that the daemon's next life finds: whatever stands in it, a session is either taken over or given back.
//
// The first byte says what of the input is used: bit 0 the header, bits 1 to 4 the handles of the records, which would hardly
// be guessed, bit 5 their namespaces. Then the header of 32 bytes, if it is used, and four records.

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

/// What a record tells of a session; nil: it makes no sense.
private func name(in record: [UInt8], of handle: SessionHandle) -> Name? {
    let record = record.withUnsafeBytes { $0.loadUnaligned(as: fpx_record.self) }
    let isWhole =
        record.handle == handle.rawValue && (1...2).contains(record.hook)
        && (1...FPX_KEY_BYTES).contains(Int32(record.key_length))
        && record.owner_pid >= 0 && record.verdict == (handle.isBypassed ? Verdict.bypass : .inspect).rawValue
        && (record.cookie == 0 || record.client_port != 0 && record.local_port != 0)
    guard isWhole else { return nil }
    return Name(hook: record.hook, key: withUnsafeBytes(of: record.key) { Array($0.prefix(Int(record.key_length))) })
}

private struct Written {
    let path: String
    /// Of the records that make sense, by their handles.
    var names: [SessionHandle: Name] = [:]
    /// Those that nothing but a proxy or an operator ends.
    var withoutOwner: Set<Name> = []
}

private func writeJournal(_ input: [UInt8], handles: [SessionHandle]) -> Written {
    let flags = input.first ?? 0
    var rest = input.dropFirst()
    func take(_ count: Int) -> [UInt8] {
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count)) + [UInt8](repeating: 0, count: count - min(count, rest.count))
    }
    // An empty journal is made by who opens it; this one has its header.
    let path = files[0].holding([])
    do { _ = try Journal(path: path, isNeeded: false) } catch { expect(false, "\(error)") }
    if flags & 1 == 1 { files[0].overwrite(at: 0, take(32)) }
    var written = Written(path: path)
    for (index, handle) in handles.enumerated() {
        var record = take(MemoryLayout<fpx_record>.size)
        if flags >> (1 + index) & 1 == 0 {
            withUnsafeBytes(of: handle.rawValue.littleEndian) { record.replaceSubrange(0..<8, with: $0) }
        }
        if flags >> 5 & 1 == 0 {
            for (place, namespace) in [(52, Namespace.network), (232, Namespace.process), (236, Namespace.time)] {
                withUnsafeBytes(of: namespace) { record.replaceSubrange(place..<place + 4, with: $0) }
            }
        }
        files[0].overwrite(at: 4096 + handle.entry * record.count, record)
        guard let name = name(in: record, of: handle) else { continue }
        written.names[handle] = name
        // As a record has it: the number of the process, from byte 24 on.
        if record[24..<28].allSatisfy({ $0 == 0 }) { written.withoutOwner.insert(name) }
    }
    return written
}

func fuzzJournal(_ bytes: [UInt8]) {
    do {
        let pool = try segment.pool(0)
        while segment.handlesInUse().count < sessionsKept { _ = try segment.handle(pool.admit()) }
        let kept = segment.handlesInUse()
        let written = writeJournal(bytes, handles: kept)
        do throws(KeyedSessionsError) {
            let sessions = try KeyedSessions(segment: segment, journal: written.path)
            let listed = sessions.list(limit: sessionsKept)
            let inUse = segment.handlesInUse()
            expect(Set(listed.sessions.map(\.handle)) == Set(inUse) && listed.total == inUse.count, "\(listed) of \(inUse)")
            expect(Set(inUse).isSubset(of: kept), "sessions that nobody had")
            // Nobody else's, each once, and none is lost.
            let names = inUse.compactMap { written.names[$0] }
            expect(names.count == inUse.count && Set(names).count == names.count, "taken over: \(names) of \(written)")
            expect(written.withoutOwner.isSubset(of: names), "lost: \(written.withoutOwner.subtracting(names))")
            for session in listed.sessions {
                expect(!session.key.isEmpty && session.key.utf8.count <= 3 * Int(FPX_KEY_BYTES), "the key \(session.key)")
            }
            let bound = sessions.boundSockets()
            expect(bound.count <= inUse.count && !bound.contains { $0.cookie == 0 }, "bound to \(bound)")
            let ended = sessions.release(sockets: bound.map(\.cookie))
            expect(ended >= bound.count && segment.handlesInUse().count == inUse.count - ended, "ended \(ended)")
            let remaining = segment.handlesInUse()
            expect(sessions.clearAll() == remaining.count, "ended others than \(remaining)")
            let snapshot = pool.snapshot()
            expect(segment.handlesInUse().isEmpty && sessions.list(limit: 1).total == 0, "sessions that do not end")
            expect(snapshot.inUse == 0 && snapshot.bypassed == 0, "found \(snapshot), expected none in use")
        } catch {
            expect(bytes.first.map { $0 & 1 } == 1, "a whole header was refused: \(error)")
            expect(isPlain(error.description), "an error that moves a terminal: \(error)")
            expect(segment.handlesInUse() == kept, "sessions were lost with a journal that was refused")
        }
    } catch { expect(false, "\(error)") }
}
