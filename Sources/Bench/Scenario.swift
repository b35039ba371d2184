// Scenario: something to measure, and how many workers do it.

import Admission

/// What one unit of a scenario is.
enum Unit: String, Codable {
    case pair = "admit + release"
    case steps = "two steps of the walk"
    case refusal = "refused admit"
    case steal = "admit that collects"
    case fence = "membarrier"
    case capChange = "cap up + down"
    case reap = "reap, nobody dead"
}

/// One worker's side of a scenario, made and used by that worker's thread.
protocol Job: AnyObject {
    /// A window begins.
    func begin() throws
    /// Does `units` of them. Returns 0, or the nanoseconds of one where the job has timed them itself.
    func run(units: Int, seed: UInt64) -> UInt64
    /// The window is over; a disturbed one does not count.
    func settle(disturbed: Bool)
    /// Gives back all it holds.
    func finish()
}

extension Job {
    func begin() throws {}
    func settle(disturbed: Bool) {}
    func finish() {}
}

/// Who a job is for.
struct Post {
    let worker: Int
    let workers: Int
    let control: Control
    /// This process' attachments and mappings: see `Resources`.
    let resources: Resources
}

struct Scenario {
    let name: String
    let about: String
    let threads: Int
    let processes: Int
    var unit = Unit.pair
    /// Admits and releases are timed one by one.
    var isLatency = false
    /// Each unit does several things that are timed one by one: do not warm up, do not split, few of them.
    var isSampled = false
    /// Makes what its workers share, before any of them; by the coordinator.
    let setUp: (Resources) throws -> Void
    /// Makes one worker's job.
    let job: (Post) throws -> any Job
    /// After all workers have finished; by the coordinator.
    var tearDown: (Resources) -> Void = { _ in }

    var workers: Int { threads * processes }
    var label: String { "\(name) \(threads)t\(processes > 1 ? " x \(processes)p" : "")" }
}

/// Threads and processes of a scenario, in powers of two, never more workers than CPUs.
struct Shape {
    let threads: Int
    let processes: Int

    static func all(cpus: Int) -> [Shape] {
        let sizes = [1, 2, 4, 8].filter { $0 <= cpus }
        return sizes.flatMap { processes in
            sizes.filter { $0 * processes <= min(cpus, 8) }.map { Shape(threads: $0, processes: processes) }
        }
    }

    static func threads(cpus: Int) -> [Shape] { all(cpus: cpus).filter { $0.processes == 1 } }
}

/// All that there is to measure. The coordinator and its worker processes make the same list from the same settings.
struct Settings {
    let cpus: Int
    let cap: Int

    func scenarios() -> [Scenario] {
        rivalScenarios(self) + engineScenarios(self) + cFaceScenarios(self) + controlScenarios(self)
            + latencyScenarios(self)
    }
}
