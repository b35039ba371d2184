// What a licence says. Standard claims have their standard names (RFC 7519), the others are in snake_case.

/// Who buys: sessions of an evaluation count as any other.
package enum BusinessType: String, CaseIterable, Sendable {
    case production
    case evaluation
}

/// How the licence is kept alive: by a lease that is renewed, or by a file that is put in place once a year.
package enum IssuerType: String, CaseIterable, Sendable {
    case automatic
    case offline
}

package struct LicenseClaims: Equatable, Sendable {
    /// The version of the format that this program reads and writes: the claim `ver`.
    package static let version = 1
    /// What one pool of the engine counts at most.
    package static let sessionsMax = 4_194_303
    /// Wider than any number that makes sense, and small enough that sums and products cannot overflow.
    static let numbers = 0...4_294_967_295
    /// Bytes of an id.
    package static let idBytesMax = 64

    /// `iss`
    package var issuer: String
    /// `sub`
    package var customer: String
    /// `jti`
    package var licenseID: String
    /// `iat`, seconds since 1970 as all times here.
    package var issuedAt: Int
    /// `nbf`
    package var notBefore: Int
    /// `exp`: the end of the lease.
    package var leaseExpiry: Int
    /// The end of what is paid for.
    package var paidUntil: Int
    package var seats: PerType<Int>
    package var modelMax: PerType<Int>
    package var sessionsPerSeat: Int
    /// 0: not licensed for bandwidth.
    package var licensedBandwidth: Int
    /// Always `mbits` in format version 1.
    package var licensedBandwidthUnit: String
    package var businessType: BusinessType
    package var issuerType: IssuerType
    package var hardware: HardwareBinding
    /// Grows with each licence of the same id.
    package var epoch: Int
    /// `cnf`: the public half of the only unit's key that it is for; nil: of any.
    package var unitKey: String?

    package init(
        issuer: String, customer: String, licenseID: String, issuedAt: Int, notBefore: Int, leaseExpiry: Int, paidUntil: Int,
        seats: PerType<Int>, modelMax: PerType<Int>, sessionsPerSeat: Int = 25, licensedBandwidth: Int = 0,
        businessType: BusinessType = .production, issuerType: IssuerType = .automatic,
        hardware: HardwareBinding = HardwareBinding(), epoch: Int = 1, unitKey: String? = nil
    ) {
        self.issuer = issuer
        self.customer = customer
        self.licenseID = licenseID
        self.issuedAt = issuedAt
        self.notBefore = notBefore
        self.leaseExpiry = leaseExpiry
        self.paidUntil = paidUntil
        self.seats = seats
        self.modelMax = modelMax
        self.sessionsPerSeat = sessionsPerSeat
        self.licensedBandwidth = licensedBandwidth
        self.licensedBandwidthUnit = "mbits"
        self.businessType = businessType
        self.issuerType = issuerType
        self.hardware = hardware
        self.epoch = epoch
        self.unitKey = unitKey
    }

    /// What holds where no licence is needed yet: 100 sessions of type furl on any hardware, for ever.
    package static let builtInEvaluation = LicenseClaims(
        issuer: "fpx", customer: "evaluation", licenseID: "evaluation", issuedAt: 0, notBefore: 0, leaseExpiry: Timestamp.never,
        paidUntil: Timestamp.never, seats: PerType(furl: 4, fnbi: 0, fcas: 0), modelMax: PerType(furl: 4, fnbi: 0, fcas: 0),
        businessType: .evaluation, epoch: 0)

    /// When it ends: with the lease, and never after what is paid.
    package var end: Int { min(leaseExpiry, paidUntil) }

    /// Seats that this unit may use of those bought: as many as its model bears.
    package func activeSeats(of type: LicenseType) -> Int { min(seats[type], modelMax[type]) }

    /// Max licensed sessions: active seats x sessions per seat, at most `sessionsMax`.
    package func cap(of type: LicenseType) -> Int { activeSeats(of: type) * sessionsPerSeat }
}

