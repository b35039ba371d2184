// LineFile: a file that lines are added to, the log's or the events'.
//
// Where it cannot be written (a full disk, something else in its place, no descriptor left) people are told once; its lines
// wait, and are tried again each second, until somebody has put it right. A file that was removed is made anew.
//
// It is opened for each line, so that it is always the one that has the name now.

import Basics
import Foundation
import Logging
import Synchronization

/// One thread writes; any may ask for the trouble.
final class LineFile: Sendable {
    struct Kind {
        /// What is in it, for people: "Events are not on disk".
        let content: String
        /// Whether it may be a device, or a link to a file: /dev/null is a log too.
        let takesDevices: Bool
        /// The file is renamed to `.1` when it has grown to this, and begun anew; nil: somebody else sees to that.
        let bytesMax: Int?
    }

    private struct State {
        /// Lines that could not be written.
        var waiting: [[UInt8]] = []
        var bytes = 0
        var trouble: String?
        /// Whether somebody has seen to it that the file is looked at.
        var isLookedAt = false
        /// Whether there was a file when it was looked at last.
        var wasThere = false
        var tell: (@Sendable (Logger.Level, String) -> Void)?
    }

    /// Why a line is not written.
    private struct Refusal: Error { let reason: String }

    let path: String
    private let kind: Kind
    private let state = Mutex(State())

    init(_ path: String, _ kind: Kind) {
        self.path = path
        self.kind = kind
    }

    /// Why lines are not in the file; nil: they are.
    var trouble: String? { state.withLock { $0.trouble } }

    /// - Parameter tell: told what people must know from now on, and what they do not know yet.
    func report(to tell: @escaping @Sendable (Logger.Level, String) -> Void) {
        let trouble = state.withLock { state in
            state.tell = tell
            return state.trouble
        }
        if let trouble { tell(.error, trouble) }
    }

    /// Writes a line, or keeps it until it can be written.
    /// - Returns: false: there is no room for it either.
    func add(_ line: [UInt8]) -> Bool {
        let hasRoom = state.withLock { state in
            guard state.bytes + line.count <= LineWriter.bytesMax else { return false }
            state.bytes += line.count
            state.waiting.append(line)
            return true
        }
        look()
        return hasRoom
    }

    /// Has the thread look at the file, unless it is about to. Waits for no disk.
    func look(by writer: LineWriter) {
        let isNew = state.withLock { state in
            defer { state.isLookedAt = true }
            return !state.isLookedAt
        }
        if isNew { writer.perform { [self] in look() } }
    }

    /// Makes the file where there is none, and writes what waits.
    func look() {
        state.withLock { $0.isLookedAt = false }
        do throws(Refusal) {
            try make()
            while let line = state.withLock({ $0.waiting.first }) {
                try append(line)
                state.withLock {
                    $0.waiting.removeFirst()
                    $0.bytes -= line.count
                }
            }
            told(nil)
        } catch {
            told(error.reason)
        }
    }

    private func told(_ reason: String?) {
        let text = reason.map { "\(kind.content) are not on disk: \($0)" }
        let (before, tell) = state.withLock { state in
            defer { state.trouble = text }
            return (state.trouble, state.tell)
        }
        if text == before { return }
        if let text { tell?(.error, text) } else { tell?(.info, "\(kind.content) are on disk again: \(path)") }
    }

    /// - Returns: nil: there is nothing of that name.
    private func status() throws(Refusal) -> stat? {
        var status = stat()
        guard (kind.takesDevices ? stat(path, &status) : lstat(path, &status)) == 0 else { return nil }
        try check(status)
        return status
    }

    /// A pipe without a reader would be waited for, and a link may lead elsewhere.
    private func check(_ status: stat) throws(Refusal) {
        let format = status.st_mode & S_IFMT
        if format == S_IFREG || kind.takesDevices && format == S_IFCHR { return }
        let expected = kind.takesDevices ? "a file" : "a regular file"
        throw Refusal(reason: "\(path): found \(FileKind.name(of: status.st_mode)), expected \(expected)")
    }

    private func refusal(_ call: String, _ path: String) -> Refusal {
        Refusal(reason: "\(path): \(call) failed: \(String(cString: strerror(errno)))")
    }

    private func make() throws(Refusal) {
        if try status() == nil {
            close(try open())
            if state.withLock({ $0.wasThere }) {
                state.withLock { $0.tell }?(.warning, "\(path) was removed: it is made anew")
            }
        }
        state.withLock { $0.wasThere = true }
    }

    private func open() throws(Refusal) -> Int32 {
        let flags = O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY
        let descriptor = Foundation.open(path, kind.takesDevices ? flags : flags | O_NOFOLLOW, 0o640)
        if descriptor < 0 { throw refusal("open", path) }
        return descriptor
    }

    private func append(_ line: [UInt8]) throws(Refusal) {
        var line = line
        if let bytesMax = kind.bytesMax, let size = try status()?.st_size, Int(size) + line.count > bytesMax,
            rename(path, path + ".1") != 0
        {
            throw refusal("rename", path + ".1")
        }
        let descriptor = try open()
        defer { close(descriptor) }
        var status = stat()
        if fstat(descriptor, &status) != 0 { throw refusal("fstat", path) }
        try check(status)
        // A crash can have cut the line before short.
        var last = UInt8(ascii: "\n")
        let isFile = status.st_mode & S_IFMT == S_IFREG
        if isFile, status.st_size > 0 { pread(descriptor, &last, 1, status.st_size - 1) }
        if last != UInt8(ascii: "\n") { line.insert(UInt8(ascii: "\n"), at: 0) }
        if Descriptor.write(line, to: descriptor) { return }
        let refused = refusal("write", path)
        // What a full disk took of it would stand before the whole line.
        if isFile { ftruncate(descriptor, status.st_size) }
        throw refused
    }
}
