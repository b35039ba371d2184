// Text files that pass through editors, mail programs and other systems before they arrive here.

/// What editors and mail programs leave in a text file besides the text itself.
package enum TextFile {
    /// UTF-8's byte order mark, which editors on Windows put at the beginning.
    package static let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]

    /// The bytes without a byte order mark at their beginning.
    package static func withoutMark(_ bytes: [UInt8]) -> ArraySlice<UInt8> {
        bytes.starts(with: byteOrderMark) ? bytes.dropFirst(byteOrderMark.count) : bytes[...]
    }

    /// The bytes without a mark, and without blanks and empty lines before and after the text.
    package static func trimmed(_ bytes: [UInt8]) -> ArraySlice<UInt8> { trimmed(withoutMark(bytes)) }

    static func trimmed(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        let text = bytes.drop(while: isWhiteSpace)
        guard let last = text.lastIndex(where: { !isWhiteSpace($0) }) else { return [] }
        return text[...last]
    }

    /// A token that may be folded at any column: mail programs break long lines, and indent what follows.
    ///
    /// What is left may still be anything; a token's own form says whether it is one. Text around the token makes it another one.
    package static func unfolded(_ bytes: [UInt8]) -> [UInt8] { withoutMark(bytes).filter { !isWhiteSpace($0) } }

    /// Blank, tab and both halves of a line end. No other: a flipped bit must not turn a byte of the text into one.
    private static func isWhiteSpace(_ byte: UInt8) -> Bool {
        byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") || byte == UInt8(ascii: "\r") || byte == UInt8(ascii: "\n")
    }
}
