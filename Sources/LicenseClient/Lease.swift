// Lease: what is asked for, and whether what came may be taken.

import AuthorityAPI
import ControlAPI
import Foundation
import Licensing

extension HardwareReport {
    /// What could not be read is empty or 0.
    package init(_ hardware: Hardware?) {
        self.init(
            cpuModel: hardware?.cpuModel ?? "", logicalCpusNumber: hardware?.logicalCPUsNumber ?? 0,
            totalMemorySize: hardware?.totalMemorySize ?? 0, addressesIpv4: hardware?.addressesIPv4 ?? [],
            hostname: hardware?.hostname ?? "", unitKey: hardware.flatMap { $0.unitKey.isEmpty ? nil : $0.unitKey },
            addressesIpv6: hardware?.addressesIPv6 ?? [])
    }
}

/// A lease that may be taken.
struct Lease: Sendable {
    let license: License
    let externalAddress: String
    let reissuesLeft: Int
    let clonedAt: Int?

    static let keysMax = 64

    /// What the authority announces: keys, and no other ones than the operator's of their ids.
    static func keys(in answer: LeaseAnswer, trusted: TrustedKeys) throws(LicenseClientError) -> TrustedKeys {
        guard answer.keys.count <= keysMax else {
            throw .member(name: "keys", found: "\(answer.keys.count)", expected: "at most \(keysMax)")
        }
        var keys = TrustedKeys(paths: [])
        var all = trusted
        do {
            for key in answer.keys {
                try all.add(id: key.kid, pem: key.pem)
                try keys.add(id: key.kid, pem: key.pem)
            }
        } catch { throw .license(error) }
        return keys
    }

    /// Checks all that the seal does not tell: that the licence is genuine by the keys that count from now on, for now and this
    /// machine, and the next one of the one in hand.
    /// - Parameter trusted: the operator's keys.
    init(_ answer: LeaseAnswer, trusted: TrustedKeys, keeper: LicenseKeeper) async throws(LicenseClientError) {
        guard Self.isAddress(answer.externalAddress) else {
            throw .member(
                name: "external_address", found: JSONValue.string(answer.externalAddress).description,
                expected: "an IP address")
        }
        guard (0...1_000_000).contains(answer.reissuesLeft) else {
            throw .member(name: "reissues_left", found: "\(answer.reissuesLeft)", expected: "a number from 0 to 1000000")
        }
        do {
            // What was announced before and is not any more does not count any more.
            var trusted = trusted
            for key in answer.keys { try trusted.add(id: key.kid, pem: key.pem) }
            license = try await LicenseToken.verify(Array(answer.license.utf8), with: trusted)
            try keeper.check(license)
        } catch {
            throw .license(error)
        }
        externalAddress = answer.externalAddress
        reissuesLeft = answer.reissuesLeft
        clonedAt = answer.clonedAt.map { min(max($0, Timestamp.range.lowerBound), Timestamp.range.upperBound) }
        if let held = keeper.held { try Self.check(license, follows: held, isInForce: keeper.status().isValid) }
    }

    /// A licence in force is extended, never exchanged for another; one that is not may give way to any.
    private static func check(_ license: License, follows held: License, isInForce: Bool) throws(LicenseClientError) {
        let (new, old) = (license.claims, held.claims)
        guard new.licenseID == old.licenseID else {
            if isInForce { throw .otherLicense(found: new.licenseID, expected: old.licenseID) }
            return
        }
        if new.epoch < old.epoch { throw .license(.superseded(id: new.licenseID, found: new.epoch, known: old.epoch)) }
        if new.epoch == old.epoch, license.token != held.token { throw .otherText(id: new.licenseID, epoch: new.epoch) }
    }

    private static func isAddress(_ text: String) -> Bool {
        var space = in6_addr()
        return inet_pton(AF_INET, text, &space) == 1 || inet_pton(AF_INET6, text, &space) == 1
    }
}
