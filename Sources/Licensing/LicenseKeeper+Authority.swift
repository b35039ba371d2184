// What the authority says besides the licence: keys to trust, refusals, and for how long it has not been heard.

import Foundation

extension LicenseKeeper {
    static let recordName = "the record of the authority"

    /// The keys whose signatures count now: the operator's, and those that the authority announced.
    package func trustedKeys() -> TrustedKeys {
        TrustedKeys(paths: configuration.trustedKeys, learned: configuration.learnedKeys)
    }

    /// What is remembered of the authority.
    package var record: AuthorityRecord { holding.withLock { $0.record ?? AuthorityRecord() } }

    /// Changes what is remembered, in memory at once and on disk; where it cannot be written a warning says so.
    package func remember(_ change: (inout AuthorityRecord) -> Void) {
        holding.withLock { holding in
            var record = holding.record ?? AuthorityRecord()
            change(&record)
            keep(record, &holding)
            holding.witness = holding.witness.merging(ClockWitness(signedTime: record.lastContact))
        }
    }

    func keep(_ record: AuthorityRecord, _ holding: inout Holding) {
        if record == holding.record { return }
        holding.record = record
        write(Self.recordName, &holding) { () throws(LicensingError) in
            try StoredFile.write(record.bytes, to: configuration.recordFile)
        }
    }

    /// Whether a licence would be in force, were it put in place; a refusal that it may end is left out.
    /// - Throws: as `AuthorityRecord.note` and `License.check`.
    package func check(_ license: License) throws(LicensingError) {
        let holding = holding.withLock { $0 }
        var record = holding.record ?? AuthorityRecord()
        try record.note(license.claims, now: currentTime)
        try license.check(now: currentTime, witness: holding.witness, hardware: holding.hardware)
    }

    func readRecord(_ note: (LicensingError) -> Void) -> AuthorityRecord? {
        if holding.withLock({ $0.record }) != nil { return nil }
        let (record, trouble) = AuthorityRecord.read(configuration.recordFile)
        if let trouble { note(trouble) }
        return record
    }

    /// Whether a licence holds now, here and for the authority.
    ///
    /// A refusal outranks all but a wrong clock: nothing else gets better before it is settled.
    func checkHolds(_ license: License, _ now: Int, _ holding: Holding) throws(LicensingError) {
        if let refusal = holding.record?.refusal, refusal.ends(license.claims), !holding.witness.isRollback(now) {
            throw .ended(id: license.claims.licenseID, kind: refusal.kind, at: refusal.at)
        }
        try license.check(now: now, witness: holding.witness, hardware: holding.hardware)
    }

    func statusInForce(_ license: License, _ holding: Holding) -> LicenseStatus {
        let now = holding.witness.latest
        // A licence that was put in place by hand counts from when it was issued.
        let extendedAt = max(holding.record?.lastSuccess ?? 0, license.claims.issuedAt)
        let isGrace =
            configuration.hasAuthority && license.claims.issuerType == .automatic
            && now - extendedAt > LicenseEnding.graceAfterSeconds
        var status = license.status(now: now, extendedAt: isGrace ? extendedAt : nil)
        if let at = holding.record?.clonedAt {
            status.warnings.append(
                "Cloned: another unit has asked the authority with this unit's key and licence since \(Timestamp.text(at)): a copy "
                    + "or an old backup of the state folder runs; settle it with the authority")
        }
        return status
    }
}
