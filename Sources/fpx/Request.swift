// Request: what is asked of fpxd.

import Foundation

/// One request to the control socket.
struct Request: Sendable, Equatable {
    enum Method: String, Sendable { case get = "GET", post = "POST", patch = "PATCH", delete = "DELETE" }

    let method: Method
    /// With the query, if any.
    let path: String
    let body: Data?
    /// How long an answer may take.
    let seconds: Int

    static let seconds = 10
    /// fpxd waits for the authority for 30 seconds and for its connection for 10.
    static let secondsWithAuthority = 60

    init(_ method: Method, _ path: String, body: Data? = nil, seconds: Int = Request.seconds) {
        self.method = method
        self.path = path
        self.body = body
        self.seconds = seconds
    }
}
