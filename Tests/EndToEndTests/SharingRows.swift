// Rows of units as they lie in etcd, for tests that read them and for those that write what nobody should.

import Foundation
import Licensing
import TestSupport
import Testing

/// The value of a member's key: a row, and the licence that came with it.
struct SignedRow {
    /// The row's members, as JSON has them.
    var row: [String: Any]
    var license: String

    var incarnation: String { row["incarnation"] as? String ?? "" }
    var sequence: Int { row["sequence"] as? Int ?? 0 }

    /// Without looking at the signature.
    init?(_ value: String) {
        guard let parts = try? SignedToken.split(Array(value.utf8)),
            let members = try? JSONSerialization.jsonObject(with: Data(parts.payload)) as? [String: Any],
            let text = members["row"] as? String, let license = members["license"] as? String,
            let row = try? JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
        else { return nil }
        self.row = row
        self.license = license
    }

    /// The row's text.
    func text() throws -> String { String(decoding: try JSONSerialization.data(withJSONObject: row), as: UTF8.self) }

    /// The value that the holder of a key makes of it.
    func signed(by keyFile: String) async throws -> String {
        try await SignedToken.sign(
            ["row": .string(try text()), "license": .string(license)], as: .row, with: SigningKey(path: keyFile))
    }
}

extension EtcdServer {
    static let rows = "pool/acme/m/"

    /// The value of a key.
    func value(_ key: String) throws -> String {
        try control(["get", "--print-value-only", key]).trimmingCharacters(in: .newlines)
    }

    /// What a unit has written last; nil: nothing that is a row.
    func row(of serial: String, in prefix: String = rows) throws -> SignedRow? { SignedRow(try value(prefix + serial)) }

    func put(_ value: String, at serial: String, in prefix: String = rows) throws {
        try control(["put", "--", prefix + serial, value])
    }
}
