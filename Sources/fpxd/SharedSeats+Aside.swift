// What is looked at beside the unit's own steps: pools whose names differ in case alone, members that are set in another way,
// and the rows of units that are gone.
//
// A row that is deleted takes nothing from anybody: what its unit has lent is on that unit's own disk, what others have
// borrowed from it ends at their deadlines, and what it has borrowed comes home to its lenders by their own counting. A unit
// that speaks again writes its row anew.

import ControlAPI
import ControlPlane
import Etcd
import Foundation
import Logging
import SeatSharing
import struct SeatSharing.Unit

extension SharedSeats {
    struct Aside {
        /// Since when a row is as it is, by this unit's clock.
        struct Silence {
            let revision: Int
            let since: Instant
        }

        /// Nil: not in contact yet.
        var nextLook: Instant?
        var lookalikes: [String] = []
        var poolRevision = 0
        /// By serial, also of rows that cannot be read.
        var silences: [String: Silence] = [:]
    }

    private static let lookedAsideEvery: Nanoseconds = 60 * .second
    /// A unit that has not spoken for so long, by its own wall clock and this host's, is taken for gone. Both may be wrong: it
    /// loses nothing.
    private static let goneAfterDays = 30
    private static let poolsMax = 64

    /// Each time that something may be due.
    func lookAside(_ state: inout State) {
        guard let link = state.link, let unit = state.unit, unit.isConnected, let pool = unit.pool else { return }
        let now = Clock.now
        listen(to: pool, now, &state)
        // First when all whose rows lie there have had the time to speak.
        guard let next = state.aside.nextLook else {
            state.aside.nextLook = now + 2 * unit.pace.staleAfter
            return
        }
        guard now >= next else { return }
        state.aside.nextLook = now + Self.lookedAsideEvery
        let gone = gone(unit, pool, state.aside, now)
        Task { await look(link, incarnation: unit.incarnation, gone: gone) }
    }

    /// Since when each row is as it is.
    private func listen(to pool: Pool, _ now: Instant, _ state: inout State) {
        guard pool.revision != state.aside.poolRevision else { return }
        state.aside.poolRevision = pool.revision
        var silences: [String: Aside.Silence] = [:]
        for (serial, revision) in pool.revisions {
            let known = state.aside.silences[serial]
            silences[serial] = known?.revision == revision ? known : Aside.Silence(revision: revision, since: now)
        }
        state.aside.silences = silences
    }

    private func look(_ link: Link, incarnation: UInt64, gone: [(serial: String, days: Int, revision: Int)]) async {
        let lookalikes = await lookalikes(link)
        withState { state in
            guard state.unit?.incarnation == incarnation else { return }
            state.aside.lookalikes = lookalikes
        }
        for (serial, days, revision) in gone {
            guard (try? await delete(serial, revision, link)) == true else { continue }
            withState { state in
                state.note(.warning, "The row of \(serial) is removed: it has not spoken for \(days) days")
            }
        }
    }

    // MARK: Hints

    /// What works, and is seldom meant.
    func hints(_ unit: Unit, _ state: State) -> [String] {
        let own = unit.configuration
        var hints = state.aside.lookalikes.map {
            "a pool \"\($0)\" is in the same etcd: names that differ in case are pools of their own, and this unit is in \"\(own.cluster)\""
        }
        guard unit.isConnected, let pool = unit.pool else { return hints }
        var serials: [Nanoseconds: [String]] = [:]
        for (row, isStale) in zip(pool.rows, pool.isStale) where !isStale && row.term != own.term {
            serials[row.term, default: []].append(row.serial)
        }
        for (term, serials) in serials.sorted(by: { $0.key < $1.key }) {
            let shown = serials.prefix(5).joined(separator: ", ") + (serials.count > 5 ? " and others" : "")
            hints.append(
                "found a term of \(Self.seconds(term)) on \(shown), expected \(Self.seconds(own.term)) as here: "
                    + "set the same on all units of the pool")
        }
        return hints
    }

    private static func seconds(_ time: Nanoseconds) -> String { "\(time / .second) s" }

