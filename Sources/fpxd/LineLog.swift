// LineLog: log lines `[LEVEL] text` to standard error, where a service manager adds the time, and with the time to a file.

import Foundation
import Logging
import Synchronization

/// Where the lines go. One for the process; any thread.
final class LineLog: Sendable {
    private struct State {
        var path = ""
        var descriptor: Int32 = -1
        var level = Logger.Level.info
    }
    private let state = Mutex(State())

    var level: Logger.Level {
        get { state.withLock { $0.level } }
        set { state.withLock { $0.level = newValue } }
    }

    /// Opens the file (again: after a rotation). Empty: no file.
    ///
    /// - Returns: why there is none, if it could not be opened.
    func open(_ path: String) -> String? {
        state.withLock { state in
            if state.descriptor >= 0 { close(state.descriptor) }
            state.path = path
            state.descriptor = -1
            if path.isEmpty { return nil }
            state.descriptor = Foundation.open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o640)
            return state.descriptor < 0 ? "\(path): \(String(cString: strerror(errno)))" : nil
        }
    }

    func reopen() -> String? { open(state.withLock { $0.path }) }

    func write(_ level: Logger.Level, _ text: String) {
        // One line is one line, whatever a peer has sent us.
        let clean = String(String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 32 || $0.value == 127 ? " " : $0 }))
        let line = "[\(level.rawValue.uppercased())] \(clean)\n"
        state.withLock { state in
            guard level >= state.level else { return }
            put(line, to: 2)
            if state.descriptor >= 0 { put("\(Date.now.formatted(.iso8601)) \(line)", to: state.descriptor) }
        }
    }

    private func put(_ text: String, to descriptor: Int32) {
        _ = Array(text.utf8).withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
    }
}

/// A swift-log handler that writes to a `LineLog`; which levels are written is decided there, at once for all loggers.
struct LineLogHandler: LogHandler {
    let log: LineLog
    var logLevel = Logger.Level.trace
    var metadata: Logger.Metadata = [:]

    init(log: LineLog) { self.log = log }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { $1 }
        let suffix =
            all.isEmpty ? "" : " " + all.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
        log.write(event.level, "\(event.message)\(suffix)")
    }
}
