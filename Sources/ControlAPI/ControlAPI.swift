// ControlAPI: what fpxd and its clients say to one another over the control socket, version 1.
//
// HTTP/1.1 with JSON over a unix stream socket. Names are in snake_case on the wire, times in RFC 3339 (UTC), dates YYYY-MM-DD.
// Every error has one form: `APIError`. The document of it all is served at /v1/openapi.json.

import Basics
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

    /// Deeper than anything that either side says.
    public static let nestingMax = 16

    /// Reads what somebody has sent.
    /// - Throws: `JSONText.Fault`, `DecodingError`.
    public static func decode<T: Decodable>(_ type: T.Type, from data: Data) throws -> T {
        try JSONText.check(data, nestingMax: nestingMax)
        return try decoder().decode(type, from: data)
    }

    /// For what we have written ourselves.
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
        /// A word for programs: `not_found`, `bad_request`, `invalid_value`, `forbidden`, `too_large`, `timeout`, `internal`
        /// ...
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
    /// Nil: none is set.
    public var authority: AuthorityContact?
    /// What a person must look at, a sentence each; nil: nothing.
    public var troubles: [String]?
    public init(
        version: String, build: String, date: String, tag: String, license: LicenseSummary, processId: Int, startedAt: Date,
        uptimeSeconds: Int, segment: String, configurationFile: String?, mode: String, authority: AuthorityContact? = nil,
        troubles: [String]? = nil
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
        self.authority = authority
        self.troubles = troubles
    }
}

/// The authority that this unit is to have its licence from.
public struct AuthorityContact: Codable, Equatable, Sendable {
    public var url: String
    /// Its last answer that was genuine; nil: there was none.
    public var lastContact: Date?
    /// Why the last question gave no lease; nil: it gave one, or none was asked since fpxd started.
    public var lastError: String?
    public var lastErrorAt: Date?
    public init(url: String, lastContact: Date?, lastError: String?, lastErrorAt: Date?) {
        self.url = url
        self.lastContact = lastContact
        self.lastError = lastError
        self.lastErrorAt = lastErrorAt
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
    /// YYYY-MM-DD, the last day on which it holds; nil without a licence.
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
    /// Nil: it cannot be told, for some are in a damaged segment.
    public var currentSessions: Int?
    public var currentBypassed: Int
    /// A peak.
    public var maxBypassed: Int
    public init(
        type: String, modelMax: Int, activeSeats: Int, purchasedSeats: Int, fabricSeats: Int, haSeats: Int, maxSessions: Int,
        currentSessions: Int?, currentBypassed: Int, maxBypassed: Int
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

/// POST /v1/license/renew: the authority has been asked.
public struct RenewalReport: Codable, Equatable, Sendable {
    /// Whether a lease came.
    public var renewed: Bool
    /// Why none came.
    public var reason: String?
    /// The licence in force after it.
    public var license: LicenseSummary
    public init(renewed: Bool, reason: String?, license: LicenseSummary) {
        self.renewed = renewed
        self.reason = reason
        self.license = license
    }
}

/// POST /v1/license/replace_stolen_key; answered as a renewal.
public struct KeyReplacement: Codable, Equatable, Sendable {
    /// Id of the key that was stolen.
    public var stolen: String
    /// Id of the key in its place, and its public half in PEM.
    public var kid: String
    public var pem: String
    public init(stolen: String, kid: String, pem: String) {
        self.stolen = stolen
        self.kid = kid
        self.pem = pem
    }
}

/// GET /v1/license/hardware: what `show license_hardware_data` prints.
public struct HardwareReport: Codable, Equatable, Sendable {
    public var cpuModel: String
    public var logicalCpusNumber: Int
    public var totalMemorySize: Int
    public var addressesIpv4: [String]
    public var hostname: String
    /// By which an authority knows the unit; nil where the unit says it otherwise.
    public var unitId: String?
    /// The public half of the unit's key, base64url; nil where it has none.
    public var unitKey: String?
    /// Lasting ones, of any scope but the link's; nil from units that do not tell.
    public var addressesIpv6: [String]?
    public init(
        cpuModel: String, logicalCpusNumber: Int, totalMemorySize: Int, addressesIpv4: [String], hostname: String,
        unitId: String? = nil, unitKey: String? = nil, addressesIpv6: [String]? = nil
    ) {
        self.cpuModel = cpuModel
        self.logicalCpusNumber = logicalCpusNumber
        self.totalMemorySize = totalMemorySize
        self.addressesIpv4 = addressesIpv4
        self.hostname = hostname
        self.unitId = unitId
        self.unitKey = unitKey
        self.addressesIpv6 = addressesIpv6
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
