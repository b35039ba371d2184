// Faults: what can go wrong, and when it does in this run. Each has a begin and an end; they overlap as they like.

import Foundation
import TestSupport

enum FaultKind: String, CaseIterable {
    case cutUnit, cutMember, loss, stopDaemon, stopUnit, killDaemon, endDaemon, killWorker, killMember, stopMember, lostQuorum
    case amnesia, compaction, quota, vandal, wallClock, license, preferences, failover
}

struct Step {
    /// Seconds after the faults begin.
    let at: Double
    let text: String
    let action: () throws -> Void
}

/// Draws the faults of a run.
struct Schedule {
    /// Faults begin and end within so many seconds.
    static let seconds = 13.0

    private(set) var steps: [Step] = []
    private(set) var counts: [FaultKind: Int] = [:]
    private let plan: Plan
    private let run: Run
    private var random: SeededGenerator

    init(_ plan: Plan, of run: Run, only: [FaultKind], random: SeededGenerator) {
        self.plan = plan
        self.run = run
        self.random = random
        let kinds = only.isEmpty ? FaultKind.allCases : only
        for _ in 0..<Int.random(in: 6...14, using: &self.random) {
            let kind = kinds.randomElement(using: &self.random) ?? .cutUnit
            guard isAllowed(kind) else { continue }
            counts[kind, default: 0] += 1
            draw(kind)
        }
        steps.sort { $0.at < $1.at }
    }

    private func isAllowed(_ kind: FaultKind) -> Bool {
        switch kind {
        // Where loans do not end by time, what is lent is known from etcd: there it may be slow and silent, but not forget.
        case .vandal: plan.isByTime
        case .amnesia: plan.isByTime && plan.members == 1
        // A licence that is taken away: what was lent of it is kept until it is given back.
        case .license: plan.isByTime
        case .preferences: !plan.mode.isHA
        case .failover: plan.mode.isHA
        default: true
        }
    }

    private mutating func number(_ range: ClosedRange<Int>) -> Int { .random(in: range, using: &random) }
    private mutating func chance(_ range: ClosedRange<Double>) -> Double { .random(in: range, using: &random) }
    private mutating func unit() -> Station { run.stations[number(0...run.stations.count - 1)] }
    private mutating func member() -> Cluster.Member { run.cluster.members[number(0...run.cluster.members.count - 1)] }

    private mutating func add(_ at: Double, _ text: String, _ action: @escaping () throws -> Void) {
        steps.append(Step(at: at, text: text, action: action))
    }

    /// From `at` on, for a while.
    private mutating func span(
        _ text: String, _ lengths: ClosedRange<Double>, begin: @escaping () throws -> Void, end: @escaping () throws -> Void
    ) {
        let length = chance(lengths)
        let at = chance(0...max(0.1, Self.seconds - length))
        add(at, "\(text) for \((length * 10).rounded() / 10) s", begin)
        add(at + length, "\(text): over", end)
    }

    /// A pause shorter than a loan, or longer.
    private mutating func pause() -> ClosedRange<Double> { Bool.random(using: &random) ? 0.3...2 : 3.2...7 }

    private mutating func draw(_ kind: FaultKind) {
        let (run, unit, member) = (run, unit(), member())
        switch kind {
        case .cutUnit:
            let fault = [CableFault.cut, .deaf, .mute][number(0...2)]
            span("\(unit.serial) \(fault)", pause(), begin: { try unit.place.spoil(fault) }, end: { try unit.place.mend() })
        case .cutMember:
            let takesLeader = Bool.random(using: &random)
            span(
                "etcd's \(takesLeader ? "leader" : member.name) cut", pause(),
                begin: { try (takesLeader ? run.cluster.leader ?? member : member).place.spoil(.cut) },
                end: { for member in run.cluster.members { try member.place.mend() } })
        case .loss:
            let share = chance(0.05...0.5)
            let place = Bool.random(using: &random) ? unit.place : member.place
            span("\(place.network) loses \(share)", 2...8, begin: { try place.spoil(.loss(share)) }, end: { try place.mend() })
        case .stopDaemon, .stopUnit:
            let all = kind == .stopUnit
            span(
                "\(unit.serial) stopped\(all ? " with its workers" : "")", pause(),
                begin: { unit.signal(SIGSTOP, workersToo: all) }, end: { unit.signal(SIGCONT, workersToo: all) })
        case .killDaemon:
            let lengths = Bool.random(using: &random) ? 0.0...0.05 : 0.5...6
            span("\(unit.serial) killed", lengths, begin: { unit.end(by: SIGKILL) }, end: { try run.restart(unit) })
        case .endDaemon: span("\(unit.serial) ended", 0...2, begin: { unit.end(by: SIGTERM) }, end: { try run.restart(unit) })
        case .killWorker:
            let worker = number(0...Station.workers - 1)
            span(
                "\(unit.serial) worker \(worker) killed", 0.1...2, begin: { unit.killWorker(worker) },
                end: { try run.startWorkers(unit) })
        case .license: drawLicense(unit)
        case .wallClock:
            let seconds = [-86400, -3600, -30, 30, 3600][number(0...4)]
            // A clock that was ahead stays so: to be set back is a state of the licence, which has tests of its own.
            span(
                "\(unit.serial) wall clock \(seconds) s", 1...6, begin: { run.setWall(unit, seconds) },
                end: { if seconds < 0 { run.setWall(unit, 0) } })
        case .preferences:
            let seats = "\(number(0...6))/\(number(0...1))/\(number(0...3))"
            add(chance(0...Self.seconds), "preferred seats \(seats)") {
                _ = try run.stations[0].ask("config", "system", "csf", "set", "preferred-seats", seats, "end")
            }
        case .failover: drawFailover(unit)
        default: drawOfEtcd(kind, member)
        }
    }

