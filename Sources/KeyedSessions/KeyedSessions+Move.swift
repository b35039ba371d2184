// How keyed sessions move to another segment, or to another journal.

public import Admission
import CKeyedTable
import Glibc
import Synchronization

extension KeyedSessions {
    /// Counts all sessions in progress in another segment, whose cap of each pool becomes what it then holds. Requests wait
    /// meanwhile. In the end none is counted in the old one any more.
    ///
    /// - Parameters:
    ///   - segment: attached as keeper, and used by nobody else yet.
    ///   - replace: called when the sessions can be counted in the new segment, before they leave the old one: it ends admissions
    ///     there, and gives the new one its name. Whenever the daemon is killed, one of the two has them all.
    /// - Throws: what keeps the new segment from counting them; then all is as it was, and `replace` was not called.
    public func move(to segment: Segment, replace: () -> Void) throws(KeyedSessionsError) {
        let error = table.writing { () -> KeyedSessionsError? in
            let nodes = liveNodes()
            let sessions = nodes.map { DescribedSession(handle: $0.handle, record: $0.node.record) }
            let next: Place
            let moved: [SessionHandle]
            do throws(KeyedSessionsError) {
                let journal: Journal
                (moved, journal) = try Self.count(sessions, in: segment, journal: journalPath)
                next = Place(segment, journal)
            } catch {
                return error
            }
            replace()
            // If it fails the look finds a journal without its name.
            try? next.journal?.publish()
            let old = place.withLock { place in
                defer { place = next }
                return place
            }
            for (session, handle) in zip(nodes, moved) {
                session.node.state.store(handle.rawValue)
                try? old.segment.release(session.handle)
            }
            return nil
        }
        if let error { throw error }
    }

    private func liveNodes() -> [(node: Node, handle: SessionHandle)] {
        var all: [(node: Node, handle: SessionHandle)] = []
        table.forEach { node in
            let state = node.state.load()
            if State.isLive(state) { all.append((node, SessionHandle(rawValue: state))) }
        }
        return all
    }

    /// A new handle for each session, and a journal that describes them and does not have its name yet.
    static func count(
        _ sessions: [DescribedSession], in segment: Segment, journal path: String
    ) throws(KeyedSessionsError) -> ([SessionHandle], Journal) {
        var made: [SessionHandle] = []
        do {
            let pools = try (0..<Limits.pools).map { try segment.pool($0) }
            for pool in pools.indices {
                try pools[pool].setCap(sessions.count { $0.handle.pool == pool && !$0.handle.isBypassed })
                pools[pool].policy = .bypass
            }
            // All inspected ones first: with them the cap is reached, and what comes after is bypassed.
            var handles = sessions.map(\.handle)
            for isBypassed in [false, true] {
                for (index, session) in sessions.enumerated() where session.handle.isBypassed == isBypassed {
                    guard let handle = try segment.handle(pools[session.handle.pool].admit()) else { continue }
                    made.append(handle)
                    handles[index] = handle
                }
            }
            guard made.count == sessions.count, zip(sessions, handles).allSatisfy({ $0.handle.isBypassed == $1.isBypassed })
            else {
                throw KeyedSessionsError.system(call: "admit", path: segment.path, code: EBUSY)
            }
            let records = zip(sessions, handles).map { $0.record.describing($1) }
            return (handles, try Journal(path: path, describing: records))
        } catch {
            for handle in made { try? segment.release(handle) }
            for pool in 0..<Limits.pools { try? segment.pool(pool).setCap(0) }
            if let error = error as? SegmentError { throw .segment(error) }
            throw error as? KeyedSessionsError ?? .system(call: "move", path: path, code: EIO)
        }
    }
}

// MARK: - The journal

extension KeyedSessions {
    /// Looks whether the journal is there and describes the sessions in progress. For the thread that calls `renewJournal` and `move`.
    ///
    /// - Returns: what is wrong with it; nil: nothing.
    public func journalFault() -> String? {
        guard let journal = place.withLock({ $0.journal }) else { return "the file could not be made" }
        if let fault = journal.fault { return fault }
        let described = journal.handles()
        var lost = 0
        table.reading {
            table.forEach { node in
                let state = node.state.load()
                guard State.isLive(state) else { return }
                let entry = SessionHandle(rawValue: state).entry
                // The table of handles is older than a session that has begun since. A record lasts as long as its handle.
                if described[entry] != state, journal.handle(entry) != state, node.state.load() == state { lost += 1 }
            }
        }
        return lost == 0 ? nil : "the records of \(lost) sessions are damaged"
    }

    /// Writes the journal anew, from what is in memory. Requests wait meanwhile.
    ///
    /// - Returns: how many sessions it describes.
    public func renewJournal() throws(KeyedSessionsError) -> Int {
        var count = 0
        let error = table.writing { () -> KeyedSessionsError? in
            let records = liveNodes().map { $0.node.record.describing($0.handle) }
            count = records.count
            do throws(KeyedSessionsError) {
                let journal = try Journal(path: journalPath, describing: records)
                try journal.publish()
                place.withLock { $0 = Place($0.segment, journal) }
                return nil
            } catch {
                return error
            }
        }
        if let error { throw error }
        return count
    }

    /// Whether a new session finds memory for its handle and its record.
    public var hasRoom: Bool { place.withLock { $0.journal }?.hasRoom ?? false }

    /// Sessions in progress at most.
    public static var limit: Int { Limits.handles }
}
