// Sampler: figures over time, one sample a second, kept for half an hour.

import Admission
import ControlAPI
import Foundation
import Synchronization

final class Sampler: Sendable {
    private struct Sample {
        var inUse = 0
        var started = 0
        var traffic = Traffic()
        /// Since the sample before: more than one after a pause of the machine.
        var seconds = 1.0
    }

    /// A writer of a process that lives; its counters only grow.
    private struct WriterName: Hashable {
        let pool: Int
        let slot: Int
        let processID: Int
        let index: String
    }

    private struct State {
        var samples: [Sample] = []
        var next = 0
        var started: [WriterName: UInt64] = [:]
        /// The most that was seen of each pool's traffic.
        var traffic: [Traffic] = []
        var sampledAt = ContinuousClock.now
        var cpus: [[UInt64]] = []
        var shares: [PerformanceReport.CPU] = []
    }

    static let secondsKept = 1800
    /// Seconds that the current speed is an average of.
    static let speedWindow = 10

    private let pools: [HostPool]
    private let state = Mutex(State())

    init(pools: [HostPool], at now: ContinuousClock.Instant = .now) {
        self.pools = pools
        state.withLock { state in
            // What was there before this process is not a set-up of now.
            (state.started, _) = Self.count(pools, since: [:])
            state.traffic = pools.map { $0.traffic() }
            state.sampledAt = now
            state.cpus = Self.readCPUs()
            state.shares = Self.shares(from: state.cpus.map { $0.map { _ in 0 } }, to: state.cpus)
        }
    }

    /// Takes a sample: call it each second.
    func sample(at now: ContinuousClock.Instant = .now) {
        let inUse = pools.reduce(0) { $0 + $1.snapshot().inUse }
        let cpus = Self.readCPUs()
        let traffic = pools.map { $0.traffic() }
        state.withLock { state in
            let (counters, started) = Self.count(pools, since: state.started)
            state.started = counters
            var sample = Sample(inUse: inUse, started: started)
            for (index, traffic) in traffic.enumerated() {
                let growth = traffic.growth(since: state.traffic[index])
                state.traffic[index].add(growth)
                sample.traffic.add(growth)
            }
            sample.seconds = max(1, (now - state.sampledAt) / .seconds(1))
            state.sampledAt = now
            if state.samples.count < Self.secondsKept {
                state.samples.append(sample)
            } else {
                state.samples[state.next] = sample
            }
            state.next = (state.next + 1) % Self.secondsKept
            state.shares = Self.shares(from: state.cpus, to: cpus)
            state.cpus = cpus
        }
    }

    /// New counters of all writers, and how many sessions were asked for since the old ones.
    private static func count(_ pools: [HostPool], since old: [WriterName: UInt64]) -> ([WriterName: UInt64], Int) {
        var counters: [WriterName: UInt64] = [:]
        var started: UInt64 = 0
        for (pool, writers) in pools.enumerated().map({ ($0, $1.writers()) }) {
            for writer in writers {
                let name = WriterName(pool: pool, slot: writer.slot, processID: writer.processID, index: "\(writer.kind)")
                let now = writer.fastAdmissions &+ writer.poolAdmissions &+ writer.refused
                let before = old[name] ?? 0
                started &+= now >= before ? now - before : 0
                counters[name] = now
            }
        }
        // Beyond reason is what damaged memory says: it must not overflow where samples are added up.
        return (counters, Int(min(started, 1 << 40)))
    }

    /// Of the last `speedWindow` seconds. What was before the start of this process counts as nothing.
    func speed() -> PerformanceReport.Speed { state.withLock { Self.speed($0) } }

    private static func speed(_ state: State) -> PerformanceReport.Speed {
        speed(of: latest(speedWindow, state), secondsMin: Double(speedWindow))
    }

    private static func speed(of samples: [Sample], secondsMin: Double) -> PerformanceReport.Speed {
        var sum = Traffic()
        for sample in samples { sum.add(sample.traffic) }
        return PerformanceReport.Speed(sum, seconds: max(secondsMin, samples.reduce(0) { $0 + $1.seconds }))
    }

    func report(uptimeSeconds: Int) -> PerformanceReport {
        let memory = Self.readMemory()
        return state.withLock { state in
            PerformanceReport(
                cpus: state.shares, memory: memory, windows: [1, 10, 30].map { Self.window($0, state) },
                speed: Self.speed(state), uptimeSeconds: uptimeSeconds)
        }
    }

    /// The newest first.
    private static func latest(_ count: Int, _ state: State) -> [Sample] {
        (0..<min(count, state.samples.count)).map { state.samples[(state.next + 2 * secondsKept - 1 - $0) % secondsKept] }
    }

    private static func window(_ minutes: Int, _ state: State) -> PerformanceReport.Window {
        let samples = latest(minutes * 60, state)
        let length = max(1, samples.count)
        return PerformanceReport.Window(
            minutes: minutes, averageSessions: (samples.reduce(0) { $0 + $1.inUse } + length / 2) / length,
            peakSessions: samples.map(\.inUse).max() ?? 0,
            setupRate: (samples.reduce(0) { $0 + $1.started } + length / 2) / length,
            averageSpeed: speed(of: samples, secondsMin: 1))
    }
}

// MARK: - What /proc says

extension Sampler {
    /// Clock ticks by state, all CPUs together first: the `cpu` lines of /proc/stat.
    private static func readCPUs() -> [[UInt64]] {
        guard let text = try? String(contentsOfFile: "/proc/stat", encoding: .utf8) else { return [] }
        return text.split(separator: "\n").prefix { $0.hasPrefix("cpu") }.map { line in
            let name = line.prefix { $0 != " " }
            let ticks = line.dropFirst(name.count).split(separator: " ").prefix(7).map { UInt64($0) ?? 0 }
            return [UInt64(name.dropFirst(3)) ?? .max] + ticks + Array(repeating: 0, count: 7 - ticks.count)
        }
    }

    private static func shares(from old: [[UInt64]], to new: [[UInt64]]) -> [PerformanceReport.CPU] {
        new.map { now in
            let before = old.first { $0[0] == now[0] } ?? now.map { _ in 0 }
            let ticks = (1...7).map { now[$0] >= before[$0] ? now[$0] - before[$0] : 0 }
            let total = max(1, ticks.reduce(0, +))
            func percent(_ index: Int) -> Int { Int((ticks[index] * 100 + total / 2) / total) }
            return PerformanceReport.CPU(
                cpu: now[0] == .max ? nil : Int(now[0]), user: percent(0), system: percent(2), nice: percent(1),
                idle: percent(3), iowait: percent(4), irq: percent(5), softirq: percent(6))
        }
    }

    private static func readMemory() -> PerformanceReport.Memory {
        var kilobytes: [Substring: Int] = [:]
        let text = (try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8)) ?? ""
        for line in text.split(separator: "\n") {
            let parts = line.split(whereSeparator: { $0 == ":" || $0 == " " })
            if parts.count >= 2 { kilobytes[parts[0]] = Int(parts[1]) }
        }
        let total = kilobytes["MemTotal"] ?? 0, available = kilobytes["MemAvailable"] ?? 0
        return PerformanceReport.Memory(
            total: total, used: max(0, total - available), free: kilobytes["MemFree"] ?? 0, available: available)
    }
}
