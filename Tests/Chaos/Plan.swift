// Plan: all of a run that is drawn from its seed before it begins. What happens in between is up to the machine.

import TestSupport

struct Plan {
    enum Mode: String {
        case fabric
        case ha72 = "7.2"
        case haBefore72 = "pre-7.2"
        var isHA: Bool { self != .fabric }
    }

    static let termSeconds = 3
    static let bootOffset = 100_000
    /// Within 1 %, as is asked of clocks.
    static let rateMax = 8000

    let seed: UInt64
    let mode: Mode
    let policy: String
    let members: Int
    /// Of each unit, of each type.
    let seats: [[Int]]
    let clocks: [UnitClock]
    let preferred: String
    let division: String
    /// Bytes of etcd's database.
    let quota = 8 << 20

    init(seed: UInt64, mode: Mode?, policy: String?, random: inout SeededGenerator) {
        self.seed = seed
        let drawn: Mode = [.fabric, .fabric, .fabric, .ha72, .haBefore72].randomElement(using: &random) ?? .fabric
        self.mode = mode ?? drawn
        let isAcknowledged = Int.random(in: 0..<4, using: &random) == 0
        self.policy = policy ?? (isAcknowledged ? "ack-only" : "time")
        members = Bool.random(using: &random) ? 3 : 1
        let units = Int.random(in: 3...4, using: &random)
        seats = (0..<units).map { _ in
            [
                Int.random(in: 4...12, using: &random), Int.random(in: 0...2, using: &random),
                Int.random(in: 0...6, using: &random),
            ]
        }
        let base = boottime()
        clocks = (0..<units).map { _ in
            let isElsewhere = Int.random(in: 0..<3, using: &random) == 0
            return UnitClock(
                bootSeconds: isElsewhere ? Int.random(in: 1...Self.bootOffset, using: &random) : 0,
                rate: [-Self.rateMax, 0, 0, Self.rateMax].randomElement(using: &random) ?? 0, base: base)
        }
        preferred = "\(Int.random(in: 0...3, using: &random))/0/\(Int.random(in: 0...1, using: &random))"
        division = Bool.random(using: &random) ? "max-min" : "proportional"
    }

    var isByTime: Bool { policy == "time" }

    func settings(of unit: Int, endpoints: [String]) -> [String: String] {
        var settings = [
            "log-level": "debug", "usage-report": "disable", "sharing-endpoints": endpoints.joined(separator: ","),
            "sharing-term": String(Self.termSeconds), "sharing-reclaim": policy,
        ]
        if mode.isHA {
            settings["ha-mode"] = mode.rawValue
            settings["ha-group-name"] = "chaos"
            settings["ha-role"] = unit == 0 ? "primary" : "secondary"
        } else {
            settings["csf-status"] = "enable"
            settings["csf-group-name"] = "chaos"
            settings["csf-role"] = unit == 0 ? "root" : "member"
            if unit == 0 {
                settings["csf-preferred-seats"] = preferred
                settings["csf-division"] = division
            }
        }
        return settings
    }

    var description: String {
        let clocks = clocks.map { ($0.bootSeconds == 0 ? "" : "+\($0.bootSeconds)s") + ($0.rate == 0 ? "" : "\($0.rate)ppm") }
        let units = zip(seats, clocks).map { seats, clock in
            seats.map(String.init).joined(separator: "/") + (clock.isEmpty ? "" : "(\(clock))")
        }
        return "\(mode.rawValue), \(policy), \(members) of etcd, units \(units.joined(separator: " "))"
    }
}
