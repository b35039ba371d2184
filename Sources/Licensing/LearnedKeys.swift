// Keys that an authority announced. Each lies in the state folder with those who vouched for it:
//
//     vouched for by KID KEY          a line for each, the operator's first; KEY is its public half in base64url
//     -----BEGIN PUBLIC KEY----- ...
//
// It counts as long as that key of the operator's is there, the very key and not only its name, and goes with any of those in
// between that is taken away as stolen. So trust comes from the operator's folder alone.

import Basics
import Foundation
import JWTKit

/// Who vouches: the id of a key and its public half.
package struct Voucher: Equatable, Sendable {
    package var id: String
    package var key: String
}

package struct LearnedKeys: Sendable {
    /// A rotation adds a voucher; after so many those in the middle are forgotten.
    static let vouchersMax = 64
    private static let mark = "vouched for by "

    struct Key {
        var publicKey: EdDSA.PublicKey
        /// The operator's first.
        var vouchers: [Voucher]
    }

    let folder: String

    package init(folder: String) { self.folder = folder }

    /// - Throws: `system`, `tooLarge`, `key`.
    static func read(_ path: String) throws(LicensingError) -> Key {
        let key = try KeyFile.publicKey(path)
        let text = String(decoding: try StoredFile.read(path, limit: KeyFile.bytesMax) ?? [], as: UTF8.self)
        let vouchers = text.split(separator: "\n").compactMap { line -> Voucher? in
            let words = line.hasPrefix(mark) ? line.dropFirst(mark.count).split(separator: " ") : []
            return words.count == 2 ? Voucher(id: String(words[0]), key: String(words[1])) : nil
        }
        if vouchers.isEmpty { throw .key(path: path, found: "nobody who vouches for it", expected: "a line `\(mark)KID KEY`") }
        return Key(publicKey: key, vouchers: vouchers)
    }

    /// Keeps keys that were announced under a seal.
    /// - Parameter vouchers: who vouches for them, the operator's first, the one that sealed last.
    /// - Throws: `system`.
    package func learn(_ announced: TrustedKeys, from vouchers: [Voucher]) throws(LicensingError) {
        try StoredFile.makeFolder(folder)
        for id in announced.ids {
            guard let key = announced[id] else { continue }
            // Who is among them has been vouched for by those before it, if it is not the operator's own.
            let own = vouchers.firstIndex { $0.id == id && $0.key == key.text }
            let chain = own.map { $0 == 0 ? vouchers.prefix(1) : vouchers.prefix($0) } ?? vouchers[...]
            let kept = chain.prefix(1) + chain.dropFirst().suffix(Self.vouchersMax - 1)
            let lines = kept.map { "\(Self.mark)\($0.id) \($0.key)\n" }.joined()
            let bytes = Array((lines + key.pemRepresentation + "\n").utf8)
            if (try? StoredFile.read(file(id), limit: bytes.count)) != bytes {
                try StoredFile.replace(bytes, at: file(id), mode: 0o644)
            }
        }
    }

    /// Removes all that is not among these: what is announced no more does not count any more.
    /// - Throws: `system`.
    package func forget(but announced: TrustedKeys) throws(LicensingError) {
        for name in names {
            let known = try? Self.read("\(folder)/\(name)")
            let isAnnounced =
                name.hasSuffix(".pem") && announced[KeyFile.id(of: name)].map { $0.text == known?.publicKey.text } == true
            if !isAnnounced { try StoredFile.remove("\(folder)/\(name)") }
        }
    }

    /// Whether the authority announced this key last.
    package func holds(_ key: Voucher) -> Bool {
        names.contains { (try? Self.read("\(folder)/\($0)"))?.publicKey.text == key.key }
    }

    /// Removes a key, and all that it has vouched for.
    /// - Throws: `system`.
    func forget(stolen key: String) throws(LicensingError) {
        for name in names {
            guard let known = try? Self.read("\(folder)/\(name)"),
                known.publicKey.text == key || known.vouchers.contains(where: { $0.key == key })
            else { continue }
            try StoredFile.remove("\(folder)/\(name)")
        }
    }

    private var names: [String] { (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] }

    private func file(_ id: String) -> String { "\(folder)/\(id).pem" }
}

extension EdDSA.PublicKey {
    /// The public half in base64url, 43 characters.
    var text: String { Base64URL.encode(Array(rawRepresentation)) }
}
