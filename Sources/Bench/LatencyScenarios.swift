// Single admits and releases, timed one by one into histograms.
//
// The clock is CLOCK_MONOTONIC, read by the vDSO without a system call; the median cost of reading it twice is taken off every
// time, and stated. The longest times of a window in which the thread lost its CPU are the scheduler's, so such windows count
// nowhere.

import Admission
import CRivals
import Histogram

struct LatencyHistograms {
    var admit = Histogram<UInt64>(highestTrackableValue: 10_000_000_000, numberOfSignificantValueDigits: .three)
    var release = Histogram<UInt64>(highestTrackableValue: 10_000_000_000, numberOfSignificantValueDigits: .three)

    mutating func add(_ other: LatencyHistograms) {
        admit.add(other.admit)
        release.add(other.release)
    }

    mutating func reset() {
        admit.reset()
        release.reset()
    }
}

/// What is timed: one admit or release at a time, and the walk of a scenario at the limit.
protocol Timed: AnyObject {
    /// False: refused.
    func admit() -> Bool
    func release()
    func drain()
}

final class TimedLane: Timed {
    let lane: Lane
    private var held: Held

    init(_ segment: Segment, capacity: Int) throws {
        lane = try segment.openLane(pool: 0)
        held = Held(capacity: capacity)
    }

    func admit() -> Bool {
        let session = lane.admit()
        if session.verdict != .inspect { return false }
        held.push(session)
        return true
    }

    func release() { lane.release(held.pop()) }
    func drain() { held.endAll() }
}

final class TimedShard: Timed {
    let pool: Pool
    private var held: Held

    init(_ segment: Segment, capacity: Int) throws {
        pool = try segment.pool(0)
        held = Held(capacity: capacity)
    }

    func admit() -> Bool {
        let session = pool.admit()
        if session.verdict != .inspect { return false }
        held.push(session)
        return true
    }

    func release() { held.pop().end() }
    func drain() { held.endAll() }
}

/// A rival's single admit is one step of its walk with a seed that leads up; a release, with one that leads down.
final class TimedRival: Timed {
    private static func seed(up: Bool) -> UInt64 {
        (1...).lazy.map { mix(UInt64($0)) }.first {
            var state = $0
            return RIVAL_UP(rival_random(&state)) == up
        }!
    }
    private static let upSeed = seed(up: true)
    private static let downSeed = seed(up: false)

    let rival: rival_ops
    let shared: UnsafeMutableRawPointer
    let worker: Int32
    private let up = TimedRival.upSeed
    private let down = TimedRival.downSeed
    private var held: Int64 = 0

    init(_ rival: rival_ops, _ file: String, _ post: Post) throws {
        self.rival = rival
        shared = try post.resources.mapping(file, bytes: rival.shared_bytes, create: false)
        worker = Int32(post.worker)
    }

    func admit() -> Bool { rival.walk(shared, worker, 1, up, &held) == 1 }
    func release() { _ = rival.walk(shared, worker, 1, down, &held) }
    func drain() { rival.drain(shared, worker, held) }
}

/// Generic, so that the fast path is inlined between the two readings of the clock.
final class LatencyJob<Target: Timed>: Job {
    let target: Target
    let walks: Bool
    let keep: (LatencyHistograms) -> Void
    private var window = LatencyHistograms()
    private var total = LatencyHistograms()
    private var held = 0

    init(_ target: Target, walks: Bool, keep: @escaping (LatencyHistograms) -> Void) {
        self.target = target
        self.walks = walks
        self.keep = keep
    }

    func run(units: Int, seed: UInt64) -> UInt64 {
        var state = seed
        for step in 0..<(units * 2) {
            let up = walks ? RIVAL_UP(rival_random(&state)) : step & 1 == 0
            if up {
                let start = now()
                let admitted = target.admit()
                let time = now() - start
                window.admit.record(subtractTimer(time))
                if admitted { held += 1 }
            } else if held > 0 {
                let start = now()
                target.release()
                let time = now() - start
                window.release.record(subtractTimer(time))
                held -= 1
            }
        }
        return 0
    }

    func settle(disturbed: Bool) {
        if !disturbed { total.add(window) }
        window.reset()
    }

    func finish() {
        target.drain()
        keep(total)
    }
}

func latencyScenarios(_ settings: Settings) -> [Scenario] {
    let shape = Shape(threads: min(2, settings.cpus), processes: 1)
    let sharedCAS = rivals.first { String(cString: $0.name) == "shared_cas" }
    var all: [Scenario] = []
    for walks in [false, true] {
        let cap = walks ? 100 : settings.cap
        let unit = walks ? Unit.steps : Unit.pair
        let suffix = walks ? "_limit_100_latency" : "_latency"
        let about = walks ? "single operations at cap 100" : "single operations with room"
        func keep(_ name: String, _ post: Post) -> (LatencyHistograms) -> Void {
            { post.resources.latencies[name, default: LatencyHistograms()].add($0) }
        }
        let (lane, shard, cas) = ("lane\(suffix)", "shard\(suffix)", "shared_cas\(suffix)")
        all.append(
            engineScenario(lane, about: "lane: \(about)", shape, cap: cap, unit: unit) { file, post in
                LatencyJob(
                    try TimedLane(try post.resources.segment(file), capacity: cap), walks: walks, keep: keep(lane, post))
            })
        all.append(
            engineScenario(shard, about: "shard: \(about)", shape, cap: cap, unit: unit) { file, post in
                LatencyJob(
                    try TimedShard(try post.resources.segment(file), capacity: cap), walks: walks,
                    keep: keep(shard, post))
            })
        if let sharedCAS {
            all.append(
                rivalScenario(sharedCAS, cas, about: "shared_cas: \(about)", shape, cap: cap, unit: unit) { file, post in
                    LatencyJob(try TimedRival(sharedCAS, file, post), walks: walks, keep: keep(cas, post))
                })
        }
    }
    for index in all.indices { all[index].isLatency = true }
    return all
}
