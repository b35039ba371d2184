// Stepper: takes threads of children through their code one instruction at a time, while all others run on.
//
// Between two instructions of a stepped thread the others have time for hundreds of operations. So each instruction, also one
// that takes no time, becomes a place where a thread stands while the world changes, or where it dies.

import Glibc

final class Stepper {
    private enum Request {
        static let resume = 7
        static let step = 9
        static let detach = 17
        static let seize = 0x4206
        static let interrupt = 0x4207
    }
    private static let waitForThreads: Int32 = 0x4000_0000

    /// Milliseconds that a single step may take.
    private static let patience: UInt64 = 300

    /// A stepped thread waits for something.
    struct Stuck: Error {}

    private struct Thread {
        let id: Int32
        /// A signal that it was about to get when it was stopped.
        var signal: Int32 = 0
    }

    private var threads: [Thread] = []
    private(set) var steps = 0

    var count: Int { threads.count }

    /// Stops a thread wherever it is. False where the system does not allow that.
    func hold(_ id: Int32) -> Bool {
        guard id != 0, System.trace(Request.seize, Int(id), 0, 0) == 0 else { return false }
        threads.append(Thread(id: id))
        guard System.trace(Request.interrupt, Int(id), 0, 0) == 0 else { return false }
        return awaitStop(threads.count - 1, milliseconds: 30_000) == true
    }

    /// One instruction, or one try to leave a restartable sequence: that never ends while it is stepped through.
    func step(_ index: Int) throws {
        steps += 1
        try resume(index, Request.step)
        guard let isStopped = awaitStop(index, milliseconds: Self.patience) else {
            throw Violation(.other, "a stepped thread is gone")
        }
        if isStopped { return }
        // It sleeps in a system call: it waits for a held thread, or it naps.
        try interrupt(index)
        throw Stuck()
    }

    /// Lets a thread run for a moment.
    func run(_ index: Int, microseconds: Int) throws {
        try resume(index, Request.resume)
        System.sleep(microseconds: microseconds)
        try interrupt(index)
    }

    private func interrupt(_ index: Int) throws {
        guard System.trace(Request.interrupt, Int(threads[index].id), 0, 0) == 0, awaitStop(index, milliseconds: 30_000) == true
        else { throw Violation(.other, "a stepped thread cannot be stopped") }
    }

    /// All threads run on. Those that a signal to stop is waiting for stop where they are.
    func letGo() {
        for index in threads.indices { try? resume(index, Request.detach) }
        threads = []
    }

    /// Waits for the end of threads that have been killed: they belong to whoever traces them.
    func bury() {
        for thread in threads {
            var status: Int32 = 0
            while waitpid(thread.id, &status, Self.waitForThreads) == thread.id && status & 0xff == 0x7f {}
        }
        threads = []
    }

    private func resume(_ index: Int, _ request: Int) throws {
        let signal = threads[index].signal
        threads[index].signal = 0
        guard System.trace(request, Int(threads[index].id), 0, Int(signal)) == 0 else {
            throw Violation(.other, "a stepped thread is gone")
        }
    }

    /// Nil: the thread is gone. False: it has not stopped in time.
    private func awaitStop(_ index: Int, milliseconds: UInt64) -> Bool? {
        var status: Int32 = 0
        let start = now()
        while true {
            let found = waitpid(threads[index].id, &status, Self.waitForThreads | WNOHANG)
            if found == threads[index].id { break }
            if found < 0 && errno != EINTR { return nil }
            let spent = now() - start
            if spent > milliseconds * 1_000_000 && !System.isRunnable(thread: threads[index].id) { return false }
            if spent > 20_000 { System.sleep(microseconds: 10) }
        }
        guard status & 0xff == 0x7f else { return nil }
        let signal = status >> 8 & 0xff
        if status >> 16 == 0 && signal != SIGTRAP { threads[index].signal = signal }
        return true
    }
}
