// The running configuration, and figures over time.

/// GET /v1/config: the running configuration. PATCH /v1/config with a `ConfigurationChange` answers the same.
public struct ConfigurationReport: Codable, Equatable, Sendable {
    public struct Section: Codable, Equatable, Sendable {
        /// Words after `config`: `system global`.
        public var path: String
        public var settings: [Setting]
        public init(path: String, settings: [Setting]) {
            self.path = path
            self.settings = settings
        }
    }
    public struct Setting: Codable, Equatable, Sendable {
        /// Within its section: `status` in `system csf`.
        public var name: String
        /// In force.
        public var value: String
        /// In force when fpxd has been restarted; nil: the same.
        public var valueAfterRestart: String?
        public var defaultValue: String
        /// Nil: any text of the kind that `help` says.
        public var allowed: [String]?
        public var help: String
        /// Whether `fpx config` may change it while fpxd runs, at once; else a change is in force when fpxd has been restarted.
        public var changeable: Bool
        public init(
            name: String, value: String, valueAfterRestart: String? = nil, defaultValue: String, allowed: [String]?,
            help: String, changeable: Bool
        ) {
            self.name = name
            self.value = value
            self.valueAfterRestart = valueAfterRestart
            self.defaultValue = defaultValue
            self.allowed = allowed
            self.help = help
            self.changeable = changeable
        }
    }
    public var sections: [Section]
    /// Of a change: what to know of how it was saved; nil: nothing.
    public var remarks: [String]?
    public init(sections: [Section], remarks: [String]? = nil) {
        self.sections = sections
        self.remarks = remarks
    }
}

/// All of it is applied and saved, or none.
public struct ConfigurationChange: Codable, Equatable, Sendable {
    /// `system global`
    public var path: String
    /// By the names of the section.
    public var set: [String: String]
    /// Names of settings that go back to their defaults.
    public var unset: [String]?
    public init(path: String, set: [String: String], unset: [String]? = nil) {
        self.path = path
        self.set = set
        self.unset = unset
    }
}

/// GET /v1/performance
public struct PerformanceReport: Codable, Equatable, Sendable {
    /// Shares of the time since the last second, in percent.
    public struct CPU: Codable, Equatable, Sendable {
        /// nil: all of them.
        public var cpu: Int?
        public var user: Int
        public var system: Int
        public var nice: Int
        public var idle: Int
        public var iowait: Int
        public var irq: Int
        public var softirq: Int
        public init(cpu: Int?, user: Int, system: Int, nice: Int, idle: Int, iowait: Int, irq: Int, softirq: Int) {
            self.cpu = cpu
            self.user = user
            self.system = system
            self.nice = nice
            self.idle = idle
            self.iowait = iowait
            self.irq = irq
            self.softirq = softirq
        }
    }
    /// Kilobytes.
    public struct Memory: Codable, Equatable, Sendable {
        public var total: Int
        public var used: Int
        public var free: Int
        /// Free or reclaimable (MemAvailable).
        public var available: Int
        public init(total: Int, used: Int, free: Int, available: Int) {
            self.total = total
            self.used = used
            self.free = free
            self.available = available
        }
    }
    /// What hooks report to have carried for clients. Bits a second.
    public struct Speed: Codable, Equatable, Sendable {
        /// From clients.
        public var bitsIn: Int
        /// To clients.
        public var bitsOut: Int
        public init(bitsIn: Int, bitsOut: Int) {
            self.bitsIn = bitsIn
            self.bitsOut = bitsOut
        }
    }
    /// Over the last 1, 10 and 30 minutes, or as long as fpxd runs where that is less.
    public struct Window: Codable, Equatable, Sendable {
        public var minutes: Int
        /// Licensed sessions of all types in use, sampled each second.
        public var averageSessions: Int
        public var peakSessions: Int
        /// New sessions (licensed or not) a second.
        public var setupRate: Int
        public var averageSpeed: Speed
        public init(minutes: Int, averageSessions: Int, peakSessions: Int, setupRate: Int, averageSpeed: Speed) {
            self.minutes = minutes
            self.averageSessions = averageSessions
            self.peakSessions = peakSessions
            self.setupRate = setupRate
            self.averageSpeed = averageSpeed
        }
    }
    /// All together first, then each.
    public var cpus: [CPU]
    public var memory: Memory
    public var windows: [Window]
    /// Over the last 10 seconds.
    public var speed: Speed
    public var uptimeSeconds: Int
    public init(cpus: [CPU], memory: Memory, windows: [Window], speed: Speed, uptimeSeconds: Int) {
        self.cpus = cpus
        self.memory = memory
        self.windows = windows
        self.speed = speed
        self.uptimeSeconds = uptimeSeconds
    }
}
