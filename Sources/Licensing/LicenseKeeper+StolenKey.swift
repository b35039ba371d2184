// A key of the authority's was stolen: the operator's folder gets the new one, and loses that one.

import Foundation

extension LicenseKeeper {
    private static let byHand = "; change the trusted keys by hand"

    /// Puts a key among the operator's.
    /// - Returns: false where it was there already.
    /// - Throws: `key` for another key of this id, or where there is no folder for it; `system`.
    package func trust(_ id: String, pem: String) throws(LicensingError) -> Bool {
        var trusted = TrustedKeys(paths: configuration.trustedKeys)
        let isThere = trusted[id] != nil
        // Where it is there, no other key than that one.
        try trusted.add(id: id, pem: pem)
        if isThere { return false }
        guard let folder = folders.first, let key = trusted[id] else {
            throw .key(
                path: configuration.trustedKeys.first ?? "trusted-keys", found: "no folder that a key can be put into",
                expected: "a folder" + Self.byHand)
        }
        try StoredFile.replace(Array((key.pemRepresentation + "\n").utf8), at: "\(folder)/\(id).pem", mode: 0o644)
        return true
    }

    /// Takes a key away from the operator's folders, and from what was learned all that it has vouched for.
    /// - Throws: `system`; `key` where it still counts then.
    package func distrust(_ stolen: Voucher) throws(LicensingError) {
        for folder in folders {
            for name in (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] where name.hasSuffix(".pem") {
                let path = "\(folder)/\(name)"
                if (try? KeyFile.publicKey(path))?.text == stolen.key { try StoredFile.remove(path) }
            }
        }
        try LearnedKeys(folder: configuration.learnedKeys).forget(stolen: stolen.key)
        // So that it cannot come back from memory.
        holding.withLock { noteKeys(&$0) }
        let left = trustedKeys()
        if let id = left.ids.first(where: { left[$0]?.text == stolen.key }) {
            throw .key(path: id, found: "a key that still counts", expected: "none" + Self.byHand)
        }
    }

    private var folders: [String] {
        configuration.trustedKeys.filter { path in
            var isFolder: ObjCBool = false
            return FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) && isFolder.boolValue
        }
    }
}
