// WebRefusal: every error of an HTTP interface has one form, `APIError`, with a status of its own.

import HTTPTypes

/// A request that is refused, as its client is told.
package struct WebRefusal: Error, Equatable, Sendable {
    package var status: HTTPResponse.Status
    /// A word for programs.
    package var code: String
    /// What was found and what was expected.
    package var message: String
    package var headers: HTTPFields

    package init(_ status: HTTPResponse.Status, code: String, message: String, headers: HTTPFields = [:]) {
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
    }

    package static func badRequest(_ message: String) -> WebRefusal {
        WebRefusal(.badRequest, code: "bad_request", message: message)
    }

    static func notHTTP(_ error: any Error) -> WebRefusal { .badRequest("not HTTP: \(error)") }
}
