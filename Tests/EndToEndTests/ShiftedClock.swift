// A wall clock that a test sets while the program under test runs: no right to set the host's is needed, and no other program
// sees it.

import Foundation
import Testing

final class ShiftedClock: Sendable {
    private let folder: TemporaryFolder

    private var file: String { folder.path + "/ahead" }
    private var library: String { folder.path + "/shiftedclock.so" }

    init() throws {
        folder = try TemporaryFolder()
        let source = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Preload/shiftedclock.c").path
        let (status, output) = try run(
            "/usr/bin/env", ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source])
        if status != 0 { throw EndToEndError.missing(what: library, expected: "one: \(output)") }
        try set(ahead: 0)
    }

    /// What starts a program that goes by this clock.
    var launcher: [String] { ["/usr/bin/env", "LD_PRELOAD=\(library)", "FPX_CLOCK=\(file)"] }

    /// Sets the clock so many seconds ahead of the host's; less than none: behind it.
    func set(ahead seconds: Int) throws {
        // In place: the program has the file mapped.
        let handle = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
        defer { _ = close(handle) }
        let written = withUnsafeBytes(of: Int64(seconds) * 1_000_000_000) { write(handle, $0.baseAddress, $0.count) }
        if written != 8 { throw SocketError.system(call: "write", code: errno) }
    }

    /// The calls that have waited until a time of the wall clock, with how long they would, but for one: a thread of
    /// libdispatch's pool without work waits 5 seconds for some, and then ends. Work wakes it, and nothing waits for its end.
    var waits: Set<String> {
        Set(folder.read("ahead.waits").split(separator: "\n").map(String.init)).subtracting(["sem_timedwait 5.0 s"])
    }
}
