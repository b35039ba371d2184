// What the tests of field situations need: worker processes in C.

import Foundation
import TestSupport
import Testing

/// A process of FieldWorker/worker.c.
final class FieldWorker {
    struct Silent: Error { let after: String }

    private static let program = Result {
        let library = try ShippedLibrary.shared.get()
        let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appending(path: "FieldWorker/worker.c").path
        return (try library.compile(source, library.flags("--cflags", "--libs")), library.environment)
    }

    let child: ChildProcess
    private var received: [UInt8] = []

    init(_ words: String...) throws {
        let (program, environment) = try FieldWorker.program.get()
        child = try ChildProcess(
            [program] + words, environment: ProcessInfo.processInfo.environment.merging(environment) { $1 }, input: .pipe,
            output: .pipe)
    }

    func say(_ line: String = "") throws { try #require(child.input).write(contentsOf: Data("\(line)\n".utf8)) }

    /// The next line that it says, within a minute.
    func line() throws -> String {
        let descriptor = try #require(child.output).fileDescriptor
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            if let end = received.firstIndex(of: UInt8(ascii: "\n")) {
                defer { received.removeFirst(end + 1) }
                return String(decoding: received[..<end], as: UTF8.self)
            }
            var watched = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&watched, 1, 60_000) == 1 else { throw Silent(after: "a minute") }
            let count = read(descriptor, &buffer, buffer.count)
            guard count > 0 else { throw Silent(after: "its end, status \(child.wait())") }
            received += buffer.prefix(count)
        }
    }

    /// The numbers of its next line.
    func numbers() throws -> [Int] {
        let line = try line()
        return line.split { !$0.isNumber && $0 != "-" }.compactMap { Int($0) }
    }

    /// Closes its input and waits for its end.
    func end() throws -> Int32 {
        try #require(child.input).close()
        return try #require(child.wait(within: .seconds(60)))
    }
}
