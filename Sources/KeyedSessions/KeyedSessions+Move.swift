// How keyed sessions move to another segment.

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
    ///   - journal: where it is to be described: a file that is not there, or is nobody's.
    ///   - stop: called when the sessions can be counted in the new segment, before they leave the old one: it ends admissions
    ///     there.
    /// - Throws: what keeps the new segment from counting them; then all is as it was, and `stop` was not called.
    public func move(to segment: Segment, journal path: String, stop: () -> Void) throws(KeyedSessionsError) {
        let next = Place(segment, try Journal(path: path, isNeeded: false))
        let error = table.writing { () -> KeyedSessionsError? in
            var all: [(node: Node, handle: SessionHandle)] = []
            table.forEach { node in
                let state = node.state.load()
                if State.isLive(state) { all.append((node, SessionHandle(rawValue: state))) }
            }
            let moved: [SessionHandle]
            do throws(KeyedSessionsError) {
                moved = try Self.count(all, in: next)
            } catch {
                return error
            }
            stop()
            let old = place.withLock { place in
                defer { place = next }
                return place
            }
            for (session, handle) in zip(all, moved) {
                session.node.state.store(handle.rawValue)
                try? old.segment.release(session.handle)
            }
            return nil
        }
        if let error { throw error }
    }

    /// A new handle for each session, with its record.
    private static func count(
        _ sessions: [(node: Node, handle: SessionHandle)], in place: Place
    ) throws(KeyedSessionsError) -> [SessionHandle] {
        var made: [SessionHandle] = []
        do {
            for pool in place.pools.indices {
                let inspected = sessions.count { $0.handle.pool == pool && !$0.handle.isBypassed }
                try place.pools[pool].setCap(inspected)
                place.pools[pool].policy = .bypass
            }
            // All inspected ones first: with them the cap is reached, and what comes after is bypassed.
            var handles: [UInt64: SessionHandle] = [:]
            for isBypassed in [false, true] {
                for session in sessions where session.handle.isBypassed == isBypassed {
                    guard let handle = try place.segment.handle(place.pools[session.handle.pool].admit()) else { continue }
                    made.append(handle)
                    handles[session.handle.rawValue] = handle
                    var record = session.node.record
                    record.handle = handle.rawValue
                    record.verdict = (isBypassed ? Verdict.bypass : .inspect).rawValue
                    guard handle.isBypassed == isBypassed, place.journal.write(record, entry: handle.entry) else {
                        throw KeyedSessionsError.system(call: "pwrite", path: place.journal.path, code: ENOSPC)
                    }
                }
            }
            return sessions.compactMap { handles[$0.handle.rawValue] }
        } catch {
            for handle in made { try? place.segment.release(handle) }
            for pool in place.pools { try? pool.setCap(0) }
            if let error = error as? SegmentError { throw .segment(error) }
            throw error as? KeyedSessionsError ?? .system(call: "move", path: place.journal.path, code: EIO)
        }
    }
}
