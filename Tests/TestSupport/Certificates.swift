import Foundation

/// Certificates that openssl makes, once for all tests of a run.
///
/// Of the authority `ca`: `server` for localhost, `other` for another name, `client` for a unit. Of `stranger-ca`: `stranger`.
public struct Certificates: Sendable {
    public static let shared = Result { try Certificates() }

    public let folder: String
    public var authority: String { path("ca.pem") }

    /// `NAME.pem` or `NAME.key`.
    public func path(_ name: String) -> String { folder + "/" + name }

    private init() throws {
        folder = FileManager.default.temporaryDirectory.path + "/certificates-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        for name in ["ca", "stranger-ca"] {
            try openssl(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=\(name) "
                    + "-keyout \(name).key -out \(name).pem")
        }
        try issue("server", "DNS:localhost,IP:127.0.0.1", by: "ca")
        try issue("other", "DNS:other.example", by: "ca")
        try issue("client", "DNS:unit", by: "ca")
        try issue("stranger", "DNS:unit", by: "stranger-ca")
    }

    private func issue(_ name: String, _ names: String, by authority: String) throws {
        try Data("subjectAltName=\(names)\n".utf8).write(to: URL(filePath: path("\(name).extensions")))
        try openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=\(name) -keyout \(name).key -out \(name).csr")
        try openssl(
            "x509 -req -in \(name).csr -CA \(authority).pem -CAkey \(authority).key -CAcreateserial -days 30 "
                + "-extfile \(name).extensions -out \(name).pem")
    }

    private func openssl(_ arguments: String) throws {
        let ended = try ChildProcess.run(["openssl"] + arguments.split(separator: " ").map(String.init), folder: folder)
        guard ended.status == 0 else { throw OpenSSLFailure(description: "openssl \(arguments): \(ended.error)") }
    }

    private struct OpenSSLFailure: Error, CustomStringConvertible { let description: String }
}
