// JSON of any shape, for reading claims one by one so that an error can say what it found.
//
// JWTKit has such a type for headers, but it traps on a whole number that is no Int (`{"a":1e300}`), and a header is read before
// anybody has vouched for it.

import Basics
import Foundation

package enum JSONValue: Equatable, Sendable, Codable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSONValue].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .integer(let value): try container.encode(value)
        case .number(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }

    /// Deeper than anything that is read here. What decoding costs grows with the depth, too.
    package static let nestingMax = 8

    /// Reads an object.
    /// - Throws: `JSONText.Fault`, `DecodingError`.
    package static func object(in bytes: some Sequence<UInt8>) throws -> [String: JSONValue] {
        let bytes = Data(bytes)
        try JSONText.check(bytes, nestingMax: nestingMax)
        return try JSONDecoder().decode([String: JSONValue].self, from: bytes)
    }

    /// Keys sorted, so that the same claims are the same bytes.
    static var encoder: JSONEncoder {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return encoder
    }
}

extension JSONValue: CustomStringConvertible {
    /// What an error says was found. Strings are quoted and escaped: they may come from anybody.
    package var description: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .integer(let value): "\(value)"
        case .number(let value): "\(value)"
        case .string(let value): Self.quote(value)
        case .array(let value): "a list of \(value.count)"
        case .object: "an object"
        }
    }

    /// At most 64 characters, in quotes, nothing that moves a terminal.
    static func quote(_ text: String) -> String {
        // By scalars: a letter may bear any number of accents. What Swift's own form leaves as it is can still move a terminal.
        let shown = String(text.unicodeScalars.prefix(64)).debugDescription.unicodeScalars.map { scalar in
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator: "\\u{\(String(scalar.value, radix: 16))}"
            default: String(scalar)
            }
        }
        return shown.joined() + (text.unicodeScalars.dropFirst(64).isEmpty ? "" : "...")
    }
}

/// Takes typed and range-checked members out of an object; `path` is how errors name the object.
package struct JSONReader {
    private let members: [String: JSONValue]
    private let path: String

    package init(_ members: [String: JSONValue], path: String = "") {
        self.members = members
        self.path = path
    }

    package func has(_ name: String) -> Bool { members[name] != nil }
    package var names: [String] { members.keys.sorted() }

    package func integer(_ name: String, in range: ClosedRange<Int>) throws(LicensingError) -> Int {
        guard case .integer(let value)? = members[name], range.contains(value) else {
            throw wrong(name, "a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    package func bool(_ name: String) throws(LicensingError) -> Bool {
        guard case .bool(let value)? = members[name] else { throw wrong(name, "true or false") }
        return value
    }

    package func string(_ name: String, allowsEmpty: Bool = false) throws(LicensingError) -> String {
        guard case .string(let value)? = members[name], allowsEmpty || !value.isEmpty else {
            throw wrong(name, allowsEmpty ? "a text" : "a text of one character or more")
        }
        return value
    }

    package func choice<Choice>(_ name: String, of type: Choice.Type = Choice.self) throws(LicensingError) -> Choice
    where Choice: RawRepresentable<String> & CaseIterable {
        guard case .string(let value)? = members[name], let choice = Choice(rawValue: value) else {
            throw wrong(name, Choice.allCases.map(\.rawValue).joined(separator: " or "))
        }
        return choice
    }

    package func strings(_ name: String) throws(LicensingError) -> [String] {
        guard case .array(let values)? = members[name] else { throw wrong(name, "a list of texts") }
        var strings: [String] = []
        for value in values {
            guard case .string(let string) = value else {
                throw .claim(name: path + name, found: "\(value) in the list", expected: "texts only")
            }
            strings.append(string)
        }
        return strings
    }

    package func object(_ name: String) throws(LicensingError) -> JSONReader {
        guard case .object(let value)? = members[name] else { throw wrong(name, "an object") }
        return JSONReader(value, path: path + name + ".")
    }

    func wrong(_ name: String, _ expected: String) -> LicensingError {
        .claim(name: path + name, found: members[name].map(\.description) ?? "nothing", expected: expected)
    }
}
