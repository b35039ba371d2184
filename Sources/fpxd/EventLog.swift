// EventLog: what happened, for people: the last thousand in memory, all of them in a file of JSON lines, and as log lines.

import ControlAPI
import Foundation
import Logging
import Synchronization

final class EventLog: Sendable {
    typealias Event = EventsReport.Event

    enum Subject: String {
        case license, limit, process, config, daemon, hook, sharing
    }

    static let inMemory = 1000
    /// The file is renamed to `.1` when it has grown to this, and begun anew.
    static let fileBytesMax = 4 << 20

    private let path: String
    private let logger: Logger
    private let events: Mutex<[Event]>

    /// - Parameter path: the file; its last events are read back.
    init(path: String, logger: Logger) {
        self.path = path
        self.logger = logger
        events = Mutex(Self.tail(of: path))
    }

    /// Damaged lines are left out: a crash can cut the last one short.
    private static func tail(of path: String) -> [Event] {
        guard let data = FileManager.default.contents(atPath: path) else { return [] }
        let decoder = ControlJSON.decoder()
        return data.split(separator: UInt8(ascii: "\n")).suffix(inMemory).compactMap {
            try? decoder.decode(Event.self, from: $0)
        }
    }

    func note(_ level: Logger.Level, _ subject: Subject, _ message: String) {
        logger.log(level: level, "\(message)")
        let event = Event(at: .now, level: level.rawValue, subject: subject.rawValue, message: message)
        events.withLock { events in
            events.append(event)
            if events.count > Self.inMemory { events.removeFirst(events.count - Self.inMemory) }
            append(event)
        }
    }

    func latest(_ limit: Int) -> [Event] { events.withLock { Array($0.suffix(limit)) } }

    /// Trouble with the file (a full disk) must not stop the daemon: the event is in memory and in the log all the same.
    private func append(_ event: Event) {
        guard var line = try? ControlJSON.encoder().encode(event) else { return }
        line.append(UInt8(ascii: "\n"))
        var status = stat()
        if stat(path, &status) == 0, status.st_size + line.count > Self.fileBytesMax { rename(path, path + ".1") }
        let descriptor = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o640)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        // A crash or a full disk can have cut the line before short.
        var last = UInt8(ascii: "\n")
        if fstat(descriptor, &status) == 0, status.st_size > 0 { pread(descriptor, &last, 1, status.st_size - 1) }
        if last != UInt8(ascii: "\n") { line.insert(UInt8(ascii: "\n"), at: 0) }
        _ = line.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
    }
}
