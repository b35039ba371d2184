// LeaseRule: what a unit that asks gets. Reads the database and changes nothing.
//
// After a backup was restored there are licences that the database does not know, or of which it knows an earlier epoch. The
// leases that were given since the backup end within `leaseSeconds` of the restoration, so until then:
//
//     a unit names a licence that is unknown here    it is taken up again under its id, with the epoch after the unit's, and
//                                                    takes its place in a subscription
//     a unit has no licence and names none           it gets none (`holdsUntil`): the place that seems free may be that of a
//                                                    unit which has not asked since
//     a unit is ahead of its row, at any time        the next epoch is the one after the unit's, which it accepts
//
// So a unit that was licensed after the backup goes on with its licence, and no two units have one for the same seats. What a
// unit says it has is believed: who says what is not so gets at most a first licence of their own customer before its time.

import AuthorityAPI
import ControlAPI
import Foundation
import GRDB
import Licensing

struct LeaseRule {
    let database: Database
    let question: Question<LeaseRequest>
    let now: Int
    /// Of a licence, should one be new.
    let newID: String
    let reissues: Int

    private var machine: Hardware { Hardware(question.body.hardware) }
    /// Who asks says another part of the question.
    private var report: HardwareReport {
        var report = question.body.hardware
        report.unitId = nil
        return report
    }

    /// A question that does not come from the unit that it names; nil: it may.
    ///
    /// The first key that a licence is asked with is the unit's from then on.
    func stranger() throws -> LeaseDecision? {
        if let told = question.body.hardware.unitKey, told != question.unitKey {
            return .unproven(
                "\(AuthorityHeader.proof): found \(question.unitKey.map { "one by key \($0)" } ?? "none"), expected one by the key "
                    + "\(told) that the question names")
        }
        let license = try LicenseRow.latest(ofUnit: question.unitID, customerID: question.customerID, database)
        if let late = lateness(license) { return .unproven("\(AuthorityHeader.proof): iat: \(late)") }
        guard let license, let reason = question.isUnproven(license) else { return nil }
        guard let key = question.unitKey else { return .unproven(reason) }
        return .otherKey(
            license,
            HardwareRow(
                id: nil, licenseId: license.id, at: now, hardware: report, state: .held,
                reason: "unit_key \(license.unitKey) -> \(key)"))
    }

    /// A question that comes late, after the unit has gone on with another one, must not decide anything: nobody waits for
    /// its answer.
    private func lateness(_ license: LicenseRow?) -> String? {
        guard let proof = question.proof else { return nil }
        if abs(proof.time - now) > ClockWitness.toleranceSeconds {
            return
                "found \(Timestamp.text(proof.time)), expected at most \(ClockWitness.toleranceSeconds) seconds between it and "
                + Timestamp.text(now)
        }
        guard let license, license.unitKey == proof.key, proof.time < license.askedAt else { return nil }
        return
            "found \(Timestamp.text(proof.time)), expected no earlier time than \(Timestamp.text(license.askedAt)), when this "
            + "unit asked last"
    }

    func decide() throws -> LeaseDecision {
        guard let license = try LicenseRow.latest(ofUnit: question.unitID, customerID: question.customerID, database) else {
            return try first()
        }
        guard let subscription = try Subscription.fetchOne(database, key: license.subscriptionId) else {
            throw AuthorityError.absent(what: "subscription", found: "\(license.subscriptionId)")
        }
        if license.state == .cancelled {
            return .refused(.cancelled, "licence \(license.id) was cancelled")
        }
        if subscription.customerId != question.customerID {
            return .refused(.noSubscription, "unit \(question.unitID) has a licence of another customer")
        }
        if license.state == .suspended {
            return .refused(.suspended, "licence \(license.id) is suspended: found suspended, expected active")
        }
        if license.issuerType == .offline {
            return .refused(.offline, "licence \(license.id) is an offline one: it is not renewed, its file is replaced")
        }
        if subscription.paidUntil <= now { return paidUntilPassed(subscription) }
        if let clone = clone(of: license) { return clone }
        return try renew(license, subscription)
    }

    // MARK: Clones

    /// What the unit says it holds; 0: nothing.
    private func heldEpoch(of license: LicenseRow) -> Int {
        question.body.licenseId == license.id ? question.body.epoch ?? 0 : 0
    }

