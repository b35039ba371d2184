// ChildProcess: the programs that tests start, by posix_spawn.
//
// Foundation's Process reads past the end of a directory entry of /proc/self/fd, and so may die when a process has more
// descriptors open than fit in one buffer (1,365). Here the child closes what it inherits by one system call, and this process
// counts nothing.

import CTestSupport
import Foundation
import Synchronization

/// A program that was started here, and is ended here if by nobody else.
///
/// It gets its three standard streams and no other descriptor, blocks no signal and ignores none.
public final class ChildProcess: Sendable {
    public enum Input: Sendable {
        case null
        /// `input` is the other end.
        case pipe
        case text(String)
    }

    public enum Output: Sendable {
        case null
        /// The same as this process'.
        case inherited
        /// `output` or `error` is the other end.
        case pipe
        /// Added to the end of the file, which is made if need be.
        case file(String)
    }

    public struct Failure: Error, CustomStringConvertible { public let description: String }

    /// How a program ended, and what it wrote.
    public struct Outcome: Sendable {
        /// Exit status, or minus the signal that ended it.
        public var status: Int32
        public var output: String
        public var error: String
        /// Standard output, then standard error.
        public var text: String { output + error }
    }

    public let processID: pid_t
    /// This process' ends of the pipes that it asked for.
    public let input: FileHandle?
    public let output: FileHandle?
    public let error: FileHandle?
    /// Nil until it has ended and was waited for: until then the process id is nobody else's.
    private let ending = Mutex<Int32?>(nil)

    /// Starts a program.
    ///
    /// - Parameters:
    ///   - words: the program, looked for in PATH, and its arguments.
    ///   - environment: all of it; nil: this process'.
    ///   - folder: where it works; nil: where this process does.
    ///   - error: nil: where `output` goes.
    ///   - ownGroup: whether it leads a process group of its own.
    public init(
        _ words: [String], environment: [String: String]? = nil, folder: String? = nil, input: Input = .null,
        output: Output = .null, error: Output? = nil, ownGroup: Bool = false
    ) throws(Failure) {
        let (standardInput, standardOutput) = (try End(input), try End(output, inherited: 1))
        let standardError = if let error { try End(error, inherited: 2) } else { standardOutput }
        (self.input, self.output) = (standardInput.own, standardOutput.own)
        self.error = error == nil ? nil : standardError.own
        processID = try spawn(
            words, environment: environment, folder: folder,
            streams: [standardInput.child, standardOutput.child, standardError.child], ownGroup: ownGroup)
        withExtendedLifetime((standardInput, standardOutput, standardError)) {}
    }

    deinit {
        signal(SIGKILL)
        wait()
    }

    /// Sends a signal, if it has not ended.
    public func signal(_ number: Int32) { ending.withLock { if $0 == nil { _ = kill(processID, number) } } }

    /// Exit status, or minus the signal that ended it; nil while it runs.
    public var status: Int32? {
        ending.withLock { ending in
            var status: Int32 = 0
            if ending == nil, waitpid(processID, &status, WNOHANG) == processID {
                ending = status & 0x7f == 0 ? status >> 8 & 0xff : -(status & 0x7f)
            }
            return ending
        }
    }

    /// Waits for its end.
    ///
    /// - Returns: as `status`.
    @discardableResult
    public func wait() -> Int32 {
        while true { if let status = wait(within: .seconds(86_400)) { return status } }
    }

    /// Waits for its end, but not longer than `limit`.
    ///
    /// - Returns: as `status`.
    public func wait(within limit: Duration) -> Int32? {
        let deadline = ContinuousClock.now + limit
        guard let end = watch() else { return status }
        defer { close(end) }
        var watched = [pollfd(fd: end, events: Int16(POLLIN), revents: 0)]
        return poll(&watched, until: deadline) ? status : nil
    }

    /// A descriptor that can be read from when it has ended; nil: it was waited for.
    private func watch() -> Int32? {
        ending.withLock { ending in
            if ending != nil { return nil }
            let descriptor = test_pidfd(processID)
            precondition(descriptor >= 0, "pidfd_open: \(errno)")
            return descriptor
        }
    }

    /// Runs a program to its end. A program that it leaves running is not waited for, even if that holds its output.
    ///
    /// - Parameters:
    ///   - input: what it reads.
    ///   - limit: who needs longer is ended by SIGKILL, and the outcome's `error` says so.
    public static func run(
        _ words: [String], environment: [String: String]? = nil, folder: String? = nil, input: String = "",
        within limit: Duration = .seconds(600)
    ) throws(Failure) -> Outcome {
        let deadline = ContinuousClock.now + limit
        let child = try ChildProcess(
            words, environment: environment, folder: folder, input: .text(input), output: .pipe, error: .pipe)
        var (output, error, isLate) = child.read(until: deadline)
        if isLate {
            child.signal(SIGKILL)
            error += "\(words[0]): no end within \(limit)\n"
        }
        return Outcome(status: child.wait(), output: output, error: error)
    }

