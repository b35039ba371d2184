// ControlBackend: what the control plane asks of the daemon. The plane itself knows HTTP and who is asking, nothing else.

import ControlAPI

/// A request that the daemon refuses, as its client is told.
public struct ControlFailure: Error, Equatable, Sendable {
    public enum Kind: String, Sendable {
        /// The request makes no sense: 400.
        case badRequest = "bad_request"
        /// A value that is not allowed: 422.
        case invalidValue = "invalid_value"
        /// The peer may not do this: 403.
        case forbidden
        /// No such thing: 404.
        case notFound = "not_found"
        /// Something on the host stands in the way (a file that cannot be written): 503.
        case unavailable
    }
    public let kind: Kind
    /// What was found and what was expected.
    public let message: String

    public init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }
}

/// The daemon's answers. All of them may be asked for at any time, from any task.
package protocol ControlBackend: Sendable {
    func status() async -> SystemStatus
    func license() async -> LicenseReport
    func hardware() async -> HardwareReport
    func seats() async -> SeatsReport
    func sharing() async -> SharingReport
    /// - Parameter limit: sessions, 1 to 100,000.
    func sessions(limit: Int) async -> SessionsReport
    func statistics() async -> SessionStatistics
    func configuration() async -> ConfigurationReport
    func performance() async -> PerformanceReport
    /// - Parameter limit: events, 1 to 1000.
    func events(limit: Int) async -> EventsReport
    func usageReport() async -> UsageReport

    // What changes something is told who asks for it, for the events.
    func change(_ change: ConfigurationChange, by user: String) async throws(ControlFailure) -> ConfigurationReport
    /// - Parameter id: 16 hexadecimal digits; `unknown`: those whose hook is unknown; nil: all sessions.
    func clearSessions(id: String?, by user: String) async throws(ControlFailure) -> SessionsCleared
    /// Takes the row of a unit that is gone away from the pool.
    func removeMember(serial: String, by user: String) async throws(ControlFailure) -> MemberRemoved
    func commit(by user: String) async throws(ControlFailure) -> CommitReport
    /// Asks the authority now; takes as long as it does, 40 seconds at most.
    func renewLicense(by user: String) async throws(ControlFailure) -> RenewalReport
    /// Trusts a new key of the authority's, renews by it, and then trusts the stolen one no more.
    func replaceStolenKey(_ replacement: KeyReplacement) async throws(ControlFailure) -> RenewalReport
}
