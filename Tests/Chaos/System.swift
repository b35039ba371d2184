// System: clocks, shared memory, and programs that are run to their end or until they are told to stop.

import Admission
import Foundation
import Synchronization
import TestSupport

/// What ends a campaign that cannot go on; a broken law is a `Violation`.
enum ChaosError: Error, CustomStringConvertible {
    case missing(what: String, expected: String)
    case system(call: String, path: String, code: Int32)
    case command(_ words: [String], output: String)
    case notReady(what: String, log: String)
    case interrupted

    var description: String {
        switch self {
        case .missing(let what, let expected): "found no \(what), expected \(expected)"
        case .system(let call, let path, let code): "\(call) \(path): \(String(cString: strerror(code)))"
        case .command(let words, let output): "\(words.joined(separator: " ")): \(output)"
        case .notReady(let what, let log): "\(what) did not come about; log:\n\(log)"
        case .interrupted: "interrupted"
        }
    }
}

/// Nanoseconds of the host's CLOCK_BOOTTIME.
func boottime() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

let second: Int64 = 1_000_000_000
let millisecond: Int64 = 1_000_000

/// Prints a line at once, also into a pipe.
func say(_ line: String) {
    print(line)
    fflush(nil)
}

/// Words that processes share: a file that is mapped.
struct SharedWords: @unchecked Sendable {
    private let base: UnsafeMutableRawPointer
    let path: String

    init(path: String, count: Int, creating: Bool) throws(ChaosError) {
        self.path = path
        let descriptor = open(path, creating ? O_RDWR | O_CREAT | O_EXCL : O_RDWR, 0o600)
        guard descriptor >= 0 else { throw .system(call: "open", path: path, code: errno) }
        defer { close(descriptor) }
        if creating, ftruncate(descriptor, count * 8) != 0 { throw .system(call: "ftruncate", path: path, code: errno) }
        guard let memory = mmap(nil, count * 8, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), memory != MAP_FAILED
        else { throw .system(call: "mmap", path: path, code: errno) }
        base = memory
    }

    subscript(index: Int) -> Int {
        get { Int(truncatingIfNeeded: Word(base, at: index * 8).load()) }
        nonmutating set { Word(base, at: index * 8).store(UInt64(truncatingIfNeeded: newValue)) }
    }
}

/// Ctrl-C: looked at wherever the campaign waits, so that it ends as it always does, with everything removed.
enum Interrupt {
    private static let happened = Atomic(false)

    static func watch() {
        for number in [SIGINT, SIGTERM, SIGHUP] {
            _ = signal(number) { _ in Interrupt.happened.store(true, ordering: .relaxed) }
        }
        _ = signal(SIGPIPE, SIG_IGN)
    }

    static func check() throws(ChaosError) { if happened.load(ordering: .relaxed) { throw .interrupted } }
}

/// Polls until the condition holds; false after `seconds`.
func eventually(within seconds: Double, _ condition: () throws -> Bool) throws -> Bool {
    let end = boottime() + Int64(seconds * 1e9)
    while true {
        try Interrupt.check()
        if try condition() { return true }
        if boottime() > end { return false }
        usleep(5000)
    }
}

/// The end of a process that is no conductor.
func die(_ text: String, _ status: Int32) -> Never {
    FileHandle.standardError.write(Data("chaos: \(text)\n".utf8))
    exit(status)
}

// MARK: - Programs

/// A process that was started here, and is ended here if by nobody else.
final class Child {
    private let process: ChildProcess

    /// - Parameters:
    ///   - place: the namespaces to start it in; nil: this one's.
    ///   - output: a file for what it prints; added to its end.
    init(_ words: [String], in place: Place? = nil, environment: [String: String] = [:], output: String) throws(ChaosError) {
        process = try started(words) { () throws(ChildProcess.Failure) in
            try ChildProcess(
                entering(place, words), environment: ProcessInfo.processInfo.environment.merging(environment) { $1 },
                output: .file(output))
        }
    }

    var processID: pid_t { process.processID }

    func signal(_ number: Int32) { process.signal(number) }

    /// Whether it has ended by itself or by a signal.
    func hasEnded() -> Bool { process.status != nil }

    func end(by number: Int32 = SIGKILL) {
        process.signal(number)
        // One that is stopped, or does not stop by itself, is ended by force.
        if number != SIGKILL, process.wait(within: .seconds(2)) == nil { process.signal(SIGKILL) }
        process.wait()
    }
}

/// This same program, which enters the namespaces and becomes the other one: the process id stays, and it dies with this process.
private func entering(_ place: Place?, _ words: [String]) -> [String] {
    ["/proc/self/exe", Place.mark] + (place ?? Place()).arguments + words
}

/// Runs a program to its end, or for `seconds`: exit status (less than 0: it was ended), and what it printed.
func run(_ words: [String], in place: Place? = nil, within seconds: Double = 10) throws(ChaosError) -> (
    status: Int32, output: String
) {
    let ended = try started(words) { () throws(ChildProcess.Failure) in
        try ChildProcess.run(entering(place, words), within: .seconds(seconds))
    }
    return (ended.status, ended.text)
}

private func started<Value>(
    _ words: [String], _ start: () throws(ChildProcess.Failure) -> Value
) throws(ChaosError) -> Value {
    do { return try start() } catch { throw .command(words, output: error.description) }
}

/// A program that must succeed.
@discardableResult
func must(_ words: [String], in place: Place? = nil, within seconds: Double = 10) throws(ChaosError) -> String {
    let (status, output) = try run(words, in: place, within: seconds)
    if status != 0 { throw .command(words, output: output) }
    return output
}
