// Request: what is asked of fpxd.

import Foundation

/// One request to the control socket.
struct Request: Sendable, Equatable {
    enum Method: String, Sendable { case get = "GET", post = "POST", patch = "PATCH", delete = "DELETE" }

    let method: Method
    /// With the query, if any.
    let path: String
    let body: Data?

    init(_ method: Method, _ path: String, body: Data? = nil) {
        self.method = method
        self.path = path
        self.body = body
    }
}
