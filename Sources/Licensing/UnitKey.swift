// The unit's own key: what a licence is bound to that nobody can read off the machine and nobody else can sign with.
//
// It lies in the state folder and never leaves it. Its public half is what a licence names (`cnf`, RFC 7800), written as the `x` of
// a JSON Web Key (RFC 8037).

import Basics
import Foundation
import JWTKit

package enum UnitKey {
    /// What tokens call it: whose it is their other members say.
    package static let id = "unit"

    /// Of a key file, and of the file of the id.
    static let bytesMax = 16 << 10

    static func file(_ stateFolder: String) -> String { "\(stateFolder)/\(id).key" }

    /// The key that is kept in the state folder; a new one where there is none.
    ///
    /// One that cannot be read is never replaced: the licence would be lost with it.
    /// - Throws: `system`, `tooLarge`, `damaged`, `key`.
    package static func load(stateFolder: String) throws(LicensingError) -> (key: SigningKey, isNew: Bool) {
        // A link counts as something that is there, wherever it leads.
        if FileIdentity(file(stateFolder)) != nil { return (try SigningKey(path: file(stateFolder)), false) }
        let key = try SigningKey(id: id)
        try StoredFile.makeFolder(stateFolder)
        try StoredFile.replace(bytes(key), at: file(stateFolder), mode: 0o600)
        return (key, true)
    }

    static func bytes(_ key: SigningKey) -> [UInt8] { Array(key.privatePEM.utf8) }

    /// The public half of the key that is kept there; empty where there is none, or none to be read.
    static func readPublic(stateFolder: String) -> String {
        (try? SigningKey(path: file(stateFolder)))?.publicText ?? ""
    }

    /// Whether a text is the public half of a key.
    package static func isPublic(_ text: String) -> Bool { publicKey(text) != nil }

    static func publicKey(_ text: String) -> EdDSA.PublicKey? {
        // 32 bytes, in their only form.
        guard text.utf8.count == 43, Base64URL.decode(ArraySlice(text.utf8)) != nil,
            let key = try? EdDSA.PublicKey(x: text, curve: .ed25519), !KeyFile.isWeak(key)
        else { return nil }
        return key
    }
}

extension SigningKey {
    /// The public half in base64url, 43 characters.
    package var publicText: String { Base64URL.encode(Array(privateKey.publicKey.rawRepresentation)) }
}

extension TrustedKeys {
    /// The one key of a unit, by its public half; none where that is no key.
    package init(unit text: String) {
        self.init(paths: [])
        if let key = UnitKey.publicKey(text) { add(key, id: UnitKey.id) }
    }
}
