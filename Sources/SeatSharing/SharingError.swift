// What can be wrong with what others wrote, and with settings: what was found, and what was expected.

/// Why something is not acted upon. None of it ever changes what is enforced.
package enum SharingError: Error, Equatable, Sendable {
    /// A key that is not of this pool's members.
    case foreignKey(key: String, expected: String)
    /// The value is longer than any row.
    case tooLarge(key: String, bytes: Int, limit: Int)
    /// The value is no JSON, or stops short.
    case malformed(key: String, at: Int, found: String, expected: String)
    /// The row is of a protocol that this program does not speak.
    case version(key: String, found: String, expected: Int)
    /// The row belongs to another licence's pool.
    case cluster(key: String, found: String, expected: String)
    /// The row names another unit than its key.
    case serial(key: String, found: String, expected: String)
    /// The row is of units that share in another way.
    case mode(key: String, found: String, expected: String)
    /// A member is missing, unknown, of the wrong type or out of range.
    case field(key: String, name: String, found: String, expected: String)
    /// Nothing vouches for the row: its form, its licence, or the signature of the licence's key.
    case unproven(key: String, reason: String)
    /// A row from before one that was read: somebody has put it there again.
    case old(key: String)
    /// Seats of another unit stand for another number of sessions.
    case factor(serial: String, found: Int, expected: Int)
    /// More than one unit calls itself the root: nobody's preferences count.
    case twoRoots([String])
    /// More than one unit calls itself the primary: nothing is lent.
    case twoPrimaries([String])
    /// An answer older than one that was read before.
    case oldRevision(found: Int, expected: Int)
    /// Somebody else writes this unit's row: a copy of it is running.
    case foreignRow(serial: String, found: String, expected: String)
    /// A setting is out of range.
    case policy(found: String, expected: String)
    case setting(name: String, found: String, expected: String)
}

extension SharingError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .foreignKey(let key, let expected): "\(Self.quote(key)): no member's key, expected \(expected)"
        case .tooLarge(let key, let bytes, let limit): "\(Self.quote(key)): \(bytes) bytes, expected at most \(limit)"
        case .malformed(let key, let at, let found, let expected):
            "\(Self.quote(key)): found \(found) at byte \(at), expected \(expected)"
        case .version(let key, let found, let expected):
            "\(Self.quote(key)): found protocol version \(found), expected \(expected)"
        case .cluster(let key, let found, let expected):
            "\(Self.quote(key)): a row of pool \(Self.quote(found)), expected \(Self.quote(expected))"
        case .serial(let key, let found, let expected):
            "\(Self.quote(key)): a row of unit \(Self.quote(found)), expected \(Self.quote(expected))"
        case .mode(let key, let found, let expected): "\(Self.quote(key)): shares by \(found), expected \(expected)"
        case .field(let key, let name, let found, let expected):
            "\(Self.quote(key)): \(name): found \(found), expected \(expected)"
        case .unproven(let key, let reason): "\(Self.quote(key)): \(reason)"
        case .old(let key): "\(Self.quote(key)): found a row from before one that was read, expected what follows it"
        case .factor(let serial, let found, let expected):
            "\(Self.quote(serial)): found \(found) sessions a seat, expected \(expected) as here: no seats are shared with it"
        case .twoRoots(let serials):
            "found \(serials.count) roots (\(serials.joined(separator: ", "))), expected one: no preferred seats count"
        case .twoPrimaries(let serials):
            "found \(serials.count) primary units (\(serials.joined(separator: ", "))), expected one: nothing is lent"
        case .oldRevision(let found, let expected): "an answer of revision \(found), expected \(expected) or later"
        case .foreignRow(let serial, let found, let expected):
            "the row of this unit, \(Self.quote(serial)), was written by \(found), expected \(expected): a copy of this unit runs, and "
                + "this one uses no seats"
        case .policy(let found, let expected): "policy: found \(Self.quote(found)), expected \(expected)"
        case .setting(let name, let found, let expected): "\(name): found \(Self.quote(found)), expected \(expected)"
        }
    }

    /// At most 64 characters, in quotes, nothing that moves a terminal: it may come from anybody.
    static func quote(_ text: String) -> String {
        let scalars = text.unicodeScalars
        let shown = scalars.prefix(64).map { scalar in
            scalar.isASCII && scalar.value >= 0x20 && scalar.value != 0x7F && scalar != "\"" && scalar != "\\"
                ? String(scalar) : "\\u{\(String(scalar.value, radix: 16))}"
        }
        return "\"" + shown.joined() + "\"" + (scalars.dropFirst(64).isEmpty ? "" : "...")
    }
}
