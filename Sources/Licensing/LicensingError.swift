// Why a licence, a key or a file of this module is refused: what was found, and what was expected.

import Foundation

/// What can be wrong with a licence and the files around it. Times are seconds since 1970, UTC.
///
/// None of them says what the clock shows, so that the reason for a state is the same text for as long as the state lasts.
package enum LicensingError: Error, Equatable {
    /// There is no file of that name.
    case absent(path: String)
    /// A system call failed.
    case system(call: String, path: String, code: Int32)
    /// The licence file has nothing in it.
    case empty
    /// The file is longer than any of its kind; it was not read to its end.
    case tooLarge(path: String?, bytes: Int, limit: Int)
    /// The file is not a token.
    case malformed(part: String, found: String, expected: String)
    /// The file begins as a token and stops short.
    case truncated(found: String, expected: String)
    /// The token is of another algorithm than the only one that counts here.
    case algorithm(found: String)
    /// No trusted key has the id that the token names.
    case unknownKey(found: String, trusted: [String])
    /// The signature is not by the key that the token names, over these bytes.
    case signature(keyID: String)
    /// The token is genuine, of a format that this program does not know.
    case version(found: String)
    /// A claim is missing, of the wrong type or out of range.
    case claim(name: String, found: String, expected: String)
    case notYetValid(from: Int)
    case expired(at: Int, isOffline: Bool)
    case paidUntilPassed(at: Int)
    /// Parts that the licence is bound to are different here.
    case hardware([HardwareMismatch])
    /// It is for the unit that has another key.
    case otherUnit(found: String, expected: String)
    /// The clock is behind a time that has been before.
    case clockRollback(latest: Int)
    /// There was a newer licence of the same id.
    case superseded(id: String, found: Int, known: Int)
    /// The authority refuses to extend a lease, and the lease in hand ends with it.
    case ended(id: String, kind: AuthorityRecord.Refusal.Kind, at: Int)
    /// A file is not the key that it should be.
    case key(path: String, found: String, expected: String)
    /// A file in the state folder, or one of hardware data, is damaged.
    case damaged(path: String, found: String, expected: String)
    /// The file is there already and is never replaced.
    case exists(path: String)
    /// What is wrong with the licence in this file.
    indirect case licenseFile(path: String, LicensingError)

    /// The state that a licence has for this reason.
    package var state: LicenseState {
        switch self {
        case .absent: .absent
        case .system, .exists, .damaged: .unreadable
        case .empty: .empty
        case .tooLarge: .tooLarge
        case .malformed: .malformed
        case .truncated: .truncated
        case .algorithm, .signature: .invalidSignature
        case .unknownKey, .key: .unknownKey
        case .version: .unsupportedVersion
        case .claim: .invalidClaims
        case .notYetValid: .notYetValid
        case .expired(_, let isOffline): isOffline ? .offlineExpired : .expired
        case .paidUntilPassed: .paidUntilPassed
        case .hardware: .hardwareMismatch
        case .otherUnit: .otherUnit
        case .clockRollback: .clockRollback
        case .superseded: .superseded
        case .ended(_, let kind, _): kind == .cloned ? .cloned : .suspended
        case .licenseFile(_, let error): error.state
        }
    }

    /// Whether it is the file that is wrong: to put another one in its place, or none, helps. What the system refuses for other
    /// reasons (no descriptor or memory left, no permission, a disk that fails) says nothing about the file.
    package var isOfTheFile: Bool {
        if case .system(_, _, let code) = self { [ELOOP, ENXIO, ENODEV].contains(code) } else { true }
    }

    /// The same with the file that it is about, where it does not name one itself.
    package func inLicenseFile(_ path: String) -> LicensingError {
        switch self {
        case .absent, .system, .damaged, .key, .exists, .licenseFile: self
        case .tooLarge(_, let bytes, let limit): .tooLarge(path: path, bytes: bytes, limit: limit)
        default: .licenseFile(path: path, self)
        }
    }
}

extension LicensingError: CustomStringConvertible {
    /// What is there is no licence at all, or not a whole one.
    private var isOfForm: Bool {
        switch self {
        case .empty, .malformed, .truncated: true
        default: false
        }
    }

    package var description: String {
        switch self {
        case .absent(let path):
            "\(path): there is no such file"
        case .system(let call, let path, let code):
            "\(path): \(call) failed: \(String(cString: strerror(code)))"
        case .empty:
            "found an empty file, expected a licence"
        case .tooLarge(let path, let bytes, let limit):
            (path.map { $0 + ": " } ?? "") + "found \(bytes) bytes, expected at most \(limit)"
        case .malformed(let part, let found, let expected), .claim(let part, let found, let expected):
            "\(part): found \(found), expected \(expected)"
        case .truncated(let found, let expected):
            "the file is cut short: found \(found), expected \(expected)"
        case .algorithm(let found):
            "alg: found \(found), expected \"EdDSA\""
        case .unknownKey(let found, let trusted):
            "kid: found \(found), expected "
                + (trusted.isEmpty ? "a trusted key, and there are none" : "one of \(trusted.joined(separator: ", "))")
        case .signature(let keyID):
            "found a signature that key \(keyID) did not make over these bytes, expected its own"
        case .version(let found):
            "ver: found \(found), expected \(LicenseClaims.version)"
        case .notYetValid(let from):
            "found a lease from \(Timestamp.text(from)), expected one that has begun"
        case .expired(let at, let isOffline):
            "found a lease until \(isOffline ? Timestamp.endText(at) : Timestamp.text(at)), expected one that is not over"
        case .paidUntilPassed(let at):
            "found a licence paid until \(Timestamp.endText(at)), expected one that is paid for now"
        case .hardware(let mismatches):
            mismatches.map(\.description).joined(separator: "; ")
        case .otherUnit(let found, let expected):
            "found \(found.isEmpty ? "a unit without a key" : "the unit of key \(found)"), expected that of key \(expected)"
        case .clockRollback(let latest):
            "found a clock that was set back, to before \(Timestamp.text(latest)), expected it to be later; if the clock was ahead "
                + "before and is right now, remove `clock` in the state folder, then `fpx commit`"
        case .superseded(let id, let found, let known):
            "licence \(id): found epoch \(found), expected \(known) or later"
        case .ended(let id, .cloned, let at):
            "licence \(id): found another unit that goes on with this unit's key and licence, said the authority at "
                + "\(Timestamp.text(at)), expected one; a copy or an old backup of the state folder runs: settle it with the "
                + "authority, then `fpx commit`"
        case .ended(let id, let kind, let at):
            "licence \(id): found it \(kind.rawValue) by the authority at \(Timestamp.text(at)), expected it in force; "
                + (kind == .cancelled
                    ? "ask the authority for another one" : "settle it with the authority, then `fpx commit` fetches a lease")
        case .key(let path, let found, let expected), .damaged(let path, let found, let expected):
            "\(path): found \(found), expected \(expected)"
        case .exists(let path):
            "\(path): there is such a file already, and it is not overwritten; take another name"
        case .licenseFile(let path, let error):
            error.isOfForm ? "\(path) is not a licence (\(error.state.rawValue)): \(error)" : "\(path): \(error)"
        }
    }
}
