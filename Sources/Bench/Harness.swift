// Harness: interleaved rounds.
//
// Each round runs one window of every scenario, in an order that is shuffled anew: when the machine gets slower or faster, it
// does so for all of them. A window is some milliseconds of work. Ratios are taken within rounds, then their median.

import Admission
import Glibc

nonisolated(unsafe) private var interrupted: sig_atomic_t = 0

struct Interrupted: Error {}

/// One scenario in one round, over all its workers.
struct Window {
    /// Of one worker's wall time, for one unit; the mean over the workers.
    let nanoseconds: Double
    let units: UInt64
    let disturbed: Bool
}

extension [Window] {
    /// Too few to go by: over 80 % were disturbed, and less than ten were not.
    var isDisturbed: Bool {
        let good = count { !$0.disturbed }
        return good < 10 && good * 5 < count
    }

    /// The windows that count: the undisturbed ones; where these are too few, the best quarter of all.
    var kept: [Window] {
        isDisturbed ? Array(sorted { $0.nanoseconds < $1.nanoseconds }.prefix((count + 3) / 4)) : filter { !$0.disturbed }
    }
}

final class Harness {
    let settings: Settings
    let scenarios: [Scenario]
    let selected: [Int]
    let prefix: String
    let control: Control
    let resources: Resources
    private var children: [pid_t] = []
    private var threads: [pthread_t] = []
    private var barrier: UInt64 = 0
    private var windowNumber: UInt64 = 0
    private var prepared: Set<Int> = []

    init(settings: Settings, only: [String]) throws {
        self.settings = settings
        scenarios = settings.scenarios()
        let names = Set(scenarios.map(\.name))
        for name in only where !names.contains(name) {
            throw BenchFailure("no scenario \(name): `Bench --list` names them all")
        }
        selected = scenarios.indices.filter { [scenarios] in only.isEmpty || only.contains(scenarios[$0].name) }
        removeStaleFiles()
        prefix = "/dev/shm/fpx-bench.\(getpid())"
        control = Control(memory: try mapShared("\(prefix).control", bytes: Control.bytes, create: true))
        resources = Resources(prefix: prefix)
    }

    // MARK: Start and stop

    func start() throws {
        signal(SIGINT) { _ in interrupted = 1 }
        signal(SIGTERM) { _ in interrupted = 1 }
        sem_init(control.done, 1, 0)
        for seat in 0..<64 { sem_init(control.seat(seat).wake, 1, 0) }
        var started = 0
        for process in 0..<min(settings.cpus, 8) {
            let (first, count) = seats(of: process)
            if process == 0 {
                for seat in first..<(first + count) {
                    threads.append(
                        try Worker(
                            control: control, seat: control.seat(seat), scenarios: scenarios, resources: resources,
                            parent: nil
                        ).start())
                }
            } else if process > 0, scenarios.contains(where: { $0.processes > process }) {
                children.append(
                    try spawnSelf([
                        "worker", "--prefix", prefix, "--room", "\(settings.cap)", "--cpus", "\(settings.cpus)", "--first",
                        "\(first)", "--threads", "\(count)",
                    ]))
            } else {
                continue
            }
            started += count
        }
        for _ in 0..<started { try awaitDone() }
    }

    /// A process has as many threads as scenarios with that many processes may want of it.
    private func seats(of process: Int) -> (first: Int, count: Int) {
        let limit = Shape.all(cpus: settings.cpus).filter { $0.processes > process }.map(\.threads).max() ?? 0
        return (process * 8, limit)
    }

    private func seat(of worker: Int, in scenario: Scenario) -> Seat {
        control.seat(worker / scenario.threads * 8 + worker % scenario.threads)
    }

    func prepareAll() throws {
        for index in selected {
            try scenarios[index].setUp(resources)
            prepared.insert(index)
            for worker in 0..<scenarios[index].workers { try oneByOne(.prepare, index, worker) }
        }
    }

    func finishAll() throws {
        for index in prepared.sorted() {
            for worker in 0..<scenarios[index].workers { try oneByOne(.finish, index, worker) }
            scenarios[index].tearDown(resources)
            prepared.remove(index)
        }
    }

