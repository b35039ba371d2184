// Why the authority does not do what it is asked: what was found, and what was expected.

import Foundation
import GRDB
import Licensing

package enum AuthorityError: Error, Equatable {
    /// The database cannot be opened, read or written, or is not one of ours.
    case database(path: String, found: String)
    /// There is no such thing.
    case absent(what: String, found: String)
    /// A value that is not allowed.
    case invalid(name: String, found: String, expected: String)
    /// A thing in a state in which this cannot be done.
    case state(what: String, found: String, expected: String)
    /// The ledger, or what it should agree with, is not what was written.
    case ledger(row: String, found: String, expected: String)
    /// A key, or a file.
    case licensing(LicensingError)
    /// The certificates of the server.
    case tls(path: String, found: String, expected: String)
}

extension AuthorityError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .database(let path, let found): "\(path): \(found)"
        case .absent(let what, let found): "there is no \(what) \(found)"
        case .invalid(let name, let found, let expected): "\(name): found \(found), expected \(expected)"
        case .state(let what, let found, let expected), .ledger(let what, let found, let expected):
            "\(what): found \(found), expected \(expected)"
        case .licensing(let error): error.description
        case .tls(let path, let found, let expected): "\(path): found \(found), expected \(expected)"
        }
    }

    /// Any error as one of ours.
    static func of(_ error: any Error, database path: String) -> AuthorityError {
        switch error {
        case let error as AuthorityError: error
        case let error as LicensingError: .licensing(error)
        case let error as DatabaseError: .database(path: path, found: error.message ?? "\(error.resultCode)")
        default: .database(path: path, found: "\(error)")
        }
    }
}
