// EventLog: what happened, for people: the last thousand in memory, all of them in a file of JSON lines, and as log lines.
//
// What happens again and again is told once a minute: the same line within a minute of the last time that it was written is
// counted, and a line with the number follows when the minute is over. So a thing that comes and goes many times a second
// buries nothing else.

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

    /// The same line within this time is counted.
    static let foldedWithin: Duration = .seconds(60)
    /// Different lines that are remembered for that; beyond them each is written.
    private static let rememberedMax = 1000

    private struct Line: Hashable {
        let level: Logger.Level
        let subject: String
        let message: String
    }

    /// Since a line was written last.
    private struct Repeats {
        let writtenAt: ContinuousClock.Instant
        var count = 0
        /// The latest of them, in the order of all.
        var latest = 0
    }

    private struct State {
        var events: [Event]
        var repeats: [Line: Repeats] = [:]
        var noted = 0
    }

    private let logger: Logger
    private let state: Mutex<State>
    private let writer: LineWriter
    private let file: LineFile

    /// - Parameter path: the file; its last events are read back.
    init(path: String, logger: Logger) {
        self.logger = logger
        state = Mutex(State(events: Self.tail(of: path)))
        let file = LineFile(path, .init(content: "Events", takesDevices: false, bytesMax: Self.fileBytesMax))
        self.file = file
        writer = LineWriter(
            name: "events",
            notice: {
                let message = "\($0) events are missing here: the disk did not take them in time"
                return Self.line(Event(at: .now, level: "warning", subject: Subject.daemon.rawValue, message: message))
            }
        ) { file.add($0) }
        file.report(to: { [weak self] in self?.note($0, .daemon, $1) })
    }

    /// Why events are not in the file; nil: they are.
    var trouble: String? { file.trouble }

    /// Makes the file anew where it is gone, and writes what could not be written. Waits for no disk. Each second.
    func look() { file.look(by: writer) }

    /// Damaged lines are left out: a crash can cut the last one short.
    private static func tail(of path: String) -> [Event] {
        // The line that makes the file too long is still in it.
        guard let bytes = try? StoredFile.read(path, limit: fileBytesMax + LineWriter.bytesMax) else { return [] }
        return bytes.split(separator: UInt8(ascii: "\n")).suffix(inMemory).compactMap {
            try? ControlJSON.decode(Event.self, from: Data($0))
        }
    }

    /// - Parameter isAct: a person has done it: each time is told.
    func note(_ level: Logger.Level, _ subject: Subject, _ message: String, isAct: Bool = false) {
        let line = Line(level: level, subject: subject.rawValue, message: message)
        let now = ContinuousClock.now
        let isNew = state.withLock { state in
            state.noted += 1
            if !isAct, let known = state.repeats[line], now - known.writtenAt < Self.foldedWithin {
                state.repeats[line]?.count += 1
                state.repeats[line]?.latest = state.noted
                return false
            }
            if !isAct, state.repeats.count < Self.rememberedMax { state.repeats[line] = Repeats(writtenAt: now) }
            write(line, &state)
            return true
        }
        if isNew { logger.log(level: level, "\(message)") }
    }

    /// Writes how often lines came again whose minute is over. To be called each second.
    func fold() { fold(.now - Self.foldedWithin) }

    private func fold(_ end: ContinuousClock.Instant) {
        let lines = state.withLock { state in
            let over = state.repeats.filter { $1.writtenAt <= end }
            for line in over.keys { state.repeats[line] = nil }
            // In the order in which they came last, so that of two that take turns the one that holds now is the last.
            return over.filter { $1.count > 0 }.sorted { $0.value.latest < $1.value.latest }.map { line, repeats in
                let times = repeats.count == 1 ? "once more" : "\(repeats.count) times more"
                let line = Line(level: line.level, subject: line.subject, message: "\(line.message), \(times) within a minute")
                write(line, &state)
                return line
            }
        }
        for line in lines { logger.log(level: line.level, "\(line.message)") }
    }

    /// Within the lock, so that the file has the same order.
    private func write(_ line: Line, _ state: inout State) {
        let event = Event(at: .now, level: line.level.rawValue, subject: line.subject, message: line.message)
        state.events.append(event)
        if state.events.count > Self.inMemory { state.events.removeFirst(state.events.count - Self.inMemory) }
        writer.add(Self.line(event))
    }

    func latest(_ limit: Int) -> [Event] { state.withLock { Array($0.events.suffix(limit)) } }

    /// Waits until all events are written, for a moment only: at the end of the process.
    func flush() {
        fold(.now)
        writer.flush()
    }

    private static func line(_ event: Event) -> [UInt8] {
        // Texts and a time: what cannot be encoded is not among them.
        ((try? ControlJSON.encoder().encode(event)).map(Array.init) ?? []) + [UInt8(ascii: "\n")]
    }
}
