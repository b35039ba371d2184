// PEM: keys and certificates as text (RFC 7468), which may have anything before, between and after its blocks.

/// The blocks of a PEM file, in order.
package struct PEM: Equatable, Sendable {
    /// From one `-----BEGIN LABEL-----` to its `-----END LABEL-----`.
    package struct Block: Equatable, Sendable {
        /// `PUBLIC KEY`, `CERTIFICATE` ...
        package let label: String
        /// Begin line, content and end line, as openssl writes them: each line ends with LF, none has blanks around it.
        package let text: String
    }

    package let blocks: [Block]
    /// Of the text that was read.
    package let bytesRead: Int

    /// All blocks, without what stands around them.
    package var text: String { blocks.map(\.text).joined() }

    /// Finds the complete blocks. Lines may end with LF, CR LF or CR.
    package init(_ bytes: [UInt8]) {
        var blocks: [Block] = []
        var label: String?
        var lines: [String] = []
        let text = TextFile.withoutMark(bytes)
        for line in text.split(whereSeparator: { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") }) {
            let line = String(decoding: TextFile.trimmed(line), as: UTF8.self)
            if let begun = Self.label(of: line, "BEGIN") {
                // One that begins within another: the first was cut short, and is none.
                label = begun
                lines = [line]
            } else if let open = label {
                if !line.isEmpty { lines.append(line) }
                if Self.label(of: line, "END") == open {
                    blocks.append(Block(label: open, text: lines.map { $0 + "\n" }.joined()))
                    label = nil
                }
            }
        }
        self.blocks = blocks
        bytesRead = bytes.count
    }

    private static func label(of line: String, _ word: String) -> String? {
        let (start, end) = ("-----\(word) ", "-----")
        guard line.hasPrefix(start), line.hasSuffix(end), line.utf8.count > start.utf8.count + end.utf8.count else {
            return nil
        }
        return String(line.dropFirst(start.count).dropLast(end.count))
    }
}
