// Who can write to etcd wants more seats than are bought: the customer, who owns it, with all that his units have ever written.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite(.serialized, .enabled(if: EtcdServer.isInstalled, "etcd is not installed")) struct FieldSharingForgery {}
}

private let perSeat = SharingUnit.sessionsPerSeat

private func expectRow(
    _ point: String, _ situation: String, expected: String, found: String, sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(Field.row("sharing.\(point)", situation, expected: expected, found: found), sourceLocation: sourceLocation)
}

extension EndToEnd.FieldSharingForgery {
    /// What an attack came to: the unit says what is wrong, and has written rows since to which the forged one would be the answer.
    private func strike(
        _ unit: SharingUnit, _ etcd: EtcdServer, at serial: String, problem: String,
        _ forge: (_ victim: SignedRow) async throws -> String
    ) async throws -> Bool {
        let begun = try #require(try etcd.row(of: unit.serial)).sequence
        var isNamed = false
        let deadline = ContinuousClock.now + .seconds(60)
        while ContinuousClock.now < deadline {
            let victim = try #require(try etcd.row(of: unit.serial))
            try etcd.put(try await forge(victim), at: serial)
            if try unit.view().problems.contains(where: { $0.contains(problem) }) { isNamed = true }
            if isNamed, victim.sequence > begun + 10 { return true }
        }
        return false
    }

    /// A grant of seats to a unit, by the row that it has written last, for a year.
    private func grant(_ seats: Int, to victim: SignedRow) -> [Any] {
        [
            victim.row["serial"] ?? "", victim.incarnation, victim.sequence, [seats, 0, 0], 31_536_000_000_000_000,
        ]
    }

