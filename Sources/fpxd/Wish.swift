// Wish: the seats that would be of use now, read from the engine.

import Admission
import SeatSharing
import struct SeatSharing.Unit

/// It rises at once and falls when nothing has asked for as much for three quarters of a second, so that seats do not wander with
/// every session.
struct Wish {
    private static let lookedEvery: Nanoseconds = 250 * .millisecond
    private static let looks = 3

    private var latest = Instant(.min)
    private var refused: [UInt64] = []
    /// Sessions in use, and those that would have been more.
    private var recent: [[Int]] = []
    private var unmet: [[Int]] = []

    /// - Parameter available: what the pool has; of a type that nobody has bought nothing is asked for in advance.
    /// - Returns: nil, where the last look is not long ago.
    mutating func look(
        at pools: [HostPool], sessionsPerSeat: Int, available: Seats, now: Instant
    ) -> (used: Seats, demand: Seats)? {
        guard latest == Instant(.min) || now - latest >= Self.lookedEvery else { return nil }
        latest = now
        let snapshots = pools.map { $0.snapshot() }
        let before = refused
        refused = snapshots.map(\.refused)
        // The counter falls when a process goes.
        let news = refused.enumerated().map { index, count in
            before.isEmpty || count < before[index] ? 0 : Int(clamping: count - before[index])
        }
        recent = (recent + [snapshots.map(\.inUse)]).suffix(Self.looks)
        unmet = (unmet + [news]).suffix(Self.looks)
        func seats(_ sessions: Int) -> Int { (min(sessions, Limits.cap) + sessionsPerSeat - 1) / sessionsPerSeat }
        func each(_ number: (Int) -> Int) -> Seats { Seats(furl: number(0), fnbi: number(1), fcas: number(2)) }
        let used = each { seats(snapshots[$0].inUse) }
        let wanted = each { pool in
            let missing = max(snapshots[pool].bypassed, unmet.reduce(0) { $0 + min($1[pool], Limits.cap) })
            return seats((recent.map { $0[pool] }.max() ?? 0) + missing)
        }
        let demand = Unit.demand(used: wanted)
        return (used, Seats { wanted[$0] == 0 && available[$0] == 0 ? 0 : demand[$0] })
    }
}
