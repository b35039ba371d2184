import Admission
import Foundation
import TestSupport
import Testing

extension EndToEnd {
    /// Real fpxd's that lend one another seats over a real etcd.
    @Suite(.serialized, .enabled(if: EtcdServer.isInstalled, "etcd is not installed")) struct Sharing {
        static let perSeat = SharingUnit.sessionsPerSeat

        /// What each unit of a fabric is told.
        static func fabric(_ etcd: EtcdServer, term: Int = 3) -> [String: String] {
            [
                "csf-status": "enable", "csf-group-name": "acme", "sharing-endpoints": "\"\(etcd.list)\"",
                "sharing-term": "\(term)",
            ]
        }

        /// A root of 40 seats and members of 40 and 20.
        static func startThree(_ etcd: EtcdServer, term: Int = 3, root: [String: String] = [:]) throws -> [SharingUnit] {
            let units = try SharingUnit.start(
                ["FPXROOT01": 40, "FPXMEMB02": 40, "FPXMEMB03": 20], fabric(etcd, term: term),
                each: ["FPXROOT01": root.merging(["csf-role": "root"]) { $1 }])
            try expectEventually("all are in the pool") { try units.allSatisfy { try $0.view().members == 3 } }
            return units
        }
    }
}

extension EndToEnd.Sharing {
    /// Demand moves from one unit to the next: seats follow, sessions stay, and never is more enforced than bought.
    @Test(arguments: [(1, 3), (3, 30)])
    func seatsFollowDemand(members: Int, term: Int) async throws {
        let etcd = try await EtcdServer.start(members: members)
        let units = try Self.startThree(etcd, term: term)
        let watch = CapWatch(units, most: 100 * Self.perSeat)
        var took: [Duration] = []
        for round in 0..<6 {
            let busy = units[round % 3]
            let start = ContinuousClock.now
            for unit in units { unit.load.wanted = unit === busy ? 80 * Self.perSeat : Self.perSeat }
            expectEventually("\(busy.serial) has 80 seats") { busy.pool.capNow() >= 80 * Self.perSeat }
            took.append(ContinuousClock.now - start)
            expectEventually("all its sessions are inspected") { busy.load.inspected == 80 * Self.perSeat }
            for unit in units { expectEventually("none is cut") { unit.pool.snapshot().inUse == unit.load.inspected } }
        }
        #expect(took.sorted()[took.count / 2] < .seconds(2))
        print("seats follow demand: etcd of \(members), term \(term) s:", took.map { "\(Int($0 / .milliseconds(1))) ms" })
        if members > 1 {
            // Another leads: loans outlast it.
            try etcd.kill(try #require(try etcd.leader()))
            for unit in units { unit.load.wanted = unit === units[1] ? 80 * Self.perSeat : Self.perSeat }
            let came = eventually(within: 30) { units[1].load.inspected == 80 * Self.perSeat }
            #expect(came, "\(units[1].daemon.log.suffix(1000))")
        }
        watch.stop()
    }

    /// What root and members print of it, line by line.
    @Test func whatUnitsPrint() async throws {
        let etcd = try await EtcdServer.start()
        let units = try Self.startThree(
            etcd, root: ["csf-preferred-seats": "5/0/0", "csf-member-preferred-seats": "FPXMEMB03 8/0/0"])
        let (root, member) = (units[0], units[1])
        #expect(try root.daemon.fpx("show", "system", "csf").contains("    set role root\n    set group-name acme\n"))
        root.load.wanted = 55 * Self.perSeat
        expectEventually("the root has borrowed") { root.load.inspected == 55 * Self.perSeat }
        // 55 in use, and an eighth more to grow into.
        try expectEventually("the ledger shows it") {
            let text = try root.daemon.fpx("diagnose", "test", "application", "csfd", "140")
            return text.contains("\nfurl 40/ 55/ 61/ 61/ 5/ 5/ 1000/ no / no\n") && text.contains("\nfurl 100/ 55/ 100/ no\n")
        }
        let ledger = try root.daemon.fpx("diagnose", "test", "application", "csfd", "140")
        let header = "lic purchased/ used/ allocated/ reserved/guaranteed/ preferred/ model_max/grant?/conserve"
        let lines = ledger.split(separator: "\n", omittingEmptySubsequences: false)
        for (place, serial) in ["FPXMEMB02", "FPXMEMB03", "FPXROOT01"].enumerated() {
            let lines = lines[(place * 6)...].map(String.init)
            let (index, isRoot) = (place * 6, serial == "FPXROOT01" ? "y" : "n")
            let device = lines[index - place * 6]
            #expect(
                device.wholeMatch(
                    of: try Regex(
                        "dev: \(serial)\\(0x[0-9a-f]{8}\\), stale: n, root: \(isRoot), sharing: y, "
                            + "last ping: [0-9]{10} proto_version=3")) != nil, "\(device)")
            #expect(lines[1] == header)
            #expect(lines[2].hasPrefix("furl \(serial == "FPXMEMB03" ? 20 : 40)/ "), "\(lines[2])")
            let preferred = serial == "FPXMEMB03" ? 8 : 5
            #expect(lines[2].contains("/ \(preferred)/ \(preferred)/ 1000/ no / no"), "\(lines[2])")
            #expect(lines[3] == "fnbi 0/ 0/ 0/ 0/ 0/ 0/ 1000/ yes/ no" || lines[3] == "fnbi 0/ 0/ 0/ 0/ 0/ 0/ 1000/ no / no")
            #expect(lines[5].isEmpty)
        }
        #expect(lines[18...19] == ["Total:", "lic purchased/ used/ allocated/ conserve"])
        #expect(lines[20] == "furl 100/ 55/ 100/ no")
        #expect(lines[23].hasPrefix("n_need_grant_seat: "))
        let aligned = try root.daemon.fpx("diagnose", "test", "application", "csfd", "140", "--align")
        #expect(
            aligned.contains("\nfurl         40/        55/        61/        61/         5/         5/      1000/        no/"))
        let json = try root.daemon.fpx("--json", "diagnose", "test", "application", "csfd", "140")
        let object = try #require(try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
        let devices = (object["ledger"] as? [String: Any])?["devices"] as? [[String: Any]]
        #expect(devices?.compactMap { $0["serial"] as? String } == ["FPXMEMB02", "FPXMEMB03", "FPXROOT01"], "\(json)")

