// LineLog: log lines `[LEVEL] text` to standard error, where a service manager adds the time, and with the time to a file.
// Nobody waits for a line: threads of the log's own write them.

import Basics
import Foundation
import Logging
import Synchronization

/// Where the lines go. One for the process; any thread.
final class LineLog: Sendable {
    private let state = Mutex(Logger.Level.info)
    private let standardError = LineWriter(name: "log-stderr", notice: { notice($0, "standard error") }) {
        Descriptor.write($0, to: Descriptor.standardError)
    }
    /// Nil: there is none.
    private let file = Mutex<File?>(nil)

    /// The disk may be full, or hang: its own thread alone opens the file and writes to it.
    private struct File {
        let lines: LineFile
        let writer: LineWriter
    }

    var level: Logger.Level {
        get { state.withLock { $0 } }
        set { state.withLock { $0 = newValue } }
    }

    /// Writes lines to a file too, from now on; one that cannot be opened is tried each second, by `look`. Empty: to none.
    func open(_ path: String) {
        if path.isEmpty { return }
        let lines = LineFile(path, .init(content: "Log lines", takesDevices: true, bytesMax: nil))
        let writer = LineWriter(name: "log-file", notice: { Self.notice($0, "the disk") }) { lines.add($0) }
        file.withLock { $0 = File(lines: lines, writer: writer) }
        lines.look(by: writer)
    }

    /// Why lines are not in the file; nil: they are, or there is none.
    var trouble: String? { file.withLock { $0 }?.lines.trouble }

    /// - Parameter tell: told what people must know of the file.
    func report(to tell: @escaping @Sendable (Logger.Level, String) -> Void) {
        file.withLock { $0 }?.lines.report(to: tell)
    }

    /// Makes the file anew where it is gone, and writes what could not be written. Waits for no disk. Each second.
    func look() { if let file = file.withLock({ $0 }) { file.lines.look(by: file.writer) } }

    /// The same at once, for a rotation.
    ///
    /// - Returns: why lines are not in the file.
    func reopen() -> String? {
        guard let file = file.withLock({ $0 }) else { return nil }
        let isDone = file.writer.perform(within: .seconds(1)) { file.lines.look() }
        return isDone ? file.lines.trouble : "\(file.lines.path): no answer of the disk within a second"
    }

    func write(_ level: Logger.Level, _ text: String) {
        guard level >= self.level else { return }
        let line = LineWriter.line("[\(level.rawValue.uppercased())] \(text)")
        standardError.add(line)
        file.withLock { $0 }?.writer.add("\(Date.now.formatted(.iso8601)) ".utf8 + line)
    }

    /// Waits until all lines are written, for a moment only: at the end of the process.
    func flush() {
        standardError.flush()
        file.withLock { $0 }?.writer.flush()
    }

    fileprivate static func notice(_ dropped: Int, _ place: String) -> [UInt8] {
        LineWriter.line("[WARNING] \(dropped) log lines are missing here: \(place) did not take them in time")
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
