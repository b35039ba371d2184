// Schema: the JSON schema of a Codable type, found by letting the type decode itself and writing down what it asks for.

import Foundation

/// A JSON schema (the part of it that our types need).
package indirect enum Schema: Equatable, Sendable {
    case string, integer, boolean
    case dateTime
    /// A text that is one of these.
    case word([String])
    case array(Schema)
    case map(Schema)
    /// Properties in the type's order; those that may be absent.
    case object([Property])

    package struct Property: Equatable, Sendable {
        package let name: String
        package let schema: Schema
        package let required: Bool
    }

    package static func of(_ type: any Decodable.Type) throws -> Schema {
        switch type {
        case is String.Type: return .string
        case is Int.Type: return .integer
        case is Bool.Type: return .boolean
        case is Date.Type: return .dateTime
        case let list as any ListType.Type: return .array(try of(list.elementType))
        case let map as any MapType.Type: return .map(try of(map.valueType))
        case let words as any WordType.Type: return .word(cases(of: words).map { "\($0.rawValue)" })
        default:
            let recorder = Recorder()
            _ = try type.init(from: recorder)
            return .object(recorder.properties)
        }
    }

    /// As JSONEncoder's strategy makes it of our names, which have no runs of capitals.
    static func snakeCase(_ name: String) -> String {
        name.reduce(into: "") { text, letter in
            if letter.isUppercase { text += "_" }
            text += letter.lowercased()
        }
    }

    /// As OpenAPI 3.1 writes it.
    package var json: [String: Any] {
        switch self {
        case .string: return ["type": "string"]
        case .integer: return ["type": "integer"]
        case .boolean: return ["type": "boolean"]
        case .dateTime: return ["type": "string", "format": "date-time"]
        case .word(let words): return ["type": "string", "enum": words]
        case .array(let element): return ["type": "array", "items": element.json]
        case .map(let value): return ["type": "object", "additionalProperties": value.json]
        case .object(let properties):
            return [
                "type": "object", "additionalProperties": false,
                "properties": Dictionary(uniqueKeysWithValues: properties.map { ($0.name, $0.schema.json) }),
                "required": properties.filter(\.required).map(\.name),
            ]
        }
    }
}

/// An enum of words.
private typealias WordType = CaseIterable & RawRepresentable
private func cases<T: WordType>(of type: T.Type) -> [T] { Array(type.allCases) }

private protocol ListType { static var elementType: any Decodable.Type { get } }
extension Array: ListType where Element: Decodable { static var elementType: any Decodable.Type { Element.self } }
private protocol MapType { static var valueType: any Decodable.Type { get } }
extension Dictionary: MapType where Key == String, Value: Decodable {
    static var valueType: any Decodable.Type { Value.self }
}

/// Gives every property some value, and remembers its name and type.
private final class Recorder: Decoder {
    var properties: [Schema.Property] = []
    let codingPath: [any CodingKey] = []
    let userInfo: [CodingUserInfoKey: Any] = [:]

    struct Unsupported: Error {}

    func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedDecodingContainer<Key> {
        KeyedDecodingContainer(Properties(recorder: self))
    }
    func unkeyedContainer() throws -> any UnkeyedDecodingContainer { throw Unsupported() }
    func singleValueContainer() throws -> any SingleValueDecodingContainer { throw Unsupported() }

    func note(_ key: any CodingKey, _ schema: Schema, required: Bool) {
        properties.append(Schema.Property(name: Schema.snakeCase(key.stringValue), schema: schema, required: required))
    }
}

private struct Properties<Key: CodingKey>: KeyedDecodingContainerProtocol {
    let recorder: Recorder
    let codingPath: [any CodingKey] = []
    let allKeys: [Key] = []

    func contains(_ key: Key) -> Bool { true }
    func decodeNil(forKey key: Key) -> Bool { false }

    func decode(_ type: String.Type, forKey key: Key) -> String {
        recorder.note(key, .string, required: true)
        return ""
    }
    func decode(_ type: Int.Type, forKey key: Key) -> Int {
        recorder.note(key, .integer, required: true)
        return 0
    }
    func decode(_ type: Bool.Type, forKey key: Key) -> Bool {
        recorder.note(key, .boolean, required: true)
        return false
    }
    func decode<T: Decodable>(_ type: T.Type, forKey key: Key) throws -> T {
        recorder.note(key, try Schema.of(type), required: true)
        return try sample(type)
    }
    func decodeIfPresent(_ type: String.Type, forKey key: Key) -> String? {
        recorder.note(key, .string, required: false)
        return nil
    }
    func decodeIfPresent(_ type: Int.Type, forKey key: Key) -> Int? {
        recorder.note(key, .integer, required: false)
        return nil
    }
    func decodeIfPresent(_ type: Bool.Type, forKey key: Key) -> Bool? {
        recorder.note(key, .boolean, required: false)
        return nil
    }
    func decodeIfPresent<T: Decodable>(_ type: T.Type, forKey key: Key) throws -> T? {
        recorder.note(key, try Schema.of(type), required: false)
        return nil
    }

    private func sample<T: Decodable>(_ type: T.Type) throws -> T {
        if let date = Date(timeIntervalSince1970: 0) as? T { return date }
        if let words = type as? any WordType.Type, let first = cases(of: words).first as? T { return first }
        if let empty = (type as? any EmptyType.Type)?.init() as? T { return empty }
        return try T(from: Recorder())
    }

    func nestedContainer<Nested: CodingKey>(
        keyedBy type: Nested.Type, forKey key: Key
    ) throws -> KeyedDecodingContainer<Nested> { throw Recorder.Unsupported() }
    func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer { throw Recorder.Unsupported() }
    func superDecoder() throws -> any Decoder { throw Recorder.Unsupported() }
    func superDecoder(forKey key: Key) throws -> any Decoder { throw Recorder.Unsupported() }
    // Types that the interface does not use: JSON numbers here are whole.
    func decode(_ type: Double.Type, forKey key: Key) throws -> Double { throw Recorder.Unsupported() }
    func decode(_ type: Float.Type, forKey key: Key) throws -> Float { throw Recorder.Unsupported() }
    func decode(_ type: Int8.Type, forKey key: Key) throws -> Int8 { throw Recorder.Unsupported() }
    func decode(_ type: Int16.Type, forKey key: Key) throws -> Int16 { throw Recorder.Unsupported() }
    func decode(_ type: Int32.Type, forKey key: Key) throws -> Int32 { throw Recorder.Unsupported() }
    func decode(_ type: Int64.Type, forKey key: Key) throws -> Int64 { throw Recorder.Unsupported() }
    func decode(_ type: UInt.Type, forKey key: Key) throws -> UInt { throw Recorder.Unsupported() }
    func decode(_ type: UInt8.Type, forKey key: Key) throws -> UInt8 { throw Recorder.Unsupported() }
    func decode(_ type: UInt16.Type, forKey key: Key) throws -> UInt16 { throw Recorder.Unsupported() }
    func decode(_ type: UInt32.Type, forKey key: Key) throws -> UInt32 { throw Recorder.Unsupported() }
    func decode(_ type: UInt64.Type, forKey key: Key) throws -> UInt64 { throw Recorder.Unsupported() }
}

private protocol EmptyType { init() }
extension Array: EmptyType {}
extension Dictionary: EmptyType {}
