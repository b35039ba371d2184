import ArgumentParser
import AuthorityServer
import Foundation
import Licensing

extension LicenseCommand {
    struct Sign: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Signs a licence.",
            discussion: """
                A DATE is 2027-01-31 or 2027-01-31T12:00:00Z, UTC. A day as a beginning is its beginning, as an end its end: \
                that day is included. Dates in the past and in the \
                future are taken as they are, so that a licence of any state can be made for a test: `--not-before 2020-01-01 \
                --days 14` has expired, `--not-before 2999-01-01` is not yet valid. A licence that fpx would refuse for its \
                numbers is not made.
                """)

        @Option(help: ArgumentHelp("The private key; the name of the file is the key id.", valueName: "file"))
        var key: String
        @Option(help: "Who it is for.")
        var customer: String
        @Option(help: ArgumentHelp("Seats of type furl.", valueName: "n"))
        var seats: Int
        @Option(help: ArgumentHelp("Seats of type fnbi.", valueName: "n"))
        var fnbi = 0
        @Option(help: ArgumentHelp("Seats of type fcas.", valueName: "n"))
        var fcas = 0
        @Option(help: ArgumentHelp("Sessions that a seat is worth.", valueName: "n"))
        var sessionsPerSeat = 25
        @Option(
            help: ArgumentHelp(
                "Seats of each type that the unit's model can use at most (default: as many as are sold).", valueName: "n"))
        var modelMax: Int?
        @Option(help: ArgumentHelp("The lease begins (default: now).", valueName: "date"))
        var notBefore: StartArgument?
        @Option(help: ArgumentHelp("The lease lasts so many days (default: 14).", valueName: "n"))
        var days: Int?
        @Option(help: ArgumentHelp("The lease ends, instead of --days.", valueName: "date"))
        var expires: EndArgument?
        @Option(help: ArgumentHelp("The licence is paid until (default: without an end).", valueName: "date"))
        var paidUntil: EndArgument?
        @Option(help: ArgumentHelp("Licensed bandwidth in mbits; 0: not licensed for bandwidth.", valueName: "mbits"))
        var bandwidth = 2000
        @Option(help: "What it is for.")
        var businessType = BusinessType.production
        @Option(help: "How it is kept alive: by renewals of the lease, or by a file once a year.")
        var issuerType = IssuerType.automatic
        @Option(help: "Who issues it.")
        var issuer = "fpx-authority"
        @Option(
            help: ArgumentHelp(
                "What `fpx show license_hardware_data` printed on the unit; without it the licence runs on any unit.",
                valueName: "file"))
        var hardware: String?
        @Option(
            help: ArgumentHelp(
                "A part of the hardware that must stay the same, once for each "
                    + "(default: cpu_model and logical_cpus_number; offline: total_memory_size and unit_id too).",
                valueName: "part"))
        var bind: [HardwarePart] = []
        // A key may begin with a dash.
        @Option(
            parsing: .unconditional,
            help: ArgumentHelp(
                "The unit's public key, `unit_key` of its hardware data: the licence is for that unit alone, and only such a one can "
                    + "share seats.", valueName: "key"))
        var unitKey: String?
        @Option(help: ArgumentHelp("Grows with each licence of the same id.", valueName: "n"))
        var epoch = 1
        @Option(help: ArgumentHelp("The licence id (default: a new UUID).", valueName: "id"))
        var id: String?
        @Option(help: ArgumentHelp("Where the licence goes; a file that is there is replaced.", valueName: "file"))
        var out: String

        func validate() throws {
            if days != nil, expires != nil { throw ValidationError("found --days and --expires, expected one of them") }
            if let days, !(1...36_600).contains(days) { throw ValidationError("--days: found \(days), expected 1 to 36600") }
            if hardware == nil, !bind.isEmpty {
                throw ValidationError("--bind: found no --hardware, expected the data to bind to")
            }
        }

        func run() async throws {
            let now = Timestamp.seconds(Date())
            let start = notBefore?.seconds ?? now
            let end = expires?.seconds ?? start + (days ?? 14) * 86_400
            func ceiling(_ seats: Int) -> Int { modelMax ?? seats }
            let claims = LicenseClaims(
                issuer: issuer, customer: customer, licenseID: id ?? UUID().uuidString.lowercased(), issuedAt: now,
                notBefore: start, leaseExpiry: end, paidUntil: paidUntil?.seconds ?? Timestamp.never,
                seats: PerType(furl: seats, fnbi: fnbi, fcas: fcas),
                modelMax: PerType(furl: ceiling(seats), fnbi: ceiling(fnbi), fcas: ceiling(fcas)),
                sessionsPerSeat: sessionsPerSeat, licensedBandwidth: bandwidth, businessType: businessType,
                issuerType: issuerType, hardware: try binding(), epoch: epoch,
                unitKey: try key(of: hardware))
            warn(of: claims)
            let token = try await LicenseToken.sign(claims, with: SigningKey(path: key))
            try StoredFile.replace(Array(token.utf8), at: out, mode: 0o644)
            print("licence \(claims.licenseID) for \(customer), epoch \(epoch), until \(Timestamp.endText(claims.end)): \(out)")
        }

        /// Nobody hears of an offline licence again before it ends: where it would run besides must be known when it is signed.
        private func warn(of claims: LicenseClaims) {
            guard issuerType == .offline, claims.unitKey == nil, !claims.hardware.binds.contains(.unitID), bind.isEmpty
            else { return }
            let end = Timestamp.endText(claims.end)
            Authority.note(
                hardware.map {
                    "warning: \($0) names no unit_id: this licence runs on any unit with the same CPU and memory until \(end)"
                }
                    ?? "warning: without --hardware this offline licence runs on any unit until \(end)")
        }

        /// Of the unit whose data the file has.
        private func key(of hardware: String?) throws -> String? {
            guard let hardware else { return unitKey }
            let known = try Hardware(dataFile: hardware).unitKey
            return unitKey ?? (known.isEmpty ? nil : known)
        }

        private func binding() throws -> HardwareBinding {
            guard let hardware else { return HardwareBinding() }
            let machine = try Hardware(dataFile: hardware)
            // An empty text binds to nothing, and would fit every unit that has none either. Some kernels name no CPU model.
            let missing = [
                (HardwarePart.cpuModel, machine.cpuModel), (.addressIPv4, machine.addressIPv4), (.unitID, machine.unitID),
            ]
            .filter { $0.1.isEmpty }.map(\.0)
            if let part = missing.first(where: bind.contains) {
                throw Refusal(reason: "\(hardware): found no \(part.rawValue), expected one to bind the licence to")
            }
            return bind.isEmpty ? .usual(machine, issuerType) : HardwareBinding(machine, binds: Set(bind))
        }
    }
}
