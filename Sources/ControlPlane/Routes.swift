// Routes: the control plane's table. The router serves it, and the OpenAPI document is made from it, so the two cannot differ.

import ControlAPI
import Foundation
import Hummingbird
import WebAPI

/// A number that a path or query may give.
struct NumberParameter: Sendable {
    let name: String
    let summary: String
    let range: ClosedRange<Int>
    let whenAbsent: Int
}

struct Route: Sendable {
    let method: HTTPRequest.Method
    /// With `{name}` for a part that varies.
    let path: String
    let operation: String
    let summary: String
    var query: NumberParameter?
    /// What the request's body must be; nil: none.
    var body: (any Wire.Type)?
    let answer: any Wire.Type
    let handle: @Sendable (any ControlBackend, Asked) async throws -> any Encodable & Sendable

    /// Whether it changes anything: then the peer must be one who may.
    var changesState: Bool { method != .get }
}

/// A request as a route sees it.
struct Asked: Sendable {
    /// The parts of a path that vary.
    var id: String?
    var serial = ""
    var number = 0
    /// Who asks, where the route changes state.
    var user = ""
    var body = Data()

    func decode<T: Decodable>(_ type: T.Type) throws -> T { try StrictJSON.decode(type, from: body) }
}

let routes: [Route] = [
    Route(
        method: .get, path: "/v1/status", operation: "getStatus", summary: "Version, licence in one line, uptime",
        answer: SystemStatus.self
    ) { backend, _ in await backend.status() },
    Route(
        method: .get, path: "/v1/license", operation: "getLicense", summary: "The licence in force",
        answer: LicenseReport.self
    ) { backend, _ in await backend.license() },
    Route(
        method: .get, path: "/v1/license/hardware", operation: "getHardware", summary: "What a licence can be bound to",
        answer: HardwareReport.self
    ) { backend, _ in await backend.hardware() },
    Route(
        method: .get, path: "/v1/seats", operation: "getSeats", summary: "Seats, caps and sessions of each licence type",
        answer: SeatsReport.self
    ) { backend, _ in await backend.seats() },
    Route(
        method: .get, path: "/v1/sharing", operation: "getSharing", summary: "How this unit shares seats with others",
        answer: SharingReport.self
    ) { backend, _ in await backend.sharing() },
    Route(
        method: .delete, path: "/v1/sharing/members/{serial}", operation: "removeMember",
        summary: "Takes the row of a unit that is gone away from the pool", answer: MemberRemoved.self
    ) { backend, asked in try await backend.removeMember(serial: asked.serial, by: asked.user) },
    Route(
        method: .get, path: "/v1/sessions", operation: "listSessions", summary: "Sessions of the wire hooks, oldest first",
        query: NumberParameter(
            name: "limit", summary: "How many to list", range: 1...100_000, whenAbsent: 1000),
        answer: SessionsReport.self
    ) { backend, asked in await backend.sessions(limit: asked.number) },
    Route(
        method: .delete, path: "/v1/sessions", operation: "clearSessions",
        summary: "Ends the count of all sessions of the wire hooks",
        answer: SessionsCleared.self
    ) { backend, asked in try await backend.clearSessions(id: nil, by: asked.user) },
    Route(
        method: .get, path: "/v1/sessions/stats", operation: "getStatistics", summary: "Counters by hook, process and CPU",
        answer: SessionStatistics.self
    ) { backend, _ in await backend.statistics() },
    Route(
        method: .delete, path: "/v1/sessions/{id}", operation: "clearSession",
        summary: "Ends the count of one session, or of those whose hook is unknown",
        answer: SessionsCleared.self
    ) { backend, asked in try await backend.clearSessions(id: asked.id, by: asked.user) },
    Route(
        method: .get, path: "/v1/config", operation: "getConfiguration", summary: "The running configuration",
        answer: ConfigurationReport.self
    ) { backend, _ in await backend.configuration() },
    Route(
        method: .patch, path: "/v1/config", operation: "changeConfiguration",
        summary: "Changes settings, lasting: all of them or none", body: ConfigurationChange.self,
        answer: ConfigurationReport.self
    ) { backend, asked in try await backend.change(try asked.decode(ConfigurationChange.self), by: asked.user) },
    Route(
        method: .get, path: "/v1/performance", operation: "getPerformance", summary: "CPU, memory, sessions over time",
        answer: PerformanceReport.self
    ) { backend, _ in await backend.performance() },
    Route(
        method: .get, path: "/v1/events", operation: "listEvents", summary: "What happened, newest last",
        query: NumberParameter(name: "limit", summary: "How many to list", range: 1...1000, whenAbsent: 100),
        answer: EventsReport.self
    ) { backend, asked in await backend.events(limit: asked.number) },
    Route(
        method: .post, path: "/v1/commit", operation: "commit", summary: "Reads licence and configuration again",
        answer: CommitReport.self
    ) { backend, asked in try await backend.commit(by: asked.user) },
    Route(
        method: .post, path: "/v1/license/renew", operation: "renewLicense", summary: "Asks the authority for a lease now",
        answer: RenewalReport.self
    ) { backend, asked in try await backend.renewLicense(by: asked.user) },
    Route(
        method: .post, path: "/v1/license/replace_stolen_key", operation: "replaceStolenKey",
        summary: "Trusts a new key of the authority's, renews by it, and then trusts the stolen one no more",
        body: KeyReplacement.self, answer: RenewalReport.self
    ) { backend, asked in try await backend.replaceStolenKey(try asked.decode(KeyReplacement.self)) },
    Route(
        method: .get, path: "/v1/usage_report", operation: "getUsageReport",
        summary: "The usage report that goes to the authority next", answer: UsageReport.self
    ) { backend, _ in await backend.usageReport() },
]
