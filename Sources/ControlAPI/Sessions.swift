// Sessions of the wire hooks, and who counts what.

public import Foundation

/// GET /v1/sessions?limit=N (1000 unless told): keyed sessions, those of the wire hooks, oldest first.
public struct SessionsReport: Codable, Equatable, Sendable {
    /// How many there are, listed or not.
    public var total: Int
    public var sessions: [SessionEntry]
    public init(total: Int, sessions: [SessionEntry]) {
        self.total = total
        self.sessions = sessions
    }
}

public struct SessionEntry: Codable, Equatable, Sendable {
    /// For `DELETE /v1/sessions/ID`: the session handle in 16 hexadecimal digits.
    public var id: String
    /// The hook's own key.
    public var key: String
    /// `haproxy` ...; `unknown`: the record of the session is lost
    public var hook: String
    public var type: String
    /// `inspect`, `bypass`
    public var verdict: String
    /// `ADDRESS:PORT`, `[ADDRESS]:PORT`; nil where the hook does not tell.
    public var client: String?
    /// The proxy's process.
    public var processId: Int
    public var startedAt: Date
    public init(
        id: String, key: String, hook: String, type: String, verdict: String, client: String?, processId: Int, startedAt: Date
    ) {
        self.id = id
        self.key = key
        self.hook = hook
        self.type = type
        self.verdict = verdict
        self.client = client
        self.processId = processId
        self.startedAt = startedAt
    }
}

/// DELETE /v1/sessions (all), DELETE /v1/sessions/ID, DELETE /v1/sessions/unknown: what ended.
public struct SessionsCleared: Codable, Equatable, Sendable {
    public var cleared: Int
    public init(cleared: Int) { self.cleared = cleared }
}

/// GET /v1/sessions/stats
public struct SessionStatistics: Codable, Equatable, Sendable {
    public struct Hook: Codable, Equatable, Sendable {
        public var hook: String
        /// Counters by their names, e.g. `admitted`, `bypassed`, `blocked`, `released`, `unknown_ends`.
        public var counters: [String: Int]
        public init(hook: String, counters: [String: Int]) {
            self.hook = hook
            self.counters = counters
        }
    }
    public struct Process: Codable, Equatable, Sendable {
        public var slot: Int
        public var processId: Int
        /// Its name when it attached, at most 15 bytes.
        public var name: String
        public var alive: Bool
        public var type: String
        public var inUse: Int
        public var spare: Int
        public var bypassed: Int
        public var admissions: Int
        public var refused: Int
        public init(
            slot: Int, processId: Int, name: String, alive: Bool, type: String, inUse: Int, spare: Int, bypassed: Int,
            admissions: Int, refused: Int
        ) {
            self.slot = slot
            self.processId = processId
            self.name = name
            self.alive = alive
            self.type = type
            self.inUse = inUse
            self.spare = spare
            self.bypassed = bypassed
            self.admissions = admissions
            self.refused = refused
        }
    }
    public struct CPU: Codable, Equatable, Sendable {
        public var cpu: Int
        public var type: String
        /// Sessions admitted less sessions ended on this CPU: negative where they end elsewhere than they began.
        public var held: Int
        public var spare: Int
        public var admissions: Int
        public init(cpu: Int, type: String, held: Int, spare: Int, admissions: Int) {
            self.cpu = cpu
            self.type = type
            self.held = held
            self.spare = spare
            self.admissions = admissions
        }
    }
    public var hooks: [Hook]
    public var processes: [Process]
    public var cpus: [CPU]
    /// Attempts to attach that found every process slot taken, since the segment was made.
    public var refusedProcesses: Int
    public init(hooks: [Hook], processes: [Process], cpus: [CPU], refusedProcesses: Int = 0) {
        self.hooks = hooks
        self.processes = processes
        self.cpus = cpus
        self.refusedProcesses = refusedProcesses
    }
}
