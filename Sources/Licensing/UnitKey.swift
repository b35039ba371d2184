// The unit's own key: what a licence is bound to that nobody can read off the machine and nobody else can sign with.
//
// It lies in the state folder and never leaves it. Its public half is what a licence names (`cnf`, RFC 7800), written as the
// `x` of a JSON Web Key (RFC 8037).

import Foundation

package enum UnitKey {
    /// What tokens call it: whose it is their other members say.
    package static let id = "unit"

    /// Whether a text is the public half of a key: 32 bytes, in their only form.
    package static func isPublic(_ text: String) -> Bool {
        guard text.utf8.count == 43, let bytes = Base64URL.decode(ArraySlice(text.utf8)) else { return false }
        return !WeakPoint.isOne(bytes)
    }
}