    /// Ends all workers and removes all files, whatever has happened.
    func stop() {
        for index in prepared { scenarios[index].tearDown(resources) }
        prepared.removeAll()
        control.command.store(Control.Command.quit.rawValue)
        for process in 0..<min(settings.cpus, 8) {
            let (first, count) = seats(of: process)
            for seat in first..<(first + count) { sem_post(control.seat(seat).wake) }
        }
        for child in children {
            kill(child, SIGKILL)
            var status: Int32 = 0
            waitpid(child, &status, 0)
        }
        children = []
        removeStaleFiles()
    }

    // MARK: Commands

    private func awaitDone() throws {
        if !wait(control.done, seconds: 30) {
            let scenario = scenarios[Int(control.scenario.load())].label
            throw BenchFailure("a worker of \(scenario) has not answered for 30 s")
        }
        if interrupted != 0 { throw Interrupted() }
    }

    private func oneByOne(_ command: Control.Command, _ index: Int, _ worker: Int) throws {
        let scenario = scenarios[index]
        control.command.store(command.rawValue)
        control.scenario.store(UInt64(index))
        control.workers.store(UInt64(scenario.workers))
        let seat = seat(of: worker, in: scenario)
        seat.worker.store(UInt64(worker))
        sem_post(seat.wake)
        try awaitDone()
        if seat.failed.load() != 0 { throw BenchFailure("\(scenario.label) could not be prepared") }
    }

    /// One window of a scenario, all workers together.
    func window(_ index: Int, units: Int, seed: UInt64) throws -> Window {
        let scenario = scenarios[index]
        windowNumber += 1
        barrier += UInt64(scenario.workers)
        control.command.store(Control.Command.run.rawValue)
        control.scenario.store(UInt64(index))
        control.workers.store(UInt64(scenario.workers))
        control.units.store(UInt64(units))
        control.seed.store(seed)
        control.window.store(windowNumber)
        control.barrier.store(barrier)
        let seats = (0..<scenario.workers).map { seat(of: $0, in: scenario) }
        for (worker, seat) in seats.enumerated() {
            seat.worker.store(UInt64(worker))
            sem_post(seat.wake)
        }
        for _ in seats { try awaitDone() }
        if scenario.isSampled {
            // The median of single times: one that was disturbed does not move it.
            return Window(nanoseconds: Double(seats[0].timed.load()), units: UInt64(units), disturbed: false)
        }
        let times = seats.map { Double($0.wall.load()) / Double(max(1, $0.units.load())) }
        return Window(
            nanoseconds: times.reduce(0, +) / Double(times.count), units: seats.reduce(0) { $0 + $1.units.load() },
            disturbed: seats.contains { $0.disturbed.load() != 0 })
    }

    // MARK: Rounds

    /// How many units make a window of about `milliseconds`, for each selected scenario, and how long all of them take.
    func calibrate(milliseconds: Double) throws -> (units: [Int: Int], roundSeconds: Double) {
        var units: [Int: Int] = [:]
        for index in selected {
            if scenarios[index].isSampled {
                units[index] = 9
                continue
            }
            // Twice: the first time may include a walk's climb to its cap.
            var count = 64
            for target in [milliseconds / 3, milliseconds] {
                while true {
                    // A window in which a worker lost its CPU would make all that follow too short: the shortest of some counts.
                    var took = Double.infinity
                    for _ in 0..<5 {
                        let window = try window(index, units: count, seed: 1)
                        took = min(took, window.nanoseconds * Double(count) / 1e6)
                        if took < target / 2 || !window.disturbed { break }
                    }
                    if took >= target / 2 || count > 1 << 26 {
                        count = max(16, Int(Double(count) * target / took))
                        break
                    }
                    count *= took < target / 16 ? 8 : 2
                }
            }
            units[index] = count
        }
        let start = now()
        for index in selected { _ = try window(index, units: units[index]!, seed: 2) }
        return (units, Double(now() - start) / 1e9)
    }

    /// For each selected scenario its windows, one a round.
    func measure(units: [Int: Int], rounds: Int, seed: UInt64, progress: (Int) -> Void) throws -> [Int: [Window]] {
        var windows: [Int: [Window]] = [:]
        var state = mix(seed)
        for round in 0..<rounds {
            var order = selected
            for last in stride(from: order.count - 1, to: 0, by: -1) {
                state = mix(state)
                order.swapAt(last, Int(state % UInt64(last + 1)))
            }
            for index in order {
                state = mix(state)
                windows[index, default: []].append(try window(index, units: units[index]!, seed: state))
            }
            progress(round + 1)
        }
        return windows
    }
}
