// Scale: a large pool without faults, on paper hardware: what the plan costs, what etcd must write and send, how soon and how
// fairly seats are where they should be.

import SeatSharing
import TestSupport

final class Scale {
    private enum Item {
        case tick(Int)
        case arrive(Int, Row, revision: Int)
        case answer(Int, sequence: Int, WriteOutcome)
        case drained(Int, SeatType, number: Int, to: Int)
        case read
    }

    private let members: Int
    private var random = SeededGenerator(seed: 1)
    private var queue = Queue<Item>()
    private var real: Nanoseconds = 0
    private var store = Store()
    private var units: [Unit] = []
    private var demands: [Seats] = []
    private var reader: PoolReader
    private var pool: Pool?
    private var readings = 0
    private var reading = Duration.zero
    private var bytes = 0
    private var events = 0
    private let term: Nanoseconds = 30 * .second

    init(members: Int) throws(SharingError) {
        self.members = members
        reader = PoolReader(cluster: "LIC1", mode: .fabric, term: term, sessionsPerSeat: 25)
        for index in 0..<members {
            let name = String(index + 100_000)
            let configuration = try UnitConfiguration(
                cluster: "LIC1", serial: "FPX\(name)", mode: .fabric, role: index == 0 ? .root : .member,
                preferences: index == 0 ? Preferences(global: Seats(5)) : nil, term: term)
            let seats = [0, 20, 40, 250][Int.random(in: 0..<4, using: &random)]
            let entitlement = Entitlement(purchased: Seats(seats), modelMax: Seats(500), until: .forever)
            units.append(
                Unit(
                    configuration, entitlement: entitlement, incarnation: UInt64(index + 1),
                    former: .known(.nothing(id: 1)), now: Instant(0), unixTime: 0))
            demands.append(.zero)
        }
    }

    private func pickDemands(_ choices: [Int]) {
        for index in units.indices {
            demands[index] = Seats { _ in choices[Int.random(in: choices.indices, using: &random)] }
        }
    }

    func report() throws(SharingError) {
        pickDemands([1, 5, 30, 60, 200])
        let clock = ContinuousClock()
        let begun = clock.now
        for index in units.indices {
            queue.add(Nanoseconds.random(in: 0..<Pace(term: term, members: members).heartbeat, using: &random), .tick(index))
        }
        queue.add(0, .read)
        let pace = Pace(term: term, members: members)
        let settle = 5 * pace.heartbeat
        runUntil(settle)
        let (quietWrites, quietFrom) = (store.writes, real)
        runUntil(settle + 2 * pace.heartbeat)
        let quiet = Double(store.writes - quietWrites) * 1e9 / Double(real - quietFrom)
        // Everybody wants something else at once, and in all more than there is.
        pickDemands([1, 30, 60, 200, 400])
        let (shiftWrites, shiftAt) = (store.writes, real)
        for index in units.indices {
            queue.add(real + Nanoseconds.random(in: 0..<Nanoseconds.second, using: &random), .tick(index))
        }
        var converged: [Double: Double] = [:]
        while real < shiftAt + 5 * pace.heartbeat {
            runUntil(real + .second)
            let share = placed()
            // The last time that it came to be so: at first the plan itself is of before the change.
            for level in [0.9, 0.99, 0.999] {
                if share < level {
                    converged[level] = nil
                } else if converged[level] == nil {
                    converged[level] = Double(real - shiftAt) / 1e9
                }
            }
        }
        let busy = Double(store.writes - shiftWrites) * 1e9 / Double(real - shiftAt)
        let rowBytes = bytes / max(1, store.writes)
        let perRead = Double(rowBytes * members)
        print(
            "members \(members), heartbeat \(pace.heartbeat / .millisecond) ms, term \(pace.term / .second) s, \(events) events, "
                + "\(Int(Double(events) / ((clock.now - begun) / .seconds(1)))) events/s")
        print("etcd writes/s: \(Int(quiet)) quiet, \(Int(busy)) after all demands changed; row \(rowBytes) bytes")
        print(
            "one reading of the pool: \(Int(perRead / 1e3)) kB; once a heartbeat by each member: "
                + "\(Int(perRead * Double(members) / (Double(pace.heartbeat) / 1e9) / 1e6)) MB/s from all of etcd")
        print("decode of what changed, index and plan: \(Int(reading / .milliseconds(1)) / max(1, readings)) ms a reading")
        for level in converged.keys.sorted() {
            print("seats where the plan has them, \(level * 100) %: after \(converged[level] ?? 0) s")
        }
        print("at the end \(placed() * 100) %; \(fairness())")
        planCost(clock)
    }