    /// A unit holds the epoch that it held when it asked last, or the one that was given since, whose answer may have been
    /// lost. Who holds another one is a second process with the same licence, from a copy or an old backup: both went on from
    /// one epoch, and the other one was given what came since.
    ///
    /// An epoch ahead of the row is one of before a restoration of the database.
    ///
    /// However often a unit asks on one epoch, its leases end with the first that was given on it. Copies that put one state
    /// folder back before each question look like a unit that loses every answer: they have that one lease among them.
    private func clone(of license: LicenseRow) -> LeaseDecision? {
        let held = heldEpoch(of: license)
        let isOver = isAgain(license, held) && license.heldUntil <= now
        let isExpected = [license.heldEpoch, license.epoch].contains(held) && !isOver
        if license.heldEpoch < 0 || held > license.epoch || isExpected { return nil }
        var cloned = license
        cloned.clonedAt = license.clonedAt ?? now
        cloned.askedAt = question.proof?.time ?? license.askedAt
        cloned.clonedBy = "\(question.body.hardware.hostname) from \(question.address), epoch \(held)"
        if isOver {
            return .cloned(
                cloned,
                "found a unit that still holds epoch \(held), expected \(license.epoch): the lease that was given on it is "
                    + "over. It has lost each answer since, or an old state folder was put back; a person must say that it is "
                    + "the unit")
        }
        return .cloned(
            cloned,
            "found a unit that holds epoch \(held), expected \(license.heldEpoch) or \(license.epoch): another process has gone on "
                + "with its key; a person must say which one is the unit")
    }

    /// Whether a unit asks again on an epoch on which it has been given a later one, which it does not hold.
    private func isAgain(_ license: LicenseRow, _ held: Int) -> Bool {
        held == license.heldEpoch && held != license.epoch && license.heldUntil > 0
    }

    private func paidUntilPassed(_ subscription: Subscription) -> LeaseDecision {
        .refused(
            .paidUntilPassed,
            "subscription \(subscription.id ?? 0): found one paid until \(Timestamp.endText(subscription.paidUntil)), expected "
                + "one that is paid for now")
    }

    // MARK: First contact

    private func first() throws -> LeaseDecision {
        let all = try Subscription.fetchAll(
            database, sql: "SELECT * FROM subscription WHERE customer_id = ? ORDER BY paid_until DESC, id",
            arguments: [question.customerID])
        guard let longest = all.first else {
            return .refused(.noSubscription, "found no subscription of this customer, expected one")
        }
        let paid = all.filter { $0.paidUntil > now }
        if paid.isEmpty { return paidUntilPassed(longest) }
        let restoration = try RestorationRow.latest(database)
        let lost = try restoration.flatMap(lostLicense)
        if let restoration, lost == nil, now < restoration.holdsUntil {
            return .refused(
                .unavailable,
                "the authority was restored from a backup on \(Timestamp.text(restoration.at)): a unit without a licence gets "
                    + "its first one from \(Timestamp.text(restoration.holdsUntil)) on")
        }
        if let held = try successor() { return held }
        guard let subscription = try paid.first(where: { try $0.freeUnits(database) > 0 }) else {
            return .refused(
                .noSubscription,
                "found \(paid.reduce(0) { $0 + $1.units }) units with a licence, expected a subscription with a unit to spare")
        }
        var license = LicenseRow(
            id: lost?.id ?? newID, subscriptionId: subscription.id ?? 0, unitId: question.unitID, issuerType: .automatic,
            state: .active, epoch: lost?.epoch ?? 0, issuedAt: now, leaseExpiry: 0, machine: machine,
            address: machine.addresses.first ?? "", unitKey: question.unitKey ?? "", heldEpoch: lost?.epoch ?? 0,
            askedAt: question.proof?.time ?? 0)
        license.heldUntil = now + AuthorityStore.leaseSeconds
        let assignment = HardwareRow(
            id: nil, licenseId: license.id, at: now, hardware: report, state: .first, reason: "")
        return try grant(
            lost == nil ? "license.issued" : "license.taken_up_again", license, subscription,
            leaseExpiry: min(now + AuthorityStore.leaseSeconds, subscription.paidUntil), assignment: assignment,
            reissuesLeft: reissuesLeft(license.id), isNew: true)
    }

    /// A new unit on hardware that a suspended or cloned one of this customer holds may be that very one, which has put its
    /// id away. A person says whether it is another.
    private func successor() throws -> LeaseDecision? {
        let before = try LicenseRow.fetchAll(
            database,
            sql: """
                SELECT license.* FROM license JOIN subscription ON subscription.id = subscription_id
                WHERE customer_id = ? AND (state = 'suspended' OR state = 'active' AND cloned_at IS NOT NULL)
                AND cpu_model = ? AND logical_cpus_number = ? AND total_memory_size = ? ORDER BY license.rowid
                """,
            arguments: [question.customerID, machine.cpuModel, machine.logicalCPUsNumber, machine.totalMemorySize])
        guard let license = before.first else { return nil }
        for license in before {
            let approved = try HardwareRow.fetchAll(
                database, sql: "SELECT * FROM hardware_assignment WHERE license_id = ? AND state = 'approved'",
                arguments: [license.id])
            if approved.contains(where: { $0.hardware.unitId == question.unitID }) { return nil }
        }
        var row = HardwareRow(
            id: nil, licenseId: license.id, at: now, hardware: report, state: .held,
            reason: "unit_id \(license.unitId) -> \(question.unitID), and that one is "
                + (license.state == .suspended ? "suspended" : "cloned"))
        row.hardware.unitId = question.unitID
        return .held(license, row)
    }

