import Admission
import Foundation
import TestSupport
import Testing

/// Units that are stopped, killed, changed or copied while they share.
extension EndToEnd.Sharing {
    /// Two units, the second of which has borrowed 20 seats of the first's 40 beside its own 10.
    private func startPair(_ etcd: EtcdServer, root: [String: String] = [:]) throws -> (
        lender: SharingUnit, borrower: SharingUnit
    ) {
        let units = try SharingUnit.start(
            ["FPXA": 40, "FPXB": 10], Self.fabric(etcd), each: ["FPXA": root.merging(["csf-role": "root"]) { $1 }])
        try borrow(units[0], units[1])
        return (units[0], units[1])
    }

    private func borrow(_ lender: SharingUnit, _ borrower: SharingUnit) throws {
        borrower.load.wanted = 24 * Self.perSeat
        expectEventually("the borrower has all it wants") { borrower.load.inspected == 24 * Self.perSeat }
        try expectEventually("the lender has lent") { try lender.view().lent.furl >= 14 }
    }

    /// Whoever stops fpxd, the workers end the loan, to the session.
    @Test func aStoppedDaemonKeepsNothingBorrowed() async throws {
        let etcd = try await EtcdServer.start()
        let (lender, borrower) = try startPair(etcd)
        let watch = CapWatch([lender, borrower], most: 50 * Self.perSeat)
        let id = try #require(borrower.daemon.processID)
        #expect(borrower.pool.capNow() > 10 * Self.perSeat)
        kill(id, SIGSTOP)
        let hammer = BackgroundThread { [pool = borrower.pool] thread in
            while !thread.isStopped { pool.release(pool.admit().detach()) }
        }
        borrower.expectCap(10)
        #expect(borrower.load.inspected == 24 * Self.perSeat, "none is cut")
        // All that were in progress have gone: from here on each is counted.
        hammer.stop()
        borrower.load.wanted = 0
        expectEventually("none is in progress") { borrower.load.inspected == 0 && borrower.pool.snapshot().inUse == 0 }
        var verdicts: [Verdict] = []
        for _ in 0..<(20 * Self.perSeat) { verdicts.append(borrower.pool.admit().detach()) }
        #expect(verdicts.count { $0 == .inspect } == 10 * Self.perSeat)
        #expect(!verdicts[(10 * Self.perSeat)...].contains(.inspect))
        for verdict in verdicts { borrower.pool.release(verdict) }
        // The lender has its seats again, by its own clock.
        lender.expectCap(40)
        kill(id, SIGCONT)
        try borrow(lender, borrower)
        watch.stop()
    }

    /// A successor uses what it cannot have lent, and the rest when all that may be lent is over.
    @Test func aKilledLenderTakesBackInTime() async throws {
        let etcd = try await EtcdServer.start()
        let (lender, borrower) = try startPair(etcd, root: ["csf-preferred-seats": "\"5/0/0\""])
        let watch = CapWatch([lender, borrower], most: 50 * Self.perSeat)
        let lent = try lender.view().lent.furl
        try lender.daemon.end(by: SIGKILL)
        let killed = ContinuousClock.now
        try lender.daemon.start()
        if ContinuousClock.now - killed < .seconds(2) {
            #expect((5 * Self.perSeat...(40 - lent) * Self.perSeat).contains(lender.pool.settings.cap))
        }
        #expect(try lender.view().problems.contains { $0.contains("seats may be lent from before this start") })
        try expectEventually("what was lent is known") { try lender.tells("What was lent before this start is back, or known") }
        #expect(ContinuousClock.now - killed > .seconds(3))
        try borrow(lender, borrower)

        // Without the record nothing is used before a term has passed.
        try lender.daemon.end(by: SIGTERM)
        try FileManager.default.removeItem(atPath: lender.daemon.home + "/state/lent")
        let lost = ContinuousClock.now
        try lender.daemon.start()
        if ContinuousClock.now - lost < .seconds(2) { #expect(lender.pool.capNow() == 0) }
        #expect(try lender.tells("No record of what FPXA has lent"))
        try borrow(lender, borrower)
        #expect(ContinuousClock.now - lost > .seconds(3))

        // It shares no longer: its own seats are back when all loans are over, and then it is by itself.
        let ended = ContinuousClock.now
        try lender.restart([:], by: SIGTERM)
        #expect(try lender.tells("Lent before and perhaps not back yet"))
        lender.expectCap(40)
        #expect(ContinuousClock.now - ended > .seconds(3))
        #expect(try lender.daemon.fpx("get", "system", "csf").hasPrefix("status              : disable\n"))
        borrower.expectCap(10)
        watch.stop()
    }

    /// A second fpxd with the same licence: the first gives everything up and says so.
    @Test func aCopyOfAUnitIsFound() async throws {
        let etcd = try await EtcdServer.start()
        let units = try SharingUnit.start(["FPXA": 40, "FPXB": 10], Self.fabric(etcd))
        try expectEventually("both are in the pool") { try units.allSatisfy { try $0.view().members == 2 } }
        let copy = try SharingUnit("FPXA", seats: 40, copyOf: units[0], Self.fabric(etcd))
        try expectEventually("one of the two gives up") { try units[0].view().isFenced || copy.view().isFenced }
        let (fenced, other) = try units[0].view().isFenced ? (units[0], copy) : (copy, units[0])
        fenced.expectCap(0)
        let watch = CapWatch([units[0], units[1], copy], most: 50 * Self.perSeat)
        #expect(try fenced.tells("was written by process", "a copy of this unit runs"))
        #expect(
            try fenced.daemon.fpx("diagnose", "test", "application", "csfd", "1").contains(
                "Another process of this unit: yes\n"))
        // The seats are there once, for all.
        units[1].load.wanted = 40 * Self.perSeat
        expectEventually("the other lends") { units[1].load.inspected == 40 * Self.perSeat }
        let view = try other.view()
        #expect(view.lent.furl >= 30 && !view.isFenced)
        #expect(fenced.pool.capNow() == 0)
        watch.stop()
    }