    /// Other pools of this etcd. Each is found by its first key, and then skipped; a user of etcd who may not see them sees
    /// none.
    private func lookalikes(_ link: Link) async -> [String] {
        var found: [String] = []
        var next = "pool/"
        for _ in 0..<Self.poolsMax {
            var request = EtcdRangeRequest(key: next)
            (request.end, request.limit, request.keysOnly) = ("pool0", 1, true)
            guard let key = try? await link.client.range(request).values.first?.key else { break }
            let name = String(key.dropFirst("pool/".count).prefix { $0 != "/" })
            // What follows the last key below `pool/NAME/`.
            next = key.hasPrefix("pool/\(name)/") ? "pool/\(name)0" : key + "\0"
            if Row.isName(name), name != link.way.group, name.lowercased() == link.way.group.lowercased() {
                found.append(name)
            }
        }
        return found
    }

    // MARK: Rows of units that are gone

    /// Rows that this unit is to remove: of the units that take part, the first by serial does it.
    private func gone(
        _ unit: Unit, _ pool: Pool, _ aside: Aside, _ now: Instant
    ) -> [(serial: String, days: Int, revision: Int)] {
        guard let place = unit.place, !zip(pool.rows, pool.isStale).prefix(place).contains(where: { $0.isEntitled && !$1 })
        else { return [] }
        let time = Int(Date.now.timeIntervalSince1970)
        return zip(pool.rows, pool.isStale).compactMap { row, isStale in
            guard isStale, let silence = aside.silences[row.serial], now - silence.since > unit.pace.staleAfter else {
                return nil
            }
            let days = (time - row.ping) / 86400
            // What is lent for longer is told by the row until then, or until its licence ends, when it reads as giving
            // nothing.
            let isOver = row.grants.allSatisfy { $0.keep != .forever && row.ping + Int($0.keep / .second) < time }
            return days >= Self.goneAfterDays && isOver ? (row.serial, days, silence.revision) : nil
        }
    }

    /// - Returns: whether it was there as it was read, and is no more.
    private func delete(_ serial: String, _ revision: Int, _ link: Link) async throws(EtcdError) -> Bool {
        let key = Row.key(cluster: link.way.group, serial: serial)
        return try await link.client.transaction(
            EtcdTransaction(if: [.modRevision(key: key, revision)], then: [.delete(key: key)])
        ).succeeded
    }

    /// Removes the row of a unit that is gone.
    ///
    /// - Throws: for one that speaks, or has not been looked at for long enough to know.
    func removeRow(_ serial: String, by user: String) async throws(ControlFailure) -> MemberRemoved {
        let (link, unit, aside) = state.withLock { state in
            // What was read since the last look.
            if let pool = state.unit?.pool { listen(to: pool, Clock.now, &state) }
            return (state.link, state.unit, state.aside)
        }
        guard let link, let unit else {
            throw ControlFailure(.unavailable, "found no sharing of seats on this unit, expected a unit of the pool")
        }
        let group = link.way.group
        guard unit.isConnected else {
            throw ControlFailure(
                .unavailable, "found no contact with pool \(group), expected it: whether \(serial) speaks is not known")
        }
        guard serial != unit.configuration.serial else {
            throw ControlFailure(.invalidValue, "found the serial of this unit, \(serial), expected another's")
        }
        guard let silence = aside.silences[serial] else {
            let others = aside.silences.keys.filter { $0 != unit.configuration.serial }.sorted()
            throw ControlFailure(
                .notFound,
                "found no row of \(serial.prefix(64)) in pool \(group), expected one of "
                    + (others.isEmpty ? "none: this unit is alone" : others.prefix(20).joined(separator: ", ")))
        }
        let silent = Clock.now - silence.since
        func speaks(_ found: String) -> ControlFailure {
            ControlFailure(
                .invalidValue,
                "found that \(serial) \(found), expected a unit that is silent for \(unit.pace.staleAfter / .second + 1) seconds: "
                    + "stop its fpxd, or turn its sharing off")
        }
        guard silent > unit.pace.staleAfter else {
            throw speaks("has written its row within the last \(silent / .second + 1) seconds")
        }
        let isRemoved: Bool
        do throws(EtcdError) { isRemoved = try await delete(serial, silence.revision, link) } catch {
            throw ControlFailure(.unavailable, "\(error)")
        }
        guard isRemoved else { throw speaks("has written its row just now") }
        note(.warning, .sharing, "The row of \(serial) is removed from pool \(group) by \(user)")
        withState { read(&$0) }
        return MemberRemoved(serial: serial, group: group)
    }
}
