// EventLog: what happened, for people: the last thousand in memory, all of them in a file of JSON lines, and as log lines.

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
    private let file: LineWriter

    /// - Parameter path: the file; its last events are read back.
    init(path: String, logger: Logger) {
        self.logger = logger
        events = Mutex(Self.tail(of: path))
        // Trouble with the file (a full disk) must not stop the daemon: the event is in memory and in the log all the same.
        file = LineWriter(
            name: "events",
            notice: {
                let message = "\($0) events are missing here: the disk did not take them in time"
                return Self.line(Event(at: .now, level: "warning", subject: Subject.daemon.rawValue, message: message))
            }
        ) { Self.append($0, to: path) }
    }

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
            file.add(line)
        }
    }

    func latest(_ limit: Int) -> [Event] { events.withLock { Array($0.suffix(limit)) } }

    /// Waits until all events are written, for a moment only: at the end of the process.
    func flush() { file.flush() }

    private static func line(_ event: Event) -> [UInt8] {
        // Texts and a time: what cannot be encoded is not among them.
        ((try? ControlJSON.encoder().encode(event)).map(Array.init) ?? []) + [UInt8(ascii: "\n")]
    }

    private static func append(_ line: [UInt8], to path: String) -> Bool {
        var line = line
        var status = stat()
        if lstat(path, &status) == 0, status.st_size + line.count > fileBytesMax { rename(path, path + ".1") }
        // A pipe without a reader would be waited for, and a link would lead elsewhere.
        let descriptor = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0o640)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return false }
        // A crash or a full disk can have cut the line before short.
        var last = UInt8(ascii: "\n")
        if status.st_size > 0 { pread(descriptor, &last, 1, status.st_size - 1) }
        if last != UInt8(ascii: "\n") { line.insert(UInt8(ascii: "\n"), at: 0) }
        return Descriptor.write(line, to: descriptor)
    }
}
