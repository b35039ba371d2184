// The keeper holds the licence of a unit: it reads the file, keeps a last good copy, watches the clock, and says what is in
// force.
//
// It remembers three things, the file as last committed, the copy, and what the authority said last, and judges them anew at
// each question. What is in force is never stored, so it cannot be stale, and it is the same after a restart:
//
//     the file holds now and here                        the file, which becomes the copy
//     the file is removed                                evaluation or nothing; the copy is retired
//     the file is refused or does not hold, the copy does    the copy, with a warning
//     neither holds                                      nothing: the state of the file
//
// What it has written is looked at each second, and written anew where it is gone (LicenseKeeper+State).
//
// Locks: `commits` puts commits in a row; `holding` is held for moments, and while the copy or the witness is written (once a
// minute). A crash at any point leaves whole files (StoredFile), and the judgement above needs nothing else.

import Basics
import Foundation
import Synchronization

/// Where a unit's licence lies and how it is judged.
package struct LicenseConfiguration: Sendable {
    /// The file that an operator puts in place; nil for none.
    package var licenseFile: String?
    /// Whether no file means the built-in evaluation: true where the operator has not named a file.
    package var evaluatesWhenAbsent: Bool
    /// Where the last good copy and the clock witness are kept; made where it is missing. One keeper writes in it.
    package var stateFolder: String
    /// Files and folders of public keys, see `TrustedKeys`.
    package var trustedKeys: [String]
    /// Whether somebody extends leases here: then one that is not extended is a grace.
    package var hasAuthority: Bool
    /// Files of secrets or settings besides, of which a person should know when others may write them.
    package var guardedFiles: [String]

    package init(
        licenseFile: String?, evaluatesWhenAbsent: Bool, stateFolder: String, trustedKeys: [String], hasAuthority: Bool = false,
        guardedFiles: [String] = []
    ) {
        self.licenseFile = licenseFile
        self.evaluatesWhenAbsent = evaluatesWhenAbsent
        self.stateFolder = stateFolder
        self.trustedKeys = trustedKeys
        self.hasAuthority = hasAuthority
        self.guardedFiles = guardedFiles
    }

    /// The last licence that was in force.
    package var copyFile: String { stateFolder + "/license.lic" }
    package var witnessFile: String { stateFolder + "/clock" }
    package var recordFile: String { stateFolder + "/authority" }
    /// Keys that the authority announced.
    package var learnedKeys: String { stateFolder + "/keys" }
}

/// What a commit came to.
package struct CommitReport: Equatable, Sendable {
    /// What is in force after it.
    package var status: LicenseStatus
    /// Why the file is not in force; nil where it is, or where there is none. With `status.isValid` the licence before it was
    /// kept.
    package var refused: LicensingError?
}

