// The unit's own key as a file, and as what signs and verifies.

import Basics
import Foundation
import JWTKit

extension UnitKey {
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
        try StoredFile.replace(Array(key.privatePEM.utf8), at: file(stateFolder), mode: 0o600)
        return (key, true)
    }

    /// The public half of the key that is kept there; empty where there is none, or none to be read.
    static func readPublic(stateFolder: String) -> String {
        (try? SigningKey(path: file(stateFolder)))?.publicText ?? ""
    }

    static func publicKey(_ text: String) -> EdDSA.PublicKey? {
        isPublic(text) ? try? EdDSA.PublicKey(x: text, curve: .ed25519) : nil
    }
}

extension SigningKey {
    /// The public half in base64url, 43 characters.
    package var publicText: String { privateKey.publicKey.text }
}

extension TrustedKeys {
    /// The one key of a unit, by its public half; none where that is no key.
    package init(unit text: String) {
        self.init(paths: [])
        if let key = UnitKey.publicKey(text) { add(key, id: UnitKey.id) }
    }
}
