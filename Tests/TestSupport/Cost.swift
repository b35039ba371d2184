import Foundation

/// What it costs to read the text of others, and how that grows with its length.
public enum Cost {
    /// CPU seconds of this process, so that others on the machine do not count. The least of three times.
    public static func seconds(_ body: () async throws -> Void) async rethrows -> Double {
        var least = Double.infinity
        for _ in 0..<3 {
            let begin = used()
            try await body()
            least = min(least, used() - begin)
        }
        return least
    }

    /// How much faster than the length the cost grows: 1 where it is proportional to it, `factor` where it grows with its
    /// square.
    ///
    /// - Parameters:
    ///   - length: of the short text.
    ///   - factor: of the long one to it.
    public static func growth(
        length: Int, factor: Int, _ body: (_ length: Int) async throws -> Void
    ) async rethrows -> Double {
        // What is done once and for all is not of either.
        try await body(length)
        let short = try await seconds { for _ in 0..<factor { try await body(length) } }
        let long = try await seconds { try await body(length * factor) }
        return long / max(short, 1e-6)
    }

    private static func used() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}

/// JSON that is made to be expensive: each is an object of about so many bytes.
public enum HostileJSON {
    public static let families: [(name: String, text: @Sendable (_ length: Int) -> String)] = [
        (
            "lists in one another",
            { "{\"a\":" + String(repeating: "[", count: $0 / 2) + String(repeating: "]", count: $0 / 2) + "}" }
        ),
        (
            "lists of 500 levels, side by side",
            {
                let list = String(repeating: "[", count: 500) + String(repeating: "]", count: 500)
                return "{\"a\":[" + Array(repeating: list, count: max(1, $0 / 1001)).joined(separator: ",") + "]}"
            }
        ),
        (
            "objects in one another",
            { String(repeating: "{\"a\":", count: $0 / 6) + "1" + String(repeating: "}", count: $0 / 6) }
        ),
        ("empty lists", { "{\"a\":[" + Array(repeating: "[]", count: $0 / 3).joined(separator: ",") + "]}" }),
        ("numbers", { "{\"a\":[" + Array(repeating: "1", count: $0 / 2).joined(separator: ",") + "]}" }),
        ("members", { length in "{" + (0..<length / 12).map { "\"k\($0)\":1" }.joined(separator: ",") + "}" }),
        ("one long text", { "{\"a\":\"" + String(repeating: "x", count: $0) + "\"}" }),
        ("escapes", { "{\"a\":\"" + String(repeating: "\\u0041", count: $0 / 6) + "\"}" }),
        ("escaped quotes", { "{\"a\":\"" + String(repeating: "\\\"", count: $0 / 2) + "\"}" }),
        ("backslashes", { "{\"a\":\"" + String(repeating: "\\\\", count: $0 / 2) + "\"}" }),
        ("one long number", { "{\"a\":" + String(repeating: "1", count: $0) + "}" }),
        ("blanks", { "{\"a\":" + String(repeating: " ", count: $0) + "1}" }),
        ("no end", { "{\"a\":\"" + String(repeating: "\\", count: $0) }),
    ]
}
