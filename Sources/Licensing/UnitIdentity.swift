// The unit's id and key: what an authority knows a unit by, through all that changes in its hardware.
//
// Both lie in the state folder. The id of a new unit is derived from its key, so that it can be found again where only the file
// of the id is lost; units of before have one that was drawn at random. What lies there and cannot be read is never replaced,
// and never guessed either: a unit that asked under another id would take another unit's place in its subscription.

import Basics
import Crypto
import Foundation

package struct UnitIdentity: Sendable {
    /// Nil: it cannot be read, or there is no key that a new one could be derived from.
    package private(set) var id: String?
    /// Nil: it cannot be read.
    package private(set) var key: SigningKey?
    /// Whether there was neither id nor key.
    package private(set) var isNew = false
    /// What was not there and was made.
    package private(set) var news: [String] = []
    /// What a person must put right, a sentence each.
    package private(set) var trouble: [String] = []

    /// What is kept in the state folder; makes a new unit where nothing is.
    package static func load(stateFolder: String) -> UnitIdentity {
        var unit = UnitIdentity()
        var isNewKey = false
        do throws(LicensingError) {
            (unit.key, isNewKey) = try UnitKey.load(stateFolder: stateFolder)
        } catch {
            unit.trouble.append(
                "The unit's key: \(error): no licence that names it is in force, and no seats are shared; "
                    + (error.isOfTheFile ? "put it right" : "leave the file as it is, see to it that it can be read,")
                    + " and restart fpxd")
        }
        do throws(LicensingError) {
            unit.id = try readID(stateFolder)
        } catch {
            unit.trouble.append(
                "The unit's id: \(error): the authority is not asked; "
                    + (error.isOfTheFile
                        ? "put the file right, or remove it for the id that is derived from unit.key, and restart fpxd"
                        : "leave the file as it is, see to it that it can be read, and restart fpxd"))
            return unit
        }
        if let id = unit.id {
            if isNewKey {
                unit.news.append("Unit \(id) has a new key: an authority that knows another one holds it for a person")
            }
        } else if let key = unit.key {
            unit.derive(from: key, isNew: isNewKey, stateFolder)
        } else {
            unit.trouble.append(
                "The unit's id: found none and no key, expected a key to derive it from: the authority is not asked")
        }
        return unit
    }

    private mutating func derive(from key: SigningKey, isNew: Bool, _ stateFolder: String) {
        let id = Self.id(of: key.publicText)
        self.id = id
        self.isNew = isNew
        news.append(
            isNew
                ? "This is a new unit: \(id)"
                : "\(Self.file(stateFolder)) is lost: unit \(id) goes on by the id that is derived from unit.key; if it had "
                    + "another one, put that back and restart fpxd")
        do throws(LicensingError) {
            try StoredFile.replace(Self.bytes(id), at: Self.file(stateFolder), mode: 0o600)
        } catch {
            trouble.append("The unit's id is not on disk: \(error)")
        }
    }

    package static func file(_ stateFolder: String) -> String { stateFolder + "/unit" }

    static func bytes(_ id: String) -> [UInt8] { Array((id + "\n").utf8) }

    /// - Returns: nil, where there is nothing of that name.
    /// - Throws: `system`, `tooLarge`, `damaged`.
    private static func readID(_ stateFolder: String) throws(LicensingError) -> String? {
        let path = file(stateFolder)
        guard let bytes = try StoredFile.read(path, limit: 4096) else {
            if FileIdentity(path) == nil { return nil }
            throw .damaged(path: path, found: "a link that leads to no file", expected: "a UUID in small letters")
        }
        let text = String(decoding: TextFile.trimmed(bytes), as: UTF8.self)
        if UnitID.isOne(text) { return text }
        throw .damaged(path: path, found: "\(bytes.count) bytes that are no id", expected: "a UUID in small letters")
    }

    /// The id that is kept in the state folder; nil where there is none, or none to be read.
    package static func read(stateFolder: String) -> String? { try? readID(stateFolder) }

    /// The id that is derived from what a unit is known by: its key's public half, or other data where it has no key. A UUID
    /// (version 8, RFC 9562) that is the same for the same text.
    package static func id(of text: String) -> String {
        var bytes = Array(SHA256.hash(data: Data(text.utf8)).prefix(16))
        bytes[6] = bytes[6] & 0x0F | 0x80
        bytes[8] = bytes[8] & 0x3F | 0x80
        let digits = Array(bytes.map { String(format: "%02x", $0) }.joined())
        return [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { String(digits[$0]) }.joined(separator: "-")
    }
}
