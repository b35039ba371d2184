// System: clocks, shared memory, and programs that are run to their end or until they are told to stop.

import Admission
import Foundation
import Synchronization

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
    let processID: pid_t
    private(set) var isEnded = false

    /// - Parameters:
    ///   - place: the namespaces to start it in; nil: this one's.
    ///   - output: a file for what it prints; added to its end.
    init(_ words: [String], in place: Place? = nil, environment: [String: String] = [:], output: String) throws(ChaosError) {
        let descriptor = open(output, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .system(call: "open", path: output, code: errno) }
        defer { close(descriptor) }
        processID = try spawn(words, in: place, environment: environment, output: descriptor)
    }

    deinit { end() }

    func signal(_ number: Int32) { if !isEnded { kill(processID, number) } }

    /// Whether it has ended by itself or by a signal.
    func hasEnded() -> Bool {
        if !isEnded, waitpid(processID, nil, WNOHANG) == processID { isEnded = true }
        return isEnded
    }

    func end(by number: Int32 = SIGKILL) {
        guard !hasEnded() else { return }
        kill(processID, number)
        // One that is stopped, or does not stop by itself, is ended by force.
        let limit = boottime() + 2 * second
        while number != SIGKILL, boottime() < limit, !hasEnded() { usleep(2000) }
        if isEnded { return }
        kill(processID, SIGKILL)
        while waitpid(processID, nil, 0) < 0, errno == EINTR {}
        isEnded = true
    }
}

/// Starts this same program, which enters the namespaces and becomes the other one: the process id stays, and it dies with
/// this process.
private func spawn(
    _ words: [String], in place: Place?, environment: [String: String], output: Int32
) throws(ChaosError) -> pid_t {
    let program = "/proc/self/exe"
    let arguments = [program, Place.mark] + (place ?? Place()).arguments + words
    var strings: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    let all = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    var variables: [UnsafeMutablePointer<CChar>?] = all.map { strdup("\($0)=\($1)") } + [nil]
    defer { for string in strings + variables { free(string) } }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, output, 1)
    posix_spawn_file_actions_adddup2(&actions, output, 2)
    var process: pid_t = 0
    let failure = posix_spawn(&process, program, &actions, nil, &strings, &variables)
    if failure != 0 { throw .system(call: "posix_spawn", path: words[0], code: failure) }
    return process
}

/// Runs a program to its end, or for `seconds`: exit status (-1: it was ended), and what it printed.
func run(_ words: [String], in place: Place? = nil, within seconds: Double = 10) throws(ChaosError) -> (
    status: Int32, output: String
) {
    var ends: [Int32] = [0, 0]
    guard pipe(&ends) == 0 else { throw .system(call: "pipe", path: "", code: errno) }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    defer { close(ends[0]) }
    let process: pid_t
    do {
        defer { close(ends[1]) }
        process = try spawn(words, in: place, environment: [:], output: ends[1])
    }
    let limit = boottime() + Int64(seconds * 1e9)
    var output: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    var isLate = false
    while true {
        var wait = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
        if poll(&wait, 1, Int32(max(0, (limit - boottime()) / millisecond))) <= 0 {
            if errno == EINTR, boottime() < limit { continue }
            isLate = true
            break
        }
        let count = read(ends[0], &buffer, buffer.count)
        if count <= 0 { break }
        output += buffer.prefix(count)
    }
    if isLate { kill(process, SIGKILL) }
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0, errno == EINTR {}
    let text = String(decoding: output, as: UTF8.self)
    return isLate ? (-1, "no end within \(seconds) s; \(text)") : (status & 0x7f == 0 ? status >> 8 & 0xff : -1, text)
}

/// A program that must succeed.
@discardableResult
func must(_ words: [String], in place: Place? = nil, within seconds: Double = 10) throws(ChaosError) -> String {
    let (status, output) = try run(words, in: place, within: seconds)
    if status != 0 { throw .command(words, output: output) }
    return output
}
