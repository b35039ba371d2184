// What is in force at a time, and why.

/// The licence in force, or why there is none.
package struct LicenseStatus: Equatable, Sendable {
    package var state: LicenseState
    /// Why it is not valid; nil where it is.
    package var reason: String?
    /// What it says; nil where there is no licence, or none to believe.
    package var claims: LicenseClaims?
    /// The key that signed it; nil for the built-in evaluation.
    package var keyID: String?
    /// As it was signed; nil for the built-in evaluation.
    package var token: String?
    /// Whole days until it ends, a begun one counted: 0 means that it has ended. nil where there is no licence or no end.
    package var daysLeft: Int?
    /// That it ends soon, where somebody must do something about it. Its sentence stands among the warnings too.
    package var ending: LicenseEnding?
    /// What a person should know besides: a refused file, a damaged witness. One sentence each.
    package var warnings: [String]

    package init(
        state: LicenseState, reason: String? = nil, claims: LicenseClaims? = nil, keyID: String? = nil, token: String? = nil,
        daysLeft: Int? = nil, ending: LicenseEnding? = nil, warnings: [String] = []
    ) {
        self.state = state
        self.reason = reason
        self.claims = claims
        self.keyID = keyID
        self.token = token
        self.daysLeft = daysLeft
        self.ending = ending
        self.warnings = warnings
    }

    package var isValid: Bool { state.isValid }

    /// Purchased seats, of a licence that has ended too.
    package func seats(of type: LicenseType) -> Int { claims?.seats[type] ?? 0 }

    /// Seats that may be used now; 0 in every state that is not valid.
    package func activeSeats(of type: LicenseType) -> Int { isValid ? claims?.activeSeats(of: type) ?? 0 : 0 }

    /// Max licensed sessions; 0 in every state that is not valid.
    package func cap(of type: LicenseType) -> Int { isValid ? claims?.cap(of: type) ?? 0 : 0 }

    /// The last day on which it holds, `2027-01-31`, UTC.
    package var expiryDate: String? { claims.map { Timestamp.lastDay(before: $0.end) } }
}

extension License {
    /// Whether the licence holds now and here.
    /// - Throws: `clockRollback`, `notYetValid`, `expired`, `paidUntilPassed`, `otherUnit` or `hardware`: the first of these that is so.
    package func check(now: Int, witness: ClockWitness, hardware: Hardware?) throws(LicensingError) {
        // No other time can be told while the clock is known to be wrong.
        if witness.isRollback(now) { throw .clockRollback(latest: witness.latest) }
        let mismatches = claims.hardware.mismatches(with: hardware)
        let isOtherUnit = claims.unitKey != nil && claims.unitKey != hardware?.unitKey
        // When it was signed has been too; but a licence for another machine tells nothing about this one.
        if mismatches.isEmpty, !isOtherUnit, ClockWitness(signedTime: claims.issuedAt).isRollback(now) {
            throw .clockRollback(latest: claims.issuedAt)
        }
        try checkTime(now: now)
        if let key = claims.unitKey, isOtherUnit { throw .otherUnit(found: hardware?.unitKey ?? "", expected: key) }
        if !mismatches.isEmpty { throw .hardware(mismatches) }
    }

    /// What is not paid for any more outranks a lease that is over, for no renewal helps. An offline licence whose lease lasts as long
    /// as it is paid for is one file that has ended.
    package func checkTime(now: Int) throws(LicensingError) {
        if now < claims.notBefore - ClockWitness.toleranceSeconds { throw .notYetValid(from: claims.notBefore) }
        let isOffline = claims.issuerType == .offline
        if now >= claims.paidUntil, !isOffline || claims.paidUntil < claims.leaseExpiry {
            throw .paidUntilPassed(at: claims.paidUntil)
        }
        if now >= claims.leaseExpiry { throw .expired(at: claims.leaseExpiry, isOffline: isOffline) }
    }

    /// The status while it is in force, or with the error why it is not.
    /// - Parameter extendedAt: as `LicenseEnding` has it.
    package func status(now: Int, error: LicensingError? = nil, extendedAt: Int? = nil) -> LicenseStatus {
        var valid = claims.issuerType == .offline ? LicenseState.offlineActive : .active
        if claims.businessType == .evaluation { valid = .evaluation }
        if extendedAt != nil { valid = .grace }
        let daysLeft = max(0, (claims.end - now + 86_399) / 86_400)
        let ending = error == nil ? LicenseEnding(of: claims, daysLeft: daysLeft, extendedAt: extendedAt) : nil
        return LicenseStatus(
            state: error?.state ?? valid, reason: error?.description, claims: claims, keyID: keyID,
            token: String(decoding: token, as: UTF8.self), daysLeft: daysLeft, ending: ending,
            warnings: ending.map { [$0.sentence] } ?? [])
    }
}
