import Foundation

/// The form of a unit's id.
package enum UnitID {
    private static let length = 36

    /// Whether a text is a UUID in small letters: nothing else may become a unit's name in files and tables.
    package static func isOne(_ text: String) -> Bool {
        text.utf8.count == length && UUID(uuidString: text)?.uuidString.lowercased() == text
    }
}
