// Keys are Ed25519 in PEM, as openssl writes them: `PUBLIC KEY` (SubjectPublicKeyInfo) in KID.pem, `PRIVATE KEY` (PKCS 8) in
// KID.key. The id of a key, `kid` in tokens, is the name of its file without the extension. A key file has one block of PEM,
// and may have any text around it.

import Basics
import Foundation
import JWTKit

/// The public keys whose signatures count.
package struct TrustedKeys: Sendable {
    private var keys: [String: EdDSA.PublicKey] = [:]
    /// Of those that an authority announced: who vouches for them.
    private var vouchers: [String: [Voucher]] = [:]
    /// What was not taken, and why: `system`, `tooLarge`, or `key` for a path that is not there, a file that is no public
    /// key, or an id that an earlier file has. One bad file must not stop a unit whose licence another key has signed.
    package private(set) var trouble: [LicensingError] = []

    /// Reads keys: each path is a key file, or a folder of which every `*.pem` is one.
    package init(paths: [String]) {
        for path in paths.flatMap({ files(of: $0) }) {
            do {
                try Self.checkWriters(path)
                let id = KeyFile.id(of: path)
                let key = try KeyFile.publicKey(path)
                if keys[id] == nil {
                    keys[id] = key
                } else {
                    trouble.append(.key(path: path, found: "a second key of id \(id)", expected: "one file for each id"))
                }
            } catch {
                trouble.append(error)
            }
        }
    }

    /// Reads keys, and those that an authority announced and one of these vouches for. An id that both have is the first one's.
    package init(paths: [String], learned: String) {
        self.init(paths: paths)
        guard access(learned, F_OK) == 0 else { return }
        let operators = keys
        for path in files(of: learned) {
            let id = KeyFile.id(of: path)
            if operators[id] != nil { continue }
            do throws(LicensingError) {
                try Self.checkWriters(path)
                let key = try LearnedKeys.read(path)
                guard let root = key.vouchers.first, operators[root.id]?.text == root.key else {
                    throw .key(
                        path: path,
                        found: "a key that \(key.vouchers[0].id) vouched for, which is not among the trusted keys any more",
                        expected: "one that a trusted key vouches for")
                }
                keys[id] = key.publicKey
                vouchers[id] = key.vouchers
            } catch {
                trouble.append(error)
            }
        }
    }

    /// Who vouches for what a key signs: itself last, and first one of the operator's. Empty where it is none of these.
    package func vouchers(by id: String) -> [Voucher] {
        guard let key = keys[id] else { return [] }
        return (vouchers[id] ?? []) + [Voucher(id: id, key: key.text)]
    }

    /// These and one more, of which the PEM text is at hand.
    /// - Throws: `key`: no key, no id for one, or another key than the trusted one of that id.
    package mutating func add(id: String, pem: String) throws(LicensingError) {
        guard KeyFile.isID(id) else { throw KeyFile.badID(id, path: "keys") }
        let key = try KeyFile.publicKey(in: PEM(Array(pem.utf8)), path: id)
        if let known = keys[id], known.text != key.text {
            throw .key(path: id, found: "another key than the trusted one of this id", expected: "a new id for a new key")
        }
        keys[id] = key
    }

    mutating func add(_ key: EdDSA.PublicKey, id: String) { keys[id] = key }

    /// In order.
    package var ids: [String] { keys.keys.sorted() }

    package subscript(id: String) -> EdDSA.PublicKey? { keys[id] }

    /// Whoever writes a trusted key makes licences.
    private static func checkWriters(_ path: String) throws(LicensingError) {
        if let others = FileWriters.others(path) {
            throw .key(
                path: path, found: "keys \(others)", expected: "owned by root or by fpxd's user, and writable by no others")
        }
    }

    private mutating func files(of path: String) -> [String] {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
            trouble.append(.key(path: path, found: "no such file or folder", expected: "public keys"))
            return []
        }
        if !isFolder.boolValue { return [path] }
        do { try Self.checkWriters(path) } catch {
            trouble.append(error)
            return []
        }
        guard let names = try? FileManager.default.contentsOfDirectory(atPath: path) else {
            trouble.append(.key(path: path, found: "a folder that cannot be listed", expected: "public keys"))
            return []
        }
        return names.filter { $0.hasSuffix(".pem") }.sorted().map { path + "/" + $0 }
    }
}

