// How to reach the authority, as the operator has set it. Files are read anew for each question, so that a new certificate or key
// needs no restart.

import AsyncHTTPClient
import Basics
import Foundation
import Licensing
import NIOSSL

/// The authority's place, and the means to trust it and to be trusted.
package struct AuthorityConnection: Equatable, Sendable {
    /// `https://HOST[:PORT][/PREFIX]`
    package var url: String
    /// Holds the account key of the customer; the key itself is never shown.
    package var accountKeyFile: String
    /// Certificates in PEM that the authority's must come from; nil: those of the system.
    package var authorityFile: String?
    /// The unit's own certificate and its key, in PEM; both or none.
    package var certificateFile: String?
    package var privateKeyFile: String?

    package init(
        url: String, accountKeyFile: String, authorityFile: String? = nil, certificateFile: String? = nil,
        privateKeyFile: String? = nil
    ) {
        self.url = url
        self.accountKeyFile = accountKeyFile
        self.authorityFile = authorityFile
        self.certificateFile = certificateFile
        self.privateKeyFile = privateKeyFile
    }

    private static let bytesMax = 1 << 20

    /// Reads every file, so that what is wrong with one is told before the authority is asked.
    /// - Throws: `setting`.
    package func checkFiles() throws(LicenseClientError) {
        _ = try accountKey()
        _ = try tls()
    }

    /// The address of one of the authority's paths.
    func address(of path: String) throws(LicenseClientError) -> String {
        guard let parts = URLComponents(string: url), parts.scheme == "https", let host = parts.host, !host.isEmpty,
            parts.user == nil, parts.query == nil, parts.fragment == nil
        else { throw .setting(name: "authority", found: "\"\(url.prefix(200))\"", expected: "https://HOST[:PORT]") }
        return (url.hasSuffix("/") ? String(url.dropLast()) : url) + path
    }

    func accountKey() throws(LicenseClientError) -> String {
        let bytes = try read("account-key-file", accountKeyFile)
        let key = String(decoding: TextFile.trimmed(bytes), as: UTF8.self)
        // Of what is found only the length is told: it may be a key all the same.
        guard (1...512).contains(key.utf8.count), key.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw .setting(
                name: "account-key-file", found: "\(bytes.count) bytes that are no key in \(accountKeyFile)",
                expected: "one line of at most 512 visible ASCII characters")
        }
        return key
    }

    func tls() throws(LicenseClientError) -> TLSConfiguration {
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv12
        if let authorityFile { tls.trustRoots = .certificates(try certificates("authority-ca", authorityFile)) }
        switch (certificateFile, privateKeyFile) {
        case (nil, nil): break
        case (let certificate?, let key?):
            tls.certificateChain = try certificates("authority-certificate", certificate).map { .certificate($0) }
            tls.privateKey = .privateKey(try privateKey(key))
        case (let certificate, _):
            throw .setting(
                name: certificate == nil ? "authority-certificate" : "authority-private-key", found: "nothing",
                expected: "a file: certificate and key go together")
        }
        return tls
    }

    private func certificates(_ name: String, _ path: String) throws(LicenseClientError) -> [NIOSSLCertificate] {
        let bytes = try read(name, path)
        guard let certificates = try? NIOSSLCertificate.fromPEMBytes(Array(PEM(bytes).text.utf8)), !certificates.isEmpty else {
            throw .setting(name: name, found: "\(bytes.count) bytes that are no certificate in \(path)", expected: "PEM")
        }
        return certificates
    }

    private func privateKey(_ path: String) throws(LicenseClientError) -> NIOSSLPrivateKey {
        let bytes = try read("authority-private-key", path)
        guard let key = try? NIOSSLPrivateKey(bytes: Array(PEM(bytes).text.utf8), format: .pem) else {
            throw .setting(
                name: "authority-private-key", found: "\(bytes.count) bytes that are no private key in \(path)",
                expected: "PEM without a passphrase")
        }
        return key
    }

    private func read(_ name: String, _ path: String) throws(LicenseClientError) -> [UInt8] {
        do {
            if let bytes = try StoredFile.read(path, limit: Self.bytesMax) { return bytes }
        } catch {
            throw .setting(name: name, found: "\(error)", expected: "a file that can be read")
        }
        throw .setting(name: name, found: "no file \(path)", expected: "one that is there")
    }
}