    private func planCost(_ clock: ContinuousClock) {
        guard let pool else { return }
        let spent = (0..<5).map { _ in
            clock.measure {
                _ = Plan(
                    rows: pool.rows, takesPart: pool.rows.map { _ in true }, preferences: Preferences(global: Seats(5)),
                    isDecided: true)
            }
        }
        print("the plan alone: \(spent.min().map { Int($0 / .microseconds(1)) } ?? 0) us")
    }

    /// The share of the plan's targets that units may use now.
    private func placed() -> Double {
        guard let pool else { return 0 }
        var (target, has) = (0, 0)
        for unit in units {
            guard let place = pool.places[unit.configuration.serial] else { continue }
            let goal = pool.plan.shares[place].target
            let cap = unit.cap(at: Instant(real))
            for type in SeatType.allCases {
                target += goal[type]
                has += min(goal[type], cap[type])
            }
        }
        return target == 0 ? 0 : Double(has) / Double(target)
    }

    /// Jain's index of what those who want more than they get have beyond their guarantee, by weight.
    private func fairness() -> String {
        guard let pool else { return "" }
        var levels: [Double] = []
        for unit in units {
            guard let place = pool.places[unit.configuration.serial] else { continue }
            let share = pool.plan.shares[place]
            let cap = unit.cap(at: Instant(real)).furl
            guard share.want.furl > share.target.furl, cap > share.guaranteed.furl else { continue }
            levels.append(Double(cap) / Double(max(1, pool.rows[place].purchased.furl)))
        }
        guard !levels.isEmpty else { return "nobody wants more than he gets" }
        let (sum, squares) = (levels.reduce(0, +), levels.reduce(0) { $0 + $1 * $1 })
        return "Jain's index of \(levels.count) that want more: \(sum * sum / (Double(levels.count) * squares))"
    }

    private func runUntil(_ end: Nanoseconds) {
        while real < end, let (time, item) = queue.next() {
            real = time
            events += 1
            handle(item)
        }
    }

    private func step(_ index: Int, _ event: Event) {
        for effect in units[index].step(event, now: Instant(real)) {
            switch effect {
            case .setCap, .notice, .read: break
            case .drain(let type, let to, let number):
                queue.add(real + 50 * .millisecond, .drained(index, type, number: number, to: to))
            case .write(let row, let revision): queue.add(real + delay, .arrive(index, row, revision: revision))
            case .remember(let record): step(index, .remembered(record))
            }
        }
    }

    private var delay: Nanoseconds { Nanoseconds.random(in: 1...10, using: &random) * .millisecond }

    private func handle(_ item: Item) {
        switch item {
        case .tick(let index):
            step(index, .use(used: demands[index], demand: demands[index]))
            if let pool { step(index, .pool(pool)) }
            let pace = Pace(term: term, members: members)
            queue.add(real + max(pace.gap / 2, 100 * .millisecond) + delay, .tick(index))
        case .arrive(let index, let row, let revision):
            let value = row.encoded
            bytes += value.count
            let accepted = store.put(
                Row.key(cluster: "LIC1", serial: row.serial), Signed(bytes: value), ifRevision: revision)
            queue.add(
                real + delay, .answer(index, sequence: row.sequence, accepted ? .accepted(revision: store.revision) : .refused))
        case .answer(let index, let sequence, let outcome): step(index, .written(sequence: sequence, outcome))
        case .drained(let index, let type, let number, let to): step(index, .drained(type, number: number, to: to))
        case .read:
            // All read the same states, a little old, so that one reading serves all of them here.
            let clock = ContinuousClock()
            let state = store.now
            let values = state.values.map { stored in
                KeyValue(
                    key: stored.key, value: stored.value.bytes, revision: stored.revision,
                    proof: .success(
                        Proof(
                            serial: String(stored.key.suffix(9)), purchased: Seats(500), modelMax: Seats(500),
                            sessionsPerSeat: 25,
                            until: .forever)))
            }
            reading += clock.measure { pool = try? reader.read(values, revision: state.revision, now: Instant(real)) }
            readings += 1
            queue.add(real + max(500 * .millisecond, Pace(term: term, members: members).gap / 4), .read)
        }
    }
}
