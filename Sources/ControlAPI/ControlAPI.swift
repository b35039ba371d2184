// ControlAPI: what fpxd and its clients say to one another over the control socket, version 1.
//
// HTTP/1.1 with JSON over a unix stream socket. Names are in snake_case on the wire, times in RFC 3339 (UTC), dates YYYY-MM-DD.
// Every error has one form: `APIError`. The document of it all is served at /v1/openapi.json.

public import Foundation

/// How both sides write and read JSON.
public enum ControlJSON {
    public static func encoder() -> JSONEncoder {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.dateEncodingStrategy = .iso8601
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return encoder
    }

    public static func decoder() -> JSONDecoder {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        decoder.dateDecodingStrategy = .iso8601
        return decoder
    }
}

/// The body of every answer that is not 2xx.
public struct APIError: Codable, Equatable, Sendable {
    public struct Detail: Codable, Equatable, Sendable {
        /// A word for programs: `not_found`, `bad_request`, `invalid_value`, `forbidden`, `too_large`, `timeout`, `internal` ...
        public var code: String
        /// A sentence for people: what was found, what was expected.
        public var message: String
        public init(code: String, message: String) {
            self.code = code
            self.message = message
        }
    }
    public var error: Detail
    public init(code: String, message: String) { error = Detail(code: code, message: message) }
}

/// GET /v1/status
public struct SystemStatus: Codable, Equatable, Sendable {
    /// `0.3.0`
    public var version: String
    /// Four digits.
    public var build: String
    /// YYMMDD
    public var date: String
    /// `GA`, `evaluation` ...
    public var tag: String
    public var license: LicenseSummary
    public var processId: Int
    public var startedAt: Date
    public var uptimeSeconds: Int
    public var segment: String
    public var configurationFile: String?
    /// `None`, `HA`, `fabric`, `fabric-disconn`
    public var mode: String
    public init(
        version: String, build: String, date: String, tag: String, license: LicenseSummary, processId: Int, startedAt: Date,
        uptimeSeconds: Int, segment: String, configurationFile: String?, mode: String
    ) {
        self.version = version
        self.build = build
        self.date = date
        self.tag = tag
        self.license = license
        self.processId = processId
        self.startedAt = startedAt
        self.uptimeSeconds = uptimeSeconds
        self.segment = segment
        self.configurationFile = configurationFile
        self.mode = mode
    }
}

/// What a person needs to know of the licence, wherever it is mentioned.
public struct LicenseSummary: Codable, Equatable, Sendable {
    /// `Active`, `Evaluation`, `Expired`, ...
    public var state: String
    /// Whether sessions are admitted under it: when not, every cap is 0.
    public var valid: Bool
    /// Why it is not valid, or what to know of it.
    public var reason: String?
    /// Seats of type furl.
    public var purchasedSeats: Int
    public var activeSeats: Int
    /// YYYY-MM-DD; nil without a licence.
    public var expiryDate: String?
    public var daysLeft: Int?
    public init(
        state: String, valid: Bool, reason: String?, purchasedSeats: Int, activeSeats: Int, expiryDate: String?, daysLeft: Int?
    ) {
        self.state = state
        self.valid = valid
        self.reason = reason
        self.purchasedSeats = purchasedSeats
        self.activeSeats = activeSeats
        self.expiryDate = expiryDate
        self.daysLeft = daysLeft
    }
}

/// GET /v1/license: the licence in force. The keys of `show license --json` are a part of these.
public struct LicenseReport: Codable, Equatable, Sendable {
    public var summary: LicenseSummary
    public var licenseId: String?
    public var customer: String?
    public var keyId: String?
    public var epoch: Int?
    public var issuedAt: Date?
    public var notBefore: Date?
    public var leaseExpiresAt: Date?
    public var paidUntil: Date?
    public var sessionsPerSeat: Int
    /// By licence type: furl, fnbi, fcas.
    public var seats: [String: Int]
    public var modelMax: [String: Int]
    public var addressIpv4: String
    public var totalMemorySize: Int
    public var logicalCpusNumber: Int
    public var cpuModel: String
    public var licensedBandwidth: Int
    public var licensedBandwidthUnit: String
    /// `automatic`, `offline`
    public var issuerType: String
    /// `production`, `evaluation`
    public var businessType: String
    public init(
        summary: LicenseSummary, licenseId: String? = nil, customer: String? = nil, keyId: String? = nil, epoch: Int? = nil,
        issuedAt: Date? = nil, notBefore: Date? = nil, leaseExpiresAt: Date? = nil, paidUntil: Date? = nil,
        sessionsPerSeat: Int, seats: [String: Int], modelMax: [String: Int], addressIpv4: String, totalMemorySize: Int,
        logicalCpusNumber: Int, cpuModel: String, licensedBandwidth: Int, licensedBandwidthUnit: String, issuerType: String,
        businessType: String
    ) {
        self.summary = summary
        self.licenseId = licenseId
        self.customer = customer
        self.keyId = keyId
        self.epoch = epoch
        self.issuedAt = issuedAt
        self.notBefore = notBefore
        self.leaseExpiresAt = leaseExpiresAt
        self.paidUntil = paidUntil
        self.sessionsPerSeat = sessionsPerSeat
        self.seats = seats
        self.modelMax = modelMax
        self.addressIpv4 = addressIpv4
        self.totalMemorySize = totalMemorySize
        self.logicalCpusNumber = logicalCpusNumber
        self.cpuModel = cpuModel
        self.licensedBandwidth = licensedBandwidth
        self.licensedBandwidthUnit = licensedBandwidthUnit
        self.issuerType = issuerType
        self.businessType = businessType
    }
}

