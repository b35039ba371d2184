// ServerCertificate: the server's certificate and its key, as their files have them now.

import Basics
import Foundation
import Licensing
import Logging
import NIOSSL
import Synchronization

/// Certificate and key for each handshake. A renewed pair counts from the next handshake on; one that cannot be used changes
/// nothing.
///
/// Thread safety: may be used from any thread. Cost of a handshake: the status of two files.
final class ServerCertificate: Sendable {
    private struct Pair {
        var chain: [NIOSSLCertificateSource]
        var key: NIOSSLPrivateKeySource

        var configuration: TLSConfiguration { .makeServerConfiguration(certificateChain: chain, privateKey: key) }

        var override: NIOSSLContextConfigurationOverride {
            var override = NIOSSLContextConfigurationOverride()
            override.certificateChain = chain
            override.privateKey = key
            return override
        }
    }

    private struct State {
        var stamps: [FileStamp]
        var pair: Pair
    }

    private static let bytesMax = 1 << 20

    private let files: (certificate: String, privateKey: String)
    private let logger: Logger
    private let state: Mutex<State>

    /// - Throws: `tls`, `licensing`, for a file that is not what it should be.
    init(certificate: String, privateKey: String, logger: Logger) throws(AuthorityError) {
        files = (certificate, privateKey)
        self.logger = logger
        // Taken first: what changes while the files are read is read again.
        let stamps = Self.stamps(files)
        state = Mutex(State(stamps: stamps, pair: try Self.read(files)))
    }

    /// For a server that serves this certificate, and reads it anew when it changes.
    func serverConfiguration() -> TLSConfiguration {
        var tls = state.withLock { $0.pair.configuration }
        tls.minimumTLSVersion = .tlsv12
        tls.sslContextCallback = { [self] _, promise in promise.succeed(current().override) }
        return tls
    }

    private func current() -> Pair {
        let stamps = Self.stamps(files)
        return state.withLock { state in
            if stamps == state.stamps { return state.pair }
            state.stamps = stamps
            do throws(AuthorityError) {
                state.pair = try Self.read(files)
                logger.notice("\(files.certificate) has changed and is in use")
            } catch {
                // Half of a renewal is no pair; the other half makes it one.
                logger.error("\(error); the certificate before it stays in use")
            }
            return state.pair
        }
    }

    private static func stamps(_ files: (certificate: String, privateKey: String)) -> [FileStamp] {
        [FileStamp(files.certificate), FileStamp(files.privateKey)]
    }

    private static func read(_ files: (certificate: String, privateKey: String)) throws(AuthorityError) -> Pair {
        guard let key = try? NIOSSLPrivateKey(bytes: try pem(files.privateKey), format: .pem) else {
            throw .tls(path: files.privateKey, found: "no private key", expected: "one in PEM, without a passphrase")
        }
        let pair = Pair(chain: try certificates(files.certificate).map { .certificate($0) }, key: .privateKey(key))
        do { _ = try NIOSSLContext(configuration: pair.configuration) } catch {
            throw .tls(
                path: files.certificate, found: LibraryFault.ofTLS("\(error)"),
                expected: "the certificate of \(files.privateKey)")
        }
        return pair
    }

    /// - Throws: `tls`, `licensing`.
    static func certificates(_ path: String) throws(AuthorityError) -> [NIOSSLCertificate] {
        guard let certificates = try? NIOSSLCertificate.fromPEMBytes(try pem(path)), !certificates.isEmpty else {
            throw .tls(path: path, found: "no certificate", expected: "one or more in PEM")
        }
        return certificates
    }

    private static func pem(_ path: String) throws(AuthorityError) -> [UInt8] {
        do throws(LicensingError) {
            guard let bytes = try StoredFile.read(path, limit: bytesMax) else { throw LicensingError.absent(path: path) }
            return Array(PEM(bytes).text.utf8)
        } catch { throw .licensing(error) }
    }
}
