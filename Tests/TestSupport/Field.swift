// Field: situations that users of proxies, licence servers and daemons have met, as rows of the table that `make field` prints.

import Foundation

public enum Field {
    /// Adds a row to the table in the file that FPX_FIELD names, if it names one.
    ///
    /// - Parameters:
    ///   - point: where the situation belongs, such as `sockets.1`: rows are sorted by it.
    ///   - situation: what happens, as a user would tell it.
    /// - Returns: whether `found` is as expected.
    public static func row(_ point: String, _ situation: String, expected: String, found: String) -> Bool {
        let holds = expected == found
        if let path = ProcessInfo.processInfo.environment["FPX_FIELD"] {
            let words = [point, situation, expected, found, holds ? "yes" : "NO"]
            append(words.map { $0.replacing("\t", with: " ").replacing("\n", with: " ") }.joined(separator: "\t"), to: path)
        }
        return holds
    }

    private static func append(_ line: String, to path: String) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let bytes = Array((line + "\n").utf8)
        _ = unsafe write(descriptor, bytes, bytes.count)
    }
}
