// JSON: what rows are written in. Small and strict, because a pool of thousands is read often, and anybody may have written to
// it.

/// JSON with whole numbers only, at most eight levels deep, no member twice.
enum JSON: Equatable {
    case null
    case bool(Bool)
    case integer(Int)
    case string(String)
    case array([JSON])
    case object([String: JSON])

    /// What an error says was found.
    var shown: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .integer(let value): "\(value)"
        case .string(let value): SharingError.quote(value)
        case .array(let values): "a list of \(values.count)"
        case .object: "an object"
        }
    }
}

/// Where the text is not JSON.
struct JSONFault: Error {
    let at: Int
    let found: String
    let expected: String
}

struct JSONParser {
    private let bytes: [UInt8]
    private var at = 0

    static func parse(_ bytes: [UInt8]) throws(JSONFault) -> JSON {
        var parser = JSONParser(bytes: bytes)
        let value = try parser.value(depth: 0)
        parser.skipBlanks()
        guard parser.at == bytes.count else { throw parser.fault("the end") }
        return value
    }

    private init(bytes: [UInt8]) { self.bytes = bytes }

    private var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    private func fault(_ expected: String) -> JSONFault {
        let found = next.map { (0x21...0x7E).contains($0) ? "'\(Character(UnicodeScalar($0)))'" : "byte \($0)" } ?? "the end"
        return JSONFault(at: at, found: found, expected: expected)
    }

    private mutating func skipBlanks() {
        while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { at += 1 }
    }

    private mutating func take(_ character: Character) -> Bool {
        skipBlanks()
        guard next == character.asciiValue else { return false }
        at += 1
        return true
    }

    private mutating func value(depth: Int) throws(JSONFault) -> JSON {
        guard depth < 8 else { throw fault("at most 8 levels") }
        skipBlanks()
        switch next.map({ Character(UnicodeScalar($0)) }) {
        case "{": return try object(depth: depth)
        case "[": return try array(depth: depth)
        case "\"": return .string(try string())
        case "t": return try word("true", .bool(true))
        case "f": return try word("false", .bool(false))
        case "n": return try word("null", .null)
        default: return .integer(try integer())
        }
    }

    private mutating func word(_ text: String, _ value: JSON) throws(JSONFault) -> JSON {
        guard bytes[at...].starts(with: text.utf8) else { throw fault(text) }
        at += text.utf8.count
        return value
    }

    private mutating func object(depth: Int) throws(JSONFault) -> JSON {
        at += 1
        var members: [String: JSON] = [:]
        if take("}") { return .object(members) }
        repeat {
            skipBlanks()
            let name = try string()
            guard take(":") else { throw fault("':'") }
            let member = try value(depth: depth + 1)
            guard members.updateValue(member, forKey: name) == nil else {
                throw JSONFault(at: at, found: "\(SharingError.quote(name)) twice", expected: "each name once")
            }
        } while take(",")
        guard take("}") else { throw fault("',' or '}'") }
        return .object(members)
    }

    private mutating func array(depth: Int) throws(JSONFault) -> JSON {
        at += 1
        var values: [JSON] = []
        if take("]") { return .array(values) }
        repeat { values.append(try value(depth: depth + 1)) } while take(",")
        guard take("]") else { throw fault("',' or ']'") }
        return .array(values)
    }

    /// Escapes other than of the quote and the backslash are not needed for anything that a row may hold.
    private mutating func string() throws(JSONFault) -> String {
        guard next == 0x22 else { throw fault("a text") }
        at += 1
        var text: [UInt8] = []
        while let byte = next, byte != 0x22 {
            guard byte >= 0x20 else { throw fault("no control character in a text") }
            at += 1
            if byte == 0x5C {
                guard let escaped = next, escaped == 0x22 || escaped == 0x5C else {
                    throw fault("an escaped quote or backslash")
                }
                text.append(escaped)
                at += 1
            } else {
                text.append(byte)
            }
        }
        guard next == 0x22 else { throw fault("the closing quote of a text") }
        at += 1
        guard let string = String(validating: text, as: UTF8.self) else { throw fault("UTF-8") }
        return string
    }

    private mutating func integer() throws(JSONFault) -> Int {
        let begin = at
        if next == 0x2D { at += 1 }
        let digits = at
        while let byte = next, (0x30...0x39).contains(byte) { at += 1 }
        guard at > digits else { throw fault("a value") }
        if let byte = next, byte == 0x2E || byte == 0x65 || byte == 0x45 { throw fault("a whole number") }
        guard let value = Int(String(decoding: bytes[begin..<at], as: UTF8.self)) else {
            throw JSONFault(at: begin, found: "a number of \(at - begin) digits", expected: "one of 64 bits")
        }
        return value
    }
}
