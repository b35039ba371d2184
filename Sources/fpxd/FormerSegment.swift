// FormerSegment: a segment that another one has replaced, while sessions go on in it.
//
// Its processes go on counting there what they have begun there, and start new sessions in its successor. What it holds is
// taken from the successor's caps, so that both together never have more than is licensed.

import Admission
import CAdmission
import Synchronization

/// Who was attached to a segment, and what each may have had of each pool.
struct Attendance: Sendable {
    struct Process: Sendable {
        let slot: Int
        let processID: Int
        let startTime: UInt64
        /// Sessions at most, of each pool. Nil: it cannot be told.
        var claims: [Int?]
        /// Whether this process' number can be looked up from here: it is in another process namespace otherwise.
        let isVisible: Bool

        /// One of which nothing is known but that it is there.
        init(processID: Int, pools: Int) {
            slot = -1
            self.processID = processID
            startTime = fpx_process_start(Int32(clamping: processID))
            claims = Array(repeating: nil, count: pools)
            isVisible = startTime != 0
        }

        init(_ process: AttachedProcess, claims: [Int?]) {
            slot = process.slot
            processID = process.processID
            startTime = process.startTime
            self.claims = claims
            isVisible = startTime != 0 && fpx_process_start(Int32(clamping: processID)) == startTime
        }
    }

    var processes: [Process]
    /// Sessions that were free, of each pool: whoever was there may have taken them since.
    var free: [Int]
    /// What was licensed of each pool then.
    private var caps: [Int]

    /// - Parameter pools: how many pools the daemon sets.
    init(_ segment: Segment, pools: Int) {
        let claims = (0..<pools).map { segment.claims(pool: $0) }
        processes = segment.processes().filter { $0.slot != segment.slot && $0.isAlive }.map { process in
            Process(process, claims: claims.map { $0[process.slot] ?? nil })
        }
        let all = (0..<pools).map { try? segment.pool($0) }
        free = all.map { max(0, $0?.snapshot().free ?? 0) }
        caps = all.map { $0?.settings.sum ?? 0 }
    }

    /// Who has the file of a segment open that cannot be attached to: each may have all that there is.
    init(of file: FoundSegment.File, pools: Int) {
        processes = OpenFiles.holders(of: file).map { Process(processID: $0, pools: pools) }
        free = Array(repeating: 0, count: pools)
        caps = free
    }

    /// Who is in a segment whose words are not to be trusted: as they say where they make sense, else as they last did.
    ///
    /// Memory can say that nobody is there, and who has come since it was last looked at is not in `last`. What cannot lie is
    /// who holds a slot's lock, and then the slot's own words say what it has; and where the memory, and with it the locks, is
    /// lost: who has the file open.
    ///
    /// - Parameter caps: of each pool now: what has been added since `last` was free too.
    init(ofDamaged segment: Segment, last: Attendance, caps: [Int]) {
        self = last
        let pools = caps.count
        for pool in 0..<pools { free[pool] += max(0, caps[pool] - last.caps[pool]) }
        let held = (0..<Limits.processes).filter { $0 != segment.slot && segment.holds(slot: $0) }.map { slot in
            Process(segment.process(slot: slot), claims: (0..<pools).map { segment.claim(pool: $0, slot: slot) })
        }
        // Memory that goes while it is read says that nobody has anything.
        if segment.isLost || segment.isCut {
            let others = OpenFiles.holders(of: FoundSegment(segment).file).subtracting(
                processes.filter(\.isVisible).map(\.processID))
            // Those whose numbers say nothing here, of other namespaces or of damaged words, have the file open like everybody:
            // they are among the others, and are seen to leave, unless there are fewer of these.
            if others.count >= processes.count(where: { !$0.isVisible }) { processes.removeAll { !$0.isVisible } }
            processes += others.map { Process(processID: $0, pools: pools) }
            return
        }
        processes = held.map { process in
            var process = process
            if let before = last.processes.first(where: { $0.slot == process.slot }), before.processID == process.processID {
                // What damage has done to its words since makes them no smaller.
                process.claims = zip(process.claims, before.claims).map { now, before in
                    now.map { max($0, before ?? 0) } ?? before
                }
            }
            return process
        }
    }
}

/// A segment that has lost the name.
struct FoundSegment {
    struct File: Sendable {
        /// The name that it had.
        let path: String
        let number: FileNumber
    }

    let file: File
    /// Attached as keeper; nil: it is too damaged for that.
    let segment: Segment?

    init(_ segment: Segment) {
        file = File(path: segment.path, number: segment.fileNumber)
        self.segment = segment
    }

    init(_ file: File) {
        self.file = file
        segment = nil
    }
}

