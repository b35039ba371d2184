// Herd: the children of one round: started, stopped, killed, buried, and what they are known to hold.

import Admission
import Glibc

/// One child process from start to death.
struct Life {
    let generation: Generation
    let child: Int
    let processID: pid_t
    /// When it was about to be killed, and when all it held was known to be back.
    var killed: UInt64?
    var reaped: UInt64?
    /// Its sessions whose release died with another process: released or not, nobody knows.
    var lost = 0
}

/// Sessions in use: at least, at most.
struct Holdings {
    var certain = 0
    var possible = 0
}

final class Herd {
    let ledger: Ledger
    let settings: (_ generation: Int) -> ChildSettings
    let threads: Int
    /// By generation. Generation 0 is the conductor.
    private(set) var lives: [Life] = []
    /// The generation that lives as each child.
    private(set) var current: [Int] = []

    init(ledger: Ledger, children: Int, threads: Int, settings: @escaping (_ generation: Int) -> ChildSettings) {
        self.ledger = ledger
        self.threads = threads
        self.settings = settings
        lives.append(Life(generation: ledger.generation(0), child: -1, processID: getpid()))
        current = [Int](repeating: 0, count: children)
    }

    var generations: Int { lives.count }
    var isExhausted: Bool { lives.count + 64 > Ledger.generations }
    func life(_ child: Int) -> Life { lives[current[child]] }

    // MARK: Processes

    /// Starts a child; `withoutRseq`: one that has no restartable sequences, as under old kernels and emulators.
    func spawn(_ child: Int, withoutRseq: Bool) throws {
        let index = lives.count
        let generation = ledger.generation(index)
        var arguments: [UnsafeMutablePointer<CChar>?] = (["Torture", Torture.childMark] + settings(index).arguments).map {
            strdup($0)
        }
        var environment: [UnsafeMutablePointer<CChar>?] = []
        var entry = environ
        while let text = entry.pointee {
            environment.append(strdup(text))
            entry += 1
        }
        if withoutRseq { environment.append(strdup("GLIBC_TUNABLES=glibc.pthread.rseq=0")) }
        arguments.append(nil)
        environment.append(nil)
        defer { for text in arguments + environment { free(text) } }
        var process: pid_t = 0
        let error = posix_spawn(&process, "/proc/self/exe", nil, nil, arguments, environment)
        guard error == 0 else { throw Violation(.other, "posix_spawn: error \(error)") }
        generation.processID.store(UInt64(process))
        lives.append(Life(generation: generation, child: child, processID: process))
        current[child] = index
        ledger.current(child).store(UInt64(index))
    }

    /// Waits until a child's threads run.
    func awaitReady(_ child: Int) throws {
        let life = life(child)
        try waitUntil("child \(child) is ready", seconds: 30, law: .other) {
            try checkAlive(child)
            return life.generation.isReady.load() == 1
        }
    }

    /// Throws if a child has ended by itself or reported a fault.
    func checkAlive(_ child: Int) throws {
        let life = life(child)
        try checkFault(life)
        var status: Int32 = 0
        if waitpid(life.processID, &status, WNOHANG) == life.processID {
            throw Violation(.other, "child \(child) (generation \(life.generation.index)) \(WaitStatus(code: status))")
        }
    }

    private func checkFault(_ life: Life) throws {
        let fault = life.generation.fault.load()
        guard fault != 0 else { return }
        let name = Fault(rawValue: fault >> 32).map { "\($0)" } ?? "?"
        throw Violation(
            .other, "generation \(life.generation.index) found \(name), detail \(UInt32(truncatingIfNeeded: fault))")
    }

    func stop(_ child: Int) throws {
        sendStop(child)
        try awaitStop(child)
    }

    func sendStop(_ child: Int) { kill(life(child).processID, SIGSTOP) }

    func awaitStop(_ child: Int) throws {
        let life = life(child)
        var status: Int32 = 0
        while waitpid(life.processID, &status, WUNTRACED) < 0 && errno == EINTR {}
        guard WaitStatus(code: status).isStopped else {
            try checkFault(life)
            throw Violation(.other, "child \(child) (generation \(life.generation.index)) \(WaitStatus(code: status))")
        }
    }

    func go(_ child: Int) { kill(life(child).processID, SIGCONT) }

    /// Kills a child and waits until it is gone.
    func kill(_ child: Int) throws {
        sendKill(child)
        try bury(child)
    }

    func sendKill(_ child: Int) {
        let index = current[child]
        lives[index].generation.isDoomed.store(1)
        lives[index].killed = now()
        Glibc.kill(lives[index].processID, SIGKILL)
    }

    func bury(_ child: Int) throws {
        let life = life(child)
        var status: Int32 = 0
        while waitpid(life.processID, &status, 0) < 0 && errno == EINTR {}
        guard WaitStatus(code: status).isKilled else {
            try checkFault(life)
            throw Violation(.other, "child \(child) (generation \(life.generation.index)) \(WaitStatus(code: status))")
        }
        try checkFault(life)
        for thread in 0..<threads {
            let state = life.generation.line(thread).balance.load() & 0xffff
            if state >= ThreadLine.foreign(0) { lives[Int(state - ThreadLine.foreign(0))].lost += 1 }
        }
    }

    func markReaped(_ generation: Int) {
        if lives[generation].reaped == nil { lives[generation].reaped = now() }
    }

    /// Dead generations that are not known to be reaped.
    var unreaped: [Int] { lives.indices.filter { lives[$0].killed != nil && lives[$0].reaped == nil } }

    private func kill(_ process: pid_t, _ signal: Int32) { Glibc.kill(process, signal) }

    // MARK: What they hold

    /// Exact while all living children are stopped.
    func holdings() -> Holdings {
        var sum = Holdings()
        for life in lives.dropFirst() where life.reaped == nil {
            var certain = 0
            for thread in 0..<threads {
                let balance = life.generation.line(thread).balance.load()
                certain += Int(balance >> 16)
                let state = balance & 0xffff
                let ofReaped = state >= 2 && lives[Int(state - 2)].reaped != nil
                if state != ThreadLine.idle && !ofReaped { sum.possible += 1 }
            }
            for place in 0..<Generation.exchange {
                if life.generation.stash(place).load() != 0 { certain += 1 }
                if life.generation.mailbox(place).load() != 0 { certain += 1 }
            }
            sum.possible += certain + life.lost
            if life.killed == nil { sum.certain += certain }
        }
        return sum
    }

    /// Operations of each thread that is at work, of the children named.
    func progress(of children: [Int]) -> [UInt64] {
        children.flatMap { child in
            (0..<threads).map { thread in
                let line = life(child).generation.line(thread)
                return line.isIdle.load() == 1 ? .max : line.operations.load()
            }
        }
    }

    func addFigures(to totals: inout Totals) {
        for life in lives.dropFirst() {
            for thread in 0..<threads {
                let line = life.generation.line(thread)
                totals.operations += line.operations.load()
                totals.admitted += line.admitted.load()
                totals.refused += line.refused.load()
                totals.foreignReleases += line.foreignReleases.load()
                totals.doubleReleases += line.doubleReleases.load()
            }
            totals.forks += life.generation.forks.load()
        }
    }
}

/// Polls until `condition` holds; a law is broken when it does not within `seconds`.
func waitUntil(
    _ what: @autoclosure () -> String, seconds: Double, law: Law, pause: Int = 50, _ condition: () throws -> Bool
) throws {
    let end = now() + UInt64(seconds * 1e9)
    while try !condition() {
        if now() > end { throw Violation(law, "after \(seconds) s still waiting until \(what())") }
        System.sleep(microseconds: pause)
    }
}
