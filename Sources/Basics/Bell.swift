import Foundation

/// Wakes a thread that waits until a time. A semaphore would wait by the wall clock, on Linux: set back by an hour, it waits an
/// hour longer.
package final class Bell: Sendable {
    private let hammer: Int32
    private let ear: Int32

    /// Nil, with `errno`: the system has no descriptors left.
    package init?() {
        var pair: [Int32] = [-1, -1]
        if socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &pair) != 0 { return nil }
        (hammer, ear) = (pair[0], pair[1])
    }

    deinit {
        close(hammer)
        close(ear)
    }

    /// For good.
    package func ring() { shutdown(hammer, Int32(SHUT_WR)) }

    /// Waits for the bell, at most until a time.
    package func rings(before time: ContinuousClock.Instant) -> Bool {
        Descriptor.isReady(ear, for: POLLIN, before: time)
    }
}
