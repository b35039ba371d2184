// The states of a licence, as people read them.

/// What a licence is worth at a time. The raw value is the word that is shown everywhere.
package enum LicenseState: String, CaseIterable, Sendable {
    // These four are valid: sessions are admitted.
    case active = "Active"
    /// The lease runs on, and the authority has not extended it for two days.
    case grace = "Grace"
    case evaluation = "Evaluation"
    case offlineActive = "Offline-active"
    // There is nothing to judge.
    case absent = "Absent"
    case unreadable = "Unreadable"
    // The file is not a token.
    case empty = "Empty"
    case tooLarge = "Too-large"
    case malformed = "Malformed"
    case truncated = "Truncated"
    // It is a token, but not one to believe.
    case unknownKey = "Unknown-key"
    case invalidSignature = "Invalid-signature"
    case unsupportedVersion = "Unsupported-version"
    case invalidClaims = "Invalid-claims"
    case superseded = "Superseded"
    // It is genuine, but not for now or not for here.
    case notYetValid = "Not-yet-valid"
    case expired = "Expired"
    case offlineExpired = "Offline-expired"
    case paidUntilPassed = "Paid-until-passed"
    case hardwareMismatch = "Hardware-mismatch"
    /// It names the key of another unit.
    case otherUnit = "Other-unit"
    case clockRollback = "Clock-rollback"
    /// The authority has refused to extend it; a file alone cannot say it.
    case suspended = "Suspended"
    /// The same, since another process has this unit's key and licence.
    case cloned = "Cloned"

    /// Whether sessions are admitted under it. In every other state each cap is 0.
    package var isValid: Bool {
        switch self {
        case .active, .grace, .evaluation, .offlineActive: true
        default: false
        }
    }
}
