// Conductor: the parent. It makes the segments, drives round after round of faults, and checks the laws.
//
// A round is one pool of one segment, one set of children and one schedule of faults. All that is drawn by chance comes from
// the seed, the round's number and the step's number, so a schedule can be repeated; how the threads interleave cannot.

import Admission
import Glibc

struct Plan {
    var seconds: Double
    var seed: UInt64
    var children: Int
    var threads: Int
    /// 0: each round has its own.
    var cap: Int
    var operations: UInt64
    var kills: Int
    var locked: Bool
    /// The number of the first round: to repeat one of an earlier run.
    var firstRound: Int
}

/// A segment that lasts for the whole run.
private struct Ground {
    let segment: Segment
    let name: String
}

final class Conductor {
    private let plan: Plan
    private let ledger: Ledger
    private var grounds: [Ground] = []
    private(set) var totals = Totals()
    private let begin = now()
    /// How long a round lasts; a logged one ends earlier when its log is full.
    private static let fastRound = 2.4
    private static let loggedRound = 1.2

    init(plan: Plan) throws {
        self.plan = plan
        Files.register(Files.ledger)
        guard let ledger = Ledger(path: Files.ledger, creating: true) else {
            throw Violation(.other, "\(Files.ledger): cannot be made: errno \(errno)")
        }
        self.ledger = ledger
        Watchdog.start(ledger)
    }

    /// Segments differ in how they fence, and in how many CPUs have shards.
    private func makeGrounds() throws {
        var kinds: [(name: String, fence: FenceMode, cpus: Int?)] = [
            ("membarrier", FenceMode.best, nil), ("membarrier, shards for 1 CPU", FenceMode.best, 1),
            ("locked", .locked, nil),
        ]
        if plan.locked { kinds = [("locked", .locked, nil), ("locked, shards for 1 CPU", .locked, 1)] }
        for (index, kind) in kinds.enumerated() {
            let path = "\(Files.prefix).\(index)"
            Files.register(path)
            try Segment.create(path: path, cpus: kind.cpus, fenceMode: kind.fence)
            grounds.append(Ground(segment: try Segment.attach(path: path), name: kind.name))
        }
    }

    private var elapsed: Double { Double(now() - begin) / 1e9 }
    private var isDone: Bool {
        elapsed >= plan.seconds && totals.kills >= plan.kills && totals.operations >= plan.operations
    }

    func run() throws {
        try makeGrounds()
        let limit = plan.seconds * 4 + 120
        while !isDone {
            if elapsed > limit {
                throw Violation(
                    .other, "after \(Int(elapsed)) s only \(totals.kills) kills and \(totals.operations) operations")
            }
            try runRound(plan.firstRound + totals.rounds)
            totals.rounds += 1
        }
        for ground in grounds {
            ground.segment.detach()
            let attached = try Segment.attachedProcesses(path: ground.segment.path)
            if attached != 0 { throw Violation(.comesBack, "\(attached) slots are locked when all processes are gone") }
        }
    }

    /// Logged and fast rounds take turns; the cap goes from one session to many.
    private func runRound(_ number: Int) throws {
        var random = Random(plan.seed, UInt64(number))
        let isLogged = number % 2 == 0
        // Most rounds are of the first kind, which is what is used where it can be.
        let ground = number % 8 < 4 ? grounds[0] : grounds[number / 2 % grounds.count]
        let caps = isLogged ? [1, 6, 40, 120, 250, 250, 600, 1000] : [60, 300, 2000, 8000, 20_000]
        let round = try Round(
            number: number, seed: plan.seed, ledger: ledger, segment: ground.segment, pool: random.below(Limits.pools),
            cap: plan.cap > 0 ? plan.cap : random.pick(caps), policy: random.chance(oneIn: 3) ? .bypass : .block,
            children: plan.children, threads: plan.threads, isLogged: isLogged)
        let start = now()
        do {
            defer {
                totals.add(round.totals)
                round.killEverybody()
            }
            let seconds = isLogged ? Self.loggedRound : Self.fastRound
            try round.run { step in
                let spent = Double(now() - start) / 1e9
                return spent >= seconds || (isLogged && self.ledger.isLogFull)
            }
        } catch let violation as Violation {
            throw Violation(violation.law, "round \(number) (\(round.description), \(ground.name)): \(violation.text)")
        }
        say(
            "round \(number): \(round.description), \(ground.name): \(round.totals.operations) operations, "
                + "\(round.totals.refused) refused, \(round.totals.kills) kills, \(round.totals.audits) audits, "
                + "\(round.totals.collects) collects, \(milliseconds(now() - start)) ms")
        ledger.reset(generations: round.herd.generations)
    }
}

extension Totals {
    mutating func add(_ other: Totals) {
        operations += other.operations
        logged += other.logged
        admitted += other.admitted
        refused += other.refused
        foreignReleases += other.foreignReleases
        doubleReleases += other.doubleReleases
        kills += other.kills
        stops += other.stops
        naps += other.naps
        steps += other.steps
        migrations += other.migrations
        forks += other.forks
        capChanges += other.capChanges
        audits += other.audits
        probes += other.probes
        collects += other.collects
        longestReap = max(longestReap, other.longestReap)
        longestReapBySiblings = max(longestReapBySiblings, other.longestReapBySiblings)
    }
}

/// The files of a run, which must not be left behind however it ends.
enum Files {
    static let prefix = "/dev/shm/fpx-torture.\(getpid())"
    static let ledger = "\(prefix).ledger"
    nonisolated(unsafe) private static var paths: [UnsafeMutablePointer<CChar>] = []

    static func register(_ path: String) {
        if paths.isEmpty {
            paths.reserveCapacity(16)
            for number in [SIGINT, SIGTERM, SIGHUP, SIGILL, SIGTRAP, SIGABRT, SIGSEGV, SIGBUS] {
                _ = signal(number) { number in
                    Files.remove()
                    _exit(128 + number)
                }
            }
        }
        paths.append(strdup(path))
    }

    static func remove() { for path in paths { unlink(path) } }
}

/// What the conductor does, for the watchdog: each is an operation that nobody may hold up.
enum Stage: UInt64 {
    case none, admit, release, refuse, reap, setCap, conservation, snapshot
}

/// Ends the run when the conductor itself is held up: a thread cannot report that it hangs.
enum Watchdog {
    static let seconds = 30

    static func start(_ ledger: Ledger) {
        let pointer = Unmanaged.passRetained(Box(ledger)).toOpaque()
        var thread = pthread_t()
        pthread_create(
            &thread, nil,
            { pointer in
                let ledger = Unmanaged<Box>.fromOpaque(pointer!).takeRetainedValue().ledger
                var last = ledger.heartbeat.load()
                var unchanged = 0
                while true {
                    sleep(1)
                    let beat = ledger.heartbeat.load()
                    let stage = Stage(rawValue: ledger.stage.load()) ?? .none
                    unchanged = beat == last && stage != .none ? unchanged + 1 : 0
                    last = beat
                    if unchanged >= Watchdog.seconds {
                        say("torture: FAILED S4: the conductor hangs in \(stage) since \(Watchdog.seconds) s")
                        Files.remove()
                        _exit(1)
                    }
                }
            }, pointer)
    }

    private final class Box: Sendable {
        let ledger: Ledger
        init(_ ledger: Ledger) { self.ledger = ledger }
    }
}