/// GET /v1/seats
public struct SeatsReport: Codable, Equatable, Sendable {
    public var mode: String
    public var license: LicenseSummary
    public var types: [SeatsOfType]
    public init(mode: String, license: LicenseSummary, types: [SeatsOfType]) {
        self.mode = mode
        self.license = license
        self.types = types
    }
}

/// The seats and sessions of one licence type.
public struct SeatsOfType: Codable, Equatable, Sendable {
    public var type: String
    public var modelMax: Int
    public var activeSeats: Int
    public var purchasedSeats: Int
    public var fabricSeats: Int
    public var haSeats: Int
    /// The cap.
    public var maxSessions: Int
    public var currentSessions: Int
    public var currentBypassed: Int
    /// A peak.
    public var maxBypassed: Int
    public init(
        type: String, modelMax: Int, activeSeats: Int, purchasedSeats: Int, fabricSeats: Int, haSeats: Int, maxSessions: Int,
        currentSessions: Int, currentBypassed: Int, maxBypassed: Int
    ) {
        self.type = type
        self.modelMax = modelMax
        self.activeSeats = activeSeats
        self.purchasedSeats = purchasedSeats
        self.fabricSeats = fabricSeats
        self.haSeats = haSeats
        self.maxSessions = maxSessions
        self.currentSessions = currentSessions
        self.currentBypassed = currentBypassed
        self.maxBypassed = maxBypassed
    }
}

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
    /// `haproxy` ...
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

/// DELETE /v1/sessions (all), DELETE /v1/sessions/ID: what ended.
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
        /// Name of the program (/proc/PID/comm), empty if it is gone.
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
    public init(hooks: [Hook], processes: [Process], cpus: [CPU]) {
        self.hooks = hooks
        self.processes = processes
        self.cpus = cpus
    }
}

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
        public var name: String
        public var value: String
        public var defaultValue: String
        /// Nil: any text of the kind that `help` says.
        public var allowed: [String]?
        public var help: String
        /// Whether `fpx config` may change it while fpxd runs.
        public var changeable: Bool
        public init(
            name: String, value: String, defaultValue: String, allowed: [String]?, help: String, changeable: Bool
        ) {
            self.name = name
            self.value = value
            self.defaultValue = defaultValue
            self.allowed = allowed
            self.help = help
            self.changeable = changeable
        }
    }
    public var sections: [Section]
    public init(sections: [Section]) { self.sections = sections }
}

/// All of it is applied and saved, or none.
public struct ConfigurationChange: Codable, Equatable, Sendable {
    /// `system global`
    public var path: String
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
    /// Over the last 1, 10 and 30 minutes, or as long as fpxd runs where that is less.
    public struct Window: Codable, Equatable, Sendable {
        public var minutes: Int
        /// Licensed sessions of all types in use, sampled each second.
        public var averageSessions: Int
        public var peakSessions: Int
        /// New sessions (licensed or not) a second.
        public var setupRate: Int
        public init(minutes: Int, averageSessions: Int, peakSessions: Int, setupRate: Int) {
            self.minutes = minutes
            self.averageSessions = averageSessions
            self.peakSessions = peakSessions
            self.setupRate = setupRate
        }
    }
    /// All together first, then each.
    public var cpus: [CPU]
    public var memory: Memory
    public var windows: [Window]
    public var uptimeSeconds: Int
    public init(cpus: [CPU], memory: Memory, windows: [Window], uptimeSeconds: Int) {
        self.cpus = cpus
        self.memory = memory
        self.windows = windows
        self.uptimeSeconds = uptimeSeconds
    }
}

/// POST /v1/commit: the licence and the configuration have been read again.
public struct CommitReport: Codable, Equatable, Sendable {
    /// Whether both are as their files say; else what was kept, and why, stands in `messages`.
    public var applied: Bool
    public var license: LicenseSummary
    /// One line each: what changed, what was refused.
    public var messages: [String]
    public init(applied: Bool, license: LicenseSummary, messages: [String]) {
        self.applied = applied
        self.license = license
        self.messages = messages
    }
}

/// GET /v1/license/hardware: what `show license_hardware_data` prints.
public struct HardwareReport: Codable, Equatable, Sendable {
    public var cpuModel: String
    public var logicalCpusNumber: Int
    public var totalMemorySize: Int
    public var addressesIpv4: [String]
    public var hostname: String
    public init(cpuModel: String, logicalCpusNumber: Int, totalMemorySize: Int, addressesIpv4: [String], hostname: String) {
        self.cpuModel = cpuModel
        self.logicalCpusNumber = logicalCpusNumber
        self.totalMemorySize = totalMemorySize
        self.addressesIpv4 = addressesIpv4
        self.hostname = hostname
    }
}

/// GET /v1/events?limit=N (100 unless told): newest last.
public struct EventsReport: Codable, Equatable, Sendable {
    public struct Event: Codable, Equatable, Sendable {
        public var at: Date
        /// `info`, `warning`, `error`
        public var level: String
        /// `license`, `limit`, `process`, `config`, `daemon`, `hook`
        public var subject: String
        public var message: String
        public init(at: Date, level: String, subject: String, message: String) {
            self.at = at
            self.level = level
            self.subject = subject
            self.message = message
        }
    }
    public var events: [Event]
    public init(events: [Event]) { self.events = events }
}