        let own = try member.daemon.fpx("diagnose", "test", "application", "csfd", "140")
        #expect(
            own.hasPrefix(
                "fabric license sharing: y\ndevice status: disconn no stale no\nlic purchased/ used/ allocated/ conserve\n"))
        let lent = try member.view().lent.furl
        #expect(own.contains("\nfurl 40/ 0/ \(40 - lent)/ no\n"), "\(own)")
        #expect(lent > 0)
        try expectEventually("loans are events") {
            try member.tells("Lent to FPXROOT01: \(lent)/0/0 seats") && root.tells("Borrowed from FPXMEMB02: \(lent)/0/0 seats")
        }

        let seats = try root.daemon.fpx("diagnose", "wad", "license", "detail")
        #expect(seats == "Purchased License Seat: 40\nAvailable License Seat: 61\nMax Licensed Session: 1525\n")
        #expect(try root.daemon.fpx("diagnose", "wad", "license").contains("fabric\n"))
        let fabric = try root.daemon.fpx("get", "system", "csf")
        for line in [
            "role                : root", "group-name          : acme", "serial              : FPXROOT01",
            "connection          : connected", "members             : 3", "seats-allocated     : 61/0/0",
        ] { #expect(fabric.contains(line + "\n"), "\(fabric)") }
        #expect(try root.daemon.fpx("get", "system", "ha", "status") == "Mode: Standalone\n")

        // The pool is short: who has more than its share is told to conserve, and keeps what is in use.
        let watch = CapWatch(units, most: 100 * Self.perSeat)
        member.load.wanted = 55 * Self.perSeat
        try expectEventually("conserve is an event") { try root.tells("Conserve: the pool is short of furl seats") }
        #expect(root.load.inspected == 55 * Self.perSeat)
        try expectEventually("somebody needs a grant") {
            try !root.daemon.fpx("diagnose", "test", "application", "csfd", "140").contains("n_need_grant_seat: 0\n")
        }
        root.load.wanted = 0
        try expectEventually("what was lent has come back") { try member.tells("Lent to FPXROOT01: 0/0/0 seats, before") }
        watch.stop()

        // What the root is told holds at once for all.
        try root.configure("csf", "set", "preferred-seats", "6/0/0")
        try expectEventually("the ledger shows it") {
            try root.daemon.fpx("diagnose", "test", "application", "csfd", "140").split(separator: "\n").count {
                $0.contains("/ 6/ 6/ 1000/ ")
            } == 2
        }
        let refused = try root.daemon.ask("config", "system", "ha", "set", "mode", "7.2", "end")
        #expect(refused.status == 1 && refused.output.contains("csf-status enable and ha-mode 7.2"), "\(refused)")
    }
}
