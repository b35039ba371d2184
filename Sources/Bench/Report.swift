// Report: medians, ratios and what they are held against.

import Admission
import Foundation
import Histogram

struct Spread: Codable {
    let p10: Double
    let median: Double
    let p90: Double

    init(_ values: [Double]) {
        let sorted = values.sorted()
        func at(_ part: Double) -> Double {
            sorted.isEmpty ? .nan : sorted[min(sorted.count - 1, Int(Double(sorted.count) * part))]
        }
        p10 = at(0.1)
        median = at(0.5)
        p90 = at(0.9)
    }
}

struct Result: Codable {
    let scenario: String
    let threads: Int
    let processes: Int
    let unit: String
    /// Of one worker, for one unit.
    let nanoseconds: Spread
    let ops: UInt64
    let windows: Int
    let disturbed: Int
    /// Nearly all windows were disturbed: the best quarter of all is shown.
    let keptBestQuarter: Bool

    enum CodingKeys: String, CodingKey {
        case scenario, threads, processes, unit, ops, windows, disturbed
        case nanoseconds = "ns_per_pair"
        case keptBestQuarter = "kept_best_quarter"
    }
}

struct Latency: Codable {
    let scenario: String
    let operation: String
    let threads: Int
    let count: UInt64
    let p50: UInt64
    let p99: UInt64
    let p999: UInt64
    let max: UInt64

    init(_ scenario: String, _ operation: String, threads: Int, _ histogram: Histogram<UInt64>) {
        self.scenario = scenario
        self.operation = operation
        self.threads = threads
        count = histogram.totalCount
        p50 = histogram.valueAtPercentile(50)
        p99 = histogram.valueAtPercentile(99)
        p999 = histogram.valueAtPercentile(99.9)
        max = histogram.max
    }
}

struct Memory: Codable {
    let writer: Int
    let segmentHere: Int
    let segment64Processes128CPUs: Int
    let used: Int

    enum CodingKeys: String, CodingKey {
        case writer = "bytes_per_writer"
        case segmentHere = "segment_bytes_this_host"
        case segment64Processes128CPUs = "segment_bytes_64_processes_128_cpus"
        case used = "bytes_used_with_one_pool_one_lane_one_shard"
    }
}

/// Of a fresh segment in which one process has used one lane and one shard of one pool.
func measureMemory(prefix: String, cpus: Int) throws -> Memory {
    let path = "\(prefix).memory"
    try Segment.create(path: path)
    defer { unlink(path) }
    let segment = try Segment.attach(path: path)
    defer { segment.detach() }
    let pool = try segment.pool(0)
    try pool.setCap(1000)
    let lane = try segment.openLane(pool: 0)
    lane.release(lane.admit())
    pool.admit().end()
    var status = stat()
    guard stat(path, &status) == 0 else { throw BenchFailure("\(path): stat failed: \(describe(errno))") }
    return Memory(
        writer: Layout.writerBytes, segmentHere: Int(status.st_size),
        segment64Processes128CPUs: Segment.bytesTaken(processes: 64, cpus: 128), used: Int(status.st_blocks) * 512)
}

struct Report {
    let host: Host
    let results: [Result]
    let ratios: [Ratio]
    let latencies: [Latency]
    let memory: Memory
    let rounds: Int
    let seed: UInt64

    init(
        host: Host, harness: Harness, windows: [Int: [Window]], rounds: Int, seed: UInt64, reap: [UInt64], memory: Memory
    ) {
        self.host = host
        self.memory = memory
        self.rounds = rounds
        self.seed = seed
        var results: [Result] = []
        var latencies: [Latency] = []
        for index in harness.selected {
            let scenario = harness.scenarios[index]
            if scenario.isLatency {
                guard let found = harness.resources.latencies[scenario.name] else { continue }
                latencies.append(Latency(scenario.name, "admit", threads: scenario.threads, found.admit))
                latencies.append(Latency(scenario.name, "release", threads: scenario.threads, found.release))
            } else {
                results.append(Self.result(scenario, windows[index] ?? []))
            }
        }
        if !reap.isEmpty {
            results.append(
                Result(
                    scenario: "reap_killed", threads: 1, processes: 2, unit: "kill to 1000 sessions free",
                    nanoseconds: Spread(reap.map { Double($0) }), ops: UInt64(reap.count), windows: reap.count, disturbed: 0,
                    keptBestQuarter: false))
        }
        self.results = results
        self.latencies = latencies
        ratios = Ratio.wanted.compactMap { wanted in
            func found(_ place: Ratio.Place) -> [Window]? {
                harness.selected.first {
                    let scenario = harness.scenarios[$0]
                    return scenario.name == place.scenario && scenario.threads == place.threads
                        && scenario.processes == place.processes
                }.flatMap { windows[$0] }
            }
            guard let over = found(wanted.over), let under = found(wanted.under) else { return nil }
            return wanted.filled(over, under)
        }
    }

    private static func result(_ scenario: Scenario, _ windows: [Window]) -> Result {
        let kept = windows.kept
        return Result(
            scenario: scenario.name, threads: scenario.threads, processes: scenario.processes,
            unit: scenario.unit.rawValue, nanoseconds: Spread(kept.map(\.nanoseconds)),
            ops: kept.reduce(0) { $0 + $1.units }, windows: windows.count, disturbed: windows.count { $0.disturbed },
            keptBestQuarter: windows.isDisturbed)
    }

    // MARK: JSON

    private struct Document: Encodable {
        struct Run: Encodable {
            let rounds: Int
            let seed: UInt64
        }
        let host: Host
        let run: Run
        let results: [Result]
        let latency: [Latency]
        let memory: Memory
        let ratios: [String: Double]
    }

    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        let document = Document(
            host: host, run: Document.Run(rounds: rounds, seed: seed), results: results, latency: latencies, memory: memory,
            ratios: Dictionary(uniqueKeysWithValues: ratios.map { ($0.name, ($0.value * 1000).rounded() / 1000) }))
        return String(decoding: try encoder.encode(document), as: UTF8.self)
    }
}
