// JSONText: a look at JSON that somebody else has written, before it is decoded. Decoders recurse, and what they spend grows
// with the depth: a few KB of brackets can cost minutes. This costs one pass.

/// What the text of others must be before it is worth a decoder's time.
package enum JSONText {
    /// Why it is not.
    package struct Fault: Error, Equatable, CustomStringConvertible {
        package let found: String
        package let expected: String

        package var description: String { "found \(found), expected \(expected)" }
    }

    /// Checks that lists and objects lie in one another at most so deep. Whether it is JSON at all, decoding tells.
    ///
    /// Zero bytes are refused: in UTF-16 and UTF-32, which decoders take too, brackets could hide between the halves of
    /// letters.
    package static func check(_ bytes: some Sequence<UInt8>, nestingMax: Int) throws(Fault) {
        var depth = 0
        var isText = false
        var isEscaped = false
        for byte in bytes {
            switch byte {
            case 0: throw Fault(found: "a zero byte", expected: "JSON in UTF-8")
            case _ where isEscaped: isEscaped = false
            case UInt8(ascii: "\\"): isEscaped = isText
            case UInt8(ascii: "\""): isText.toggle()
            case UInt8(ascii: "[") where !isText, UInt8(ascii: "{") where !isText:
                depth += 1
                guard depth <= nestingMax else {
                    throw Fault(found: "JSON of more than \(nestingMax) levels", expected: "at most \(nestingMax)")
                }
            case UInt8(ascii: "]") where !isText, UInt8(ascii: "}") where !isText: depth -= 1
            default: break
            }
        }
    }
}
