import SeatSharing
import Testing

@Suite struct LedgerTests {
    /// Two units that have bought 40 each of furl and fcas; the second has lent 6 to the first.
    private var ledger: Ledger {
        var first = row(
            "FPXROOT01", .root, purchased: 40, demand: 46, used: 41, modelMax: 500, allocated: 46, own: 40,
            preferences: Preferences(global: Seats(5)))
        first.purchased.fnbi = 0
        first.own.fnbi = 0
        first.demand.fnbi = 1
        first.allocated.fnbi = 0
        first.used.fnbi = 0
        first.holdings = [Holding(lender: "FPXMEMB02", through: 3, seats: Seats(furl: 6, fnbi: 0, fcas: 6))]
        var second = row("FPXMEMB02", .member, purchased: 40, demand: 4, used: 3, modelMax: 500, allocated: 34, own: 34)
        second.purchased.fnbi = 0
        second.own.fnbi = 0
        second.demand.fnbi = 0
        second.allocated.fnbi = 0
        second.used.fnbi = 0
        second.grants = [
            Grant(borrower: "FPXROOT01", incarnation: 7, number: 3, seats: Seats(furl: 6, fnbi: 0, fcas: 6), keep: 30 * .second)
        ]
        return Ledger(pool: pool([first, second]), viewer: "FPXMEMB02", isDisconnected: false)
    }

    @Test func theRootsText() {
        #expect(
            ledger.text() == """
                dev: FPXMEMB02(0x\(String(ledger.devices[0].id, radix: 16))), stale: n, root: n, sharing: y, last ping: 1765000000 proto_version=3
                lic purchased/ used/ allocated/ reserved/guaranteed/ preferred/ model_max/grant?/conserve
                furl 40/ 3/ 34/ 34/ 5/ 5/ 500/ no / no
                fnbi 0/ 0/ 0/ 0/ 0/ 0/ 500/ no / no
                fcas 40/ 3/ 34/ 34/ 5/ 5/ 500/ no / no

                dev: FPXROOT01(0x\(String(ledger.devices[1].id, radix: 16))), stale: n, root: y, sharing: y, last ping: 1765000000 proto_version=3
                lic purchased/ used/ allocated/ reserved/guaranteed/ preferred/ model_max/grant?/conserve
                furl 40/ 41/ 46/ 46/ 5/ 5/ 500/ no / no
                fnbi 0/ 0/ 0/ 0/ 0/ 0/ 500/ yes/ no
                fcas 40/ 41/ 46/ 46/ 5/ 5/ 500/ no / no

                Total:
                lic purchased/ used/ allocated/ conserve
                furl 80/ 44/ 80/ no
                fnbi 0/ 0/ 0/ no
                fcas 80/ 44/ 80/ no
                n_need_grant_seat: 1

                """)
    }

    @Test func aMembersText() {
        #expect(
            ledger.memberText() == """
                fabric license sharing: y
                device status: disconn no stale no
                lic purchased/ used/ allocated/ conserve
                furl 40/ 3/ 34/ no
                fnbi 0/ 0/ 0/ no
                fcas 40/ 3/ 34/ no

                """)
    }

    @Test func aligned() {
        let lines = ledger.text(isAligned: true).split(separator: "\n")
        #expect(
            lines[1]
                == "lic   purchased/      used/ allocated/  reserved/guaranteed/ preferred/ model_max/    grant?/  conserve")
        #expect(
            lines[2]
                == "furl         40/         3/        34/        34/         5/         5/       500/        no/        no")
    }

    @Test func anOldRowDoesNotCountMoreThanItsOwnersCharge() throws {
        // The loan has run out, and the borrower has not spoken since.
        let first = row("FPX1", .root, purchased: 10, allocated: 16, own: 10)
        let ledger = Ledger(
            pool: pool([first, row("FPX2", .member, purchased: 6)], stale: ["FPX1"]), viewer: "FPX2", isDisconnected: false)
        #expect(ledger.devices[0].lines[0].allocated == 10)
        #expect(ledger.totals[0].allocated == 16 && !ledger.totals[0].conserve)
    }

    @Test func whoHasMoreThanItsShareOfAShortPoolIsToldToShrink() {
        let ledger = Ledger(
            pool: pool([
                row("FPX1", .root, purchased: 20, demand: 60, used: 20), row("FPX2", .member, purchased: 0, demand: 60),
            ]), viewer: "FPX1", isDisconnected: false)
        #expect(ledger.devices.map { $0.lines[0].conserve } == [true, false])
        #expect(ledger.needingGrant == 6)
    }

    @Test func highAvailability() {
        let seats = HASeats(
            pool: pool([
                row("FPX2", .secondary, .haBefore72, purchased: 500), row("FPX1", .primary, .haBefore72, purchased: 300),
            ]))
        #expect(
            seats.text(available: 550, sessionsPerSeat: 25, sessions: 812) == """
                License Seats Registered:
                FPX1: 300
                FPX2: 500

                New license seats adjusted:
                FPX1: 550
                FPX2: 250

                Available License Seat: 550
                Max Licensed Session: 13750
                Current Licensed Session: 812

                """)
    }
}
