// StrictJSON: bodies of requests. A name that nobody knows is an error and not silence: it is most often a typing mistake.

import Basics
import ControlAPI
import Foundation

package enum StrictJSON {
    /// Reads a body and refuses, with the field's name, what the type does not have or cannot take.
    package static func decode<T: Decodable>(_ type: T.Type, from data: Data) throws(WebRefusal) -> T {
        do {
            let value = try ControlJSON.decode(type, from: data)
            try check(try JSONSerialization.jsonObject(with: data), against: try Schema.of(type), in: [])
            return value
        } catch let refusal as WebRefusal {
            throw refusal
        } catch let fault as JSONText.Fault {
            throw .badRequest("body: \(fault)")
        } catch let error as DecodingError {
            throw .badRequest("body: \(describe(error))")
        } catch {
            throw .badRequest("body: not JSON")
        }
    }

    /// Names only: that the values fit, decoding has told.
    private static func check(_ value: Any, against schema: Schema, in path: [String]) throws(WebRefusal) {
        switch schema {
        case .object(let properties):
            guard let object = value as? [String: Any] else { return }
            let known = Dictionary(properties.map { ($0.name, $0.schema) }, uniquingKeysWith: { first, _ in first })
            for (name, value) in object.sorted(by: { $0.key < $1.key }) {
                guard let schema = known[name] else {
                    throw .badRequest(
                        "body: found field \"\((path + [String(name.prefix(64))]).joined(separator: "."))\", expected "
                            + known.keys.sorted().joined(separator: ", "))
                }
                try check(value, against: schema, in: path + [name])
            }
        case .array(let element):
            for item in value as? [Any] ?? [] { try check(item, against: element, in: path) }
        case .map(let element):
            for (name, value) in value as? [String: Any] ?? [:] { try check(value, against: element, in: path + [name]) }
        case .string, .integer, .boolean, .dateTime, .word: break
        }
    }

    private static func describe(_ error: DecodingError) -> String {
        func place(_ context: DecodingError.Context, _ last: (any CodingKey)? = nil) -> String {
            let path = (context.codingPath + (last.map { [$0] } ?? [])).map { Schema.snakeCase($0.stringValue) }.joined(
                separator: ".")
            return path.isEmpty ? "the whole" : "field \"\(path)\""
        }
        return switch error {
        case .keyNotFound(let key, let context): "\(place(context, key)) is missing"
        case .typeMismatch(let type, let context): "\(place(context)): expected \(name(of: type))"
        case .valueNotFound(let type, let context): "\(place(context)): found null, expected \(name(of: type))"
        default: "not JSON"
        }
    }

    private static func name(of type: Any.Type) -> String {
        switch type {
        case is String.Type: "text"
        case is Int.Type: "a number"
        case is [Any].Type: "a list"
        default: "an object"
        }
    }
}
