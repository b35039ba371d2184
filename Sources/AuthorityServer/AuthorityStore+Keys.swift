// Keys: which of them signs at present, and which the units are told to trust.
//
// A new key is announced at once and signs after the overlap. By then every unit that is in touch trusts it, so none ever sees
// a signature that it cannot check. A key that signs no more is announced until it is retired.

import AuthorityAPI
import Foundation
import GRDB
import Licensing

/// The keys at one moment.
package struct KeyRing: Equatable, Sendable {
    package var signing: String
    /// Not retired, oldest first.
    package var announced: [LeaseAnswer.Key]
}

extension AuthorityStore {
    /// Makes a key that signs after the overlap; the first key signs at once.
    ///
    /// - Parameters:
    ///   - kid: of a pair that lies in the folder of keys; nil: a new one, named after the day.
    ///   - creates: whether `kid` is that of a pair to be made: a name that is mistyped must not make one.
    ///   - overlapSeconds: 0 or more.
    /// - Throws: `state` for a key that is known already, or not there; `invalid`, `licensing`, `database`.
    package func rotateKey(
        kid: String? = nil, creates: Bool = false, overlapSeconds: Int
    ) async throws(AuthorityError) -> KeyRow {
        let now = now
        let known = try await read { try String.fetchAll($0, sql: "SELECT kid FROM signing_key") }
        if let kid, known.contains(kid) { throw Self.isInUse(kid) }
        // One that is named after the day may lie there already: of a rotation that a crash cut short.
        let isThere: Bool? = kid == nil ? nil : !creates
        let kid = kid ?? Self.newKeyID(now: now, known: known)
        let pem = try publicPEM(kid, isThere: isThere)
        return try await write { database in
            if try KeyRow.exists(database, key: kid) { throw Self.isInUse(kid) }
            let isFirst = try KeyRow.fetchCount(database) == 0
            let row = KeyRow(
                kid: kid, pem: pem, createdAt: now, signsFrom: isFirst ? now : now + overlapSeconds, retiredAt: nil)
            try row.insert(database)
            try Ledger.append("key.added", row, by: self.user, at: now, in: database)
            return row
        }
    }

    /// Makes a first key where there is none; returns it if so.
    package func makeFirstKey() async throws(AuthorityError) -> KeyRow? {
        guard try await keys().isEmpty else { return nil }
        return try await rotateKey(overlapSeconds: 0)
    }

    /// Announces a key no longer: units forget it with their next lease, but for one in their operator's folder.
    /// - Throws: `absent`; `state` for the key that signs, now or later; `database`.
    package func retireKey(_ kid: String) async throws(AuthorityError) -> KeyRow {
        let now = now
        return try await write { database in
            guard var row = try KeyRow.fetchOne(database, key: kid) else {
                throw AuthorityError.absent(what: "key", found: kid)
            }
            if row.retiredAt != nil {
                throw AuthorityError.state(what: "key \(kid)", found: "a retired key", expected: "one that is announced")
            }
            if try row.signsFrom > now || Self.ring(database, now: now)?.signing == kid {
                throw AuthorityError.state(
                    what: "key \(kid)", found: "the key that signs\(row.signsFrom > now ? " next" : "")",
                    expected: "one that another key has followed")
            }
            row.retiredAt = now
            try row.update(database)
            try Ledger.append("key.retired", row, by: self.user, at: now, in: database)
            return row
        }
    }

    /// After a theft: a new key signs at once, and the stolen one is announced no longer. Answers that are kept go, as they
    /// announce it: whoever asks again is answered anew.
    /// - Throws: `absent`; `state` for a key that is retired already; `licensing`, `database`.
    package func replaceStolenKey(_ kid: String) async throws(AuthorityError) -> (new: KeyRow, offline: Int) {
        let now = now
        let known = try await read { try String.fetchAll($0, sql: "SELECT kid FROM signing_key") }
        guard known.contains(kid) else { throw .absent(what: "key", found: kid) }
        let new = Self.newKeyID(now: now, known: known)
        let pem = try publicPEM(new, isThere: nil)
        return try await write { database in
            guard var stolen = try KeyRow.fetchOne(database, key: kid), stolen.retiredAt == nil else {
                throw AuthorityError.state(what: "key \(kid)", found: "a retired key", expected: "one that is announced")
            }
            let row = KeyRow(kid: new, pem: pem, createdAt: now, signsFrom: now, retiredAt: nil)
            try row.insert(database)
            try Ledger.append("key.added", row, ["in_place_of": .string(kid)], by: self.user, at: now, in: database)
            stolen.retiredAt = now
            try stolen.update(database)
            try Ledger.append("key.stolen", stolen, by: self.user, at: now, in: database)
            // A key that was to sign later could else come before the new one, within this second.
            guard try Self.ring(database, now: now)?.signing == new else {
                throw AuthorityError.state(
                    what: "key \(new)", found: "another key that signs", expected: "this one; ask again in a second")
            }
            try database.execute(sql: "DELETE FROM answer")
            let offline = try Int.fetchOne(
                database, sql: "SELECT count(*) FROM license WHERE issuer_type = 'offline' AND state = 'active'")
            return (row, offline ?? 0)
        }
    }

