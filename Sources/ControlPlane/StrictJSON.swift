// StrictJSON: bodies of requests. A name that nobody knows is an error and not silence: it is most often a typing mistake.

import ControlAPI
import Foundation

enum StrictJSON {
    static func decode<T: Decodable>(_ type: T.Type, from data: Data) throws(ControlFailure) -> T {
        do {
            let value = try ControlJSON.decoder().decode(type, from: data)
            let known = try Schema.of(type).propertyNames
            if let object = try JSONSerialization.jsonObject(with: data) as? [String: Any],
                let unknown = object.keys.sorted().first(where: { !known.contains($0) })
            {
                throw ControlFailure(
                    .badRequest, "body: found field \"\(unknown)\", expected \(known.sorted().joined(separator: ", "))")
            }
            return value
        } catch let failure as ControlFailure {
            throw failure
        } catch let error as DecodingError {
            throw ControlFailure(.badRequest, "body: \(describe(error))")
        } catch {
            throw ControlFailure(.badRequest, "body: not JSON")
        }
    }

    private static func describe(_ error: DecodingError) -> String {
        func place(_ context: DecodingError.Context, _ last: (any CodingKey)? = nil) -> String {
            let path = (context.codingPath + (last.map { [$0] } ?? [])).map(\.stringValue).joined(separator: ".")
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
