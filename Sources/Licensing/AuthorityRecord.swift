// What a unit remembers of its authority: when it last heard of it, what was refused, which question is open, and the latest
// epoch of each licence that was in force here.
//
// A damaged file falls back to the one before it, and then to nothing. That stops nobody and frees a suspended unit at most
// until its next question, which it asks at its next start. Of the epochs the last good copy and the one before it remain
// then.

import Foundation

package struct AuthorityRecord: Equatable, Sendable {
    /// A signed refusal that ends a lease.
    package struct Refusal: Equatable, Sendable {
        /// The licence that the unit held; nil: none, so the refusal is for whatever it may find.
        package var licenseID: String?
        package var kind: Kind
        /// The authority's time.
        package var at: Int

        package enum Kind: String, CaseIterable, Sendable {
            case suspended, cancelled
            /// Another process goes on with this unit's key and licence, and this one is behind it.
            case cloned
        }

        package init(licenseID: String?, kind: Kind, at: Int) {
            self.licenseID = licenseID
            self.kind = kind
            self.at = at
        }

        /// A licence that was issued later shows that the refusal is over.
        package func ends(_ claims: LicenseClaims) -> Bool {
            (licenseID ?? claims.licenseID) == claims.licenseID && at >= claims.issuedAt
        }
    }

    /// A question that has no answer yet. Asked again in the same words and under the same id, it is the same question to the
    /// authority, after a restart too.
    package struct Question: Equatable, Sendable {
        package var id: String
        package var body: String
        package var askedAt: Int

        package init(id: String, body: String, askedAt: Int) {
            self.id = id
            self.body = body
            self.askedAt = askedAt
        }
    }

    /// What is remembered of a licence that was in force.
    package struct Epoch: Equatable, Sendable {
        /// The latest.
        package var number: Int
        /// The last end of any epoch that was in force: after that none of them can come back.
        package var end: Int
        /// Seats of it were shared with other units.
        package var wasShared = false
    }

    /// How many renewals can lie between an epoch that was in force here and the next one: years of daily ones. Further ahead
    /// is a number that somebody has made up, after which the authority's own would count as older.
    static let epochStepMax = 1000
    /// So many licences may be in force here that are not over yet.
    static let epochsMax = 256

    /// The authority's time in its last answer; 0: there was none.
    package var lastContact = 0
    /// The same, of its last lease.
    package var lastSuccess = 0
    package var refusal: Refusal?
    package var question: Question?
    /// The licence of the last lease.
    package var leaseID: String?
    /// Since when another process asks with this unit's key, as the authority says; nil: none does.
    package var clonedAt: Int?
    /// By licence id.
    package private(set) var epochs: [String: Epoch] = [:]

    package init() {}

    /// Whether a licence was in force here, or an authority has answered: then this unit is none that tries fpx for the first
    /// time.
    package var isOfALicensedUnit: Bool { lastContact > 0 || refusal != nil || !epochs.isEmpty }

    /// Remembers that a licence is in force. Where `epochsMax` are remembered one that is over goes, the one that ended first.
    /// - Throws: `claim` where none of them is over, or for an epoch that no renewals explain; `superseded` where a later one
    ///   was in
    ///   force.
    package mutating func note(_ claims: LicenseClaims, now: Int) throws(LicensingError) {
        let known = epochs[claims.licenseID]
        if let known, known.number > claims.epoch {
            throw .superseded(id: claims.licenseID, found: claims.epoch, known: known.number)
        }
        if let known, claims.issuerType == .automatic, claims.epoch > known.number + Self.epochStepMax {
            throw .claim(
                name: "epoch",
                found: "\(claims.epoch) after \(known.number) of licence \(claims.licenseID), more than renewals explain",
                expected: "at most \(known.number + Self.epochStepMax)")
        }
        if known == nil, epochs.count >= Self.epochsMax {
            guard let first = epochs.min(by: { ($0.value.end, $0.key) < ($1.value.end, $1.key) }), first.value.end <= now else {
                throw .claim(
                    name: "jti", found: "licence \(claims.licenseID) after \(epochs.count) others that are not over",
                    expected: "at most \(Self.epochsMax) on one unit")
            }
            epochs[first.key] = nil
        }
        epochs[claims.licenseID] = Epoch(
            number: claims.epoch, end: max(claims.end, known?.end ?? 0), wasShared: known?.wasShared ?? false)
    }

    /// Remembers that seats of a licence that was in force here are shared.
    package mutating func noteSharing(_ licenseID: String) { epochs[licenseID]?.wasShared = true }
}

extension AuthorityRecord {
    static let bytesMax = 64 << 10

