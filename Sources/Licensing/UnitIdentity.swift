// The unit's id: what an authority knows a unit by, through all that changes in its hardware.

import Foundation

package enum UnitIdentity {
    private static let length = 36

    /// The id that is kept in the state folder; a new one where there is none, or none to be read.
    ///
    /// - Throws: `system`, where it cannot be kept.
    package static func load(stateFolder: String) throws(LicensingError) -> String {
        if let known = read(stateFolder: stateFolder) { return known }
        let path = stateFolder + "/unit"
        let new = UUID().uuidString.lowercased()
        try StoredFile.makeFolder(stateFolder)
        try StoredFile.replace(Array((new + "\n").utf8), at: path, mode: 0o600)
        return new
    }

    /// The id that is kept in the state folder; nil where there is none, or none to be read.
    package static func read(stateFolder: String) -> String? {
        guard let bytes = try? StoredFile.read(stateFolder + "/unit", limit: 4096) else { return nil }
        let text = String(decoding: bytes, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        return isID(text) ? text : nil
    }

    /// A UUID in small letters: nothing else may become a unit's name in files and tables.
    package static func isID(_ text: String) -> Bool {
        text.utf8.count == length && UUID(uuidString: text)?.uuidString.lowercased() == text
    }
}
