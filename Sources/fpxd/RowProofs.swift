// RowProofs: the rows of a pool as they lie in etcd: signed, with the licence that names the key.
//
// A value is a token (SignedToken) of two members: `row`, the row's text, and `license`, the token of the licence of the unit that has
// written it. The licence is checked by the keys that this host trusts, the token by the key that the licence names, its `cnf`.

import Basics
import Etcd
import Foundation
import Licensing
import SeatSharing

actor RowProofs {
    /// What a value is, whenever it is read.
    private struct Known {
        let value: [UInt8]
        /// The row's text and its licence's, or why nothing vouches for it.
        let content: Result<(row: [UInt8], license: String), SharingError>
    }

    /// A licence, or why it is none that vouches for rows.
    private typealias Checked = Result<(claims: LicenseClaims, key: TrustedKeys), LicensingError>

    /// The longest row and a licence, signed.
    private static let bytesMax = 2 * Row.bytesMax + LicenseToken.bytesMax
    private static let keysReadEvery: Nanoseconds = 10 * .second

    private let readKeys: @Sendable () -> TrustedKeys
    private var keys = TrustedKeys(paths: [])
    private var keysReadAt = Instant(.min)
    private var licenses: [String: Checked] = [:]
    private var known: [String: Known] = [:]

    /// - Parameter readKeys: whose licences count.
    init(readKeys: @escaping @Sendable () -> TrustedKeys) { self.readKeys = readKeys }

    /// The value of a row.
    ///
    /// - Parameter license: the token of the licence in force.
    static func sign(_ row: Row, license: String, with key: SigningKey) async throws(LicensingError) -> [UInt8] {
        let members: [String: JSONValue] = [
            "row": .string(String(decoding: row.encoded, as: UTF8.self)), "license": .string(license),
        ]
        return Array(try await SignedToken.sign(members, as: .row, with: key).utf8)
    }

    /// What of the values is proven. Values that have not changed are not checked again; licences are, as keys come and go.
    func check(_ values: [PoolValue]) async -> [KeyValue] {
        if Clock.now - keysReadAt >= Self.keysReadEvery {
            keysReadAt = Clock.now
            keys = readKeys()
            licenses = [:]
        }
        var checked: [KeyValue] = []
        var present: [String: Known] = [:]
        for value in values {
            var entry = known[value.key]
            // Not by revision: an etcd that was restored gives the same one twice.
            if entry?.value != value.value {
                entry = Known(value: value.value, content: await content(of: value))
            }
            present[value.key] = entry
            checked.append(await proven(value, entry))
        }
        known = present
        let inUse = Set(present.values.compactMap { try? $0.content.get().license })
        licenses = licenses.filter { inUse.contains($0.key) }
        return checked
    }

    private func proven(_ value: PoolValue, _ entry: Known?) async -> KeyValue {
        var row: [UInt8] = []
        let proof: Result<Proof, SharingError>
        do throws(SharingError) {
            guard let content = try entry?.content.get() else { throw .old(key: value.key) }
            row = content.row
            let claims: LicenseClaims
            do throws(LicensingError) { claims = try await license(content.license).get().claims } catch {
                throw .unproven(key: value.key, reason: "\(error)")
            }
            let left = Nanoseconds(clamping: claims.end) - Nanoseconds(Date.now.timeIntervalSince1970)
            let (nanoseconds, isEndless) = left.multipliedReportingOverflow(by: .second)
            proof = .success(
                Proof(
                    serial: claims.licenseID, purchased: SharedSeats.seats { claims.seats[$0] },
                    modelMax: SharedSeats.seats { claims.modelMax[$0] }, sessionsPerSeat: claims.sessionsPerSeat,
                    until: isEndless ? .forever : Clock.now + nanoseconds))
        } catch {
            proof = .failure(error)
        }
        return KeyValue(key: value.key, value: row, revision: value.revision, proof: proof)
    }

    private func content(of value: PoolValue) async -> Result<(row: [UInt8], license: String), SharingError> {
        do throws(SharingError) {
            return .success(try await verified(value))
        } catch {
            return .failure(error)
        }
    }

    private func verified(_ value: PoolValue) async throws(SharingError) -> (row: [UInt8], license: String) {
        guard value.value.count <= Self.bytesMax else {
            throw .tooLarge(key: value.key, bytes: value.value.count, limit: Self.bytesMax)
        }
        // Rows of releases before this one.
        if value.value.first == UInt8(ascii: "{") {
            throw .version(key: value.key, found: "of rows that nobody has signed", expected: Row.version)
        }
        do throws(LicensingError) {
            let parts = try SignedToken.split(value.value)
            let license = try JSONReader((try? JSONValue.object(in: parts.payload)) ?? [:]).string("license")
            let key = try await self.license(license).get().key
            // What was read before is not what the key vouches for.
            let reader = JSONReader(try await SignedToken.verify(value.value, as: .row, with: key).members)
            return (Array(try reader.string("row").utf8), try reader.string("license"))
        } catch {
            throw .unproven(key: value.key, reason: "\(error)")
        }
    }

    private func license(_ token: String) async -> Checked {
        if let known = licenses[token] { return known }
        let checked: Checked
        do throws(LicensingError) {
            let claims = try await LicenseToken.verify(Array(token.utf8), with: keys).claims
            if claims.notBefore > Timestamp.seconds(Date.now) + ClockWitness.toleranceSeconds {
                throw .notYetValid(from: claims.notBefore)
            }
            guard let unit = claims.unitKey else {
                throw .claim(name: "cnf", found: "none in licence \(claims.licenseID)", expected: "the unit's key")
            }
            checked = .success((claims, TrustedKeys(unit: unit)))
        } catch {
            checked = .failure(error)
        }
        licenses[token] = checked
        return checked
    }
}
