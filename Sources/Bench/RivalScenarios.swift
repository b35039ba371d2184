// The rivals: how others limit concurrency, and the floors under all of them.

import Admission
import CRivals

final class RivalJob: Job {
    enum Run { case pairs, refuse, walk }

    let rival: rival_ops
    let shared: UnsafeMutableRawPointer
    let worker: Int32
    let run: Run
    private var held: Int64 = 0

    init(_ rival: rival_ops, _ name: String, _ post: Post, run: Run) throws {
        self.rival = rival
        shared = try post.resources.mapping(name, bytes: rival.shared_bytes, create: false)
        worker = Int32(post.worker)
        self.run = run
    }

    // For each window anew: a thread can be a worker of one instance of a rival at a time.
    func begin() throws {
        let code = rival.enter?(shared, worker) ?? 0
        if code != 0 { throw BenchFailure("enter failed: \(describe(-code))") }
    }

    func settle(disturbed: Bool) { rival.leave?(shared, worker) }

    func run(units: Int, seed: UInt64) -> UInt64 {
        switch run {
        case .pairs: _ = rival.pairs(shared, worker, UInt64(units))
        case .refuse: _ = rival.refuse(shared, worker, UInt64(units))
        case .walk: _ = rival.walk(shared, worker, UInt64(units * 2), seed, &held)
        }
        return 0
    }

    func finish() {
        do { try begin() } catch { fatalError("\(error)") }
        rival.drain?(shared, worker, held)
        settle(disturbed: false)
    }
}

/// A scenario of a rival, with what all its workers share made and destroyed by the coordinator.
func rivalScenario(
    _ rival: rival_ops, _ name: String, about: String, _ shape: Shape, cap: Int, unit: Unit = .pair,
    job: @escaping (String, Post) throws -> any Job
) -> Scenario {
    let file = "\(name).\(shape.threads).\(shape.processes)"
    return Scenario(
        name: name, about: about, threads: shape.threads, processes: shape.processes, unit: unit,
        setUp: { resources in
            let shared = try resources.mapping(file, bytes: rival.shared_bytes, create: true)
            let code = rival.create?(shared, Int64(cap)) ?? 0
            if code != 0 { throw BenchFailure("\(name): create with cap \(cap) failed: \(describe(-code))") }
        },
        job: { try job(file, $0) },
        tearDown: { resources in
            if let shared = try? resources.mapping(file, bytes: rival.shared_bytes, create: false) {
                rival.destroy?(shared)
            }
            resources.remove(file)
        })
}

/// The table is constant.
nonisolated(unsafe) let rivals: [rival_ops] = (0..<rival_count()).compactMap { rival_at($0)?.pointee }

func rivalScenarios(_ settings: Settings) -> [Scenario] {
    var all: [Scenario] = []
    for rival in rivals {
        let name = String(cString: rival.name)
        let about = String(cString: rival.description)
        for shape in Shape.all(cpus: settings.cpus) where rival.processes || shape.processes == 1 {
            all.append(
                rivalScenario(rival, name, about: about, shape, cap: settings.cap) {
                    try RivalJob(rival, $0, $1, run: .pairs)
                })
        }
        guard rival.has_cap else { continue }
        for shape in Shape.threads(cpus: settings.cpus) where shape.threads <= 2 {
            for cap in [100, 10_000] {
                all.append(
                    rivalScenario(
                        rival, "\(name)_limit_\(cap)", about: "\(name): random walk that hovers at cap \(cap)", shape,
                        cap: cap, unit: .steps
                    ) { try RivalJob(rival, $0, $1, run: .walk) })
            }
            all.append(
                rivalScenario(
                    rival, "\(name)_refusal", about: "\(name): admits at a full cap", shape, cap: 0, unit: .refusal
                ) { try RivalJob(rival, $0, $1, run: .refuse) })
        }
    }
    return all
}
