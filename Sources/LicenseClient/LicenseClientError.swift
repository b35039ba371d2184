// Why no lease came: what was found, and what was expected.

import AuthorityAPI
import Foundation
import Licensing

/// What can be wrong with a question to the authority and its answer. None of these changes anything.
package enum LicenseClientError: Error, Equatable {
    /// A setting, or a file that one names, is not what it must be.
    case setting(name: String, found: String, expected: String)
    /// The hardware cannot be read, so there is nothing to ask a licence for.
    case hardware
    // No answer.
    case unreachable(authority: String, reason: String)
    /// The authority's certificate is not one that we trust.
    case certificate(authority: String, reason: String)
    /// The authority does not accept our certificate, or misses it.
    case ownCertificate(authority: String, reason: String)
    case timeout(authority: String, seconds: Int)
    /// It began to answer and did not end, or not in HTTP.
    case broken(authority: String, reason: String)
    case tooLarge(limit: Int)
    // An answer, and not one to believe.
    /// Nobody vouches for it: it is not the authority's, but that of something on the way.
    case unsealed(status: Int)
    case seal(AnswerError)
    /// The authority's time is far from ours; both in seconds since 1970.
    case clock(authority: Int, unit: Int)
    /// It is genuine, and not what the contract says.
    case body(found: String, expected: String)
    case member(name: String, found: String, expected: String)
    // A genuine answer.
    case refused(code: AuthorityRefusal, message: String, retryAfter: Int?)
    /// The licence in it is not to be taken.
    case license(LicensingError)
    case otherLicense(found: String, expected: String)
    /// The same epoch as the one in hand, and another text.
    case otherText(id: String, epoch: Int)
    /// It was good, and could not be kept.
    case store(LicensingError)
}

extension LicenseClientError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .setting(let name, let found, let expected), .member(let name, let found, let expected):
            "\(name): found \(found), expected \(expected)"
        case .hardware: "found hardware that cannot be read, expected one to ask a licence for"
        case .unreachable(let authority, let reason): "\(authority) is out of reach: \(reason)"
        case .certificate(let authority, let reason):
            "\(authority): certificate not trusted: set authority-ca (\(reason))"
        case .ownCertificate(let authority, let reason):
            "\(authority): our certificate is not accepted: set authority-certificate (\(reason))"
        case .timeout(let authority, let seconds): "\(authority): found no whole answer, expected one within \(seconds) seconds"
        case .broken(let authority, let reason):
            "\(authority): found an answer that breaks off (\(reason)), expected a whole one"
        case .tooLarge(let limit): "found an answer of more than \(limit) bytes, expected at most that"
        case .unsealed(let status):
            "found an answer (status \(status)) without \(AuthorityHeader.answer), expected a signed one"
        case .seal(let error): "found an answer that is not to be believed: \(error)"
        case .clock(let authority, let unit):
            "found the authority's clock at \(Timestamp.text(authority)) and ours at \(Timestamp.text(unit)), "
                + "expected at most \(ClockWitness.toleranceSeconds) seconds between them"
        case .body(let found, let expected): "body: found \(found), expected \(expected)"
        case .refused(let code, let message, _): "the authority refuses (\(code.rawValue)): \(message)"
        case .license(let error): "found a licence that is not to be taken: \(error)"
        case .otherLicense(let found, let expected): "jti: found licence \(found), expected \(expected), which is in force"
        case .otherText(let id, let epoch):
            "licence \(id): found another licence of epoch \(epoch), expected the one in hand or a later epoch"
        case .store(let error): "the licence cannot be kept: \(error)"
        }
    }
}
