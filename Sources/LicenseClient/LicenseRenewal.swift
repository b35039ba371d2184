// LicenseRenewal: keeps a unit's licence alive.
//
// One renewal, and what a crash after each step leaves:
//
//     the question is written down        it is asked again as the same question, within an hour
//     asked, answered, checked            the same: the authority answers the same again, and nothing is gained twice
//     keys not announced any more go      the same; a licence that one of them has signed is over at the next start
//     announced keys are added            keys too many, which the next answer removes
//     the licence is put in place         it is in force at the next start, which sees that the question is answered
//     the keeper commits                  as before
//     the outcome is written down         done
//
// Every file is put in place as one step (StoredFile), and nothing is written before all is checked. So a refusal, a forged
// answer or a crash leaves the licence in force as it is. Keys go before the lease is judged: whoever has a stolen one must
// not keep it by a lease that is refused.

import AuthorityAPI
import ControlAPI
import Foundation
import Licensing
import Logging

/// What a renewal came to.
package struct Renewal: Equatable, Sendable {
    package var licenseID: String
    package var epoch: Int
    /// A begun one counted.
    package var daysLeft: Int
    package var externalAddress: String
    package var reissuesLeft: Int

    package init(licenseID: String, epoch: Int, daysLeft: Int, externalAddress: String, reissuesLeft: Int) {
        self.licenseID = licenseID
        self.epoch = epoch
        self.daysLeft = daysLeft
        self.externalAddress = externalAddress
        self.reissuesLeft = reissuesLeft
    }
}

