// LineWriter: lines go to a file, a pipe or a terminal on a thread of their own. Whoever has a line to write never waits: not
// for a full disk, not for one that does not answer, not for a pipe that nobody reads. What does not fit into the queue
// meanwhile is dropped and counted, and when lines flow again the first one says how many are missing.

import Foundation
import Synchronization

/// A queue of lines and the thread that writes them. Lives as long as the process. Any thread may call anything.
package final class LineWriter: Sendable {
    private enum Work: Sendable {
        case line([UInt8])
        case step(@Sendable () -> Void)
    }

    private struct State {
        var waiting: [Work] = []
        /// Of all lines that are waiting or being written.
        var bytes = 0
        /// Lines that nobody will see, since this was last told.
        var dropped = 0
    }

    /// Of lines that wait.
    package static let bytesMax = 64 << 10

    private let state = Mutex(State())
    private let wake = DispatchSemaphore(value: 0)
    private let write: @Sendable ([UInt8]) -> Bool
    private let notice: @Sendable (_ dropped: Int) -> [UInt8]

    /// - Parameters:
    ///   - name: of the thread.
    ///   - notice: the line that tells how many lines are missing before the next one.
    ///   - write: called on the thread with a line; says whether it was taken. May take as long as it likes.
    package init(
        name: String, notice: @escaping @Sendable (_ dropped: Int) -> [UInt8], write: @escaping @Sendable ([UInt8]) -> Bool
    ) {
        self.notice = notice
        self.write = write
        let thread = Thread { [self] in work() }
        thread.name = name
        thread.start()
    }

    /// One line is one line, whatever a peer has sent us.
    package static func line(_ text: String) -> [UInt8] {
        let clean = String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 32 || $0.value == 127 ? " " : $0 })
        return Array(String(clean).utf8) + [UInt8(ascii: "\n")]
    }

    /// Adds a line to the queue, or drops it.
    package func add(_ line: [UInt8]) {
        state.withLock { state in
            guard state.bytes + line.count <= Self.bytesMax else {
                state.dropped += 1
                return
            }
            state.bytes += line.count
            state.waiting.append(.line(line))
        }
        wake.signal()
    }

    /// Does something on the thread, when all lines before it are written. Waits for nothing.
    package func perform(_ step: @escaping @Sendable () -> Void) {
        state.withLock { $0.waiting.append(.step(step)) }
        wake.signal()
    }

    /// The same, and waits for it.
    /// - Returns: whether it was done in time. If not, it is done later.
    @discardableResult
    package func perform(within limit: Duration, _ step: @escaping @Sendable () -> Void) -> Bool {
        let done = Bell()
        perform {
            step()
            done?.ring()
        }
        guard let done else { return false }
        return done.rings(before: .now + limit)
    }

    /// Waits until what was added is written, for a moment only: at the end of the process.
    package func flush() { perform(within: .seconds(1)) {} }

    private func work() -> Never {
        while true {
            wake.wait()
            let (waiting, dropped) = state.withLock { state in
                defer { (state.waiting, state.dropped) = ([], 0) }
                return (state.waiting, state.dropped)
            }
            // What was dropped would have come after what waits.
            var missing = dropped
            for item in waiting {
                switch item {
                case .line(let line):
                    if !write(line) { missing += 1 }
                    state.withLock { $0.bytes -= line.count }
                case .step(let step): step()
                }
            }
            if missing > 0, !write(notice(missing)) { state.withLock { $0.dropped += missing } }
        }
    }
}
