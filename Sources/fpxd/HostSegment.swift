// HostSegment: the counters of this host. One segment is in force; it is looked at once a second, and replaced where its file
// is gone or its memory is not what the engine leaves behind.
//
// A replacement loses nobody: (1) a new segment is made beside the old one, with caps of 0; (2) the sessions of wire hooks are
// counted in it too; (3) the old one is marked, and admits nobody any more; (4) the new one gets the caps, less what is in
// progress in former ones, which is looked at with each reaping; (5) it gets the name; (6) the sessions of wire hooks leave the
// old one. Workers find the mark when they are refused, and attach again.
//
// Three threads come here: the reaper, the one that looks, and whoever sets caps. Whoever reads figures waits for none of them:
// no lock that they take is held while the memory is read.

import Admission
import AdmissionNUMA
import Foundation
import Logging
import Synchronization

final class HostSegment: Sendable {
    private struct Segments {
        var current: Segment
        var former: [FormerSegment] = []
        /// What was reported to segments that are over.
        var traffic: [Traffic]
    }

    private struct Caps {
        /// For the host as a whole.
        var wanted: [PoolSettings]
        /// In the segment in force.
        var applied: [PoolSettings]
    }

    private struct Seen {
        /// When the segment was last found in order.
        var attendance: Attendance
        var refusedProcesses: Int
        var fenceErrors: Set<Int> = []
        /// Why the segment is to be replaced and cannot be.
        var trouble: String?
        /// What was wrong with the segment in force, which this process has left since: nobody else had it.
        var left: Fault?
    }

    typealias Note = @Sendable (Logger.Level, String) -> Void

    /// Makes a new segment that does not have its name yet, and gives it that.
    struct Maker: Sendable {
        let make: @Sendable () throws -> Segment
        let publish: @Sendable () throws -> Void
    }

    private let pools: Int
    private let maker: Maker
    private let segments: Mutex<Segments>
    /// For moments.
    private let caps: Mutex<Caps>
    /// Held while caps are made those of the engine; `caps` and `segments` may be taken within it.
    private let applying = Mutex(())
    private let seen: Mutex<Seen>

    /// - Parameters:
    ///   - former: segments that have lost the name before this process was there.
    ///   - pools: how many of the segment's pools the daemon sets: those of the licence types.
    init(_ segment: Segment, former: [FoundSegment], pools: Int, maker: Maker) {
        self.pools = pools
        self.maker = maker
        let found = (0..<pools).map { Self.settings(segment, $0) }
        segments = Mutex(Segments(current: segment, traffic: Array(repeating: Traffic(), count: pools)))
        caps = Mutex(Caps(wanted: found, applied: found))
        // The memory can be lost before the first look.
        seen = Mutex(
            Seen(attendance: Attendance(segment, pools: pools), refusedProcesses: segment.refusedProcesses))
        for segment in former { adopt(segment) }
    }

    // MARK: what others read

    var segment: Segment { segments.withLock { $0.current } }
    var hostPools: [HostPool] { (0..<pools).map { HostPool(host: self, index: $0) } }

    func current(pool: Int) -> Pool { Self.pool(segment, pool) }

    private static func pool(_ segment: Segment, _ pool: Int) -> Pool {
        do { return try segment.pool(pool) } catch { preconditionFailure("\(error)") }
    }

    private static func settings(_ segment: Segment, _ index: Int) -> PoolSettings { pool(segment, index).settings }

    var trouble: String? { seen.withLock { $0.trouble } }

    /// A sentence for each segment that is not in force any more, and whose sessions hold the cap back.
    var troublesOfFormer: [String] { segments.withLock { $0.former }.compactMap(\.trouble) }

    /// Sessions in progress in segments that are not in force any more; nil: how many cannot be told.
    func takenBefore(pool: Int) -> Int? {
        var sum = 0
        for segment in segments.withLock({ $0.former }) {
            guard let taken = segment.taken(pool: pool) else { return nil }
            sum += taken
        }
        return sum
    }

    func settings(of pool: Int) -> PoolSettings { caps.withLock { $0.wanted[pool] } }

    /// Sessions of the cap that the segment in force does not have, for they are in progress in former ones.
    func withheld(pool: Int) -> Int { caps.withLock { $0.wanted[pool].cap - $0.applied[pool].cap } }

    func traffic(pool: Int) -> Traffic {
        let (current, former, over) = segments.withLock { ($0.current, $0.former, $0.traffic[pool]) }
        var sum = over
        for segment in [current] + former.compactMap(\.segment) where segment.isAttached {
            if let traffic = try? segment.pool(pool).traffic() { sum.add(traffic) }
        }
        return sum
    }

    // MARK: caps