final class FormerSegment: Sendable {
    /// Nil: it is too damaged to be attached to.
    let segment: Segment?
    private let file: FoundSegment.File
    /// Nil: its words are sound, and tell who has what.
    private let attendance: Mutex<Attendance?>
    /// What the pools were capped at: no process has more. Nil: it is not known.
    private let caps: [Int]?
    private let pools: Int

    /// - Parameter attendance: nil: the segment's words are sound.
    init(_ found: FoundSegment, attendance: Attendance?, caps: [Int]?, pools: Int) {
        segment = found.segment
        file = found.file
        self.caps = caps
        self.pools = pools
        self.attendance = Mutex(attendance)
    }

    /// Whether the locks of its processes are gone with its memory.
    private var isLost: Bool { segment.map { $0.isLost || $0.isCut } ?? true }

    /// Sessions of a pool that may still be in progress. Never fewer than are; nil: how many cannot be told.
    func taken(pool: Int) -> Int? {
        guard let attendance = attendance.withLock({ $0 }) else { return max(0, (try? segment?.pool(pool).taken) ?? 0) }
        let present = attendance.processes.filter(isPresent)
        guard !present.isEmpty else { return 0 }
        var claims = 0
        for process in present {
            guard let claim = process.claims[pool] ?? caps?[pool] else { return nil }
            claims += claim
        }
        // Memory that is gone says nothing of what was taken since it was last looked at.
        let sum = claims + (isLost ? attendance.free[pool] : 0)
        return caps.map { min(sum, max($0[pool], claims)) } ?? sum
    }

    /// What a person should know while sessions of this segment hold the cap back; nil: none do.
    var trouble: String? {
        let taken = (0..<pools).map(taken)
        guard taken.contains(where: { $0 != 0 }) else { return nil }
        let isKnown = !taken.contains(nil)
        let sessions = SessionCount.text(isKnown ? taken.reduce(0) { $0 + ($1 ?? 0) } : nil)
        let isLimit = isKnown && attendance.withLock { $0 != nil }
        return "A replaced segment holds the cap back for \(isLimit ? "up to " : "")\(sessions) of "
            + SessionCount.text(users: users)
            + (isKnown ? "" : ", so no session is licensed") + ". It does so until they end, or until the proxies are reloaded"
    }

    /// The processes that may have sessions here.
    private var users: [Int] {
        if let attendance = attendance.withLock({ $0 }) { return attendance.processes.filter(isPresent).map(\.processID) }
        guard let segment else { return [] }
        let claims = (0..<pools).map { segment.claims(pool: $0) }
        return segment.processes().filter { process in
            process.slot != segment.slot && claims.contains { ($0[process.slot] ?? nil) != 0 }
        }.map(\.processID)
    }

    private func isPresent(_ process: Attendance.Process) -> Bool {
        // A lock goes with the memory: where that is lost the process may be there all the same.
        if segment?.holds(slot: process.slot) == true { return true }
        if !isLost { return false }
        return !process.isVisible || fpx_process_start(Int32(clamping: process.processID)) == process.startTime
    }

    /// Leaves out who has left: a process closes the file of lost memory with the last session that it has begun there. Each
    /// second, for it looks through the descriptors of processes.
    func look() {
        if !isLost { return }
        guard let present = attendance.withLock({ $0 })?.processes else { return }
        let gone = present.filter { $0.isVisible && !OpenFiles.holds($0.processID, file) }.map(\.processID)
        attendance.withLock { $0?.processes.removeAll { gone.contains($0.processID) } }
    }

    /// Gives back what dead processes held.
    /// - Returns: how many were found dead.
    func reap() -> Int { attendance.withLock { $0 == nil } ? segment?.reap() ?? 0 : 0 }

    /// Whether nothing of it is left.
    var isOver: Bool {
        if let attendance = attendance.withLock({ $0 }) { return !attendance.processes.contains(where: isPresent) }
        return segment?.processes().allSatisfy { $0.slot == segment?.slot } != false
            && (0..<pools).allSatisfy { taken(pool: $0) == 0 }
    }
}

/// How sessions and processes are told to people.
enum SessionCount {
    /// - Parameter count: nil: it is not known.
    static func text(_ count: Int?) -> String {
        switch count {
        case nil: "an unknown number of sessions"
        case 1: "1 session"
        case let count?: "\(count) sessions"
        }
    }

    static func text(processes count: Int) -> String { count == 1 ? "1 process" : "\(count) processes" }

    /// - Parameter users: their process ids.
    static func text(users: [Int]) -> String {
        let numbers = Set(users).sorted()
        let shown = numbers.prefix(8).map(String.init).joined(separator: ", ")
        switch numbers.count {
        case 0: return "a process that is gone"
        case 1: return "process \(shown)"
        case ...8: return "processes \(shown)"
        case let count: return "\(count) processes (\(shown), ...)"
        }
    }
}
