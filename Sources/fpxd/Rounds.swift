// Rounds: work that comes round, by a clock that nobody sets.

import Basics
import Foundation
import ServiceLifecycle
import Synchronization

/// Work that comes round, on a thread of its own: it waits for no other task, and no other task waits for it.
struct Rounds: Service {
    let name: String
    /// From one round to the next.
    let interval: Duration
    /// Told of each round that has ended.
    var pulse: Pulse?
    /// Called on the thread; what it returns is one round.
    let begin: @Sendable () -> () -> Void

    func run() async throws {
        guard let stop = Bell() else { throw DaemonError.system(call: "socketpair", path: name, code: errno) }
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
            pulse?.beat()
            next += interval
            // After a pause of the machine one round is enough.
            if next < .now { next = .now + interval }
        }
    }
}

/// Shows whether work comes round. Any thread.
final class Pulse: Sendable {
    let name: String
    private let longest: Duration
    private let latest = Mutex(ContinuousClock.now)

    /// - Parameter longest: from one round to the next, where all is well.
    init(_ name: String, longest: Duration) {
        self.name = name
        self.longest = longest
    }

    func beat() { latest.withLock { $0 = .now } }

    /// Whether a round has ended within this time, or within the longest that one may take.
    func isBeating(within time: Duration) -> Bool { .now - latest.withLock { $0 } <= max(time, longest) }
}
