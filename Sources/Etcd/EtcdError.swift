// Why a call to etcd failed: what was found, what was expected, and whether it may have changed something.

/// What can be wrong with a call and its answer. But for `outcomeUnknown` and `otherCluster`, nothing was changed.
package enum EtcdError: Error, Equatable {
    /// A setting, or a file that one names, is not what it must be.
    case setting(name: String, found: String, expected: String)
    // No answer.
    case unreachable(endpoint: String, reason: String)
    /// The endpoint's certificate, or ours, is not accepted.
    case certificate(endpoint: String, reason: String)
    case timeout(endpoint: String, milliseconds: Int)
    /// The connection broke, or what came is not HTTP.
    case broken(endpoint: String, reason: String)
    /// An answer that etcd does not give.
    case answer(endpoint: String, found: String, expected: String)
    /// A change was sent, and nobody can say what became of it: it may also take effect later.
    case outcomeUnknown(endpoint: String, reason: String)
    // Refusals.
    /// The member cannot answer: it has no leader or no quorum, or it stops.
    case unavailable(endpoint: String, reason: String)
    case notAuthenticated(user: String, reason: String)
    case denied(user: String, reason: String)
    /// The database has grown to its quota: etcd takes no more.
    case noSpace(endpoint: String)
    /// - Parameter revision: the oldest that can be asked for; 0 where etcd does not say.
    case compacted(revision: Int)
    case leaseNotFound
    /// Any other: code and message are etcd's.
    case refused(endpoint: String, code: Int, message: String)
    /// A change that was sent may have taken effect in the other cluster.
    case otherCluster(found: UInt64, expected: UInt64)
    /// The task was cancelled before anything was sent, or while it asked for something.
    case cancelled

    /// Whether what was to be changed may have been changed.
    package var isOutcomeUnknown: Bool {
        switch self {
        case .outcomeUnknown, .otherCluster: true
        default: false
        }
    }
}

extension EtcdError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .setting(let name, let found, let expected): "\(name): found \(found), expected \(expected)"
        case .unreachable(let endpoint, let reason): "\(endpoint) is out of reach: \(reason)"
        case .certificate(let endpoint, let reason): "\(endpoint): found no way to speak TLS with it: \(reason)"
        case .timeout(let endpoint, let milliseconds): "\(endpoint): found no answer, expected one within \(milliseconds) ms"
        case .broken(let endpoint, let reason):
            "\(endpoint): found an answer that breaks off (\(reason)), expected a whole one"
        case .answer(let endpoint, let found, let expected): "\(endpoint): found \(found) in the answer, expected \(expected)"
        case .outcomeUnknown(let endpoint, let reason): "\(endpoint): what became of a change is unknown: \(reason)"
        case .unavailable(let endpoint, let reason): "\(endpoint) cannot answer: \(reason)"
        case .notAuthenticated(let user, let reason):
            user.isEmpty
                ? "found no user for an etcd that wants one (\(reason)), expected sharing-user"
                : "user \(user): found no password that etcd takes (\(reason)), expected the user's"
        case .denied(let user, let reason):
            "user \(user.isEmpty ? "(none)" : user): found no right to do this (\(reason)), expected a role that allows it"
        case .noSpace(let endpoint):
            "\(endpoint): found the database at its quota, expected room: etcd raises the alarm NOSPACE and takes nothing, so nothing is lent"
        case .compacted(let revision):
            "found a revision that is compacted, expected \(revision == 0 ? "a later one" : "at least \(revision)")"
        case .leaseNotFound: "found no such lease, expected one that has not ended"
        case .refused(let endpoint, let code, let message): "\(endpoint) refuses (code \(code)): \(message)"
        case .otherCluster(let found, let expected):
            "found cluster \(String(found, radix: 16)), expected \(String(expected, radix: 16)) as before"
        case .cancelled: "we are told to stop"
        }
    }
}
