import SeatSharing
import Testing

@Suite struct PlanTests {
    /// What an idle unit asks for in advance gives way to whatever others want, also its own last seat; where none is wanted it stays.
    @Test func anIdleUnitLendsItsLastSeat() {
        func rows(_ demand: Int) -> [Row] {
            [
                row("FPX1", .root, purchased: 5, demand: demand, used: demand - 1),
                row("FPX2", .member, purchased: 3, demand: 1),
                row("FPX3", .member, purchased: 0, demand: 1),
            ]
        }
        #expect(pool(rows(8)).targets == [8, 0, 0])
        #expect(pool(rows(8)).lent("FPX2") == ["FPX1": 3])
        #expect(pool(rows(7)).targets == [7, 1, 0])
        #expect(pool(rows(6)).targets == [6, 1, 1])
        #expect(pool(rows(8)).plan.wanted.furl == 8, "nothing is short")
        // One session, and it is no idle unit any more.
        var asking = rows(8)
        asking[1].demand = Seats(2)
        #expect(pool(asking).targets == [6, 2, 0])
        // A guarantee is kept.
        var guaranteed = rows(8)
        guaranteed[0].preferences = Preferences(global: Seats(1))
        #expect(pool(guaranteed).targets == [7, 1, 0])
    }

    private func cluster(
        _ mode: SharingMode, _ primary: Int, _ secondary: Int, isEntitled: Bool = true, stale: Set<String> = [],
        modelMax: Int = 5000
    ) -> Pool {
        pool(
            [
                row("FPX1", .primary, mode, purchased: primary, modelMax: modelMax),
                row("FPX2", .secondary, mode, purchased: secondary, isEntitled: isEntitled),
            ], stale: stale)
    }

    @Test(arguments: [
        (SharingMode.haBefore72, 300, 500, 550, 250), (.haBefore72, 500, 300, 650, 150), (.ha72, 300, 500, 800, 0),
        // Of an odd number the secondary keeps the larger half.
        (.haBefore72, 300, 501, 550, 251), (.haBefore72, 3, 1, 3, 1), (.haBefore72, 0, 7, 3, 4), (.ha72, 0, 7, 7, 0),
    ])
    func highAvailability(mode: SharingMode, primary: Int, secondary: Int, first: Int, second: Int) {
        let pool = cluster(mode, primary, secondary)
        #expect(pool.target("FPX1") == first)
        #expect(pool.target("FPX2") == second)
        #expect(pool.lent("FPX2")["FPX1"] ?? 0 == first - primary)
    }

    @Test func entitlementIsNeededOnEveryUnit() {
        let pool = cluster(.ha72, 300, 500, isEntitled: false)
        #expect(pool.target("FPX1") == 300)
        #expect(pool.lent("FPX2").isEmpty && pool.lent("FPX1").isEmpty)
    }

    @Test func aLostPeerAndItsReturn() {
        #expect(cluster(.haBefore72, 300, 500, stale: ["FPX2"]).target("FPX1") == 300)
        // Without a primary each keeps what it has bought, and is ready to become one.
        #expect(cluster(.haBefore72, 300, 500, stale: ["FPX1"]).target("FPX2") == 500)
        #expect(cluster(.haBefore72, 300, 500).target("FPX1") == 550)
    }

    @Test func theModelsCeilingHolds() {
        let pool = cluster(.haBefore72, 300, 500, modelMax: 400)
        #expect(pool.target("FPX1") == 400)
        #expect(pool.lent("FPX2")["FPX1"] == 100)
    }

    @Test func threeUnitsBefore72() {
        let pool = pool([
            row("FPX1", .primary, .haBefore72, purchased: 100), row("FPX2", .secondary, .haBefore72, purchased: 50),
            row("FPX3", .secondary, .haBefore72, purchased: 31),
        ])
        #expect(pool.targets == [140, 25, 16])
    }

    @Test func twoPrimariesLendNothing() {
        let pool = pool([row("FPX1", .primary, .ha72, purchased: 300), row("FPX2", .primary, .ha72, purchased: 500)])
        #expect(pool.problems == [.twoPrimaries(["FPX1", "FPX2"])])
        #expect(pool.targets == [300, 500])
        #expect(pool.lent("FPX1").isEmpty && pool.lent("FPX2").isEmpty)
    }

    @Test func preferencesAreGlobalOrTheMembersOwn() {
        let preferences = Preferences(global: Seats(5), members: ["FPX2": Seats(30)])
        let pool = pool([
            row("FPX1", .root, purchased: 40, demand: 100, preferences: preferences),
            row("FPX2", .member, purchased: 0, demand: 50),
            row("FPX3", .member, purchased: 0, demand: 3, modelMax: 2),
        ])
        #expect(pool.guaranteeds == [5, 30, 2])
        // The guarantees, then the rest by purchased seats: 40 to 1 where none is bought.
        #expect(pool.targets == [8, 30, 2])
    }

    @Test func guaranteesBeyondThePoolAreScaledDown() {
        let pool = pool([
            row("FPX1", .root, purchased: 10, demand: 50, preferences: Preferences(global: Seats(8))),
            row("FPX2", .member, purchased: 1, demand: 50), row("FPX3", .member, purchased: 0, demand: 50),
        ])
        #expect(pool.guaranteeds == [4, 4, 3])
    }

    @Test func twoRootsHaveNoSay() {
        let preferences = Preferences(global: Seats(5))
        let pool = pool([
            row("FPX1", .root, purchased: 10, preferences: preferences),
            row("FPX2", .root, purchased: 10, preferences: preferences),
        ])
        #expect(pool.problems == [.twoRoots(["FPX1", "FPX2"])])
        #expect(pool.guaranteed("FPX1") == 0)
    }

    @Test func dividesInProportionWhereTheRootSaysSo() {
        let members = [row("FPX2", .member, purchased: 0, demand: 50), row("FPX3", .member, purchased: 0, demand: 10)]
        let root = row("FPX1", .root, purchased: 120, demand: 1000, preferences: Preferences(division: .proportional))
        let pool = pool([root] + members)
        #expect(pool.targets == [70, 40, 10])
    }

    @Test func standingLoansAreKept() {
        var first = row("FPX1", .root, purchased: 20, own: 15)
        first.grants = [Grant(borrower: "FPX4", incarnation: 7, number: 3, seats: Seats(5), keep: .second)]
        let rest = [
            row("FPX2", .member, purchased: 20), row("FPX3", .member, purchased: 0, demand: 20),
            row("FPX4", .member, purchased: 0, demand: 5),
        ]
        let pool = pool([first] + rest)
        #expect(pool.lent("FPX1") == ["FPX4": 5, "FPX3": 15])
        #expect(pool.lent("FPX2") == ["FPX3": 5])
    }
}
