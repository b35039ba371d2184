// Warnings of an end that comes near, while there is time to do something about it.

/// What to tell a person of the end of the licence in force.
package struct LicenseEnding: Equatable, Sendable {
    /// What it is told for: 30, 14, 7 or 1 days before the end of an offline licence, each day of a grace. As long as it is the
    /// same, nothing needs to be told again.
    package var step: Int
    /// With the days left and the date.
    package var sentence: String

    /// Days before the end of an offline licence.
    package static let steps = [1, 7, 14, 30]
    /// How long nothing is said when the authority does not extend the lease: two renewals may fail.
    package static let graceAfterSeconds = 48 * 3600

    /// - Parameter extendedAt: when a lease was last extended, where that is so long ago that it is a grace; else nil.
    init?(of claims: LicenseClaims, daysLeft: Int, extendedAt: Int?) {
        let when = "ends on \(Timestamp.lastDay(before: claims.end)), in \(daysLeft) day\(daysLeft == 1 ? "" : "s")"
        if let extendedAt {
            step = daysLeft
            sentence =
                "The authority has not extended the lease of licence \(claims.licenseID) since \(Timestamp.text(extendedAt)): "
                + "it \(when)"
        } else if claims.issuerType == .offline, let step = Self.steps.first(where: { daysLeft <= $0 }) {
            self.step = step
            sentence = "Offline licence \(claims.licenseID) \(when): ask the authority for the next one"
        } else {
            return nil
        }
    }
}
