import CAdmission
import CKeyedTable
import Glibc
import Synchronization

/// The process that a session belongs to. Its start time tells it from a later process with the same number.
public struct Owner: Hashable, Sendable {
    public let processID: Int32
    /// Clock ticks since boot (field 22 of /proc/PID/stat); 0 if unknown.
    public let startTime: UInt64

    public init(processID: Int32, startTime: UInt64) {
        self.processID = processID
        self.startTime = startTime
    }

    /// A process that runs now; nil if this process cannot see it (it is gone, or in another process namespace).
    public init?(runningProcess processID: Int32) {
        let startTime = processID > 0 ? fpx_process_start(processID) : 0
        guard startTime != 0 else { return nil }
        self.init(processID: processID, startTime: startTime)
    }

    /// Whether the process sees the same sockets as this one. Nil: it cannot be told.
    public var sharesNetwork: Bool? {
        switch fpx_same_network(processID) {
        case 1: true
        case 0: false
        default: nil
        }
    }
}

/// An owner whose death is noticed.
public final class WatchedOwner: Sendable {
    public let owner: Owner
    /// Readable when the process is dead; negative if it was dead already.
    fileprivate let descriptor: Int32
    /// Written once, by who finds it dead; read by each admission after its session can be found.
    private let dead = Atomic<Bool>(false)

    /// Nil: the process cannot be watched, which says nothing of its life.
    fileprivate init?(_ owner: Owner) {
        let descriptor = fpx_pidfd_open(owner.processID)
        let startTime = fpx_process_start(owner.processID)
        self.owner = owner
        self.descriptor = descriptor
        if descriptor == -ESRCH {
            markDead()
        } else if descriptor < 0 {
            return nil
        } else if startTime != 0, startTime != owner.startTime {
            markDead()  // the number has gone to another process
        }
    }

    deinit { if descriptor >= 0 { fpx_descriptor_close(descriptor) } }

    public var isDead: Bool { dead.load(ordering: .sequentiallyConsistent) }

    fileprivate func markDead() { dead.store(true, ordering: .sequentiallyConsistent) }
}

/// The owners that are watched: one pidfd each, looked at on each tick. A zombie counts as dead.
final class OwnerWatch: Sendable {
    /// Processes that are watched at the same time; sessions of more are those of unknown owners.
    static let limit = 4096
    private let owners = Mutex<[Owner: WatchedOwner]>([:])

    /// Nil: it cannot be watched, or too many are.
    func watch(_ owner: Owner) -> WatchedOwner? {
        owners.withLock { owners in
            if let known = owners[owner] { return known }
            guard owners.count < Self.limit else { return nil }
            guard let watched = WatchedOwner(owner) else { return nil }
            if !watched.isDead { owners[owner] = watched }
            return watched
        }
    }

    /// The owners that have died since the last call.
    func collectDead() -> [WatchedOwner] {
        owners.withLock { owners in
            let all = Array(owners.values)
            let descriptors = all.map(\.descriptor)
            var dead = [Bool](repeating: false, count: all.count)
            unsafe fpx_pidfd_poll(descriptors, &dead, all.count)
            let found = zip(all, dead).compactMap { $1 ? $0 : nil }
            for each in found {
                each.markDead()
                owners[each.owner] = nil
            }
            return found
        }
    }
}
