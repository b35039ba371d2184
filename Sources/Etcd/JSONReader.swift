// JSONReader: takes an answer apart where it lies, without a tree of values: a pool has thousands of keys, and is read often.

import Foundation

/// Where an answer is not what it should be.
struct JSONFault: Error {
    var at: Int
    var found: String
    var expected: String
}

/// Reads one JSON text from front to back.
struct JSONReader {
    /// Deeper nesting than this is no answer of etcd's.
    private static let depthMax = 32

    private let bytes: [UInt8]
    private var at = 0
    private var depth = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Reads all of a text.
    static func read<T>(
        _ bytes: [UInt8], _ value: (inout JSONReader) throws(JSONFault) -> T
    ) throws(JSONFault) -> T {
        var reader = JSONReader(bytes)
        let result = try value(&reader)
        reader.skipBlanks()
        guard reader.at == bytes.count else { throw reader.fault("the end") }
        return result
    }

    /// Each member that is not null, by its name. What `member` does not read itself it must `skip`.
    mutating func object(_ member: (String, inout JSONReader) throws(JSONFault) -> Void) throws(JSONFault) {
        try open("{", "an object")
        if take("}") { return close() }
        repeat {
            skipBlanks()
            let name = try text()
            guard take(":") else { throw fault("':'") }
            // Also skips blanks.
            if !takeNull() { try member(name, &self) }
        } while take(",")
        guard take("}") else { throw fault("',' or '}'") }
        close()
    }

    /// Whether an object is next.
    var isAtObject: Bool { next == UInt8(ascii: "{") }

    mutating func array(_ element: (inout JSONReader) throws(JSONFault) -> Void) throws(JSONFault) {
        try open("[", "a list")
        if take("]") { return close() }
        repeat { try element(&self) } while take(",")
        guard take("]") else { throw fault("',' or ']'") }
        close()
    }

    /// 64-bit numbers come as texts, in some releases as numbers.
    mutating func integer<T: FixedWidthInteger>(_ type: T.Type = Int.self) throws(JSONFault) -> T {
        skipBlanks()
        let begin = at
        let digits: ArraySlice<UInt8>
        if next == UInt8(ascii: "\"") {
            digits = bytes[try textRange()]
        } else {
            while let byte = next, byte == UInt8(ascii: "-") || (0x30...0x39).contains(byte) { at += 1 }
            if let byte = next, byte == UInt8(ascii: ".") || byte | 0x20 == UInt8(ascii: "e") { throw fault("a whole number") }
            digits = bytes[begin..<at]
        }
        // Longer than any number of 64 bits is not worth a copy.
        guard digits.count <= 20, let value = T(String(decoding: digits, as: UTF8.self)) else {
            at = begin
            throw fault("a whole number of 64 bits")
        }
        return value
    }

    mutating func bool() throws(JSONFault) -> Bool {
        skipBlanks()
        if takeWord("true") { return true }
        if takeWord("false") { return false }
        throw fault("true or false")
    }

    mutating func text() throws(JSONFault) -> String {
        skipBlanks()
        let begin = at
        let range = try textRange()
        if hasEscape(range) {
            // Rare, so it need not be quick.
            if let text = try? JSONDecoder().decode([String].self, from: Data("[\"".utf8 + bytes[range] + "\"]".utf8)) {
                return text[0]
            }
        } else if let text = String(validating: bytes[range], as: UTF8.self) {
            return text
        }
        at = begin
        throw fault("a text in UTF-8")
    }

    /// Bytes come in base64.
    mutating func data() throws(JSONFault) -> [UInt8] {
        skipBlanks()
        let begin = at
        let range = try textRange()
        if hasEscape(range) {
            at = begin
            if let bytes = Base64.decode(Array(try text().utf8)[...]) { return bytes }
        } else if let bytes = Base64.decode(bytes[range]) {
            return bytes
        }
        at = begin
        throw JSONFault(at: begin, found: "a text of \(range.count) bytes", expected: "base64")
    }

    mutating func skip() throws(JSONFault) {
        skipBlanks()
        switch next {
        case UInt8(ascii: "{"): try object { _, reader throws(JSONFault) in try reader.skip() }
        case UInt8(ascii: "["): try array { reader throws(JSONFault) in try reader.skip() }
        case UInt8(ascii: "\""): _ = try textRange()
        default:
            if takeWord("true") || takeWord("false") || takeWord("null") { return }
            let begin = at
            while let byte = next, (0x30...0x39).contains(byte) || "+-.eE".utf8.contains(byte) { at += 1 }
            guard at > begin else { throw fault("a value") }
        }
    }

    func fault(_ expected: String) -> JSONFault {
        let found = next.map { (0x21...0x7E).contains($0) ? "'\(Character(UnicodeScalar($0)))'" : "byte \($0)" }
        return JSONFault(at: at, found: found ?? "the end", expected: expected)
    }
}

extension JSONReader {
    private var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    private mutating func skipBlanks() {
        while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { at += 1 }
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        skipBlanks()
        guard next == UInt8(ascii: character) else { return false }
        at += 1
        return true
    }

    private mutating func open(_ character: Unicode.Scalar, _ what: String) throws(JSONFault) {
        guard depth < Self.depthMax else { throw fault("at most \(Self.depthMax) levels") }
        guard take(character) else { throw fault(what) }
        depth += 1
    }

    private mutating func close() { depth -= 1 }

    private mutating func takeNull() -> Bool {
        skipBlanks()
        return next == UInt8(ascii: "n") && takeWord("null")
    }

    private mutating func takeWord(_ word: String) -> Bool {
        guard bytes[at...].starts(with: word.utf8) else { return false }
        at += word.utf8.count
        return true
    }

    /// What is between the quotes of the text that begins here, as it stands.
    private mutating func textRange() throws(JSONFault) -> Range<Int> {
        guard next == UInt8(ascii: "\"") else { throw fault("a text") }
        let begin = at + 1
        let end = bytes.withUnsafeBufferPointer { bytes -> Int? in
            var from = begin
            while from < bytes.count, let found = memchr(bytes.baseAddress! + from, 0x22, bytes.count - from) {
                let end = UnsafeRawPointer(found) - UnsafeRawPointer(bytes.baseAddress!)
                // A quote behind an odd number of backslashes is part of the text.
                var first = end
                while first > begin, bytes[first - 1] == 0x5C { first -= 1 }
                if (end - first) % 2 == 0 { return end }
                from = end + 1
            }
            return nil
        }
        guard let end else {
            at = bytes.count
            throw fault("the closing quote of a text")
        }
        at = end + 1
        return begin..<end
    }

    private func hasEscape(_ range: Range<Int>) -> Bool {
        bytes.withUnsafeBufferPointer { bytes in
            !range.isEmpty && memchr(bytes.baseAddress! + range.lowerBound, 0x5C, range.count) != nil
        }
    }
}
