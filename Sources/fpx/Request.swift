// Request: what is asked of fpxd.

import ControlAPI
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

extension KeyReplacement {
    /// The stolen key's id and the file of the new one, `KID.pem`.
    init(arguments: [String]) throws(Failure) {
        let path = arguments[1]
        guard let text = try? String(contentsOfFile: path, encoding: .utf8), text.utf8.count <= 16 << 10 else {
            throw .badArgument(name: "FILE", found: path, expected: "a file KID.pem that can be read")
        }
        let name = URL(filePath: path).lastPathComponent
        self.init(stolen: arguments[0], kid: name.hasSuffix(".pem") ? String(name.dropLast(4)) : name, pem: text)
    }
}
