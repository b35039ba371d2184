/// A line that haproxy logs at the end of a stream: `END ID TERMINATION VERDICT BYTES_IN BYTES_OUT`, of which the last two, the
/// last three or the last four may be missing.
struct EndLine: Equatable {
    let id: [UInt8]
    /// The verdict that was in force; nil where the line does not tell, `-` where there was none.
    let verdict: String?
    /// What the client has sent and was sent; nil where the line does not tell, or no numbers.
    let bytesIn: Int?
    let bytesOut: Int?

    /// Nil: it is no such line.
    init?(_ line: some Collection<UInt8>) {
        let words = line.split(separator: UInt8(ascii: " "))
        guard [2, 3, 4, 6].contains(words.count), words[0].elementsEqual("END".utf8) else { return nil }
        id = Array(words[1])
        verdict = words.count >= 4 ? String(decoding: words[3], as: UTF8.self) : nil
        func number(_ index: Int) -> Int? { words.count == 6 ? Int(String(decoding: words[index], as: UTF8.self)) : nil }
        bytesIn = number(4)
        bytesOut = number(5)
    }
}

/// Takes a stream of octet-counted messages (RFC 6587, section 3.4.1) apart into lines.
struct EndLineParser {
    /// Bytes of one message: haproxy's largest log line.
    static let messageBytes = 65535
    private static let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
    private static let newline = UInt8(ascii: "\n")

    private var unread: [UInt8] = []
    /// Places where something else was found than the length of a message.
    private(set) var garbage = 0

    /// Whether the beginning of a message waits for its end.
    var isWaiting: Bool { !unread.isEmpty }

    /// The lines that have come whole; empty ones are left out. A message may have several.
    mutating func receive(_ bytes: [UInt8]) -> [ArraySlice<UInt8>] {
        var lines: [ArraySlice<UInt8>] = []
        var input = (unread + bytes)[...]
        while !input.isEmpty {
            let digits = input.prefix(6).prefix { Self.digits.contains($0) }
            if digits.count == input.count, digits.count < 6 { break }  // the length goes on
            let length = digits.reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }
            let rest = input.dropFirst(digits.count)
            // A length has no zeros before it: six digits are too many, whether or not what follows them has come.
            guard digits.first != UInt8(ascii: "0"), (1...Self.messageBytes).contains(length), rest.first == UInt8(ascii: " ")
            else {
                // The next line, or what comes next, is as good a place as any to find the next length.
                garbage += 1
                input = input.drop { $0 != Self.newline }.drop { $0 == Self.newline }
                continue
            }
            guard rest.count > length else { break }
            lines += rest.dropFirst().prefix(length).split(separator: Self.newline)
            input = rest.dropFirst(1 + length)
        }
        unread = Array(input)
        return lines
    }
}