    /// What it writes until its end.
    private func read(until deadline: ContinuousClock.Instant) -> (output: String, error: String, isLate: Bool) {
        guard let end = watch(), let output, let error else { preconditionFailure("the end of a program was waited for") }
        defer { close(end) }
        var texts: [[UInt8]] = [[], []]
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        // The end comes first: where poll has seen it, it sees all that was written before it, too.
        var watched = [end, output.fileDescriptor, error.fileDescriptor].map {
            pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
        }
        var isLate = false
        while true {
            isLate = !poll(&watched, until: deadline)
            if isLate || watched[0].revents != 0 && watched[1].revents == 0 && watched[2].revents == 0 { break }
            for stream in 0..<2 where watched[stream + 1].revents != 0 {
                let count = Glibc.read(watched[stream + 1].fd, &buffer, buffer.count)
                if count > 0 { texts[stream] += buffer.prefix(count) } else { watched[stream + 1].fd = -1 }
            }
        }
        return (String(decoding: texts[0], as: UTF8.self), String(decoding: texts[1], as: UTF8.self), isLate)
    }
}

// MARK: - Streams

/// One end of a standard stream for the child, closed here with this object, and what this process keeps.
private final class End {
    let child: Int32
    let own: FileHandle?

    init(_ input: ChildProcess.Input) throws(ChildProcess.Failure) {
        switch input {
        case .null:
            child = try check(open("/dev/null", O_RDONLY | O_CLOEXEC), "open /dev/null")
            own = nil
        case .pipe:
            let ends = try End.pipe()
            child = ends.read
            own = FileHandle(fileDescriptor: ends.write, closeOnDealloc: true)
        case .text(let text):
            // A file and no pipe: whoever does not read it keeps nobody waiting.
            child = try check(test_nameless_file(), "memfd_create")
            own = nil
            let bytes = Array(text.utf8)
            try check(Int32(truncatingIfNeeded: pwrite(child, bytes, bytes.count, 0)), "pwrite")
        }
    }

    init(_ output: ChildProcess.Output, inherited: Int32) throws(ChildProcess.Failure) {
        var own: FileHandle?
        switch output {
        case .null: child = try check(open("/dev/null", O_WRONLY | O_CLOEXEC), "open /dev/null")
        case .inherited: child = try check(fcntl(inherited, F_DUPFD_CLOEXEC, 3), "dup \(inherited)")
        case .file(let path): child = try check(open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644), "open \(path)")
        case .pipe:
            let ends = try End.pipe()
            child = ends.write
            own = FileHandle(fileDescriptor: ends.read, closeOnDealloc: true)
        }
        self.own = own
    }

    deinit { close(child) }

    private static func pipe() throws(ChildProcess.Failure) -> (read: Int32, write: Int32) {
        var ends: [Int32] = [0, 0]
        try check(Glibc.pipe(&ends), "pipe")
        for end in ends { try check(fcntl(end, F_SETFD, FD_CLOEXEC), "fcntl") }
        return (ends[0], ends[1])
    }
}

@discardableResult
private func check(_ result: Int32, _ call: String) throws(ChildProcess.Failure) -> Int32 {
    if result < 0 { throw ChildProcess.Failure(description: "\(call): \(String(cString: strerror(errno)))") }
    return result
}

// MARK: - System calls

/// Polls until one is ready; false: none was by the deadline.
private func poll(_ descriptors: inout [pollfd], until deadline: ContinuousClock.Instant) -> Bool {
    while true {
        let left = max(.zero, ContinuousClock.now.duration(to: deadline))
        // Not before the deadline.
        let milliseconds = Int32(clamping: Int((left / .milliseconds(1)).rounded(.up)))
        let count = Glibc.poll(&descriptors, nfds_t(descriptors.count), milliseconds)
        if count > 0 { return true }
        if count == 0, ContinuousClock.now >= deadline { return false }
    }
}

private func spawn(
    _ words: [String], environment: [String: String]?, folder: String?, streams: [Int32], ownGroup: Bool
) throws(ChildProcess.Failure) -> pid_t {
    let variables = environment ?? ProcessInfo.processInfo.environment
    let arguments = words.map { strdup($0) } + [nil]
    let settings = variables.map { strdup("\($0)=\($1)") } + [nil]
    defer { for pointer in arguments + settings { free(pointer) } }
    var process: pid_t = 0
    let code = test_spawn(&process, arguments, settings, folder, streams, ownGroup)
    if code != 0 { throw ChildProcess.Failure(description: "\(words[0]): posix_spawn: \(String(cString: strerror(code)))") }
    return process
}