    /// The licence that the unit names, where it is unknown here because a backup was restored that is older.
    private func lostLicense(_ restoration: RestorationRow) throws -> (id: String, epoch: Int)? {
        guard now < restoration.at + AuthorityStore.leaseSeconds, let id = question.body.licenseId,
            let epoch = question.body.epoch, UnitID.isOne(id), try !LicenseRow.exists(database, key: id)
        else { return nil }
        return (id, epoch)
    }

    // MARK: Renewal

    private func renew(_ license: LicenseRow, _ subscription: Subscription) throws -> LeaseDecision {
        let left = try reissuesLeft(license.id)
        var changes = HardwareBinding.usual(license.machine, .automatic).mismatches(with: machine)
        let isSameMachine = changes.isEmpty
        // A unit that had no address has one now. One that tells of none has moved as well: it has come from somewhere, if
        // not from this very host.
        let hasMoved =
            !license.address.isEmpty && !machine.addresses.contains(license.address)
            && !(machine.addresses.isEmpty && Address.isLoopback(question.address))
        if hasMoved {
            changes.append(
                HardwareMismatch(part: .addressIPv4, licensed: license.address, found: machine.addresses.first ?? "none"))
        }
        var row = HardwareRow(
            id: nil, licenseId: license.id, at: now, hardware: report, state: .accepted,
            reason: changes.map(\.description).joined(separator: "; "))
        if hasMoved || !isSameMachine && left == 0 {
            row.state = .held
            return .held(license, row)
        }
        var renewed = license
        let held = heldEpoch(of: license)
        renewed.heldUntil = isAgain(license, held) ? license.heldUntil : now + AuthorityStore.leaseSeconds
        renewed.heldEpoch = held
        renewed.askedAt = question.proof?.time ?? license.askedAt
        renewed.epoch = max(license.epoch, renewed.heldEpoch)
        renewed.set(machine, address: license.address.isEmpty ? machine.addresses.first ?? "" : license.address)
        let expiry = min(renewed.heldUntil, subscription.paidUntil)
        if renewed.unitKey.isEmpty { renewed.unitKey = question.unitKey ?? "" }
        if isSameMachine {
            return try grant(
                "license.renewed", renewed, subscription, leaseExpiry: expiry, assignment: nil, reissuesLeft: left)
        }
        return try grant(
            "license.reissued", renewed, subscription, leaseExpiry: expiry, assignment: row, reissuesLeft: left - 1)
    }

    private func reissuesLeft(_ licenseID: String) throws -> Int {
        let used = try Int.fetchOne(
            database,
            sql: "SELECT count(*) FROM hardware_assignment WHERE license_id = ? AND state = 'accepted' AND at > ?",
            arguments: [licenseID, now - AuthorityStore.reissueSeconds])
        return max(reissues - (used ?? 0), 0)
    }

    private func grant(
        _ kind: String, _ license: LicenseRow, _ subscription: Subscription, leaseExpiry: Int, assignment: HardwareRow?,
        reissuesLeft: Int, isNew: Bool = false
    ) throws -> LeaseDecision {
        .granted(
            try Grant(
                kind: kind, license: license, isNew: isNew, subscription: subscription,
                leaseExpiry: leaseExpiry, assignment: assignment, reissuesLeft: reissuesLeft, now: now, database))
    }
}

extension Grant {
    /// The licence with its next epoch and a lease from now on.
    /// - Parameter unitID: what an offline licence is bound to besides the hardware; empty: to no unit.
    init(
        kind: String, license: LicenseRow, isNew: Bool, subscription: Subscription, leaseExpiry: Int, assignment: HardwareRow?,
        reissuesLeft: Int, now: Int, unitID: String = "", _ database: Database
    ) throws {
        guard let ring = try AuthorityStore.ring(database, now: now) else { throw AuthorityStore.noKey }
        let customer = try String.fetchOne(
            database, sql: "SELECT name FROM customer WHERE id = ?", arguments: [subscription.customerId])
        var machine = license.machine
        machine.unitID = unitID
        var license = license
        license.epoch += 1
        license.leaseExpiry = leaseExpiry
        self.kind = kind
        self.license = license
        self.isNew = isNew
        self.ring = ring
        self.assignment = assignment
        self.reissuesLeft = reissuesLeft
        claims = LicenseClaims(
            issuer: "fpx-authority", customer: customer ?? "", licenseID: license.id, issuedAt: now, notBefore: now,
            leaseExpiry: leaseExpiry, paidUntil: subscription.paidUntil, seats: subscription.seats,
            modelMax: subscription.modelMax, sessionsPerSeat: subscription.sessionsPerSeat,
            licensedBandwidth: subscription.bandwidth, businessType: subscription.businessType,
            issuerType: license.issuerType, hardware: .usual(machine, license.issuerType), epoch: license.epoch,
            unitKey: license.unitKey.isEmpty ? nil : license.unitKey)
    }
}