/// Holds the licence of a unit. Safe to use from any thread.
package final class LicenseKeeper: Sendable {
    enum Source {
        case absent
        case refused(LicensingError)
        case license(License)

        var license: License? { if case .license(let license) = self { license } else { nil } }
    }

    struct Holding {
        var file: Source = .absent
        /// The last good copy.
        var copy: License?
        /// nil until it is read.
        var record: AuthorityRecord?
        var hardware: Hardware?
        var witness = ClockWitness()
        /// The highest time that is on disk, or that failed to get there.
        var witnessWritten = 0
        /// What the last commit met with besides the file.
        var commitWarnings: [String] = []
        /// What cannot be written; an entry goes when the next write succeeds.
        var writeWarnings: [String: String] = [:]
        var state = State()
    }

    static let copyName = "the last good copy"
    static let witnessName = "the clock witness"

    package let configuration: LicenseConfiguration
    private let readHardware: @Sendable () throws(LicensingError) -> Hardware
    private let clock: @Sendable () -> Date
    let holding = Mutex(Holding())
    private let commits = Mutex<Task<CommitReport, Never>?>(nil)

    private init(
        _ configuration: LicenseConfiguration, hardware: @escaping @Sendable () throws(LicensingError) -> Hardware,
        clock: @escaping @Sendable () -> Date
    ) {
        self.configuration = configuration
        self.readHardware = hardware
        self.clock = clock
    }

    /// Makes a keeper and reads everything for the first time: the first `commit`.
    ///
    /// Nothing that lies in files makes it fail; what is wrong is told by the status.
    package static func load(
        _ configuration: LicenseConfiguration,
        hardware: @escaping @Sendable () throws(LicensingError) -> Hardware = LicenseKeeper.thisMachine,
        clock: @escaping @Sendable () -> Date = { Date() }
    ) async -> (keeper: LicenseKeeper, report: CommitReport) {
        let keeper = LicenseKeeper(configuration, hardware: hardware, clock: clock)
        return (keeper, await keeper.commit())
    }

    /// Reads the machine that this runs on.
    package static let thisMachine: @Sendable () throws(LicensingError) -> Hardware = { () throws(LicensingError) in
        try Hardware.read()
    }

    /// Seconds since 1970, as this machine's clock has them.
    package var currentTime: Int { Timestamp.seconds(clock()) }

    /// The hardware as of the last commit; nil where it could not be read.
    package var hardware: Hardware? { holding.withLock { $0.hardware } }

    /// What is in force now. Costs some comparisons; writes a file once a minute, and when another licence came into force.
    package func status() -> LicenseStatus { holding.withLock { judge(&$0).status } }

    /// The licence that a lease extends: the one in force, else the file's, else the last that was in force.
    package var held: License? {
        holding.withLock { holding in
            if let inForce = judge(&holding).inForce { return inForce }
            guard let file = holding.file.license, let copy = holding.copy else { return holding.file.license ?? holding.copy }
            let isOlder = file.claims.licenseID == copy.claims.licenseID && file.claims.epoch < copy.claims.epoch
            return isOlder ? copy : file
        }
    }

    /// Reads keys, hardware and the licence file again. Commits that run at the same time are done one after the other.
    package func commit() async -> CommitReport {
        let commit = commits.withLock { last in
            let before = last
            let commit = Task {
                _ = await before?.value
                return await self.read()
            }
            last = commit
            return commit
        }
        return await commit.value
    }

    private func read() async -> CommitReport {
        var warnings: [String] = []
        func note(_ error: LicensingError) { warnings.append(error.description) }

        restoreState()
        do { try StoredFile.makeFolder(configuration.stateFolder) } catch { note(error) }
        var hardware: Hardware?
        do { hardware = try readHardware() } catch { note(error) }
        hardware?.unitID = UnitIdentity.read(stateFolder: configuration.stateFolder) ?? ""
        hardware?.unitKey = UnitKey.readPublic(stateFolder: configuration.stateFolder)
        let (witness, trouble) = ClockWitness.read(configuration.witnessFile)
        if let trouble { warnings.append("\(trouble); the time is guarded by what is left") }

        for path in [configuration.licenseFile, configuration.stateFolder].compactMap({ $0 }) + configuration.guardedFiles {
            if let others = FileWriters.others(path) {
                warnings.append("\(path) is \(others): whoever writes it can change what is licensed here")
            }
        }
        let keys = trustedKeys()
        let file = await Self.readLicense(configuration.licenseFile, keys)
        // Without a licence nobody misses a key.
        if case .absent = file {} else { keys.trouble.forEach(note) }
        // The copies in memory were verified when they were read: a key that is gone since takes them back at the next start.
        var copy: License?
        var previous: License?
        if holding.withLock({ $0.copy }) == nil {
            copy = await Self.readCopy(configuration.copyFile, keys, note)
            previous = await Self.readCopy(StoredFile.previous(of: configuration.copyFile), keys, { _ in })
        }
        let record = readRecord(note)
        return holding.withLock { holding in
            holding.file = file
            holding.record = holding.record ?? record
            // A question may have been asked meanwhile, and have made a licence the copy.
            if holding.copy == nil { holding.copy = copy }
            // What a damaged record has forgotten.
            for case let license? in [copy, previous] { try? holding.record?.note(license.claims, now: currentTime) }
            holding.hardware = hardware
            // A witness that was written and is gone was removed by a person: it starts anew.
            let isRemoved = access(configuration.witnessFile, F_OK) != 0 && holding.writeWarnings[Self.witnessName] == nil
            holding.witness = isRemoved ? ClockWitness() : holding.witness.merging(witness)
            for case let signed? in [holding.copy?.claims.issuedAt, holding.record?.lastContact] {
                holding.witness = holding.witness.merging(ClockWitness(signedTime: signed))
            }
            holding.commitWarnings = warnings
            holding.witnessWritten = 0
            noteState(&holding)
            let judgement = judge(&holding)
            return CommitReport(status: judgement.status, refused: judgement.refused)
        }
    }

    private static func readLicense(_ path: String?, _ keys: TrustedKeys) async -> Source {
        guard let path else { return .absent }
        do {
            guard let bytes = try StoredFile.read(path, limit: LicenseToken.bytesMax) else { return .absent }
            return .license(try await LicenseToken.verify(bytes, with: keys))
        } catch {
            return .refused(error.inLicenseFile(path))
        }
    }

    private static func readCopy(_ path: String, _ keys: TrustedKeys, _ note: (LicensingError) -> Void) async -> License? {
        do {
            guard let bytes = try StoredFile.read(path, limit: LicenseToken.bytesMax) else { return nil }
            return try await LicenseToken.verify(bytes, with: keys)
        } catch {
            note(.damaged(path: path, found: "a last good copy that is none (\(error))", expected: "a licence that verifies"))
            return nil
        }
    }
}