    private var members: [String: JSONValue] {
        var members: [String: JSONValue] = ["last_contact": .integer(lastContact), "last_success": .integer(lastSuccess)]
        if let refusal {
            var fields: [String: JSONValue] = ["kind": .string(refusal.kind.rawValue), "at": .integer(refusal.at)]
            fields["license_id"] = refusal.licenseID.map(JSONValue.string)
            members["refusal"] = .object(fields)
        }
        if let question {
            members["question"] = .object([
                "id": .string(question.id), "body": .string(question.body), "asked_at": .integer(question.askedAt),
            ])
        }
        members["lease_id"] = leaseID.map(JSONValue.string)
        members["cloned_at"] = clonedAt.map(JSONValue.integer)
        if !epochs.isEmpty {
            members["epochs"] = .object(
                epochs.mapValues { epoch in
                    var fields: [String: JSONValue] = ["number": .integer(epoch.number), "end": .integer(epoch.end)]
                    if epoch.wasShared { fields["was_shared"] = .bool(true) }
                    return .object(fields)
                })
        }
        return members
    }

    /// The file's text. The sum tells a flipped digit, which would else be a time like any other.
    package var bytes: [UInt8] {
        var members = members
        members["sum"] = .integer(Self.sum(members))
        return Self.encode(members) + [UInt8(ascii: "\n")]
    }

    package init(bytes: [UInt8], path: String) throws(LicensingError) {
        guard var members = try? JSONValue.object(in: bytes) else {
            throw .damaged(
                path: path, found: "\(bytes.count) bytes that are no JSON object", expected: "a record of the authority")
        }
        do {
            let sum = members.removeValue(forKey: "sum")
            guard sum == .integer(Self.sum(members)) else {
                throw LicensingError.claim(
                    name: "sum", found: sum?.description ?? "nothing", expected: "\(Self.sum(members))")
            }
            let reader = JSONReader(members)
            lastContact = try reader.integer("last_contact", in: Timestamp.range)
            lastSuccess = try reader.integer("last_success", in: Timestamp.range)
            if reader.has("refusal") {
                let fields = try reader.object("refusal")
                refusal = Refusal(
                    licenseID: fields.has("license_id") ? try fields.string("license_id") : nil,
                    kind: try Self.kind(fields), at: try fields.integer("at", in: Timestamp.range))
            }
            if reader.has("question") {
                let fields = try reader.object("question")
                question = Question(
                    id: try fields.string("id"), body: try fields.string("body"),
                    askedAt: try fields.integer("asked_at", in: Timestamp.range))
            }
            if reader.has("lease_id") { leaseID = try reader.string("lease_id") }
            if reader.has("cloned_at") { clonedAt = try reader.integer("cloned_at", in: Timestamp.range) }
            if reader.has("epochs") {
                let epochs = try reader.object("epochs")
                for id in epochs.names {
                    let fields = try epochs.object(id)
                    self.epochs[id] = Epoch(
                        number: try fields.integer("number", in: LicenseClaims.numbers),
                        end: try fields.integer("end", in: Timestamp.range),
                        wasShared: fields.has("was_shared") ? try fields.bool("was_shared") : false)
                }
            }
        } catch {
            throw .damaged(path: path, found: "a record of the authority in which \(error)", expected: "an intact one")
        }
    }

    /// Files of before have no kind.
    private static func kind(_ reader: JSONReader) throws(LicensingError) -> Refusal.Kind {
        if reader.has("kind") { return try reader.choice("kind") }
        return try reader.bool("cancelled") ? .cancelled : .suspended
    }

    /// Reads the file, or the one before it where the file is damaged.
    /// - Returns: the record, and what was wrong on the way.
    package static func read(_ path: String) -> (record: AuthorityRecord, trouble: LicensingError?) {
        var trouble: LicensingError?
        for path in [path, StoredFile.previous(of: path)] {
            do {
                guard let bytes = try StoredFile.read(path, limit: bytesMax) else { break }
                return (try AuthorityRecord(bytes: bytes, path: path), trouble)
            } catch {
                trouble = trouble ?? error
            }
        }
        return (AuthorityRecord(), trouble)
    }

    private static func encode(_ members: [String: JSONValue]) -> [UInt8] {
        // Texts and whole numbers: what cannot be encoded is not among them.
        (try? JSONValue.encoder.encode(members)).map(Array.init) ?? []
    }

    /// FNV-1a, 32 bits, over the text without the sum.
    private static func sum(_ members: [String: JSONValue]) -> Int {
        Int(encode(members).reduce(UInt32(2_166_136_261)) { ($0 ^ UInt32($1)) &* 16_777_619 })
    }
}
