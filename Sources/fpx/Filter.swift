// Filter: `| grep PATTERN` behind a command.

import Glibc

/// Keeps some of the lines that a command prints. Patterns are those of grep (POSIX basic regular expressions).
struct Filter: Equatable {
    private(set) var ignoresCase = false
    private(set) var inverts = false
    private(set) var pattern = ""

    static let usage = "grep [-i] [-v] PATTERN"

    /// - Parameter tokens: what stands after `|`.
    init(_ tokens: [Token]) throws(Failure) {
        let found = tokens.map(\.text).joined(separator: " ")
        guard let command = tokens.first, command == Token(text: "grep") else {
            throw .badFilter(found: found, expected: Self.usage)
        }
        var patterns: [String] = []
        for token in tokens.dropFirst() {
            if patterns.isEmpty, !token.isQuoted, token.text.hasPrefix("-"), token.text.count > 1 {
                for option in token.text.dropFirst() {
                    switch option {
                    case "i": ignoresCase = true
                    case "v": inverts = true
                    default: throw .badFilter(found: found, expected: Self.usage)
                    }
                }
            } else {
                patterns.append(token.text)
            }
        }
        guard patterns.count == 1 else { throw .badFilter(found: found, expected: Self.usage) }
        pattern = patterns[0]
        // A pattern that cannot be read is found before the command runs.
        _ = try apply(to: "")
    }

    func apply(to text: String) throws(Failure) -> String {
        var expression = unsafe regex_t()
        let result = unsafe regcomp(&expression, pattern, REG_NOSUB | (ignoresCase ? REG_ICASE : 0))
        guard result == 0 else {
            var message = [CChar](repeating: 0, count: 256)
            _ = unsafe regerror(result, &expression, &message, message.count)
            throw .badFilter(found: pattern, expected: "a pattern of grep: \(string(of: message))")
        }
        defer { unsafe regfree(&expression) }
        var kept = ""
        for line in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
            if unsafe (regexec(&expression, String(line), 0, nil, 0) == 0) != inverts { kept += line + "\n" }
        }
        return kept
    }
}
