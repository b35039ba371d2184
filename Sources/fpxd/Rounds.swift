// Rounds: work that comes round, by a clock that nobody sets.

import Foundation
import ServiceLifecycle

/// Work that comes round, on a thread of its own: it waits for no other task, and no other task waits for it.
struct Rounds: Service {
    let name: String
    /// From one round to the next.
    let interval: Duration
    /// Called on the thread; what it returns is one round.
    let begin: @Sendable () -> () -> Void

    func run() async throws {
        let stop = try Bell()
        await cancelWhenGracefulShutdown {
            await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in
                    let thread = Thread {
                        work(until: stop)
                        continuation.resume()
                    }
                    thread.name = name
                    thread.start()
                }
            } onCancel: {
                stop.ring()
            }
        }
    }

    private func work(until stop: Bell) {
        let round = begin()
        var next = ContinuousClock.now + interval
        while !stop.rings(before: next) {
            round()
            next += interval
            // After a pause of the machine one round is enough.
            if next < .now { next = .now + interval }
        }
    }
}

/// Wakes a thread that waits until a time. A semaphore would wait by the wall clock, on Linux: set back by an hour, it waits an
/// hour longer.
final class Bell: Sendable {
    private let hammer: Int32
    private let ear: Int32

    init() throws(DaemonError) {
        var pair: [Int32] = [-1, -1]
        if socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &pair) != 0 {
            throw .system(call: "socketpair", path: "bell", code: errno)
        }
        (hammer, ear) = (pair[0], pair[1])
    }

    deinit {
        close(hammer)
        close(ear)
    }

    /// For good.
    func ring() { shutdown(hammer, Int32(SHUT_WR)) }

    /// Waits for the bell, at most until a time.
    func rings(before time: ContinuousClock.Instant) -> Bool {
        var bell = pollfd(fd: ear, events: Int16(POLLIN), revents: 0)
        while true {
            // A begun millisecond counts, or the last one would be waited away in a busy loop. The kernel counts by
            // CLOCK_MONOTONIC: after a suspend of the machine the time is looked at again.
            let left = max(0, min((time - .now) / .milliseconds(1), 60_000))
            if poll(&bell, 1, Int32(left.rounded(.up))) > 0 { return true }
            if ContinuousClock.now >= time { return false }
        }
    }
}
