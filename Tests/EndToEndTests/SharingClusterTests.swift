import Admission
import Foundation
import TestSupport
import Testing

/// High availability: two units, one of which has the traffic.
extension EndToEnd.Sharing {
    private static func cluster(_ etcd: EtcdServer, _ mode: String) -> [String: String] {
        [
            "ha-mode": mode, "ha-group-name": "pair", "sharing-endpoints": "\"\(etcd.list)\"", "sharing-term": "3",
        ]
    }

    @Test func halfOfTheSecondaryBefore72() async throws {
        let etcd = try await EtcdServer.start()
        let units = try SharingUnit.start(
            ["FPX1": 300, "FPX2": 500], Self.cluster(etcd, "pre-7.2"), each: ["FPX1": ["ha-role": "primary"]])
        let (first, second) = (units[0], units[1])
        let watch = CapWatch(units, most: 801 * Self.perSeat)
        first.expectCap(550)
        second.expectCap(250)
        first.load.wanted = 812
        expectEventually("sessions are in progress") { first.load.inspected == 812 }
        let registered =
            "License Seats Registered:\nFPX1: 300\nFPX2: 500\n\nNew license seats adjusted:\nFPX1: 550\nFPX2: 250\n\n"
        try expectEventually("812 are in use") {
            try first.daemon.fpx("diagnose", "wad", "license", "detail")
                == registered + "Available License Seat: 550\nMax Licensed Session: 13750\nCurrent Licensed Session: 812\n"
        }
        #expect(
            try second.daemon.fpx("diagnose", "wad", "license", "detail")
                == registered + "Available License Seat: 250\nMax Licensed Session: 6250\nCurrent Licensed Session: 0\n")
        #expect(try first.daemon.fpx("diagnose", "wad", "license").contains("HA\n"))
        let status = """
            HA Health Status: OK
            Mode: HA
            Group Name: pair
            Serial: FPX1
            Role: primary
            Seats: 550 allocated, 33 used
            Number of Members: 2
            Member: FPX1, seats registered 300, seats adjusted 550
            Member: FPX2, seats registered 500, seats adjusted 250

            """
        try expectEventually("33 seats are in use") { try first.daemon.fpx("get", "system", "ha", "status") == status }

        // Of an odd number the larger half stays.
        try second.sign(seats: 501)
        _ = try second.daemon.fpx("commit")
        second.expectCap(251)
        first.expectCap(550)
        try second.sign(seats: 500)
        _ = try second.daemon.fpx("commit")
        second.expectCap(250)

        // Who takes no part changes nothing: a licence that has ended, and the one that is built in.
        let expired = try SharingUnit(
            "FPX3", seats: 100, license: ["--not-before", "2020-01-01", "--days", "14"], Self.cluster(etcd, "pre-7.2"))
        let evaluation = try SharingUnit("FPX4", seats: nil, Self.cluster(etcd, "pre-7.2"))
        #expect(expired.pool.capNow() == 0)
        #expect(evaluation.pool.capNow() == 100)
        for unit in [expired, evaluation] {
            #expect(try unit.view().borrowers.isEmpty)
            let text = try unit.daemon.fpx("get", "system", "ha", "status")
            #expect(text.contains("ERROR: this unit's licence takes no part"), "\(text)")
        }
        #expect(first.pool.capNow() == 550 * Self.perSeat && second.pool.capNow() == 250 * Self.perSeat)

        // A peer that is gone: after a term each stands on what it has bought, and sessions go on.
        try second.daemon.end(by: SIGKILL)
        first.expectCap(300)
        #expect(first.load.inspected == 812)
        try expectEventually("the peer is missed") { try first.tells("Stale: FPX2 has not spoken") }
        #expect(try first.daemon.fpx("get", "system", "ha", "status").contains("WARNING: members that are silent: 1"))
        try second.daemon.start()
        first.expectCap(550)
        second.expectCap(250)
        watch.stop()
    }

    @Test func allForTheActiveUnitFrom72On() async throws {
        let etcd = try await EtcdServer.start()
        let units = try SharingUnit.start(
            ["FPX1": 300, "FPX2": 500], Self.cluster(etcd, "7.2"), each: ["FPX1": ["ha-role": "primary"]])
        let (first, second) = (units[0], units[1])
        let watch = CapWatch(units, most: 800 * Self.perSeat)
        first.expectCap(800)
        second.expectCap(0)
        first.load.wanted = 600 * Self.perSeat
        expectEventually("600 seats are in use") { first.load.inspected == 600 * Self.perSeat }
        // What keepalived's script does, and the clients go with the address.
        try first.configure("ha", "set", "role", "secondary")
        try second.configure("ha", "set", "role", "primary")
        (first.load.wanted, second.load.wanted) = (0, 600 * Self.perSeat)
        second.expectCap(800)
        first.expectCap(0)
        expectEventually("600 seats are in use there") { second.load.inspected == 600 * Self.perSeat }
        // Two that both mean to be it: nothing is lent any more, and what is not in use goes back.
        second.load.wanted = 400 * Self.perSeat
        try first.configure("ha", "set", "role", "primary")
        first.expectCap(300)
        try expectEventually("it is named") {
            try second.view().problems.contains { $0.contains("found 2 primary units (FPX1, FPX2)") }
        }
        try second.configure("ha", "set", "role", "secondary")
        second.load.wanted = 0
        first.expectCap(800)
        watch.stop()
    }
}
