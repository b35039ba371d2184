// FormerSegment: a segment that another one has replaced, while sessions go on in it.
//
// Its processes go on counting there what they have begun there, and start new sessions in its successor. What it holds is taken
// from the successor's caps, so that both together never have more than is licensed.

import Admission
import CAdmission

/// Who was attached to a segment, and what each may have had of each pool.
struct Attendance: Sendable {
    struct Process: Sendable {
        let slot: Int
        let processID: Int
        let startTime: UInt64
        /// Sessions at most, of each pool. Nil: it cannot be told.
        let claims: [Int?]
        /// Whether this process' number can be looked up from here: it is in another process namespace otherwise.
        let isVisible: Bool
    }

    var processes: [Process] = []
    /// Sessions that were free, of each pool: whoever was there may have taken them since.
    var free: [Int] = []

    init() {}

    /// - Parameter pools: how many pools the daemon sets.
    init(_ segment: Segment, pools: Int) {
        let claims = (0..<pools).map { segment.claims(pool: $0) }
        processes = segment.processes().filter { $0.slot != segment.slot && $0.isAlive }.map { process in
            Process(
                slot: process.slot, processID: process.processID, startTime: process.startTime,
                claims: claims.map { $0[process.slot] ?? nil },
                isVisible: process.startTime != 0 && fpx_process_start(Int32(clamping: process.processID)) == process.startTime)
        }
        free = (0..<pools).map { pool in max(0, (try? segment.pool(pool).snapshot().free) ?? 0) }
    }
}

final class FormerSegment: Sendable {
    private enum Knowledge: Sendable {
        /// Its words are sound: they tell who has what.
        case exact
        /// Its words are not to be trusted.
        case attendance(Attendance)
    }

    let segment: Segment
    private let knowledge: Knowledge
    /// What the pools were capped at: no process has more.
    private let caps: [Int]

    /// - Parameter attendance: nil: the segment's words are sound.
    init(_ segment: Segment, attendance: Attendance?, caps: [Int]) {
        self.segment = segment
        self.caps = caps
        knowledge = attendance.map { .attendance($0) } ?? .exact
    }

    /// Sessions of a pool that may still be in progress. Never fewer than are.
    func taken(pool: Int) -> Int {
        switch knowledge {
        case .exact: return max(0, (try? segment.pool(pool).taken) ?? 0)
        case .attendance(let attendance):
            let present = attendance.processes.filter(isPresent)
            guard !present.isEmpty else { return 0 }
            let claims = present.reduce(0) { $0 + ($1.claims[pool] ?? caps[pool]) }
            // Memory that is gone says nothing of what was taken since it was last looked at.
            return min(claims + (segment.isAttached ? 0 : attendance.free[pool]), max(caps[pool], claims))
        }
    }

    private func isPresent(_ process: Attendance.Process) -> Bool {
        // A lock goes with the memory: where that is lost the process may be there all the same.
        if segment.holds(slot: process.slot) { return true }
        if segment.isAttached { return false }
        return !process.isVisible || fpx_process_start(Int32(clamping: process.processID)) == process.startTime
    }

    /// Gives back what dead processes held.
    /// - Returns: how many were found dead.
    func reap() -> Int {
        guard case .exact = knowledge else { return 0 }
        return segment.reap()
    }

    /// Whether nothing of it is left.
    var isOver: Bool {
        switch knowledge {
        case .exact:
            segment.processes().allSatisfy { $0.slot == segment.slot } && caps.indices.allSatisfy { taken(pool: $0) == 0 }
        case .attendance(let attendance): !attendance.processes.contains(where: isPresent)
        }
    }
}
