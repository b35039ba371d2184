// The engine: lanes, shards and handles; with room, at the limit and at a full cap; by plain and by locked stores.
//
// The loops are functions of their own that are not inlined, with the engine's fast path inlined into them, as in any program
// that uses it. They return how many were admitted, so that nothing can be left out.

import Admission
import CAdmission
import CRivals
import Foundation
import Synchronization

@inline(never)
func lanePairs(_ lane: borrowing Lane, _ n: Int) {
    for _ in 0..<n { lane.release(lane.admit()) }
}

@inline(never)
func shardPairs(_ pool: Pool, _ n: Int) {
    for _ in 0..<n { pool.admit().end() }
}

@inline(never)
func handlePairs(_ segment: Segment, _ pool: Pool, _ n: Int) throws {
    for _ in 0..<n {
        if let handle = try segment.handle(pool.admit()) { try segment.release(handle) }
    }
}

@inline(never)
func laneRefusals(_ lane: borrowing Lane, _ n: Int) -> Int {
    var refused = 0
    for _ in 0..<n {
        let session = lane.admit()
        if session.verdict == .block { refused += 1 }
        lane.release(session)
    }
    return refused
}

@inline(never)
func shardRefusals(_ pool: Pool, _ n: Int) -> Int {
    var refused = 0
    for _ in 0..<n {
        let session = pool.admit()
        if session.verdict == .block { refused += 1 }
        session.end()
    }
    return refused
}

@inline(never)
func laneWalk(_ lane: borrowing Lane, _ held: inout Held, _ n: Int, _ seed: UInt64) {
    var state = seed
    for _ in 0..<n {
        if RIVAL_UP(rival_random(&state)) {
            let session = lane.admit()
            if session.verdict == .inspect { held.push(session) } else { lane.release(session) }
        } else if held.count > 0 {
            lane.release(held.pop())
        }
    }
}

@inline(never)
func shardWalk(_ pool: Pool, _ held: inout Held, _ n: Int, _ seed: UInt64) {
    var state = seed
    for _ in 0..<n {
        if RIVAL_UP(rival_random(&state)) {
            let session = pool.admit()
            if session.verdict == .inspect { held.push(session) } else { session.end() }
        } else if held.count > 0 {
            held.pop().end()
        }
    }
}

/// Sessions in progress, last in, first out. Two words each, as a program would keep them.
struct Held: ~Copyable {
    private let memory: UnsafeMutablePointer<Session>
    private let capacity: Int
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = capacity
        memory = .allocate(capacity: capacity)
    }

    deinit {
        (memory).deinitialize(count: count)
        memory.deallocate()
    }

    @inline(__always)
    mutating func push(_ session: consuming Session) {
        precondition(count < capacity, "more sessions than the cap")
        (memory + count).initialize(to: session)
        count += 1
    }

    @inline(__always)
    mutating func pop() -> Session {
        count -= 1
        return (memory + count).move()
    }

    mutating func endAll() {
        while count > 0 { pop().end() }
    }
}

/// Tells a thread beside a job that the job is over.
private final class Over: Sendable {
    let flag = Atomic(false)
}

/// How a job runs, over what every engine job has: an attachment, its pool and a lane of its own.
final class EngineJob: Job {
    /// Seats of other hosts: none; as many as its own, renewed all the time as the daemon does; or nothing but borrowed ones.
    enum Loan { case none, renewed, only }

    enum Run { case lanePairs, shardPairs, handlePairs, laneRefusals, shardRefusals, laneWalk, shardWalk, caps, reap }

    let segment: Segment
    let pool: Pool
    let lane: Lane
    let run: Run
    private var held: Held
    private let over = Over()

    /// `holding`: sessions that worker 0 holds all the time.
    init(_ segment: Segment, run: Run, capacity: Int, holding: Int, loan: Loan = .none) throws {
        self.segment = segment
        self.run = run
        pool = try segment.pool(0)
        lane = try segment.openLane(pool: 0)
        held = Held(capacity: capacity)
        while held.count < holding { held.push(lane.admit()) }
        switch loan {
        case .none: break
        case .renewed: renew(pool, cap: capacity)
        case .only: try pool.setCap(0, borrowed: capacity, until: .max)
        }
    }

    /// Five times a second, as at the shortest heartbeat: looks at the pool and extends the loan.
    private func renew(_ pool: Pool, cap: Int) {
        let thread = Thread { [over] in
            while !over.flag.load(ordering: .relaxed) {
                let term = Int64(fpx_boottime_milliseconds() + 3000) * 1_000_000
                _ = pool.snapshot()
                try? pool.setCap(cap, borrowed: cap, until: term)
                usleep(200_000)
            }
        }
        thread.start()
    }

