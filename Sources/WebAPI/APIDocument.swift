// APIDocument: the description of an HTTP interface, made from the table that its router serves and the types that it speaks.

import ControlAPI
import Foundation
import HTTPTypes

/// What goes over the wire.
package typealias Wire = Codable & Sendable

/// One method of one path.
package struct APIOperation: Sendable {
    package struct Parameter: Sendable {
        package enum Place: String, Sendable { case path, query, header }
        package var name: String
        package var place: Place
        package var isRequired = true
        package var summary: String?
        /// Of a number; nil: it is a text.
        package var range: ClosedRange<Int>?
        /// Of a number.
        package var whenAbsent: Int?
        /// Of a text.
        package var pattern: String?

        package init(
            name: String, place: Place, isRequired: Bool = true, summary: String? = nil, range: ClosedRange<Int>? = nil,
            whenAbsent: Int? = nil, pattern: String? = nil
        ) {
            self.name = name
            self.place = place
            self.isRequired = isRequired
            self.summary = summary
            self.range = range
            self.whenAbsent = whenAbsent
            self.pattern = pattern
        }
    }

    package var method: HTTPRequest.Method
    /// With `{name}` for a part that varies.
    package var path: String
    package var id: String
    package var summary: String
    package var parameters: [Parameter] = []
    package var body: (any Wire.Type)?
    package var bodyExample: (any Wire)?
    package var answer: any Wire.Type
    package var answerExample: (any Wire)?
    /// Statuses other than 200 and when they come. Without any, one entry speaks for all.
    package var refusals: [Int: String] = [:]

    package init(
        method: HTTPRequest.Method, path: String, id: String, summary: String, parameters: [Parameter] = [],
        body: (any Wire.Type)? = nil, bodyExample: (any Wire)? = nil, answer: any Wire.Type, answerExample: (any Wire)? = nil,
        refusals: [Int: String] = [:]
    ) {
        self.method = method
        self.path = path
        self.id = id
        self.summary = summary
        self.parameters = parameters
        self.body = body
        self.bodyExample = bodyExample
        self.answer = answer
        self.answerExample = answerExample
        self.refusals = refusals
    }
}

package struct APIDocument: Sendable {
    package var title: String
    package var version: String
    package var description: String
    /// Address and what it is.
    package var server: (url: String, description: String)
    package var operations: [APIOperation]
    /// Headers of every answer, and what they say.
    package var answerHeaders: [String: String] = [:]
    /// Whether a bearer token says who asks.
    package var takesBearer = false

    package init(
        title: String, version: String, description: String, server: (url: String, description: String),
        operations: [APIOperation], answerHeaders: [String: String] = [:], takesBearer: Bool = false
    ) {
        self.title = title
        self.version = version
        self.description = description
        self.server = server
        self.operations = operations
        self.answerHeaders = answerHeaders
        self.takesBearer = takesBearer
    }

    /// The document, as JSON (OpenAPI 3.1).
    package func json() throws -> Data {
        var paths: [String: [String: Any]] = [:]
        var schemas: [String: Any] = ["APIError": try Schema.of(APIError.self).json]
        for operation in operations {
            for type in [operation.answer, operation.body].compactMap({ $0 }) {
                schemas[name(of: type)] = try Schema.of(type).json
            }
            paths[operation.path, default: [:]][operation.method.rawValue.lowercased()] = try describe(operation)
        }
        var components: [String: Any] = ["schemas": schemas]
        if takesBearer { components["securitySchemes"] = ["bearer": ["type": "http", "scheme": "bearer"]] }
        let document: [String: Any] = [
            "openapi": "3.1.0", "info": ["title": title, "version": version, "description": description],
            "servers": [["url": server.url, "description": server.description]], "paths": paths, "components": components,
        ]
        return try JSONSerialization.data(withJSONObject: document, options: [.sortedKeys, .withoutEscapingSlashes])
    }

    private func describe(_ operation: APIOperation) throws -> [String: Any] {
        var responses: [String: Any] = ["200": try content("Done", of: operation.answer, example: operation.answerExample)]
        for (status, summary) in operation.refusals { responses[String(status)] = try content(summary, of: APIError.self) }
        if operation.refusals.isEmpty {
            responses["default"] = try content("Refused: what was found and what was expected", of: APIError.self)
        }
        var described: [String: Any] = ["operationId": operation.id, "summary": operation.summary, "responses": responses]
        if !operation.parameters.isEmpty { described["parameters"] = operation.parameters.map(describe) }
        if takesBearer { described["security"] = [["bearer": [String]()]] }
        if let body = operation.body {
            described["requestBody"] = [
                "required": true, "content": ["application/json": try media(of: body, example: operation.bodyExample)],
            ]
        }
        return described
    }

    private func describe(_ parameter: APIOperation.Parameter) -> [String: Any] {
        var schema: [String: Any] = ["type": parameter.range == nil ? "string" : "integer"]
        schema["minimum"] = parameter.range?.lowerBound
        schema["maximum"] = parameter.range?.upperBound
        schema["default"] = parameter.whenAbsent
        schema["pattern"] = parameter.pattern
        var described: [String: Any] = [
            "name": parameter.name, "in": parameter.place.rawValue, "required": parameter.isRequired, "schema": schema,
        ]
        described["description"] = parameter.summary
        return described
    }

    private func content(_ description: String, of type: any Wire.Type, example: (any Wire)? = nil) throws -> [String: Any] {
        var content: [String: Any] = [
            "description": description, "content": ["application/json": try media(of: type, example: example)],
        ]
        if !answerHeaders.isEmpty {
            content["headers"] = answerHeaders.mapValues {
                ["description": $0, "required": true, "schema": ["type": "string"]]
            }
        }
        return content
    }

    private func media(of type: any Wire.Type, example: (any Wire)?) throws -> [String: Any] {
        var media: [String: Any] = ["schema": ["$ref": "#/components/schemas/\(name(of: type))"]]
        if let example {
            media["example"] = try JSONSerialization.jsonObject(with: try ControlJSON.encoder().encode(example))
        }
        return media
    }

    private func name(of type: any Wire.Type) -> String { String(describing: type) }
}