extension LicenseClaims {
    /// Reads and checks every claim. Claims that it does not know are left alone, as RFC 7519 wants.
    /// - Throws: `version` or `claim`, for the first that is wrong.
    package init(_ members: [String: JSONValue]) throws(LicensingError) {
        let reader = JSONReader(members)
        guard case .integer(Self.version)? = members["ver"] else {
            throw .version(found: members["ver"].map(\.description) ?? "nothing")
        }
        self.init(
            issuer: try reader.string("iss"),
            customer: try reader.string("sub"),
            licenseID: try reader.string("jti"),
            issuedAt: try reader.integer("iat", in: Timestamp.range),
            notBefore: try reader.integer("nbf", in: Timestamp.range),
            leaseExpiry: try reader.integer("exp", in: Timestamp.range),
            paidUntil: try reader.integer("paid_until", in: Timestamp.range),
            seats: try Self.perType(try reader.object("seats")),
            modelMax: try Self.perType(try reader.object("model_max")),
            sessionsPerSeat: try reader.integer("sessions_per_seat", in: 1...Self.sessionsMax),
            licensedBandwidth: try reader.integer("licensed_bandwidth", in: Self.numbers),
            businessType: try reader.choice("business_type"),
            issuerType: try reader.choice("issuer_type"),
            hardware: try HardwareBinding(try reader.object("hardware")),
            epoch: try reader.integer("epoch", in: Self.numbers),
            unitKey: reader.has("cnf") ? try Self.unitKey(try reader.object("cnf")) : nil)
        guard members["licensed_bandwidth_unit"] == .string("mbits") else {
            throw reader.wrong("licensed_bandwidth_unit", "mbits")
        }
        guard licenseID.utf8.count <= Self.idBytesMax else {
            throw .claim(
                name: "jti", found: "an id of \(licenseID.utf8.count) bytes", expected: "one of at most \(Self.idBytesMax)")
        }
        guard notBefore < leaseExpiry else {
            throw .claim(
                name: "exp", found: Timestamp.text(leaseExpiry),
                expected: "later than nbf, which is \(Timestamp.text(notBefore))")
        }
        for type in LicenseType.allCases where cap(of: type) > Self.sessionsMax {
            throw .claim(
                name: "seats.\(type.rawValue)",
                found: "\(activeSeats(of: type)) active seats x \(sessionsPerSeat) sessions = \(cap(of: type))",
                expected: "at most \(Self.sessionsMax) sessions, which is the engine's limit")
        }
    }

    private static func unitKey(_ reader: JSONReader) throws(LicensingError) -> String {
        let key = try reader.object("jwk")
        guard try key.string("kty") == "OKP" else { throw key.wrong("kty", "\"OKP\"") }
        guard try key.string("crv") == "Ed25519" else { throw key.wrong("crv", "\"Ed25519\"") }
        let text = try key.string("x")
        guard UnitKey.isPublic(text) else { throw key.wrong("x", "an Ed25519 public key in base64url") }
        return text
    }

    private static func perType(_ reader: JSONReader) throws(LicensingError) -> PerType<Int> {
        PerType(
            furl: try reader.integer("furl", in: numbers), fnbi: try reader.integer("fnbi", in: numbers),
            fcas: try reader.integer("fcas", in: numbers))
    }

    /// The claims as the token carries them.
    package var members: [String: JSONValue] {
        func json(_ values: PerType<Int>) -> JSONValue {
            .object(["furl": .integer(values.furl), "fnbi": .integer(values.fnbi), "fcas": .integer(values.fcas)])
        }
        var members: [String: JSONValue] = [
            "ver": .integer(Self.version), "iss": .string(issuer), "sub": .string(customer), "jti": .string(licenseID),
            "iat": .integer(issuedAt), "nbf": .integer(notBefore), "exp": .integer(leaseExpiry),
            "paid_until": .integer(paidUntil), "seats": json(seats), "model_max": json(modelMax),
            "sessions_per_seat": .integer(sessionsPerSeat), "licensed_bandwidth": .integer(licensedBandwidth),
            "licensed_bandwidth_unit": .string(licensedBandwidthUnit), "business_type": .string(businessType.rawValue),
            "issuer_type": .string(issuerType.rawValue), "hardware": .object(hardware.members), "epoch": .integer(epoch),
        ]
        if let unitKey {
            let key: [String: JSONValue] = ["kty": .string("OKP"), "crv": .string("Ed25519"), "x": .string(unitKey)]
            members["cnf"] = .object(["jwk": .object(key)])
        }
        return members
    }
}
