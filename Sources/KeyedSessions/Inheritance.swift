// Inheritance: what the daemon's earlier life has left behind, as handle tables and journal tell it together.

import Admission
import CKeyedTable

/// What a daemon has found of its earlier life when it started.
public struct TakenOver: Equatable, Sendable {
    /// Sessions that are followed as before.
    public internal(set) var described = 0
    /// Sessions that stay counted though their records are lost: nothing but an operator ends them.
    public internal(set) var unknown = 0
    /// Those of them whose records were lost now.
    public internal(set) var newlyUnknown = 0
    /// Whether they are counted in a new segment.
    public internal(set) var hasMoved = false
    /// What is wrong with the journal; nil: nothing, or it is not there and is not missed.
    public internal(set) var fault: String?
    /// Where it has been moved to.
    public internal(set) var movedTo: String?
    /// Why a new journal could not be made; nil: it was, or the old one is in order.
    public internal(set) var noJournal: String?

    /// Sessions that are counted.
    public var total: Int { described + unknown }
}

/// A session with the handle that counts it, and its record, which may still name an earlier one.
struct DescribedSession {
    var handle: SessionHandle
    let record: fpx_record
}

/// Which sessions the daemon's earlier life has left, all of them counted somewhere or described.
struct Inheritance {
    private(set) var report = TakenOver()
    private(set) var sessions: [DescribedSession] = []
    /// Handles in use of no session.
    private(set) var cutShort: [SessionHandle] = []
    private let contents: JournalContents
    private var taken: Set<UInt64> = []
    private var keys: Set<[UInt8]> = []

    /// - Parameter segments: those whose handles say which sessions there are.
    init(_ contents: JournalContents, of segments: [Segment]) {
        self.contents = contents
        for segment in segments { for handle in segment.handlesInUse() { add(handle) } }
        let isMissed = contents.isThere || report.newlyUnknown > 0
        let silence = report.newlyUnknown == 0 ? nil : "it does not tell of \(report.newlyUnknown) sessions in progress"
        report.fault = isMissed ? contents.fault ?? silence : nil
    }

    private mutating func add(_ handle: SessionHandle) {
        switch contents[handle.entry] {
        case .session(let record) where record.handle == handle.rawValue && add(record): break
        case .free: cutShort.append(handle)
        default:
            report.unknown += 1
            report.newlyUnknown += 1
            sessions.append(
                DescribedSession(handle: handle, record: fpx_record(unknown: handle, found: fpx_milliseconds())))
        }
    }

    /// False: another session has the handle or the key.
    private mutating func add(_ record: fpx_record) -> Bool {
        let key = unsafe withUnsafeBytes(of: record.key) { unsafe [record.hook] + $0.prefix(Int(record.key_length)) }
        if taken.contains(record.handle) || keys.contains(key) { return false }
        taken.insert(record.handle)
        keys.insert(key)
        if record.hook == 0 { report.unknown += 1 } else { report.described += 1 }
        sessions.append(DescribedSession(handle: SessionHandle(rawValue: record.handle), record: record))
        return true
    }

    /// Adds the sessions that the journal alone tells of: the segment that counted them is gone.
    mutating func addUncounted() {
        for (_, record) in contents.sessions.sorted(by: { $0.key < $1.key }) where !taken.contains(record.handle) {
            _ = add(record)
        }
    }

    /// Puts a journal that is not in order where it can be looked at.
    mutating func moveAside() {
        if contents.isThere, report.fault != nil { report.movedTo = Journal.moveAside(contents.path) }
    }

    /// Counts all of them in a new segment, and describes them in a new journal.
    mutating func count(in segment: Segment) throws(KeyedSessionsError) -> Journal {
        let (handles, journal) = try KeyedSessions.count(sessions, in: segment, journal: contents.path)
        for index in sessions.indices { sessions[index].handle = handles[index] }
        report.hasMoved = true
        return journal
    }

    /// The journal to go on with; nil: none could be made.
    mutating func openJournal() -> Journal? {
        do {
            if contents.fault == nil, report.fault == nil { return try Journal(contents) }
            moveAside()
            let journal = try Journal(path: contents.path, describing: sessions.map { $0.record.describing($0.handle) })
            try journal.publish()
            return journal
        } catch {
            report.noJournal = "\(error)"
            return nil
        }
    }
}
