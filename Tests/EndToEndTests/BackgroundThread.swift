import Foundation
import Synchronization

/// A thread that works until it is told to stop.
final class BackgroundThread: Sendable {
    private let stopped = Atomic(false)
    private let ended = DispatchSemaphore(value: 0)

    init(_ body: @escaping @Sendable (BackgroundThread) -> Void) {
        let thread = Thread { [self] in
            body(self)
            ended.signal()
        }
        thread.start()
    }

    var isStopped: Bool { stopped.load(ordering: .relaxed) }

    /// Asks the thread to end, and waits for it; again does nothing.
    func stop() {
        stopped.store(true, ordering: .relaxed)
        ended.wait()
        ended.signal()
    }
}
