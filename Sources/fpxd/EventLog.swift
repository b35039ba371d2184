// EventLog: what happened, for people: the last thousand in memory, all of them in a file of JSON lines, and as log lines.
//
// Where the file cannot be written (a full disk, something else in its place) the log and the status say so once; its lines wait, and
// are tried again each second.

import Basics
import ControlAPI
import Foundation
import Licensing
import Logging
import Synchronization

/// Any thread may note an event, and waits for no disk.
final class EventLog: Sendable {
    typealias Event = EventsReport.Event

    enum Subject: String {
        case license, limit, process, config, daemon, hook, sharing
    }

    static let inMemory = 1000
    /// The file is renamed to `.1` when it has grown to this, and begun anew.
    static let fileBytesMax = 4 << 20

    private let logger: Logger
    private let events: Mutex<[Event]>
    private let writer: LineWriter
    private let file: EventFile

    /// - Parameter path: the file; its last events are read back.
    init(path: String, logger: Logger) {
        self.logger = logger
        events = Mutex(Self.tail(of: path))
        let file = EventFile(path, logger: logger)
        self.file = file
        writer = LineWriter(
            name: "events",
            notice: {
                let message = "\($0) events are missing here: the disk did not take them in time"
                return Self.line(Event(at: .now, level: "warning", subject: Subject.daemon.rawValue, message: message))
            }
        ) { file.add($0) }
    }

    /// Why events are not in the file; nil: they are.
    var trouble: String? { file.trouble }

    /// Tries again what could not be written. Waits for no disk. Each second.
    func retry() { if file.wantsRetry() { writer.perform(within: .zero) { [file] in file.retry() } } }

    /// Damaged lines are left out: a crash can cut the last one short.
    private static func tail(of path: String) -> [Event] {
        // The line that makes the file too long is still in it.
        guard let bytes = try? StoredFile.read(path, limit: fileBytesMax + LineWriter.bytesMax) else { return [] }
        return bytes.split(separator: UInt8(ascii: "\n")).suffix(inMemory).compactMap {
            try? ControlJSON.decode(Event.self, from: Data($0))
        }
    }

    func note(_ level: Logger.Level, _ subject: Subject, _ message: String) {
        logger.log(level: level, "\(message)")
        let event = Event(at: .now, level: level.rawValue, subject: subject.rawValue, message: message)
        let line = Self.line(event)
        events.withLock { events in
            events.append(event)
            if events.count > Self.inMemory { events.removeFirst(events.count - Self.inMemory) }
            // Within the lock, so that the file has the same order.
            writer.add(line)
        }
    }

    func latest(_ limit: Int) -> [Event] { events.withLock { Array($0.suffix(limit)) } }

    /// Waits until all events are written, for a moment only: at the end of the process.
    func flush() { writer.flush() }

    private static func line(_ event: Event) -> [UInt8] {
        // Texts and a time: what cannot be encoded is not among them.
        ((try? ControlJSON.encoder().encode(event)).map(Array.init) ?? []) + [UInt8(ascii: "\n")]
    }
}

/// The file of the events. One thread writes; any may ask for the trouble.
private final class EventFile: Sendable {
    private struct State {
        /// Lines that could not be written.
        var waiting: [[UInt8]] = []
        var bytes = 0
        var trouble: String?
        /// Whether somebody has seen to it that what waits is tried again.
        var isRetried = false
    }

    /// Why a line is not written.
    private struct Refusal: Error { let reason: String }

    private let path: String
    private let logger: Logger
    private let state = Mutex(State())

    init(_ path: String, logger: Logger) {
        self.path = path
        self.logger = logger
    }

    var trouble: String? { state.withLock { $0.trouble } }

    /// Writes a line, or keeps it until it can be written.
    /// - Returns: false: there is no room for it either.
    func add(_ line: [UInt8]) -> Bool {
        let hasRoom = state.withLock { state in
            guard state.bytes + line.count <= LineWriter.bytesMax else { return false }
            state.bytes += line.count
            state.waiting.append(line)
            return true
        }
        retry()
        return hasRoom
    }

    /// Whether something waits and nobody is about to try it again.
    func wantsRetry() -> Bool {
        state.withLock { state in
            guard state.trouble != nil, !state.isRetried else { return false }
            state.isRetried = true
            return true
        }
    }

    /// Writes what waits.
    func retry() {
        state.withLock { $0.isRetried = false }
        while let line = state.withLock({ $0.waiting.first }) {
            do throws(Refusal) { try append(line) } catch { return tell(error.reason) }
            state.withLock {
                $0.waiting.removeFirst()
                $0.bytes -= line.count
            }
        }
        tell(nil)
    }

    private func tell(_ reason: String?) {
        let text = reason.map { "Events are not on disk: \($0)" }
        let before = state.withLock { state in
            defer { state.trouble = text }
            return state.trouble
        }
        if text == before { return }
        if let text { logger.error("\(text)") } else { logger.notice("Events are on disk again: \(path)") }
    }

    private func append(_ line: [UInt8]) throws(Refusal) {
        func refusal(_ call: String, _ path: String) -> Refusal {
            Refusal(reason: "\(path): \(call) failed: \(String(cString: strerror(errno)))")
        }
        var line = line
        var status = stat()
        let isThere = lstat(path, &status) == 0
        // A pipe without a reader would be waited for, and a link would lead elsewhere.
        guard !isThere || status.st_mode & S_IFMT == S_IFREG else {
            throw Refusal(reason: "\(path): found \(FileKind.name(of: status.st_mode)), expected a regular file")
        }
        if isThere, status.st_size + line.count > EventLog.fileBytesMax, rename(path, path + ".1") != 0 {
            throw refusal("rename", path + ".1")
        }
        let descriptor = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0o640)
        guard descriptor >= 0 else { throw refusal("open", path) }
        defer { close(descriptor) }
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw Refusal(reason: "\(path): found \(FileKind.name(of: status.st_mode)), expected a regular file")
        }
        // A crash or a full disk can have cut the line before short.
        var last = UInt8(ascii: "\n")
        if status.st_size > 0 { pread(descriptor, &last, 1, status.st_size - 1) }
        if last != UInt8(ascii: "\n") { line.insert(UInt8(ascii: "\n"), at: 0) }
        guard Descriptor.write(line, to: descriptor) else { throw refusal("write", path) }
    }
}
