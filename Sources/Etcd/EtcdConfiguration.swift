// How to reach etcd, as the operator has set it. Files are read anew when they change: a renewed certificate or a changed
// password needs no restart.

import Basics
import Foundation
import NIOSSL

/// The places of etcd's members, and the means to trust them and to be trusted.
package struct EtcdConfiguration: Equatable, Sendable {
    /// `http://HOST:PORT` or `https://HOST:PORT`, the preferred one first.
    package let endpoints: [String]
    package let user: String?
    /// Holds the user's password; the password itself is never shown.
    package let passwordFile: String?
    /// Certificates in PEM that the endpoints' must come from; nil: those of the system.
    package let authorityFile: String?
    /// The unit's own certificate and its key, in PEM; both or none.
    package let certificateFile: String?
    package let privateKeyFile: String?
    /// A whole call over all endpoints that it tries, from its beginning to the last byte.
    package var deadline: Duration = .milliseconds(1500)
    /// How often a call is tried that may be; each endpoint is tried once at least.
    package var attemptsMax = 4
    /// The largest body that is read.
    package var answerBytesMax = 64 << 20

    private static let fileBytesMax = 1 << 20

    /// - Parameter endpoints: `URL,URL`; port 2379 where none is named.
    /// - Throws: `setting`.
    package init(
        endpoints: String, user: String? = nil, passwordFile: String? = nil, authorityFile: String? = nil,
        certificateFile: String? = nil, privateKeyFile: String? = nil
    ) throws(EtcdError) {
        var list: [String] = []
        for text in endpoints.split(separator: ",", omittingEmptySubsequences: false) {
            let endpoint = try Self.endpoint(text.trimmingCharacters(in: .whitespaces))
            if !list.contains(endpoint) { list.append(endpoint) }
        }
        self.endpoints = list
        self.user = user
        self.passwordFile = passwordFile
        self.authorityFile = authorityFile
        self.certificateFile = certificateFile
        self.privateKeyFile = privateKeyFile
        for (one, other) in [
            (("sharing-user", user), ("sharing-password-file", passwordFile)),
            (("sharing-certificate", certificateFile), ("sharing-private-key", privateKeyFile)),
        ] where (one.1 == nil) != (other.1 == nil) {
            throw .setting(
                name: one.1 == nil ? one.0 : other.0, found: "nothing",
                expected: "a value: \(one.0) and \(other.0) go together")
        }
    }

    private static func endpoint(_ text: String) throws(EtcdError) -> String {
        guard let parts = URLComponents(string: text), let scheme = parts.scheme?.lowercased(),
            ["http", "https"].contains(scheme), let host = parts.host, !host.isEmpty, (1...65535).contains(parts.port ?? 2379),
            ["", "/"].contains(parts.path), parts.user == nil, parts.query == nil, parts.fragment == nil
        else {
            throw .setting(
                name: "sharing-endpoints", found: "\"\(text.prefix(200))\"",
                expected: "http://HOST[:PORT] or https://HOST[:PORT]")
        }
        return "\(scheme)://\(host):\(parts.port ?? 2379)"
    }

    /// Reads every file, so that what is wrong with one is told at the start.
    /// - Throws: `setting`.
    package func checkFiles() throws(EtcdError) {
        if passwordFile != nil { _ = try password() }
        _ = try tls()
    }

    func password() throws(EtcdError) -> String {
        guard let passwordFile else { return "" }
        let bytes = try Self.read("sharing-password-file", passwordFile)
        let password = String(validating: TextFile.withoutMark(bytes), as: UTF8.self)?.trimmingCharacters(in: .newlines) ?? ""
        // Of what is found only the length is told: it may be a password all the same.
        guard (1...1024).contains(password.utf8.count), !password.contains(where: \.isNewline) else {
            throw .setting(
                name: "sharing-password-file", found: "\(bytes.count) bytes that are no password in \(passwordFile)",
                expected: "one line of at most 1024 bytes in UTF-8")
        }
        return password
    }
}

// MARK: - TLS

/// What endpoints are trusted and shown, as it was read from the files of that stamp.
struct TLSMaterial: Sendable {
    var tls: TLSConfiguration
    /// When our own certificate ends, seconds since 1970.
    var endOfCertificate: Int?
}

extension EtcdConfiguration {
    var stamps: [FileStamp] { [authorityFile, certificateFile, privateKeyFile].compactMap { $0 }.map(FileStamp.init) }

    func tls() throws(EtcdError) -> TLSMaterial {
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv12
        var end: Int?
        if let authorityFile { tls.trustRoots = .certificates(try certificates("sharing-ca", authorityFile)) }
        if let certificateFile, let privateKeyFile {
            let chain = try certificates("sharing-certificate", certificateFile)
            end = chain.first.map { Int($0.notValidAfter) }
            tls.certificateChain = chain.map { .certificate($0) }
            tls.privateKey = .privateKey(try privateKey(privateKeyFile))
            // Certificate and key of different renewals are found here, not by the first endpoint that is asked.
            do { _ = try NIOSSLContext(configuration: tls) } catch {
                throw .setting(
                    name: "sharing-private-key", found: "a key in \(privateKeyFile) that does not go with the certificate",
                    expected: "the key of the certificate in \(certificateFile)")
            }
        }
        return TLSMaterial(tls: tls, endOfCertificate: end)
    }

    private func certificates(_ name: String, _ path: String) throws(EtcdError) -> [NIOSSLCertificate] {
        let bytes = try Self.read(name, path)
        guard let certificates = try? NIOSSLCertificate.fromPEMBytes(Array(PEM(bytes).text.utf8)), !certificates.isEmpty else {
            throw .setting(name: name, found: "\(bytes.count) bytes that are no certificate in \(path)", expected: "PEM")
        }
        return certificates
    }

    private func privateKey(_ path: String) throws(EtcdError) -> NIOSSLPrivateKey {
        let bytes = try Self.read("sharing-private-key", path)
        guard let key = try? NIOSSLPrivateKey(bytes: Array(PEM(bytes).text.utf8), format: .pem) else {
            throw .setting(
                name: "sharing-private-key", found: "\(bytes.count) bytes that are no private key in \(path)",
                expected: "PEM without a passphrase")
        }
        return key
    }

    private static func read(_ name: String, _ path: String) throws(EtcdError) -> [UInt8] {
        var status = stat()
        guard stat(path, &status) == 0 else {
            throw .setting(
                name: name, found: "\(path): \(String(cString: strerror(errno)))", expected: "a file that can be read")
        }
        // To open a pipe would wait for its writer.
        guard status.st_mode & S_IFMT == S_IFREG, status.st_size <= fileBytesMax else {
            throw .setting(
                name: name, found: "\(path), \(status.st_size) bytes", expected: "a file of at most \(fileBytesMax) bytes")
        }
        do {
            let file = try FileHandle(forReadingFrom: URL(filePath: path))
            return Array(try file.read(upToCount: fileBytesMax) ?? Data())
        } catch {
            throw .setting(
                name: name, found: "\(path), which cannot be read (\(error.localizedDescription))",
                expected: "a file that can be read")
        }
    }
}
