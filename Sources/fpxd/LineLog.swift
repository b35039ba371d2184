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
    private let file = LogFile()

    var level: Logger.Level {
        get { state.withLock { $0 } }
        set { state.withLock { $0 = newValue } }
    }

    /// Opens the file (again: after a rotation). Empty: no file.
    ///
    /// - Returns: why there is none, if it could not be opened.
    func open(_ path: String) -> String? { file.open(path) }

    func reopen() -> String? { file.open(nil) }

    func write(_ level: Logger.Level, _ text: String) {
        guard level >= self.level else { return }
        let line = LineWriter.line("[\(level.rawValue.uppercased())] \(text)")
        standardError.add(line)
        file.add(line)
    }

    /// Waits until all lines are written, for a moment only: at the end of the process.
    func flush() {
        standardError.flush()
        file.flush()
    }

    fileprivate static func notice(_ dropped: Int, _ place: String) -> [UInt8] {
        LineWriter.line("[WARNING] \(dropped) log lines are missing here: \(place) did not take them in time")
    }
}

/// The log file. Its own thread alone opens it and writes to it: the disk may be full, or hang.
private final class LogFile: Sendable {
    private struct Place {
        var path = ""
        var descriptor: Int32 = -1
        /// Why there is no file, as it was opened last.
        var trouble: String?
    }
    /// Of the thread.
    private final class Memory: Sendable { let place = Mutex(Place()) }

    private let memory: Memory
    private let writer: LineWriter

    init() {
        let memory = Memory()
        self.memory = memory
        writer = LineWriter(name: "log-file", notice: { LineLog.notice($0, "the disk") }) { line in
            let descriptor = memory.place.withLock { $0.descriptor }
            return descriptor < 0 || Descriptor.write(line, to: descriptor)
        }
    }

    /// - Parameter path: nil: the one of last time.
    func open(_ path: String?) -> String? {
        let isDone = writer.perform(within: .seconds(1)) { [memory] in
            let old = memory.place.withLock { $0 }
            if old.descriptor >= 0 { close(old.descriptor) }
            var new = Place(path: path ?? old.path)
            do throws(Refusal) { new.descriptor = try Self.open(new.path) } catch { new.trouble = error.reason }
            memory.place.withLock { [new] in $0 = new }
        }
        return isDone ? memory.place.withLock { $0.trouble } : "no answer of the disk within a second"
    }

    func add(_ line: [UInt8]) {
        if memory.place.withLock({ $0.descriptor >= 0 }) { writer.add("\(Date.now.formatted(.iso8601)) ".utf8 + line) }
    }

    func flush() { writer.flush() }

    private struct Refusal: Error { var reason: String }

    private static func open(_ path: String) throws(Refusal) -> Int32 {
        if path.isEmpty { return -1 }
        // A pipe without a reader would be waited for.
        let descriptor = Foundation.open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0o640)
        var status = stat()
        guard descriptor >= 0, fstat(descriptor, &status) == 0 else {
            throw Refusal(reason: "\(path): \(String(cString: strerror(errno)))")
        }
        guard [S_IFREG, S_IFCHR].contains(status.st_mode & S_IFMT) else {
            close(descriptor)
            throw Refusal(reason: "\(path): found \(FileKind.name(of: status.st_mode)), expected a file")
        }
        return descriptor
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