extension HardwareBinding {
    /// Bound to CPU model and CPU count; offline, to memory and the unit's id too, since nobody asks for it again before it
    /// ends. An empty text binds to nothing, and would fit every unit that has none either: some kernels name no CPU model.
    package static func usual(_ machine: Hardware, _ issuerType: IssuerType) -> HardwareBinding {
        var binds: Set<HardwarePart> = [.cpuModel, .logicalCPUsNumber]
        if issuerType == .offline { binds.formUnion([.totalMemorySize, .unitID]) }
        if machine.cpuModel.isEmpty { binds.remove(.cpuModel) }
        if machine.unitID.isEmpty { binds.remove(.unitID) }
        return HardwareBinding(machine, binds: binds)
    }
}

extension Hardware {
    package init(_ report: HardwareReport) {
        self.init(
            cpuModel: report.cpuModel, logicalCPUsNumber: report.logicalCpusNumber, totalMemorySize: report.totalMemorySize,
            addressesIPv4: report.addressesIpv4, hostname: report.hostname, addressesIPv6: report.addressesIpv6 ?? [],
            unitKey: report.unitKey ?? "")
    }
}

extension LicenseRow {
    init(
        id: String, subscriptionId: Int64, unitId: String, issuerType: IssuerType, state: LicenseRowState, epoch: Int,
        issuedAt: Int, leaseExpiry: Int, machine: Hardware, address: String, unitKey: String = "", heldEpoch: Int = 0,
        askedAt: Int = 0
    ) {
        self.init(
            id: id, subscriptionId: subscriptionId, unitId: unitId, issuerType: issuerType, state: state, epoch: epoch,
            issuedAt: issuedAt, leaseExpiry: leaseExpiry, cpuModel: machine.cpuModel,
            logicalCpusNumber: machine.logicalCPUsNumber, totalMemorySize: machine.totalMemorySize, addressIpv4: address,
            unitKey: unitKey, heldEpoch: heldEpoch, askedAt: askedAt)
    }

    /// The machine that it is for.
    var machine: Hardware {
        Hardware(
            cpuModel: cpuModel, logicalCPUsNumber: logicalCpusNumber, totalMemorySize: totalMemorySize,
            addressesIPv4: addressIpv4.isEmpty ? [] : [addressIpv4], hostname: "")
    }

    mutating func set(_ machine: Hardware, address: String) {
        cpuModel = machine.cpuModel
        logicalCpusNumber = machine.logicalCPUsNumber
        totalMemorySize = machine.totalMemorySize
        addressIpv4 = address
    }

    /// The live licence of a unit, whosever it is; else the last one that was cancelled of this customer's.
    static func latest(ofUnit unitID: String, customerID: Int64, _ database: Database) throws -> LicenseRow? {
        try fetchOne(
            database,
            sql: """
                SELECT license.* FROM license JOIN subscription ON subscription.id = subscription_id
                WHERE unit_id = ? AND (state <> 'cancelled' OR customer_id = ?)
                ORDER BY state = 'cancelled', issued_at DESC, license.rowid DESC LIMIT 1
                """, arguments: [unitID, customerID])
    }
}

extension Subscription {
    package var seats: PerType<Int> { PerType(furl: seatsFurl, fnbi: seatsFnbi, fcas: seatsFcas) }

    package var modelMax: PerType<Int> {
        func resolved(_ max: Int, _ sold: Int) -> Int { max == 0 ? sold : max }
        return PerType(
            furl: resolved(modelMaxFurl, seatsFurl), fnbi: resolved(modelMaxFnbi, seatsFnbi),
            fcas: resolved(modelMaxFcas, seatsFcas))
    }

    func freeUnits(_ database: Database) throws -> Int {
        let used = try Int.fetchOne(
            database, sql: "SELECT count(*) FROM license WHERE subscription_id = ? AND state <> 'cancelled'", arguments: [id])
        return units - (used ?? 0)
    }
}