    func run(units: Int, seed: UInt64) -> UInt64 {
        do {
            switch run {
            case .lanePairs: lanePairs(lane, units)
            case .shardPairs: shardPairs(pool, units)
            case .handlePairs: try handlePairs(segment, pool, units)
            case .laneRefusals: precondition(laneRefusals(lane, units) == units, "admitted at a full cap")
            case .shardRefusals: precondition(shardRefusals(pool, units) == units, "admitted at a full cap")
            case .laneWalk: laneWalk(lane, &held, units * 2, seed)
            case .shardWalk: shardWalk(pool, &held, units * 2, seed)
            case .caps:
                let cap = pool.cap
                for _ in 0..<units {
                    try pool.setCap(cap + 1)
                    try pool.setCap(cap)
                }
            case .reap: for _ in 0..<units { segment.reap() }
            }
        } catch {
            fatalError("\(error)")
        }
        return 0
    }

    func finish() {
        over.flag.store(true, ordering: .relaxed)
        held.endAll()
    }
}

/// A scenario over a segment of its own.
func engineScenario(
    _ name: String, about: String, _ shape: Shape, cap: Int, unit: Unit = .pair, fenceMode: FenceMode = .best,
    job: @escaping (String, Post) throws -> any Job
) -> Scenario {
    let file = "\(name).\(shape.threads).\(shape.processes)"
    return Scenario(
        name: name, about: about, threads: shape.threads, processes: shape.processes, unit: unit,
        setUp: { try $0.create(file, cap: cap, fenceMode: fenceMode) },
        job: { try job(file, $0) },
        tearDown: { $0.remove(file) })
}

func engineScenarios(_ settings: Settings) -> [Scenario] {
    var all: [Scenario] = []
    func add(
        _ name: String, _ about: String, _ shape: Shape, _ run: EngineJob.Run, cap: Int, unit: Unit = .pair,
        fenceMode: FenceMode = .best, holding: Int = 0, loan: EngineJob.Loan = .none
    ) {
        all.append(
            engineScenario(name, about: about, shape, cap: cap, unit: unit, fenceMode: fenceMode) { file, post in
                try EngineJob(
                    try post.resources.segment(file), run: run, capacity: cap, holding: post.worker == 0 ? holding : 0,
                    loan: loan)
            })
    }
    for shape in Shape.all(cpus: settings.cpus) {
        let cap = settings.cap
        add("lane", "lane of one thread", shape, .lanePairs, cap: cap)
        add("shard", "shard of the CPU, any thread", shape, .shardPairs, cap: cap)
        add("handle", "shard, with a checked handle", shape, .handlePairs, cap: cap)
        add("lane_locked", "lane where membarrier is refused", shape, .lanePairs, cap: cap, fenceMode: .locked)
        add("shard_locked", "shard where membarrier is refused", shape, .shardPairs, cap: cap, fenceMode: .locked)
        add("lane_cap_3", "lane, cap so small that all go by the pool", shape, .lanePairs, cap: 3)
    }
    for shape in Shape.threads(cpus: settings.cpus) where shape.threads <= 2 {
        for cap in [100, 10_000] {
            let about = "random walk that hovers at cap \(cap)"
            add("lane_limit_\(cap)", "lane: \(about)", shape, .laneWalk, cap: cap, unit: .steps)
            add("shard_limit_\(cap)", "shard: \(about)", shape, .shardWalk, cap: cap, unit: .steps)
        }
        let about = "admits at a full cap"
        add("lane_refusal", "lane: \(about)", shape, .laneRefusals, cap: 100, unit: .refusal, holding: 100)
        add("shard_refusal", "shard: \(about)", shape, .shardRefusals, cap: 100, unit: .refusal, holding: 100)
    }
    let one = Shape(threads: 1, processes: 1)
    add(
        "lane_sharing", "lane while seats are shared: a loan besides, renewed", one, .lanePairs, cap: settings.cap,
        loan: .renewed)
    add("lane_borrowed", "lane on borrowed seats alone", one, .lanePairs, cap: settings.cap, loan: .only)
    add("set_cap", "the cap up by one and down again", one, .caps, cap: 1000, unit: .capChange, holding: 1)
    add("reap_idle", "reap when nobody is dead", one, .reap, cap: 1000, unit: .reap, holding: 1)
    return all
}
