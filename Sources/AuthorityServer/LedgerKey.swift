// The ledger's key: a secret in the folder of keys. Who changes the database without it cannot write an entry, an answer or a
// report that passes, nor take entries away from the end: now and then the last one is noted beside the key
// (`authority.db.head`).
//
// SQL that needs it calls `ledger_mac(...)`: HMAC-SHA256 over the arguments, each with its type and length.

import ControlAPI
import Crypto
import Foundation
import GRDB
import Licensing
import Synchronization

final class LedgerKey: Sendable {
    private static let bytes = 32
    private let folder: String
    private let database: String
    private let known = Mutex<SymmetricKey?>(nil)

    /// - Parameter database: the file: a copy elsewhere has another head, or none.
    init(folder: String, database: String) {
        self.folder = folder
        self.database = URL(filePath: database).standardized.path
    }

    private var file: String { folder + "/ledger.secret" }

    /// Makes one where there is none.
    func make() throws(LicensingError) {
        if access(file, F_OK) == 0 { return }
        try StoredFile.makeFolder(folder)
        let secret = SymmetricKey(size: .bits256).withUnsafeBytes { Data($0).base64EncodedString() }
        do { try StoredFile.create(Array((secret + "\n").utf8), at: file, mode: 0o600) } catch .exists(_) {
            // Another process was faster.
        }
    }

    private func secret() throws(LicensingError) -> SymmetricKey {
        if let key = known.withLock({ $0 }) { return key }
        guard let text = try StoredFile.read(file, limit: 4096) else {
            throw .key(path: file, found: "no such file", expected: "the ledger's key, which is made with the database")
        }
        let words = String(decoding: text, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        guard let bytes = Data(base64Encoded: words), bytes.count == Self.bytes else {
            throw .key(path: file, found: "\(text.count) bytes that are no key", expected: "\(Self.bytes) bytes in base64")
        }
        let key = SymmetricKey(data: bytes)
        known.withLock { $0 = key }
        return key
    }

    func mac(_ values: [DatabaseValue]) throws(LicensingError) -> Data {
        var mac = HMAC<SHA256>(key: try secret())
        for value in values {
            let (type, bytes): (String, Data) =
                switch value.storage {
                case .null: ("null", Data())
                case .int64(let number): ("integer", Data(String(number).utf8))
                case .double(let number): ("real", Data(String(number).utf8))
                case .string(let text): ("text", Data(text.utf8))
                case .blob(let bytes): ("blob", bytes)
                }
            mac.update(data: Data("\(type) \(bytes.count)\n".utf8))
            mac.update(data: bytes)
        }
        return Data(mac.finalize())
    }

    /// What a connection to the database needs.
    func configuration() -> Configuration {
        var configuration = Configuration()
        configuration.prepareDatabase { database in
            database.add(
                function: DatabaseFunction("ledger_mac", pure: true) { [self] values in try mac(values) })
        }
        return configuration
    }

    // MARK: The head

    struct Head: Codable, Equatable {
        /// The file that it is of.
        var database = ""
        var seq: Int
        var hash: String
        var at: Int
        var mac = ""
    }

    private var headFile: String { "\(folder)/\((database as NSString).lastPathComponent).head" }

    private func macOfHead(_ head: Head) throws(LicensingError) -> String {
        try mac([head.database.databaseValue, head.seq.databaseValue, head.hash.databaseValue, head.at.databaseValue])
            .hexadecimal
    }

    /// The newest entry that was noted; nil: none was.
    /// - Throws: `damaged` for one that this key has not signed.
    func head() throws(LicensingError) -> Head? {
        guard let bytes = try StoredFile.read(headFile, limit: 4096) else { return nil }
        guard let head = try? ControlJSON.decoder().decode(Head.self, from: Data(bytes)), head.mac == (try? macOfHead(head))
        else {
            throw .damaged(
                path: headFile, found: "\(bytes.count) bytes that the ledger's key has not signed", expected: "the last entry")
        }
        return head.database == database ? head : nil
    }

    /// Notes an entry that is on the disk, unless a later one is noted.
    func note(_ head: Head) throws(LicensingError) {
        if let known = try self.head(), known.seq >= head.seq { return }
        var head = head
        head.database = database
        head.mac = try macOfHead(head)
        let bytes = (try? ControlJSON.encoder().encode(head)).map(Array.init) ?? []
        try StoredFile.replace(bytes, at: headFile, mode: 0o600)
    }

    /// Of another database, or of before a restoration.
    func forgetHead() throws(LicensingError) { try StoredFile.remove(headFile) }
}
