// OpenAPI: the description of the control plane, made from its routes and the types that they speak.

import ControlAPI
import Foundation

enum OpenAPI {
    /// The document, as JSON (OpenAPI 3.1).
    static func document(version: String) throws -> Data {
        var paths: [String: [String: Any]] = [:]
        var schemas: [String: Any] = ["APIError": try Schema.of(APIError.self).json]
        for route in routes {
            schemas[name(of: route.answer)] = try Schema.of(route.answer).json
            if let body = route.body { schemas[name(of: body)] = try Schema.of(body).json }
            paths[route.path, default: [:]][route.method.rawValue.lowercased()] = operation(route)
        }
        let document: [String: Any] = [
            "openapi": "3.1.0",
            "info": [
                "title": "fpxd control plane", "version": version,
                "description":
                    "Served over a unix stream socket: curl --unix-socket /run/fpx/control.sock http://fpx/v1/status",
            ],
            "servers": [["url": "http://fpx", "description": "the control socket"]],
            "paths": paths, "components": ["schemas": schemas],
        ]
        return try JSONSerialization.data(withJSONObject: document, options: [.sortedKeys, .withoutEscapingSlashes])
    }

    private static func operation(_ route: Route) -> [String: Any] {
        var operation: [String: Any] = [
            "operationId": route.operation, "summary": route.summary,
            "responses": [
                "200": content("Done", of: route.answer),
                "default": content("Refused: what was found and what was expected", of: APIError.self),
            ],
        ]
        var parameters: [[String: Any]] = []
        if route.path.contains("{id}") {
            parameters.append([
                "name": "id", "in": "path", "required": true,
                "schema": ["type": "string", "pattern": "^[0-9a-f]{16}$"],
            ])
        }
        if let query = route.query {
            parameters.append([
                "name": query.name, "in": "query", "required": false, "description": query.summary,
                "schema": [
                    "type": "integer", "minimum": query.range.lowerBound, "maximum": query.range.upperBound,
                    "default": query.whenAbsent,
                ],
            ])
        }
        if !parameters.isEmpty { operation["parameters"] = parameters }
        if let body = route.body {
            operation["requestBody"] = [
                "required": true, "content": ["application/json": ["schema": reference(body)]],
            ]
        }
        return operation
    }

    private static func content(_ description: String, of type: any Wire.Type) -> [String: Any] {
        ["description": description, "content": ["application/json": ["schema": reference(type)]]]
    }

    private static func reference(_ type: any Wire.Type) -> [String: Any] {
        ["$ref": "#/components/schemas/\(name(of: type))"]
    }

    private static func name(of type: any Wire.Type) -> String { String(describing: type) }
}