    @Test func nobodyMintsSeats() async throws {
        let etcd = try await EtcdServer.start()
        let units = try SharingUnit.start(["FPXA": 10, "FPXB": 20], EndToEnd.Sharing.fabric(etcd))
        // The customer has its key and its licence, and does not run it.
        let third = try SharingUnit("FPXC", seats: 5, EndToEnd.Sharing.fabric(etcd))
        try expectEventually("all are in the pool") { try units[1].view().members == 3 }
        let genuine = try #require(try etcd.row(of: "FPXC"))
        let former = try #require(try etcd.row(of: "FPXA"))
        let formerValue = try etcd.value(EtcdServer.rows + "FPXA")
        try third.daemon.end(by: SIGKILL)
        let (lender, victim) = (units[0], units[1])
        let watch = CapWatch(units, most: 30 * perSeat)
        victim.load.wanted = 78 * perSeat
        expectEventually("all that is bought is used") { victim.load.inspected >= 29 * perSeat }
        /// The row of a member that has bought 50 seats, as he makes it from one that he has read.
        func minted(_ serial: String, from row: SignedRow, _ victim: SignedRow, purchased: Int = 50, granted: Int = 50)
            -> SignedRow
        {
            var row = row
            row.row["serial"] = serial
            row.row["sequence"] = victim.sequence + 1_000_000
            row.row["entitled"] = true
            (row.row["purchased"], row.row["own"]) = ([purchased, 0, 0], [0, 0, 0])
            row.row["demand"] = [0, 0, 0]
            (row.row["grants"], row.row["holdings"]) = ([grant(granted, to: victim)], [Any]())
            return row
        }
        func report(_ situation: String, _ isNamed: Bool) {
            let most = victim.pool.capNow() / perSeat
            expectRow(
                "9", situation, expected: "named, nothing more is used",
                found: "\(isNamed ? "named" : "not named"), \(most <= 30 ? "nothing more is used" : "\(most) seats of 30")")
        }
        let folder = try TemporaryFolder()
        try lender.daemon.authority("keys", "new", "--name", "unit", "--out", folder.path)
        let own = folder.path + "/unit.key"

        report(
            "a row of an invented member that nobody has signed",
            try await strike(victim, etcd, at: "FPXEVIL", problem: "nobody has signed") {
                try minted("FPXEVIL", from: genuine, $0).text()
            })
        report(
            "a row of an invented member, signed with a key of his own, with a licence of his unit",
            try await strike(victim, etcd, at: "FPXEVIL", problem: "found a signature that key unit did not make") {
                try await minted("FPXEVIL", from: genuine, $0).signed(by: own)
            })
        report(
            "a row of an invented member, signed with the key of a genuine unit that gives its licence",
            try await strike(victim, etcd, at: "FPXEVIL", problem: "a row of unit \"FPXC\", expected \"FPXEVIL\"") {
                try await minted("FPXEVIL", from: genuine, $0).signed(by: third.keyFile)
            })
        report(
            "a genuine unit's row that says that it has bought more",
            try await strike(victim, etcd, at: "FPXC", problem: "purchased: found 50/0/0, expected at most the 5/0/0") {
                try await minted("FPXC", from: genuine, $0).signed(by: third.keyFile)
            })
        report(
            "a genuine unit's row that lends more than it has bought",
            try await strike(victim, etcd, at: "FPXC", problem: "grants: found 50/0/0, expected at most the purchased 5/0/0") {
                try await minted("FPXC", from: genuine, $0, purchased: 5).signed(by: third.keyFile)
            })
        report(
            "a genuine unit's row of another pool",
            try await strike(victim, etcd, at: "FPXC", problem: "a row of pool \"other\"") {
                var row = minted("FPXC", from: genuine, $0, purchased: 5, granted: 5)
                row.row["cluster"] = "other"
                return try await row.signed(by: third.keyFile)
            })
        for (situation, more, problem) in [
            ("a genuine licence that has ended", ["--not-before", "2020-01-01", "--days", "14"], "its licence has ended"),
            (
                "a genuine licence of another factor", ["--sessions-per-seat", "1"],
                "found 1 sessions a seat, expected 25 as here"
            ),
        ] {
            try third.sign(seats: 50, more)
            let license = try String(contentsOfFile: third.daemon.licenseFile, encoding: .utf8)
            report(
                situation,
                try await strike(victim, etcd, at: "FPXC", problem: problem) {
                    var row = minted("FPXC", from: genuine, $0)
                    row.license = license.trimmingCharacters(in: .whitespacesAndNewlines)
                    return try await row.signed(by: third.keyFile)
                })
        }
        // A licence that names no key vouches for nobody, though its seats are genuine.
        let plain = try third.plainLicense(seats: 50)
        report(
            "a genuine licence that names no unit's key",
            try await strike(victim, etcd, at: "FPXC", problem: "expected the unit's key") {
                var row = minted("FPXC", from: genuine, $0)
                row.license = plain
                return try await row.signed(by: third.keyFile)
            })
        // What the lender has written before, in its own place and in another's.
        report(
            "an old row of a genuine unit, in its place again and again",
            try await strike(victim, etcd, at: "FPXA", problem: "found a row from before one that was read") { _ in formerValue
            })
        report(
            "a row of a genuine unit under another's name",
            try await strike(victim, etcd, at: "FPXC", problem: "a row of unit \"FPXA\", expected \"FPXC\"") { _ in formerValue
            })
        report(
            "a genuine unit's row in which only its process is another",
            try await strike(victim, etcd, at: "FPXA", problem: "found a signature that key unit did not make") { _ in
                var row = former
                row.row["incarnation"] = "ffffffffffffffff"
                return try await row.signed(by: own)
            })
        #expect(try !lender.view().isFenced, "no copy of it runs")
        try expectEventually("the lender goes on") { try lender.view().isConnected && !victim.view().lenders.isEmpty }
        watch.stop()
    }

