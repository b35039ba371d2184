// Running real programs, and leaving none behind.

import Foundation
import TestSupport
import Testing

/// What keeps an end-to-end test from running at all.
enum EndToEndError: Error, CustomStringConvertible {
    case missing(what: String, expected: String)
    case notReady(what: String, log: String)

    var description: String {
        switch self {
        case .missing(let what, let expected): "found no \(what), expected \(expected)"
        case .notReady(let what, let log): "\(what) did not come about within a minute; log:\n\(log)"
        }
    }
}

/// Where `make integrations` has put what it builds.
let distribution =
    ProcessInfo.processInfo.environment["FPX_DIST"]
    ?? URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../dist").standardized.path

/// A file that the tests need, or an error that says how to get it.
func required(_ path: String, _ remedy: String) throws(EndToEndError) -> String {
    if !FileManager.default.fileExists(atPath: path) { throw .missing(what: path, expected: remedy) }
    return path
}

/// Polls until the condition holds; false after `seconds`: a minute, since a busy machine takes long to start a program.
func eventually(within seconds: Double = 60, _ condition: () throws -> Bool) rethrows -> Bool {
    let start = ContinuousClock.now
    while true {
        if try condition() { return true }
        if ContinuousClock.now - start > .seconds(seconds) { return false }
        usleep(1000)
    }
}

/// Polls until the condition holds, and fails the test if it never does.
func expectEventually(
    _ what: Comment, sourceLocation: SourceLocation = #_sourceLocation, _ condition: () throws -> Bool
) rethrows {
    let came = try eventually(condition)
    #expect(came, what, sourceLocation: sourceLocation)
}

/// A folder that is removed when the value goes.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/fpx-test.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw SocketError.system(call: "mkdtemp", code: errno) }
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        // Workers that have given up root work in it too.
        chmod(path, 0o777)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ text: String, to name: String) throws {
        try text.write(toFile: "\(path)/\(name)", atomically: true, encoding: .utf8)
    }

    func read(_ name: String) -> String { (try? String(contentsOfFile: "\(path)/\(name)", encoding: .utf8)) ?? "" }
}

/// Runs a program to its end: exit status, and what it wrote to standard output and error.
func run(_ program: String, _ arguments: [String]) throws -> (status: Int32, output: String) {
    let ended = try ChildProcess.run([program] + arguments)
    return (ended.status, ended.text)
}

/// A program that runs until the value goes, and all that it starts.
///
/// It runs in a process group of its own, together with a shell that holds the read end of a pipe. When the pipe closes, because
/// the test is done or because the test runner has died in whatever way, the shell kills the group.
final class ProxyProcess: Sendable {
    private let shell: ChildProcess

    /// - Parameter output: the file for standard output and error.
    init(_ arguments: [String], output: String) throws {
        let command = ["/bin/sh", "-c", "\"$@\" & read line; kill -KILL 0", "sh"] + arguments
        shell = try ChildProcess(command, input: .pipe, output: .file(output), ownGroup: true)
    }

    deinit { kill(-shell.processID, SIGKILL) }
}

/// A process and its parent, as /proc shows them.
struct ProcessEntry {
    let id: pid_t
    let title: String

    /// The living children of a process.
    static func children(of parent: pid_t) -> [ProcessEntry] {
        let ids = (try? FileManager.default.contentsOfDirectory(atPath: "/proc"))?.compactMap { pid_t($0) } ?? []
        return ids.compactMap { id in
            guard let stat = try? String(contentsOfFile: "/proc/\(id)/stat", encoding: .utf8),
                let name = stat.lastIndex(of: ")")
            else { return nil }
            let fields = stat[name...].dropFirst(2).split(separator: " ")
            guard fields.count > 1, pid_t(fields[1]) == parent, fields[0] != "Z" else { return nil }
            let title = (try? String(contentsOfFile: "/proc/\(id)/cmdline", encoding: .utf8)) ?? ""
            return ProcessEntry(id: id, title: title.trimmingCharacters(in: ["\0", " "]))
        }
    }
}
