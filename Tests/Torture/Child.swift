// Child: a process under torture. Its first thread serves the conductor's wishes and reaps; the others work.

import Admission
import Glibc

/// How long a thread naps when it is told to, wherever it is: for the signal handler, which may look at nothing else.
nonisolated(unsafe) private var napWord: Word?

enum Child {
    static func run(_ settings: ChildSettings) -> Never {
        System.dieWithParent()
        guard let ledger = Ledger(path: settings.ledgerPath, creating: false) else { exit(2) }
        let own = ledger.generation(settings.generation)
        own.processID.store(UInt64(getpid()))
        napWord = ledger.nap
        _ = signal(SIGUSR1) { _ in
            var time = timespec(tv_sec: 0, tv_nsec: Int(napWord?.load() ?? 0))
            nanosleep(&time, nil)
        }
        guard let segment = try? Segment.attach(path: settings.segmentPath), let pool = try? segment.pool(settings.pool)
        else {
            own.report(.attach, 0)
            exit(2)
        }
        for thread in 0..<settings.threads {
            let start = WorkerStart(settings: settings, segment: segment, ledger: ledger, thread: thread)
            var handle = pthread_t()
            pthread_create(&handle, nil, workerThread, Unmanaged.passRetained(start).toOpaque())
        }
        own.isReady.store(1)
        serve(settings, segment: segment, pool: pool, ledger: ledger, own: own)
    }

    private static func serve(
        _ settings: ChildSettings, segment: Segment, pool: Pool, ledger: Ledger, own: Generation
    ) -> Never {
        var random = Random(settings.seed, UInt64(settings.generation), 99)
        var forked: [pid_t] = []
        var nextReap: UInt64 = 0
        while true {
            let request = own.capRequest.load()
            if request != own.capDone.load() {
                try? pool.setCap(Int(request & 0xffff_ffff))
                own.capDone.store(request)
            }
            if own.forkRequest.load() > own.forks.load() {
                forked.append(fork(segment: segment, pool: pool, lingers: random.below(30_000)))
                spawnSomething(own)
                own.forks.store(own.forks.load() + 1)
            }
            forked.removeAll { process in
                var status: Int32 = 0
                guard waitpid(process, &status, WNOHANG) == process else { return false }
                if status != 0 { own.report(.forkedChildAdmitted, Int(status)) }
                return true
            }
            if now() >= nextReap {
                if segment.reap() > 0 { own.reaps.store(own.reaps.load() + 1) }
                nextReap = now() + UInt64(2_000_000 + random.below(16_000_000))
            }
            if ledger.reapStorm.load() == 0 { System.sleep(microseconds: 300) } else { nextReap = 0 }
        }
    }

    /// A forked child uses what it has inherited: it must get nothing, and its parent must not lose or win by it.
    private static func fork(segment: Segment, pool: Pool, lingers microseconds: Int) -> pid_t {
        let process = System.fork()
        if process != 0 { return process }
        var wrong: Int32 = segment.isAttached ? 1 : 0
        for _ in 0..<100 {
            let session = pool.admit()
            if session.verdict == .inspect { wrong |= 2 }
            session.end()
        }
        if segment.reap() != 0 { wrong |= 4 }
        do {
            try pool.setCap(1)
            wrong |= 8
        } catch {}
        System.sleep(microseconds: microseconds)
        _exit(wrong)
    }

    private static func spawnSomething(_ own: Generation) {
        var process: pid_t = 0
        var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("true"), nil]
        defer { free(arguments[0]) }
        if posix_spawn(&process, "/bin/true", nil, nil, &arguments, environ) != 0 { return own.report(.spawn, 0) }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        if status != 0 { own.report(.spawn, Int(status)) }
    }
}

private final class WorkerStart: Sendable {
    let settings: ChildSettings
    let segment: Segment
    let ledger: Ledger
    let thread: Int

    init(settings: ChildSettings, segment: Segment, ledger: Ledger, thread: Int) {
        self.settings = settings
        self.segment = segment
        self.ledger = ledger
        self.thread = thread
    }
}

private func workerThread(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    let start = Unmanaged<WorkerStart>.fromOpaque(argument!).takeRetainedValue()
    guard let pool = try? start.segment.pool(start.settings.pool),
        let lane = try? start.segment.openLane(pool: start.settings.pool)
    else {
        start.ledger.generation(start.settings.generation).report(.lane, start.thread)
        return nil
    }
    var worker = Worker(
        settings: start.settings, segment: start.segment, pool: pool, lane: lane, ledger: start.ledger, thread: start.thread)
    worker.run()
    return nil
}