    private mutating func drawOfEtcd(_ kind: FaultKind, _ member: Cluster.Member) {
        let cluster = run.cluster
        switch kind {
        case .killMember:
            span("\(member.name) killed", 0.05...4, begin: { member.process?.end() }, end: { try cluster.start(member) })
        case .stopMember:
            let signal = { member.process?.signal($0) }
            span("\(member.name) stopped", pause(), begin: { _ = signal(SIGSTOP) }, end: { _ = signal(SIGCONT) })
        case .lostQuorum:
            span(
                "etcd without quorum", 0.5...6,
                begin: { for member in cluster.members.prefix(cluster.quorum) { member.process?.end() } },
                end: { for member in cluster.members { try cluster.start(member) } })
        case .amnesia:
            span(
                "\(member.name) has lost its disk", 0.1...3,
                begin: { [run] in
                    run.excuseAll()
                    try cluster.forget(member)
                },
                end: { try cluster.start(member) })
        case .compaction: add(chance(0...Self.seconds), "etcd compacts") { cluster.compact() }
        case .quota: span("etcd's disk is full", 1...5, begin: { try cluster.fill() }, end: { cluster.disarm() })
        default:
            let damage = Damage.allCases[number(0...Damage.allCases.count - 1)]
            let (victim, other) = (unit(), unit())
            if damage == .oldRow { return drawOldRow(victim) }
            add(chance(0...Self.seconds), "etcd: \(damage) \(victim.serial)") { [run] in
                run.excuseAll()
                damage.strike(cluster, victim: victim.serial, other: other.serial)
            }
        }
    }

    /// As from a backup.
    private mutating func drawOldRow(_ unit: Station) {
        let cluster = run.cluster
        var row: String?
        let key = Damage.prefix + unit.serial
        span(
            "etcd: old row of \(unit.serial)", 0.3...5, begin: { row = cluster.rows(key).first { $0.key == key }?.value },
            end: { [run] in
                run.excuseAll()
                if let row { cluster.put(key, row) }
            })
    }

    private mutating func drawLicense(_ unit: Station) {
        let seats = unit.seats.map { max(0, $0 + number(-4...4)) }
        add(chance(0...Self.seconds), "\(unit.serial) licence \(seats)") { [run] in try run.change(unit, to: seats) }
    }

    private mutating func drawFailover(_ unit: Station) {
        add(chance(0...Self.seconds), "\(unit.serial) is primary") { [run] in
            // As keepalived does it: in any order, and not where nobody answers.
            for station in run.stations {
                _ = try station.ask(
                    "config", "system", "ha", "set", "role", station === unit ? "primary" : "secondary", "end", within: 1)
            }
        }
    }
}

/// What somebody may write into etcd who may write there.
enum Damage: String, CaseIterable {
    case forgetsAll, forgets, garbage, otherVersion, truncated, foreignKey, foreignCopy, oldRow, changed

    static let prefix = "pool/chaos/m/"

    func strike(_ cluster: Cluster, victim: String, other: String) {
        let prefix = Self.prefix
        let key = prefix + victim
        let row = cluster.rows(key).first { $0.key == key }?.value ?? ""
        switch self {
        case .forgetsAll: cluster.delete("pool/")
        case .forgets: cluster.delete(key)
        case .garbage: cluster.put(key, "\u{1}{{]garbage")
        case .otherVersion: cluster.put(key, "{\"version\":2}")
        case .truncated: cluster.put(key, String(row.prefix(row.count / 2)))
        case .foreignKey: cluster.put(prefix + "not a serial!", row)
        case .foreignCopy: cluster.put(prefix + (victim == other ? "U9" : other), row)
        case .oldRow: cluster.put(key, row)
        case .changed:
            // The signature is of other bytes.
            let middle = row.index(row.startIndex, offsetBy: row.count / 2)
            cluster.put(
                key, row.isEmpty ? "" : row.replacingCharacters(in: middle...middle, with: row[middle] == "A" ? "B" : "A"))
        }
    }
}