/// The private key of an authority.
package struct SigningKey: Sendable {
    package let id: String
    package let privateKey: EdDSA.PrivateKey

    /// A new key.
    package init(id: String) throws(LicensingError) {
        self.id = id
        do { privateKey = try EdDSA.PrivateKey() } catch {
            throw .key(path: id, found: "no new key: \(error)", expected: "an Ed25519 private key")
        }
    }

    /// Reads a private key.
    /// - Throws: `system`, `tooLarge`, `key`.
    package init(path: String) throws(LicensingError) {
        id = KeyFile.id(of: path)
        privateKey = try KeyFile.privateKey(path)
    }

    package var publicPEM: String { privateKey.publicKey.pemRepresentation + "\n" }
    package var privatePEM: String { privateKey.pemRepresentation + "\n" }
}

package enum KeyFile {
    /// The name without folder and extension.
    package static func id(of path: String) -> String {
        ((path as NSString).lastPathComponent as NSString).deletingPathExtension
    }

    /// Whether a name can be a key id: it becomes a file name, and is shown as it is.
    package static func isID(_ name: String) -> Bool {
        (1...64).contains(name.utf8.count) && name.first != "." && name.utf8.allSatisfy { Base64URL.isDigit($0) || $0 == 0x2E }
    }

    /// The public half of a key file of either kind, in PEM.
    /// - Throws: `system`, `tooLarge`, `key`.
    package static func publicPEM(_ path: String) throws(LicensingError) -> String {
        try pem(path).blocks.first?.label == "PRIVATE KEY"
            ? SigningKey(path: path).publicPEM : publicKey(path).pemRepresentation + "\n"
    }

    static func publicKey(_ path: String) throws(LicensingError) -> EdDSA.PublicKey {
        try publicKey(in: try pem(path), path: path)
    }

    static func publicKey(in pem: PEM, path: String) throws(LicensingError) -> EdDSA.PublicKey {
        guard pem.blocks.count == 1, let key = try? EdDSA.PublicKey(pem: pem.text) else {
            throw .key(path: path, found: found(pem), expected: "an Ed25519 public key in PEM (BEGIN PUBLIC KEY)")
        }
        if isWeak(key) {
            throw .key(path: path, found: "a point of small order", expected: "a key that a private key was made for")
        }
        return key
    }

    static func isWeak(_ key: EdDSA.PublicKey) -> Bool { WeakPoint.isOne(Array(key.rawRepresentation)) }

    static func privateKey(_ path: String) throws(LicensingError) -> EdDSA.PrivateKey {
        let pem = try pem(path)
        // Reading takes a private key of any curve of 32 bytes, so the key must write itself as it was read.
        guard pem.blocks.count == 1, let key = try? EdDSA.PrivateKey(pem: pem.text), key.pemRepresentation + "\n" == pem.text
        else {
            throw .key(path: path, found: found(pem), expected: "an Ed25519 private key in PEM (BEGIN PRIVATE KEY)")
        }
        return key
    }

    static let bytesMax = 16 << 10

    private static func pem(_ path: String) throws(LicensingError) -> PEM {
        let id = id(of: path)
        guard isID(id) else { throw badID(id, path: path) }
        guard let bytes = try StoredFile.read(path, limit: bytesMax) else {
            throw .key(path: path, found: "no such file", expected: "a key")
        }
        return PEM(bytes)
    }

    /// Labels, and nothing else of what may be a secret.
    private static func found(_ pem: PEM) -> String {
        switch pem.blocks.count {
        case 0: "\(pem.bytesRead) bytes that are not PEM"
        case 1: JSONValue.quote("-----BEGIN \(pem.blocks[0].label)-----") + " with something else in it"
        default: "\(pem.blocks.count) blocks of PEM"
        }
    }

    static func badID(_ id: String, path: String) -> LicensingError {
        .key(
            path: path, found: "the key id \(JSONValue.quote(id))",
            expected: "a file name of at most 64 letters, digits, `-`, `_` and `.`")
    }
}
