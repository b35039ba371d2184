// One operation each, on a pool with room, a tight one and a full one.

import Admission
import Benchmark
import Glibc

/// An attachment to a segment of its own, whose file has no name any more.
private final class Bed: @unchecked Sendable {
    let segment: Segment
    let pool: Pool
    let lane: Lane

    init(cap: Int) throws {
        let path = "/dev/shm/fpx-benchmark.\(getpid())"
        unlink(path)
        try Segment.create(path: path)
        defer { unlink(path) }
        segment = try Segment.attach(path: path)
        pool = try segment.pool(0)
        try pool.setCap(cap)
        pool.policy = .block
        lane = try segment.openLane(pool: 0)
    }

    deinit { segment.detach() }
}

// The loops are functions of their own, with the engine's fast path inlined into them.

@inline(never)
private func lanePairs(_ lane: borrowing Lane, _ n: Int) {
    for _ in 0..<n { lane.release(lane.admit()) }
}

@inline(never)
private func shardPairs(_ pool: Pool, _ n: Int) {
    for _ in 0..<n { pool.admit().end() }
}

@inline(never)
private func handlePairs(_ segment: Segment, _ pool: Pool, _ n: Int) throws {
    for _ in 0..<n {
        if let handle = try segment.handle(pool.admit()) { try segment.release(handle) }
    }
}

@inline(never)
private func capChanges(_ pool: Pool, _ n: Int) throws {
    for step in 0..<n { try pool.setCap(1000 + step & 1) }
}

let benchmarks: @Sendable () -> Void = {
    // By the fastest samples, and wide: on a shared machine a quarter of them may take twice as long.
    let tolerated = BenchmarkThresholds(relative: [.p0: 50, .p25: 150])
    Benchmark.defaultConfiguration = .init(
        metrics: [.wallClock, .throughput], warmupIterations: 3, scalingFactor: .kilo, maxDuration: .seconds(1),
        maxIterations: 10_000, thresholds: [.wallClock: tolerated, .throughput: tolerated])

    func suite(_ name: String, cap: Int, _ run: @escaping @Sendable (Bed, Int) throws -> Void) {
        Benchmark(name) { (benchmark: Benchmark, bed: Bed) in
            let count = benchmark.scaledIterations.count
            benchmark.startMeasurement()
            try run(bed, count)
            benchmark.stopMeasurement()
        } setup: {
            try Bed(cap: cap)
        }
    }

    suite("lane pair", cap: 100_000) { lanePairs($0.lane, $1) }
    suite("shard pair", cap: 100_000) { shardPairs($0.pool, $1) }
    suite("handle pair", cap: 100_000) { try handlePairs($0.segment, $0.pool, $1) }
    suite("tight pair, cap 3", cap: 3) { lanePairs($0.lane, $1) }
    suite("refusal, lane", cap: 0) { lanePairs($0.lane, $1) }
    suite("refusal, shard", cap: 0) { shardPairs($0.pool, $1) }
    suite("set cap", cap: 1000) { try capChanges($0.pool, $1) }
    suite("snapshot", cap: 1000) { bed, count in
        for _ in 0..<count { blackHole(bed.pool.snapshot()) }
    }
}
