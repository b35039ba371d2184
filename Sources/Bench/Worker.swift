// Worker: a thread that sits on a seat and does what the coordinator says. In the coordinator's own process and in others alike.

import Admission
import Glibc

/// A fair mix of a number, never 0: neighbouring seeds must not give neighbouring walks.
func mix(_ number: UInt64) -> UInt64 {
    var z = number &+ 0x9e37_79b9_7f4a_7c15
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return (z ^ z >> 31) | 1
}

final class Worker: @unchecked Sendable {
    /// A window is done in so many pieces, and ends when the first worker has done them all.
    private static let pieces = 16

    let control: Control
    let seat: Seat
    let scenarios: [Scenario]
    let resources: Resources
    /// Leave when this process has become an orphan.
    let parent: pid_t?
    private let cpus = allowedCPUs()
    private var jobs: [Int: any Job] = [:]
    private var pinnedTo = -1

    init(control: Control, seat: Seat, scenarios: [Scenario], resources: Resources, parent: pid_t?) {
        self.control = control
        self.seat = seat
        self.scenarios = scenarios
        self.resources = resources
        self.parent = parent
    }

    /// Starts a thread that serves the seat.
    func start() throws -> pthread_t {
        var thread = pthread_t()
        let context = Unmanaged.passRetained(self).toOpaque()
        let code = pthread_create(
            &thread, nil,
            { context in
                Unmanaged<Worker>.fromOpaque(context!).takeRetainedValue().serve()
                return nil
            }, context)
        if code != 0 { throw BenchFailure("pthread_create failed: \(describe(code))") }
        return thread
    }

    func serve() {
        seat.process.store(UInt64(getpid()))
        sem_post(control.done)
        while true {
            guard wait(seat.wake, seconds: 2) else {
                if let parent, getppid() != parent { exit(1) }
                continue
            }
            let scenario = Int(control.scenario.load())
            switch Control.Command(rawValue: control.command.load()) ?? .quit {
            case .prepare: prepare(scenario)
            case .run: run(scenario)
            case .finish: jobs.removeValue(forKey: scenario)?.finish()
            case .quit:
                sem_post(control.done)
                return
            }
            sem_post(control.done)
        }
    }

    private func prepare(_ scenario: Int) {
        pinAsNeeded()
        seat.failed.store(0)
        do {
            jobs[scenario] = try scenarios[scenario].job(
                Post(
                    worker: Int(seat.worker.load()), workers: Int(control.workers.load()), control: control,
                    resources: resources))
        } catch {
            print("\(scenarios[scenario].label): \(error)")
            seat.failed.store(1)
        }
    }

    private func pinAsNeeded() {
        let cpu = cpus[Int(seat.worker.load()) % cpus.count]
        if cpu != pinnedTo { pin(toCPU: cpu) }
        pinnedTo = cpu
    }

    private func run(_ scenario: Int) {
        pinAsNeeded()
        guard let job = jobs[scenario] else { return seat.failed.store(1) }
        do { try job.begin() } catch { fatalError("\(scenarios[scenario].label): \(error)") }
        let units = Int(control.units.load())
        let isSampled = scenarios[scenario].isSampled
        let window = control.window.load()
        let piece = isSampled ? units : max(1, units / Self.pieces)
        var seed = mix(control.seed.load() &+ seat.worker.load() << 32)
        if !isSampled { _ = job.run(units: piece, seed: seed) }

        // From here to the end of the window: nothing but the scenario.
        let barrier = control.barrier.load()
        control.arrived.add(1)
        Control.spin { control.arrived.load() >= barrier }
        let switches = contextSwitches()
        let start = now()
        let startCPU = nanoseconds(CLOCK_THREAD_CPUTIME_ID)
        var done = 0
        var timed: UInt64 = 0
        while done < units && control.stopped.load() != window {
            seed = mix(seed)
            timed = job.run(units: piece, seed: seed)
            done += piece
        }
        if !isSampled { control.stopped.store(window) }
        let cpu = nanoseconds(CLOCK_THREAD_CPUTIME_ID) - startCPU
        let wall = now() - start
        let after = contextSwitches()

        // Who waits in the kernel by its own will has less CPU time without having been disturbed.
        let disturbed =
            after.involuntary > switches.involuntary
            || after.voluntary == switches.voluntary && wall * 100 > cpu * 103
        job.settle(disturbed: disturbed)
        seat.units.store(UInt64(done))
        seat.wall.store(wall)
        seat.timed.store(timed)
        seat.disturbed.store(disturbed ? 1 : 0)
    }
}

/// The life of a worker process: `threads` seats from `first` on.
func serveProcess(prefix: String, settings: Settings, first: Int, threads: Int) throws {
    signal(SIGINT, SIG_IGN)
    let control = Control(memory: try mapShared("\(prefix).control", bytes: Control.bytes, create: false))
    let resources = Resources(prefix: prefix)
    let scenarios = settings.scenarios()
    let seats = try (0..<threads).map { index in
        try Worker(
            control: control, seat: control.seat(first + index), scenarios: scenarios, resources: resources,
            parent: getppid()
        ).start()
    }
    for seat in seats { pthread_join(seat, nil) }
}

/// Starts this program once more.
func spawnSelf(_ arguments: [String]) throws -> pid_t {
    var pid = pid_t()
    let strings = (["Bench"] + arguments).map { strdup($0) }
    defer { for string in strings { free(string) } }
    // Swift does not let a program read the C library's `environ`.
    let environment = dlsym(nil, "environ")?.assumingMemoryBound(to: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.self)
    let code = posix_spawn(&pid, "/proc/self/exe", nil, nil, strings + [nil], environment?.pointee)
    if code != 0 { throw BenchFailure("posix_spawn failed: \(describe(code))") }
    return pid
}