    /// All keys, oldest first.
    package func keys() async throws(AuthorityError) -> [KeyRow] {
        try await read { try KeyRow.fetchAll($0, sql: "SELECT * FROM signing_key ORDER BY signs_from, created_at, kid") }
    }

    /// The key that vouches for answers now.
    /// - Throws: `state` where there is none, `licensing` where its private half cannot be read, `database`.
    package func signingKey() async throws(AuthorityError) -> SigningKey {
        let now = now
        guard let ring = try await read({ try Self.ring($0, now: now) }) else { throw Self.noKey }
        return try privateKey(ring.signing)
    }

    static let noKey = AuthorityError.state(
        what: "keys", found: "none that signs", expected: "one; `keys rotate` makes the first")

    static func ring(_ database: Database, now: Int) throws -> KeyRing? {
        let keys = try KeyRow.fetchAll(
            database, sql: "SELECT * FROM signing_key WHERE retired_at IS NULL ORDER BY signs_from, created_at, kid")
        // A clock set back to before the first key signs with that one all the same.
        guard let signing = keys.last(where: { $0.signsFrom <= now }) ?? keys.first else { return nil }
        return KeyRing(signing: signing.kid, announced: keys.map { LeaseAnswer.Key(kid: $0.kid, pem: $0.pem) })
    }

    private static func newKeyID(now: Int, known: [String]) -> String {
        let day = "k" + Timestamp.day(now)
        var names = sequence(first: 2) { $0 + 1 }.lazy.map { "\(day)-\($0)" }.makeIterator()
        var name = day
        while known.contains(name), let next = names.next() { name = next }
        return name
    }

    private static func isInUse(_ kid: String) -> AuthorityError {
        .state(what: "key \(kid)", found: "a key that is in use", expected: "a new one")
    }

    /// The public half of the pair in the folder.
    /// - Parameter isThere: whether the pair must be there, or must not be there and is made; nil: it is made where there is
    ///   none.
    private func publicPEM(_ kid: String, isThere: Bool?) throws(AuthorityError) -> String {
        guard KeyFile.isID(kid) else {
            throw .invalid(
                name: "key id", found: "\"\(kid)\"", expected: "1 to 64 letters, digits, `-`, `_` and `.`, no `.` first")
        }
        let file = "\(keysFolder)/\(kid)"
        do throws(LicensingError) {
            if isThere != false, access(file + ".key", F_OK) == 0 { return try SigningKey(path: file + ".key").publicPEM }
            if isThere == true {
                throw LicensingError.key(
                    path: file + ".key", found: "no such file", expected: "a pair in the folder of keys, or --new to make one")
            }
            try KeyFile.create(try SigningKey(id: kid), folder: keysFolder)
            return try KeyFile.publicPEM(file + ".pem")
        } catch { throw .licensing(error) }
    }
}

extension KeyFile {
    /// Writes KID.key, readable by its owner alone, and KID.pem into a folder, which is made where it is missing.
    /// - Throws: `exists`, `system`.
    package static func create(_ key: SigningKey, folder: String) throws(LicensingError) {
        try StoredFile.makeFolder(folder)
        let file = "\(folder)/\(key.id)"
        // Looked at first, so that a public key that is there already leaves no private key without its half.
        if access(file + ".pem", F_OK) == 0 { throw .exists(path: file + ".pem") }
        try StoredFile.create(Array(key.privatePEM.utf8), at: file + ".key", mode: 0o600)
        try StoredFile.create(Array(key.publicPEM.utf8), at: file + ".pem", mode: 0o644)
    }
}