extension LicenseKeeper {
    private struct Judgement {
        var status: LicenseStatus
        var refused: LicensingError?
        var inForce: License?
    }

    /// Finds what is in force, and makes it last.
    private func judge(_ holding: inout Holding) -> Judgement {
        let now = currentTime
        advanceWitness(&holding, to: now)
        var judgement: Judgement
        switch holding.file {
        case .absent:
            retireCopy(&holding)
            judgement = Judgement(status: absentStatus(holding))
        case .license(let license):
            do {
                var record = holding.record ?? AuthorityRecord()
                try record.note(license.claims, now: now)
                try checkHolds(license, now, holding)
                keepCopy(of: license, record, &holding)
                judgement = Judgement(status: statusInForce(license, holding), inForce: license)
            } catch {
                judgement = fallBack(from: license, error, now, holding)
            }
        case .refused(let error):
            judgement = fallBack(from: nil, error, now, holding)
        }
        judgement.status.warnings += holding.commitWarnings
        judgement.status.warnings += holding.writeWarnings.sorted { $0.key < $1.key }.map(\.value)
        return judgement
    }

    private func absentStatus(_ holding: Holding) -> LicenseStatus {
        let isEvaluated = configuration.evaluatesWhenAbsent && holding.record?.isOfALicensedUnit != true
        guard let path = configuration.licenseFile, !isEvaluated else {
            return LicenseStatus(state: .evaluation, claims: .builtInEvaluation)
        }
        var reason = LicensingError.absent(path: path).description
        if configuration.evaluatesWhenAbsent {
            reason +=
                "; the built-in evaluation is for new units: this one has had a licence, or has asked the authority for one"
        }
        return LicenseStatus(state: .absent, reason: reason)
    }

    /// The copy where it holds; else the reason why the file is not in force.
    private func fallBack(from license: License?, _ error: LicensingError, _ now: Int, _ holding: Holding) -> Judgement {
        if let copy = holding.copy, copy != license, (try? checkHolds(copy, now, holding)) != nil {
            var status = statusInForce(copy, holding)
            status.warnings.append(
                "\(configuration.licenseFile ?? "licence") is refused (\(error.state.rawValue)): \(error); "
                    + "licence \(copy.claims.licenseID), epoch \(copy.claims.epoch), stays in force")
            return Judgement(status: status, refused: error, inForce: copy)
        }
        let status =
            license?.status(now: holding.witness.latest, error: error)
            ?? LicenseStatus(state: error.state, reason: error.description)
        return Judgement(status: status, refused: error)
    }

    /// - Parameter record: what is remembered from now on.
    private func keepCopy(of license: License, _ record: AuthorityRecord, _ holding: inout Holding) {
        keep(record, &holding)
        if holding.copy == license { return }
        holding.copy = license
        holding.witness = holding.witness.merging(ClockWitness(signedTime: license.claims.issuedAt))
        write(Self.copyName, &holding) { () throws(LicensingError) in
            try StoredFile.write(license.token + [UInt8(ascii: "\n")], to: configuration.copyFile)
        }
    }

    private func retireCopy(_ holding: inout Holding) {
        if holding.copy == nil { return }
        holding.copy = nil
        write(Self.copyName, &holding) { () throws(LicensingError) in try StoredFile.retire(configuration.copyFile) }
    }

    private func advanceWitness(_ holding: inout Holding, to now: Int) {
        holding.witness.highestSeen = max(holding.witness.highestSeen, now)
        let witness = holding.witness
        guard witness.latest - holding.witnessWritten >= ClockWitness.writeIntervalSeconds else { return }
        // Counted as written even when it was not: a full disk is tried again in a minute, not at each question.
        holding.witnessWritten = witness.latest
        write(Self.witnessName, &holding) { () throws(LicensingError) in
            try StoredFile.write(witness.bytes, to: configuration.witnessFile)
        }
    }

    func write(_ what: String, _ holding: inout Holding, _ body: () throws(LicensingError) -> Void) {
        do {
            try body()
            holding.writeWarnings[what] = nil
        } catch {
            holding.writeWarnings[what] = "\(what) is not on disk: \(error)"
        }
    }
}