/// Renews on schedule and on demand, one renewal at a time.
package actor LicenseRenewal {
    private static let questionAgeMax = 3600

    private let client: LicenseClient
    private let keeper: LicenseKeeper
    private let version: String
    private let log: @Sendable (Logger.Level, String) -> Void
    private let uptime: @Sendable () -> ContinuousClock.Instant
    private var schedule: RenewalSchedule
    /// `schedule.next` on a clock that nobody sets: a wall clock that is set back puts no renewal off.
    private var deadline: ContinuousClock.Instant
    /// The last renewal, if it failed; the time is the unit's.
    package private(set) var lastFailure: (at: Int, error: LicenseClientError)?
    private var running: Task<Result<Renewal, LicenseClientError>, Never>?

    /// - Parameters:
    ///   - keeper: its clock and hardware are those of the unit; its configuration says where files lie.
    ///   - version: of the daemon, for the authority.
    ///   - jitter: any number in the range; tests choose it.
    ///   - uptime: what a wait is measured by.
    ///   - log: told what is done, a line each.
    package init(
        client: LicenseClient, keeper: LicenseKeeper, version: String,
        jitter: @escaping @Sendable (ClosedRange<Int>) -> Int = { Int.random(in: $0) },
        uptime: @escaping @Sendable () -> ContinuousClock.Instant = { .now },
        log: @escaping @Sendable (Logger.Level, String) -> Void
    ) {
        self.client = client
        self.keeper = keeper
        self.version = version
        self.uptime = uptime
        self.log = log
        Self.finishWhatACrashCutShort(keeper)
        let isNeeded = !keeper.status().isValid || keeper.held == nil
        schedule = RenewalSchedule(
            unitID: client.unitID, lastSuccess: isNeeded ? nil : keeper.record.lastSuccess, jitter: jitter)
        deadline = uptime() + .seconds(schedule.next - keeper.currentTime)
    }

    /// A licence of a later epoch than the open question names is the answer to it: only the outcome is not written down.
    private static func finishWhatACrashCutShort(_ keeper: LicenseKeeper) {
        guard let question = keeper.record.question, let held = keeper.held?.claims,
            let asked = try? ControlJSON.decode(LeaseRequest.self, from: Data(question.body.utf8)),
            asked.licenseId ?? held.licenseID == held.licenseID, held.epoch > asked.epoch ?? -1,
            held.issuedAt >= question.askedAt - ClockWitness.toleranceSeconds
        else { return }
        keeper.remember {
            $0.lastContact = max($0.lastContact, held.issuedAt)
            $0.lastSuccess = held.issuedAt
            $0.leaseID = held.licenseID
            $0.question = nil
            if let refusal = $0.refusal, refusal.at <= held.issuedAt { $0.refusal = nil }
        }
    }

    /// When the authority is asked next, by the unit's clock, or sooner where that is set back; in the past: at the next
    /// `renewIfDue`.
    package var nextAt: Int { schedule.next }

    /// Renews where it is time to; call it every second or so.
    /// - Returns: nil where it was not time.
    package func renewIfDue() async -> Result<Renewal, LicenseClientError>? {
        guard schedule.isDue(keeper.currentTime) || uptime() >= deadline else { return nil }
        return await renew()
    }

    /// Renews now by these keys alone: others that count, a stolen one among them, vouch for nothing.
    package func renew(by keys: TrustedKeys) async -> Result<Renewal, LicenseClientError> {
        while let running { _ = await running.value }
        let task = Task { await attempt(by: keys) }
        running = task
        return await task.value
    }

    /// Renews now. Who asks while a renewal is under way gets its outcome.
    ///
    /// The licence in force may be another one afterwards, and may have ended by a refusal: ask the keeper.
    package func renew() async -> Result<Renewal, LicenseClientError> {
        if let running { return await running.value }
        let task = Task { await attempt() }
        running = task
        let result = await task.value
        return result
    }

    /// After a failure: what it failed for may be over, so the authority is asked at the next `renewIfDue`.
    package func retry() { schedule.retry() }

    /// Breaks off a renewal that waits for the authority: the daemon is told to stop. It is asked again at the next start.
    package func cancel() { running?.cancel() }

    /// - Parameter keys: nil: all that count.
    private func attempt(by keys: TrustedKeys? = nil) async -> Result<Renewal, LicenseClientError> {
        defer {
            running = nil
            deadline = uptime() + .seconds(schedule.next - keeper.currentTime)
        }
        log(.info, "Start automatic license refresh process")
        do throws(LicenseClientError) {
            let renewal = try await renewOnce(by: keys)
            schedule.succeeded(at: keeper.currentTime)
            lastFailure = nil
            return .success(renewal)
        } catch {
            var retryAfter: Int?
            if case .refused(_, _, let seconds) = error { retryAfter = seconds }
            schedule.failed(at: keeper.currentTime, retryAfter: retryAfter)
            lastFailure = (keeper.currentTime, error)
            let status = keeper.status()
            let left = status.isValid ? status.daysLeft.map { "; days left: \($0)" } ?? "" : ""
            if !Task.isCancelled { log(.warning, "License refresh failed: \(error)\(left)") }
            return .failure(error)
        }
    }

    private func renewOnce(by keys: TrustedKeys?) async throws(LicenseClientError) -> Renewal {
        guard let path = keeper.configuration.licenseFile else {
            throw .setting(name: "license-file", found: "nothing", expected: "where to keep the licence")
        }
        // The hardware may have changed since it was read, and the file too.
        _ = await keeper.commit()
        guard keeper.hardware != nil else { throw .hardware }
        // Without a key no answer could be believed.
        if keeper.trustedKeys().ids.isEmpty {
            throw .setting(
                name: "trusted-keys", found: "no public key in \(keeper.configuration.trustedKeys.joined(separator: ", "))",
                expected: "the authority's, as KEYID.pem")
        }
        let held = keeper.held
        let question = try openQuestion(held)
        let trusted = keys ?? keeper.trustedKeys()
        let answer = try await believedAnswer(to: question, by: trusted)
        let lease: Lease
        let announced: TrustedKeys
        do throws(LicenseClientError) {
            let told = try answer.decoded(LeaseAnswer.self)
            let operators = keys ?? TrustedKeys(paths: keeper.configuration.trustedKeys)
            announced = try Lease.keys(in: told, trusted: operators)
            do { try learned.forget(but: announced) } catch { throw .store(error) }
            lease = try await Lease(told, trusted: operators, keeper: keeper)
        } catch {
            note(error, of: answer, held)
            throw error
        }
        log(.info, "External IP address of this server: \(lease.externalAddress)")
        log(.info, "We have license for: \(lease.daysLeft(at: keeper.currentTime)) days")
        log(.info, "Correctly received and checked license")
        try await store(lease, path: path, announced, from: trusted.vouchers(by: answer.keyID))
        log(.info, "We store license on disk")
        keeper.remember {
            $0.lastContact = max($0.lastContact, answer.time)
            $0.lastSuccess = answer.time
            $0.refusal = nil
            $0.question = nil
            $0.leaseID = lease.license.claims.licenseID
            $0.clonedAt = lease.clonedAt
        }
        return Renewal(
            licenseID: lease.license.claims.licenseID, epoch: lease.license.claims.epoch,
            daysLeft: lease.daysLeft(at: keeper.currentTime), externalAddress: lease.externalAddress,
            reissuesLeft: lease.reissuesLeft)
    }

    /// The question that is open where it is still the same, else a new one, written down before it is asked.
    private func openQuestion(_ held: License?) throws(LicenseClientError) -> AuthorityRecord.Question {
        // The authority's licence, whatever lies in the file now: lost, put back from an old backup, or another one by hand.
        // Its latest epoch that was in force here, or is in hand, is the one that this unit holds.
        let record = keeper.record
        let id = record.leaseID ?? held?.claims.licenseID
        let epochs = [
            held.flatMap { $0.claims.licenseID == id ? $0.claims.epoch : nil }, id.flatMap { record.epochs[$0]?.number },
        ]
        let request = LeaseRequest(
            hardware: HardwareReport(keeper.hardware), licenseId: id, epoch: epochs.compactMap { $0 }.max(), version: version)
        let body = String(decoding: try LicenseClient.encode(request), as: UTF8.self)
        let now = keeper.currentTime
        // An old one is asked anew: the answer to it would be of its time.
        if let open = keeper.record.question, open.body == body, (0...Self.questionAgeMax).contains(now - open.askedAt) {
            return open
        }
        let question = AuthorityRecord.Question(id: LicenseClient.newID(), body: body, askedAt: now)
        keeper.remember { $0.question = question }
        return question
    }

    private var learned: LearnedKeys { LearnedKeys(folder: keeper.configuration.learnedKeys) }

    private func believedAnswer(
        to question: AuthorityRecord.Question, by keys: TrustedKeys
    ) async throws(LicenseClientError) -> LicenseClient.Answer {
        do throws(LicenseClientError) {
            return try await client.ask(
                AuthorityPath.lease, body: Array(question.body.utf8), id: question.id, keys: keys)
        } catch {
            // It is answered, only not in time: asked again it would be answered the same.
            if case .clock = error { keeper.remember { $0.question = nil } }
            throw error
        }
    }

    /// A genuine answer that gives no lease: the question is answered, and a lease in hand may end with it.
    private func note(_ error: LicenseClientError, of answer: LicenseClient.Answer, _ held: License?) {
        keeper.remember {
            $0.question = nil
            guard case .refused(let code, _, _) = error else { return }
            $0.lastContact = max($0.lastContact, answer.time)
            guard let kind = code.endsLease else { return }
            $0.refusal = AuthorityRecord.Refusal(
                licenseID: held?.claims.licenseID, kind: kind, at: answer.time)
        }
    }

    private func store(
        _ lease: Lease, path: String, _ announced: TrustedKeys, from vouchers: [Voucher]
    ) async throws(LicenseClientError) {
        do {
            try learned.learn(announced, from: vouchers)
            let text = lease.license.token + [UInt8(ascii: "\n")]
            // What cannot be read is replaced.
            if (try? StoredFile.read(path, limit: LicenseToken.bytesMax)) != text,
                let reason = try StoredFile.rewrite(text, at: path, mode: 0o644, keepsPrevious: true)
            {
                log(.debug, "\(path) was written in place, since \(reason)")
            }
        } catch {
            throw .store(error)
        }
        if let refused = await keeper.commit().refused {
            // Until now a refusal may stand against it that this lease ends.
            if refused.state != .suspended, refused.state != .cloned { throw .license(refused) }
        }
    }
}

extension Lease {
    func daysLeft(at now: Int) -> Int { license.status(now: now).daysLeft ?? 0 }
}