    /// Rows that nobody should have written are named, and count for nothing.
    @Test func badRowsChangeNothing() async throws {
        let etcd = try await EtcdServer.start()
        let units = try Self.startThree(etcd)
        let watch = CapWatch(units, most: 100 * Self.perSeat)
        for unit in units { unit.load.wanted = 15 * Self.perSeat }
        for unit in units { expectEventually("all are inspected") { unit.load.inspected == 15 * Self.perSeat } }
        let before = units.map { $0.pool.capNow() }
        let prefix = "pool/acme/m/"
        let value = try etcd.value(prefix + "FPXMEMB02")
        let genuine = try #require(SignedRow(value))
        /// As the unit itself would sign it, if its program were another one.
        func changed(_ change: (inout [String: Any]) -> Void) async throws -> String {
            var row = genuine
            change(&row.row)
            return try await row.signed(by: units[1].keyFile)
        }
        let other = try #require(try etcd.row(of: "FPXMEMB03"))
        let rows: [(key: String, value: String, problem: String)] = [
            (prefix + "no name", value, "no member's key, expected pool/acme/m/SERIAL"),
            (
                prefix + "FPXHALF", String(value.prefix(value.count / 2)),
                "found 2 of 3 parts, expected header.payload.signature"
            ),
            (prefix + "FPXNEW", try await changed { $0["version"] = 4 }, "found protocol version 4, expected 3"),
            (prefix + "FPXOLD", try genuine.text(), "found protocol version of rows that nobody has signed, expected 3"),
            (prefix + "FPXPOOL", try await changed { $0["cluster"] = "other" }, #"a row of pool "other", expected "acme""#),
            (prefix + "FPXTWIN", value, #"a row of unit "FPXMEMB02", expected "FPXTWIN""#),
            (prefix + "FPXNOISE", "\u{1}{{{\u{1b}[2J", "found"),
            (
                prefix + "FPXLESS",
                try await changed { ($0["purchased"], $0["serial"]) = ([-1, 0, 0], "FPXLESS") }, "purchased: found -1"
            ),
            (
                prefix + "FPXOTHER", try await changed { $0["serial"] = "FPXOTHER" },
                #"a row of unit "FPXMEMB02", expected "FPXOTHER""#
            ),
            (prefix + "FPXKEY", try await other.signed(by: units[1].keyFile), "found a signature that key unit did not make"),
        ]
        for row in rows { try etcd.control(["put", "--", row.key, row.value]) }
        for unit in units {
            for (key, _, problem) in rows {
                try expectEventually("\(unit.serial) names \(key)") {
                    let text = try unit.daemon.fpx("diagnose", "test", "application", "csfd", "1")
                    return text.split(separator: "\n").contains {
                        $0.hasPrefix("Problem: ") && $0.contains(problem) && $0.contains(key)
                    }
                }
            }
            #expect(try unit.tells("found protocol version 4, expected 3"))
        }
        // A unit's own row, damaged: it is written anew.
        try etcd.control(["put", prefix + "FPXMEMB03", "gone"])
        try expectEventually("the row is whole again") {
            try etcd.row(of: "FPXMEMB03") != nil
        }
        #expect(units.map { $0.pool.capNow() } == before)
        try etcd.control(["del", "--prefix", prefix + "no"])
        try etcd.control(["del", prefix + "FPXHALF"])
        try expectEventually("what is gone is not named") {
            let problems = try units[0].view().problems
            return !problems.contains { $0.contains("FPXHALF") } && problems.contains { $0.contains("FPXTWIN") }
        }
        watch.stop()
    }
}
