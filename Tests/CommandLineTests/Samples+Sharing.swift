// Answers of a daemon that shares seats.

import ControlAPI
import SeatSharing

extension Samples {
    /// Two units that have bought 40 seats of furl each; the second has lent 6 of them to the first, the root.
    private static func rows(_ mode: SharingMode, _ roles: [Role]) -> [Row] {
        func row(_ serial: String, _ role: Role, own: Int, used: Int, allocated: Int, grants: [Grant] = []) -> Row {
            func furl(_ seats: Int) -> Seats { Seats(furl: seats, fnbi: 0, fcas: 0) }
            return Row(
                cluster: "lab", serial: serial, mode: mode, role: role, incarnation: 7, sequence: 3, record: 1,
                clock: Instant(9 * .second), ping: 1_795_000_000, isEntitled: true, purchased: furl(40),
                own: furl(own), used: furl(used), demand: furl(used), allocated: furl(allocated), modelMax: Seats(500),
                grants: grants, holdings: [], preferences: nil)
        }
        let grant = Grant(
            borrower: "FPXROOT01", incarnation: 7, number: 3, seats: Seats(furl: 6, fnbi: 0, fcas: 0), keep: 30 * .second)
        return [
            row("FPXMEMB02", roles[1], own: 34, used: 3, allocated: 34, grants: [grant]),
            row("FPXROOT01", roles[0], own: 40, used: 45, allocated: 46),
        ]
    }

    private static func pool(_ mode: SharingMode, _ roles: [Role]) -> Pool {
        Pool(
            revision: 12, rows: rows(mode, roles), isStale: [false, false], revisions: ["FPXMEMB02": 11, "FPXROOT01": 12],
            term: 30 * .second)
    }

    /// Of the root.
    static let sharing = sharing(role: .root, viewer: "FPXROOT01")

    static func sharing(role: Role, viewer: String, isDisconnected: Bool = false) -> SharingReport {
        SharingReport(
            mode: isDisconnected ? "fabric-disconn" : "fabric", group: "lab", serial: viewer, role: role.rawValue,
            isEntitled: true, isConnected: !isDisconnected, isFenced: false, policy: "time", reclaimAfter: "10m",
            overUse: "none while clocks agree",
            termSeconds: 30, heartbeatMilliseconds: 2000, members: 2, staleMembers: 0,
            lenders: [.init(serial: "FPXMEMB02", seats: Seats(furl: 6, fnbi: 0, fcas: 0), endsInSeconds: 27)],
            own: Seats(furl: 40, fnbi: 0, fcas: 0), borrowed: Seats(furl: 6, fnbi: 0, fcas: 0),
            cap: Seats(furl: 46, fnbi: 0, fcas: 0), used: Seats(furl: 45, fnbi: 0, fcas: 0),
            demand: Seats(furl: 45, fnbi: 0, fcas: 0),
            endpoints: [.init(url: "https://192.0.2.21:2379", state: "in use")], hasPassword: true,
            ledger: Ledger(pool: pool(.fabric, [.root, .member]), viewer: viewer, isDisconnected: isDisconnected),
            sessionsPerSeat: 25, sessions: 1105)
    }

    /// The primary unit of a cluster.
    static let cluster = SharingReport(
        mode: "HA", group: "pair", serial: "FPXROOT01", role: "primary", isEntitled: true, isConnected: true, policy: "time",
        overUse: "none while clocks agree", termSeconds: 30, heartbeatMilliseconds: 2000, members: 2,
        own: Seats(furl: 40, fnbi: 0, fcas: 0), borrowed: Seats(furl: 20, fnbi: 0, fcas: 0),
        cap: Seats(furl: 60, fnbi: 0, fcas: 0), used: Seats(furl: 33, fnbi: 0, fcas: 0),
        endpoints: [.init(url: "https://192.0.2.21:2379", state: "in use")],
        ha: HASeats(pool: pool(.haBefore72, [.primary, .secondary])), sessionsPerSeat: 25, sessions: 812)

    /// Answers as the primary unit does.
    static let answerInHA: TestDaemon.Answer = { request, body in
        switch request {
        case "GET /v1/seats":
            var seats = seats()
            seats.mode = "HA"
            return .value(seats)
        case "GET /v1/sharing": return .value(cluster)
        default: return answer(request, body)
        }
    }
}
