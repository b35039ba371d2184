// What happens seldom: taking spare sessions from another process, running or stopped, beside one bare membarrier in the same
// state of the machine; and how soon a killed process' sessions are back.

import Admission
import CAdmission
import Glibc

/// Worker 0 takes; worker 1, in another process, has the spare sessions. Each unit sets the same scene:
///
///     all gates closed  ->  the other admits and releases one, and so has spare ones  ->  the cap falls until nothing is free
///     ->  (the other is stopped)  ->  timed: one admit, which must collect; or one membarrier  ->  (it goes on)
final class StealJob: Job {
    let lane: Lane
    let pool: Pool
    let control: Control
    let isThief: Bool
    let stops: Bool
    let onlyFence: Bool
    private static let cap = 256

    private var request: Word { control.scratch(0) }
    private var answer: Word { control.scratch(1) }
    private var ended: Word { control.scratch(2) }
    private var other: Word { control.scratch(3) }

    init(_ segment: Segment, _ post: Post, stops: Bool, onlyFence: Bool) throws {
        pool = try segment.pool(0)
        lane = try segment.openLane(pool: 0)
        control = post.control
        isThief = post.worker == 0
        self.stops = stops
        self.onlyFence = onlyFence
        if !isThief { other.store(UInt64(getpid())) }
    }

    func run(units: Int, seed: UInt64) -> UInt64 {
        if !isThief {
            giveAway()
            return 0
        }
        defer { ended.store(control.window.load()) }
        do {
            var samples = try (0..<units).map { _ in try steal() }
            samples.sort()
            return max(1, samples[samples.count / 2])
        } catch {
            fatalError("\(error)")
        }
    }

    /// The other one: running, and at each request with spare sessions again.
    private func giveAway() {
        let window = control.window.load()
        while true {
            Control.spin { request.load() != answer.load() || ended.load() == window }
            if ended.load() == window { return }
            lane.release(lane.admit())
            answer.store(request.load())
        }
    }

    private func steal() throws -> UInt64 {
        let process = pid_t(truncatingIfNeeded: Int(other.load()))
        try pool.setCap(0)
        try pool.setCap(Self.cap)
        request.add(1)
        Control.spin { answer.load() == request.load() }
        if stops {
            kill(process, SIGSTOP)
            var status: Int32 = 0
            waitpid(process, &status, WUNTRACED)
        }
        defer { if stops { kill(process, SIGCONT) } }
        try pool.setCap(Self.cap - pool.snapshot().free)
        let collects = pool.snapshot().collects
        let start = now()
        if onlyFence {
            fpx_fence_everybody()
            return subtractTimer(now() - start)
        }
        let session = lane.admit()
        let time = now() - start
        guard session.verdict == .inspect, pool.snapshot().collects == collects + 1 else {
            throw BenchFailure("steal: found \(session.verdict), expected one that was admitted by one collect")
        }
        lane.release(session)
        return subtractTimer(time)
    }
}

func subtractTimer(_ time: UInt64) -> UInt64 { time > timerCost ? time - timerCost : 0 }

func controlScenarios(_ settings: Settings) -> [Scenario] {
    guard settings.cpus >= 2 else { return [] }
    let shape = Shape(threads: 1, processes: 2)
    return [false, true].flatMap { stops in
        [false, true].map { onlyFence in
            let state = stops ? "stopped" : "running"
            var scenario = engineScenario(
                "\(onlyFence ? "membarrier" : "steal")_\(state)",
                about: onlyFence
                    ? "one membarrier while the other process is \(state)"
                    : "an admit that takes the spare sessions of a \(state) process",
                shape, cap: 0, unit: onlyFence ? .fence : .steal
            ) { file, post in
                try StealJob(try post.resources.segment(file), post, stops: stops, onlyFence: onlyFence)
            }
            scenario.isSampled = true
            return scenario
        }
    }
}

// MARK: - Reap

/// The hidden subcommand `hold`: has sessions until it is killed.
func holdSessions(path: String, sessions: Int) throws {
    let segment = try Segment.attach(path: path)
    let pool = try segment.pool(0)
    var held = Held(capacity: sessions)
    while held.count < sessions { held.push(pool.admit()) }
    let parent = getppid()
    while getppid() == parent { usleep(100_000) }
}

/// Nanoseconds from SIGKILL to a process that holds 1000 sessions until all of them are free again.
func measureReap(prefix: String, samples: Int) throws -> [UInt64] {
    let path = "\(prefix).reap"
    try Segment.create(path: path)
    defer { unlink(path) }
    let segment = try Segment.attach(path: path)
    defer { segment.detach() }
    let pool = try segment.pool(0)
    try pool.setCap(2000)
    return try (0..<samples).map { _ in
        let process = try spawnSelf(["hold", "--path", path, "--sessions", "1000"])
        defer {
            kill(process, SIGKILL)
            var status: Int32 = 0
            waitpid(process, &status, 0)
        }
        let deadline = now() + 10_000_000_000
        while pool.snapshot().inUse < 1000 {
            if now() > deadline { throw BenchFailure("reap: a process did not get 1000 sessions in 10 s") }
            usleep(1000)
        }
        let start = now()
        kill(process, SIGKILL)
        while segment.reap() == 0 && now() < deadline {}
        let time = now() - start
        guard pool.snapshot().inUse == 0 else { throw BenchFailure("reap: sessions are left") }
        return time
    }
}