    /// Whoever can write to etcd puts back a row in which nothing is lent, while the lender is down.
    @Test func anOldRowDoesNotMakeALenderForget() async throws {
        let etcd = try await EtcdServer.start()
        let settings = EndToEnd.Sharing.fabric(etcd).merging(["sharing-reclaim": "ack-only"]) { $1 }
        let units = try SharingUnit.start(["FPXA": 40, "FPXB": 10], settings)
        let (lender, borrower) = (units[0], units[1])
        var before = ""
        try expectEventually("a row in which nothing is lent") {
            before = try etcd.value(EtcdServer.rows + "FPXA")
            return SignedRow(before) != nil
        }
        borrower.load.wanted = 24 * perSeat
        expectEventually("it has borrowed") { borrower.load.inspected == 24 * perSeat }
        let watch = CapWatch(units, most: 50 * perSeat)
        let lent = try lender.view().lent.furl
        #expect(lent >= 14)
        try lender.daemon.end(by: SIGKILL)
        try etcd.put(before, at: "FPXA")
        try lender.daemon.start()
        lender.load.wanted = 60 * perSeat
        try expectEventually("it is back") { try lender.view().isConnected }
        let row = try #require(try etcd.row(of: "FPXA")).sequence
        try expectEventually("it goes on") { try (etcd.row(of: "FPXA")?.sequence ?? 0) > row + 10 }
        let found = try lender.view().lent.furl
        expectRow(
            "9", "ack-only: a row in which nothing is lent is put back while the lender is down",
            expected: "what is lent is known",
            found: found >= 14 ? "what is lent is known" : "\(found) seats are lent")
        watch.stop()
    }

    @Test func aLicenceWithoutAKeySharesNothing() async throws {
        let etcd = try await EtcdServer.start()
        let units = try SharingUnit.start(["FPXA": 10], EndToEnd.Sharing.fabric(etcd))
        let plain = try SharingUnit("FPXP", seats: nil, EndToEnd.Sharing.fabric(etcd))
        try plain.plainLicense(seats: 7).write(toFile: plain.daemon.licenseFile, atomically: true, encoding: .utf8)
        _ = try plain.daemon.fpx("commit")
        plain.expectCap(7)
        let sentence = "licence FPXP names no unit's key"
        let csf = try plain.daemon.fpx("get", "system", "csf")
        let isSaid = try csf.contains(sentence) && plain.tells(sentence)
        expectRow(
            "9", "a licence that names no unit's key, in a fabric", expected: "its own seats, and it says so",
            found: isSaid ? "its own seats, and it says so" : csf)
        #expect(try etcd.value(EtcdServer.rows + "FPXP") == "")
        #expect(try units[0].view().members == 1)
        // The same licence with the unit's key: it joins.
        try plain.sign(seats: 7, ["--epoch", "1001"])
        _ = try plain.daemon.fpx("commit")
        try expectEventually("it is in the pool") { try units[0].view().members == 2 }
    }

    /// Seats of 25 sessions and of 1 are not the same thing.
    @Test func seatsOfAnotherFactorAreNotLent() async throws {
        let etcd = try await EtcdServer.start()
        let settings = EndToEnd.Sharing.fabric(etcd)
        let large = try SharingUnit("FPXA", seats: 10, settings)
        let small = try SharingUnit("FPXB", seats: 250, license: ["--sessions-per-seat", "1"], settings)
        let units = [large, small]
        try expectEventually("both are in the pool") { try units.allSatisfy { try $0.view().members == 2 } }
        let watch = CapWatch(units, most: 500)
        large.load.wanted = 400
        try expectEventually("each names the other") {
            try large.view().problems.contains { $0.contains("\"FPXB\": found 1 sessions a seat, expected 25 as here") }
                && small.view().problems.contains { $0.contains("\"FPXA\": found 25 sessions a seat, expected 1 as here") }
        }
        let sequence = try #require(try etcd.row(of: "FPXA")).sequence
        try expectEventually("they go on") { try (etcd.row(of: "FPXA")?.sequence ?? 0) > sequence + 10 }
        expectRow(
            "10", "units of 25 and of 1 session a seat in one pool", expected: "250 and 250 sessions, nothing is lent",
            found: "\(large.pool.capNow()) and \(small.pool.capNow()) sessions, "
                + (try large.view().lenders.isEmpty ? "nothing is lent" : "seats are lent"))
        let events = try large.daemon.fpx("get", "system", "events")
        #expect(events.components(separatedBy: "found 1 sessions a seat").count == 2, "it is told once")
        watch.stop()
    }
}