    func set(_ pool: Int, _ change: (inout PoolSettings) -> Void) throws(SegmentError) {
        try applying.withLock { _ throws(SegmentError) in
            let before = settings(of: pool)
            var settings = before
            change(&settings)
            caps.withLock { $0.wanted[pool] = settings }
            do throws(SegmentError) {
                try apply(pool)
            } catch {
                caps.withLock { $0.wanted[pool] = before }
                throw error
            }
        }
    }

    /// Within `applying`.
    private func apply(_ index: Int) throws(SegmentError) {
        var (settings, applied) = caps.withLock { ($0.wanted[index], $0.applied[index]) }
        // What cannot be told is taken for all there can be.
        let before = takenBefore(pool: index) ?? Limits.cap
        settings.borrowed = max(0, settings.borrowed - max(0, before - settings.cap))
        settings.cap = max(0, settings.cap - before)
        if settings.borrowed == 0 { settings.deadline = 0 }
        if settings == applied { return }
        let pool = current(pool: index)
        try pool.setCap(settings.cap, borrowed: settings.borrowed, until: settings.deadline)
        if pool.policy != settings.policy { pool.policy = settings.policy }
        applied = settings
        caps.withLock { $0.applied[index] = applied }
    }

    /// Within `applying`. A cap that was accepted before is not refused later, but for a segment that is lost: that is looked
    /// at.
    private func applyAll() { for pool in 0..<pools { try? apply(pool) } }

    // MARK: the reaper

    /// Takes back what the dead held, in all segments. Each 25 ms.
    /// - Returns: how many processes were found dead.
    func reap() -> Int {
        let (current, former) = segments.withLock { ($0.current, $0.former) }
        var dead = current.reap()
        if former.isEmpty { return dead }
        for segment in former { dead += segment.reap() }
        // Before the caps: what leaves it after this is licensed with the next reaping.
        let over = former.filter(\.isOver)
        applying.withLock { _ in applyAll() }
        for segment in over { bury(segment) }
        return dead
    }

    private func bury(_ former: FormerSegment) {
        segments.withLock { segments in
            segments.former.removeAll { $0 === former }
            keepTraffic(of: former.segment, &segments)
        }
        former.segment?.detach()
    }

    // MARK: the look

    /// Looks whether the segment is in order, and replaces it if not. Each second, by one thread.
    ///
    /// - Parameter move: takes the sessions of wire hooks over to a new segment.
    func look(note: Note, move: (_ next: Segment, _ stop: () -> Void) throws -> Void) {
        let (current, former) = segments.withLock { ($0.current, $0.former) }
        for segment in former { segment.look() }
        guard let fault = fault(of: current) else {
            let attendance = Attendance(current, pools: pools)
            seen.withLock { ($0.attendance, $0.trouble) = (attendance, nil) }
            tell(current, note)
            return
        }
        do {
            do {
                try replace(current, fault, note, move)
            } catch {
                guard leave(current, fault) else { throw error }
                try replace(current, fault, note, move)
            }
            seen.withLock { $0.trouble = nil }
        } catch {
            let text = "\(fault.description); no new one can be made: \(error)"
            let isNews = seen.withLock { seen in
                defer { seen.trouble = text }
                return seen.trouble != text
            }
            if isNews { note(.critical, text) }
        }
    }

    /// Gives back the memory of a segment without a name that nobody else has, for a new one may need the room. What it counts
    /// are the sessions of wire hooks, which the new one will count.
    ///
    /// - Returns: false: it has a name, others have it, or it was left before.
    private func leave(_ segment: Segment, _ fault: Fault) -> Bool {
        guard segment.isAttached, [.gone, .taken].contains(segment.place),
            !(0..<Limits.processes).contains(where: { $0 != segment.slot && segment.holds(slot: $0) }),
            OpenFiles.holders(of: FoundSegment(segment).file).isEmpty
        else { return false }
        seen.withLock { $0.left = Fault(description: fault.description, isSound: true) }
        segments.withLock { keepTraffic(of: segment, &$0) }
        segment.detach()
        return true
    }

    private func keepTraffic(of segment: Segment?, _ segments: inout Segments) {
        guard let segment, segment.isAttached else { return }
        for pool in 0..<pools {
            if let traffic = try? segment.pool(pool).traffic() { segments.traffic[pool].add(traffic) }
        }
    }

    private struct Fault {
        let description: String
        /// Whether the words of the memory still say who has what.
        let isSound: Bool
    }

