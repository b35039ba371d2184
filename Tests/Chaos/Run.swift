// Run: one seed. A pool of units is set up, gets traffic and faults, is healed, and must then be whole again; the oracle looks on.

import Admission
import Foundation
import TestSupport

/// What the campaign is told.
struct Options {
    var isVerbose = false
    var only: [FaultKind] = []
    var mode: Plan.Mode?
    var policy: String?
}

struct Outcome {
    var report = Oracle.Report()
    var admitted = 0
    var refused = 0
    var faults: [FaultKind: Int] = [:]
    /// Seconds from when all spoke again until all that is bought was enforced; nil where it is not asked for.
    var wholeAfter: Double?
    var failures: [String] = []
    var trace: [String] = []
}

final class Run {
    let plan: Plan
    let options: Options
    private(set) var stations: [Station] = []
    private(set) var cluster: Cluster
    private(set) var oracle: Oracle!
    private var network: Network
    private let words: WorkerWords
    private let folder: String
    private let memory: String
    private var observers: [Segment] = []
    private var random: SeededGenerator
    private var walls: [String: Int] = [:]
    private var failures: [String] = []
    private var workerCount: Int { plan.seats.count * Station.workers }
    private let begin = boottime()

    /// - Parameters:
    ///   - name: of namespaces and folders.
    ///   - folder: for files on a disk.
    ///   - memory: for files in memory.
    init(seed: UInt64, name: String, folder: String, memory: String, programs: Programs, options: Options) throws {
        self.folder = folder
        self.memory = memory
        self.options = options
        random = SeededGenerator(seed: seed)
        plan = Plan(seed: seed, mode: options.mode, policy: options.policy, random: &random)
        for path in [folder, memory] {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o750])
        }
        words = WorkerWords(
            words: try SharedWords(
                path: memory + "/words", count: plan.seats.count * Station.workers * WorkerWords.each, creating: true))
        var network = try Network(name: name)
        do {
            cluster = try Cluster(count: plan.members, folder: folder, quota: plan.quota, network: &network)
            for index in plan.seats.indices {
                stations.append(
                    try Station(
                        plan, index: index, programs: programs, folder: folder, memory: memory, words: words,
                        endpoints: cluster.endpoints, network: &network))
            }
        } catch {
            network.remove()
            throw error
        }
        self.network = network
        tell(plan.description)
    }

    func tell(_ text: String) {
        oracle?.note(text)
        if options.isVerbose { say(String(format: "  %7.3f s  ", Double(boottime() - begin) / 1e9) + text) }
    }

    /// Ends all of its processes and removes its namespaces.
    func end() {
        oracle?.stop()
        for segment in observers { segment.detach() }
        for station in stations { station.end() }
        cluster.end()
        network.remove()
    }

    // MARK: What faults use

    func startWorkers(_ station: Station) throws { try station.startWorkers(count: workerCount) }

    func restart(_ station: Station) throws {
        oracle.excuse(station.index)
        try station.start()
    }

    /// etcd has forgotten, or says what is not so: every unit may begin anew.
    func excuseAll() { for station in stations { oracle.excuse(station.index, seconds: 60) } }

    func setWall(_ station: Station, _ seconds: Int) {
        oracle.excuse(station.index)
        walls[station.serial] = max(walls[station.serial] ?? 0, seconds)
        station.setWall(seconds: seconds == 0 ? walls[station.serial] ?? 0 : seconds)
    }

    /// More may be used as soon as the licence is in place; less must be, a term after a commit has said that it is in force.
    func change(_ station: Station, to seats: [Int]) throws {
        oracle.allow(station.index, seats: seats)
        oracle.excuse(station.index)
        try station.sign(seats)
        try commit(station)
    }

    private func commit(_ station: Station) throws {
        guard try station.ask("commit", within: 2).status == 0 else { return }
        oracle.disallow(station.index, until: boottime() + Int64(Plan.termSeconds) * second)
    }

    // MARK: The run

    func go() throws -> Outcome {
        try ready()
        let schedule = Schedule(plan, of: self, only: options.only, random: random)
        try pass(seconds: 3, steps: [])
        try pass(seconds: Schedule.seconds + 0.5, steps: schedule.steps)
        let wholeAfter = try heal()
        try audit()
        oracle.stop()
        let indices = 0..<workerCount
        var outcome = Outcome(
            report: oracle.report, admitted: indices.reduce(0) { $0 + words.admitted($1) },
            refused: indices.reduce(0) { $0 + words.refused($1) }, faults: schedule.counts, wholeAfter: wholeAfter,
            failures: failures)
        if let violation = outcome.report.violation {
            outcome.failures.insert(violation.text, at: 0)
            outcome.trace = violation.trace
        } else if !failures.isEmpty {
            outcome.trace = Array(oracle.trace.suffix(60))
        }
        return outcome
    }

    private func awaitUnits() throws {
        guard try eventually(within: 30, { stations.allSatisfy(\.answers) }) else {
            throw ChaosError.notReady(what: "all units", log: stations.map(\.log).joined(separator: "\n"))
        }
    }

    private func ready() throws {
        try awaitUnits()
        if !plan.isByTime {
            for station in stations { try station.share() }
            try awaitUnits()
        }
        for station in stations { observers.append(try Segment.attach(path: station.segmentPath)) }
        oracle = Oracle(try zip(stations, observers).map { try $0.watched($1) })
        oracle.start()
        for station in stations { try startWorkers(station) }
        guard try eventually(within: 30, { stations.allSatisfy(\.isWorking) }) else {
            throw ChaosError.notReady(what: "all workers", log: stations.map(\.log).joined(separator: "\n"))
        }
        for station in stations { try station.checkClock() }
        tell("all units answer")
    }

    /// Lets time pass with traffic and faults.
    private func pass(seconds: Double, steps: [Step]) throws {
        let start = boottime()
        var next = 0
        var wishes: Int64 = 0
        while true {
            try Interrupt.check()
            let elapsed = Double(boottime() - start) / 1e9
            if elapsed >= seconds, next == steps.count { return }
            if oracle.report.violation != nil { return }
            if next < steps.count, elapsed >= steps[next].at {
                tell(steps[next].text)
                try steps[next].action()
                next += 1
                continue
            }
            if boottime() - wishes > 250 * millisecond {
                wishes = boottime()
                changeWishes()
            }
            lookForCrashes()
            usleep(5000)
        }
    }

    private func changeWishes() {
        for station in stations where Int.random(in: 0..<3, using: &random) == 0 {
            let total = plan.seats.reduce(0) { $0 + $1[0] } * Station.sessionsPerSeat
            let most = [0, total / 16, total / 8, total / 4, total].randomElement(using: &random) ?? 0
            for worker in 0..<Station.workers { station.wish(worker, most == 0 ? 0 : Int.random(in: 0...most, using: &random)) }
        }
    }

    private func lookForCrashes() {
        for station in stations {
            if station.hasCrashed {
                failures.append("\(station.serial): fpxd has ended by itself:\n\(station.log.suffix(3000))")
                station.end(by: SIGKILL)
            }
            if station.hasLostWorker { failures.append("\(station.serial): a worker has ended by itself") }
        }
    }

    // MARK: After the faults

    /// - Returns: how long it took; nil where there is something else to tell.
    private func heal() throws -> Double? {
        guard oracle.report.violation == nil else { return nil }
        try mend()
        guard try eventually(within: 20, { cluster.isHealthy && stations.allSatisfy(\.answers) }) else {
            failures.append("not all units and members of etcd answer 20 s after everything was mended")
            return nil
        }
        for station in stations { try commit(station) }
        tell("all units answer again")
        return try becomeWhole()
    }

    /// Ends all faults, and lets everybody want all there is.
    private func mend() throws {
        tell("everything is mended")
        for member in cluster.members {
            try member.place.mend()
            member.process?.signal(SIGCONT)
            try cluster.start(member)
        }
        for station in stations {
            try station.place.mend()
            station.signal(SIGCONT, workersToo: true)
            setWall(station, 0)
            try restart(station)
            try startWorkers(station)
            for worker in 0..<Station.workers { station.wish(worker, 100_000) }
        }
        cluster.disarm()
    }

    /// All that is bought is to be enforced again, and to stay so, within two terms of when all speak.
    private func becomeWhole() throws -> Double? {
        let start = boottime()
        let limit = 2 * Double(Plan.termSeconds)
        let isWhole = try eventually(within: limit + 12) {
            lookForCrashes()
            guard let since = oracle.report.fullSince else { return oracle.report.violation != nil }
            return boottime() - since > 500 * millisecond
        }
        let report = oracle.report
        guard isWhole, let since = report.fullSince else {
            failures.append(
                "\(Int(limit) + 12) s after all speak again the pool has not been whole for half a second; units enforce "
                    + "\(report.enforced) of \(report.bought) sessions (furl, fnbi, fcas)\n" + shownSharing())
            return nil
        }
        let whole = max(0, Double(since - start) / 1e9)
        if whole > limit {
            failures.append(String(format: "whole only %.1f s after all speak again, expected %.0f", whole, limit))
        }
        tell(String(format: "whole after %.1f s", whole))
        return whole
    }

    /// What each unit says of its sharing, for people.
    private func shownSharing() -> String {
        stations.map { station in
            let shown = try? run(
                ["curl", "-s", "--unix-socket", station.home + "/run/control.sock", "http://fpx/v1/sharing"], within: 3)
            return "\(station.serial): \(shown?.output ?? "")"
        }.joined(separator: "\n")
    }

    private func audit() throws {
        guard oracle.report.violation == nil, !plan.mode.isHA else { return }
        for station in stations {
            let (status, text) = try station.ask("diagnose", "test", "application", "csfd", "140")
            guard status == 0 else {
                failures.append("\(station.serial): csfd 140: \(text)")
                continue
            }
            let wrong = LedgerText.faults(in: text, isRoot: station.index == 0, devices: stations.count)
            failures += wrong.map { "\(station.serial): csfd 140: \($0):\n\(text)" }
        }
    }
}
