// OpenAPI: the description of the control plane, made from its routes and the types that they speak.

import Foundation
import WebAPI

enum OpenAPI {
    /// The document, as JSON (OpenAPI 3.1).
    static func document(version: String) throws -> Data {
        try APIDocument(
            title: "fpxd control plane", version: version,
            description: "Served over a unix stream socket: curl --unix-socket /run/fpx/control.sock http://fpx/v1/status",
            server: (url: "http://fpx", description: "the control socket"), operations: routes.map(\.described)
        ).json()
    }
}

extension Route {
    var described: APIOperation {
        var parameters: [APIOperation.Parameter] = []
        if path.contains("{id}") { parameters.append(.init(name: "id", place: .path, pattern: "^[0-9a-f]{16}$")) }
        if path.contains("{serial}") {
            parameters.append(.init(name: "serial", place: .path, pattern: "^[A-Za-z0-9._-]{1,64}$"))
        }
        if let query {
            parameters.append(
                .init(
                    name: query.name, place: .query, isRequired: false, summary: query.summary, range: query.range,
                    whenAbsent: query.whenAbsent))
        }
        return APIOperation(
            method: method, path: path, id: operation, summary: summary, parameters: parameters, body: body, answer: answer)
    }
}