    private func fault(of segment: Segment) -> Fault? {
        let path = segment.path
        if let left = seen.withLock({ $0.left }) { return left }
        if segment.isLost { return Fault(description: "\(path): its memory is lost", isSound: false) }
        switch segment.place {
        case .there: break
        case .gone: return Fault(description: "\(path): the file of the shared counters was removed", isSound: true)
        case .taken: return Fault(description: "\(path): another file has the name of the shared counters", isSound: true)
        case .cut(let bytes):
            return Fault(description: "\(path): found \(bytes) bytes, expected the whole file", isSound: false)
        }
        // Whoever sets caps meanwhile makes the first look find a difference, and the second one none.
        for attempt in 0..<3 {
            let applied = caps.withLock { $0.applied }
            guard let damage = segment.audit(applied) else { return nil }
            if attempt == 2 { return Fault(description: "\(path): damaged: \(damage)", isSound: false) }
        }
        return nil
    }

    private func replace(
        _ old: Segment, _ fault: Fault, _ note: Note, _ move: (Segment, () -> Void) throws -> Void
    ) throws {
        let next = try maker.make()
        let last = seen.withLock { $0.attendance }
        var trouble: (any Error)?
        do {
            try move(next) {
                old.markReplaced(isSound: fault.isSound)
                applying.withLock { _ in
                    let applied = caps.withLock { $0.applied }
                    let attendance = fault.isSound ? nil : Attendance(ofDamaged: old, last: last, caps: applied.map(\.sum))
                    retire(old, attendance: attendance, applied)
                    segments.withLock { $0.current = next }
                    let found = (0..<pools).map { Self.settings(next, $0) }
                    caps.withLock { $0.applied = found }
                    applyAll()
                }
                // From here on workers come. If it fails the next look finds a segment without its name.
                do { try maker.publish() } catch { trouble = error }
            }
        } catch {
            next.detach()
            throw error
        }
        // What has moved counts once again.
        applying.withLock { _ in applyAll() }
        seen.withLock {
            $0.left = nil
            $0.attendance = Attendance(next, pools: pools)
            $0.refusedProcesses = next.refusedProcesses
        }
        if let trouble { throw trouble }
        let going = (0..<pools).map(takenBefore)
        let sessions = SessionCount.text(going.contains(nil) ? nil : going.reduce(0) { $0 + ($1 ?? 0) })
        let rest =
            fault.isSound
            ? "\(sessions) in former segments, until they end"
            : "\(going.contains(nil) ? "" : "at most ")\(sessions) in former segments, until their processes have left"
        let isEmpty = going.allSatisfy { $0 == 0 }
        note(
            .critical,
            "\(fault.description); replaced: new sessions are counted in a new segment"
                + (isEmpty ? "" : ". Still counted: \(rest)"))
    }

    /// Takes in a segment that was found at the start. Nobody may have told its processes that it has lost the name.
    private func adopt(_ found: FoundSegment) {
        var attendance: Attendance?
        if let segment = found.segment {
            let isSound = segment.audit((0..<pools).map { Self.settings(segment, $0) }, isReplaced: true) == nil
            segment.markReplaced(isSound: isSound)
            if !isSound {
                attendance = Attendance(
                    ofDamaged: segment, last: Attendance(segment, pools: pools), caps: Array(repeating: 0, count: pools))
            }
        } else {
            attendance = Attendance(of: found.file, pools: pools)
        }
        // What its pools were set to is not known.
        let former = FormerSegment(found, attendance: attendance, caps: nil, pools: pools)
        segments.withLock { $0.former.append(former) }
    }

    /// - Parameter settings: what its pools were set to.
    private func retire(_ segment: Segment, attendance: Attendance?, _ settings: [PoolSettings]) {
        let former = FormerSegment(FoundSegment(segment), attendance: attendance, caps: settings.map(\.sum), pools: pools)
        segments.withLock { $0.former.append(former) }
    }

    /// What the segment counts and nobody would see.
    private func tell(_ segment: Segment, _ note: Note) {
        let refused = segment.refusedProcesses
        let deaf = segment.processes().filter { $0.fenceError != 0 }
        let (more, newlyDeaf) = seen.withLock { seen in
            defer {
                seen.refusedProcesses = refused
                seen.fenceErrors = Set(deaf.map(\.processID))
            }
            // A word of the segment says anything.
            return (refused &- seen.refusedProcesses, deaf.filter { !seen.fenceErrors.contains($0.processID) })
        }
        if more > 0 {
            note(
                .error,
                "All \(Limits.processes - 1) process slots are taken: \(more) attempts to attach were refused, and the sessions of "
                    + "those processes get the verdict for a host without fpxd")
        }
        for process in newlyDeaf {
            note(
                .error,
                "\(process.name) (\(process.processID)): the kernel refuses membarrier since it attached (errno "
                    + "\(process.fenceError)); near the limit fpxd collects spare sessions in its place: allow the system call")
        }
    }
}

extension PoolSettings {
    /// Sessions that may be in progress.
    var sum: Int { cap + borrowed }
}
