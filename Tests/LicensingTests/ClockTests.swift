import Foundation
import Licensing
import Testing

@Suite struct ClockTests {
    @Test(arguments: [3600, day, 365 * day]) func aClockSetBackIsAStateOfItsOwn(_ seconds: Int) async throws {
        let unit = try Unit()
        try await unit.put(claims(from: start - 2 * day, days: 400))
        let (keeper, report) = await unit.load()
        #expect(report.status.state == .active)
        unit.set(clock: start - seconds)
        // At once, after a commit, and after a restart.
        for status in [keeper.status(), await keeper.commit().status, await unit.load().report.status] {
            #expect(status.state == .clockRollback && status.cap(of: .furl) == 0)
            #expect(
                status.reason == "found a clock that was set back, to before 2026-11-21T00:00:00Z, expected it to be later; if "
                    + "the clock was ahead before and is right now, remove `clock` in the state folder, then `fpx commit`")
            #expect(status.daysLeft == report.status.daysLeft, "it lengthens nothing")
        }
        // It heals when the clock has caught up.
        unit.set(clock: start + 1)
        #expect(keeper.status().state == .active)
        #expect(await unit.load().report.status.state == .active)
    }

    @Test func timeServersMayCorrectALittle() async throws {
        let unit = try Unit()
        try await unit.put(claims(from: start - day))
        let (keeper, _) = await unit.load()
        unit.set(clock: start - 300)
        #expect(keeper.status().state == .active)
        unit.set(clock: start - 301)
        #expect(keeper.status().state == .clockRollback)
    }

    @Test func aLeaseThatIsOverStaysOver() async throws {
        let unit = try Unit()
        try await unit.put(claims())
        let (keeper, _) = await unit.load()
        unit.set(clock: start + 14 * day)
        #expect(keeper.status().state == .expired)
        unit.set(clock: start + day)
        #expect(keeper.status().state == .clockRollback)
        #expect(await unit.load().report.status.state == .clockRollback)
    }

    @Test func aJumpForwardIsOnlyTime() async throws {
        let unit = try Unit()
        try await unit.put(claims(days: 400))
        let (keeper, _) = await unit.load()
        for seconds in [3600, day, 365 * day] {
            unit.set(clock: start + seconds)
            #expect(keeper.status().state == .active)
        }
    }

    @Test func theSignedTimeIsAWitness() async throws {
        let unit = try Unit()
        try await unit.put(claims())
        unit.set(clock: start - day)
        let (keeper, report) = await unit.load()
        #expect(report.status.state == .clockRollback)
        // A licence that is not to be believed is no witness.
        let other = try Unit()
        try await other.put(claims(), by: SigningKey(id: "k1"))
        other.set(clock: start - day)
        #expect(await other.load().report.status.state == .invalidSignature)
        unit.set(clock: start)
        #expect(keeper.status().state == .active)
    }

    @Test func evaluationNeedsNoClock() async throws {
        let unit = try Unit(named: false)
        let (keeper, _) = await unit.load()
        unit.set(clock: 0)
        #expect(keeper.status().state == .evaluation && keeper.status().cap(of: .furl) == 100)
    }

    /// One damaged file costs a minute of memory; two leave the signed time. Neither stops the unit.
    @Test func aDamagedWitnessIsNamedAndStopsNobody() async throws {
        let unit = try Unit()
        try await unit.put(claims(from: start - day))
        let (keeper, _) = await unit.load()
        unit.set(clock: start + day)
        _ = keeper.status()
        let good = unit.folder.read("var/state/clock")!
        #expect(good.contains("\(start + day)"))
        for bad in [
            "", "junk", "{}", good.replacing("\(start + day)", with: "\(start + 9000 * day)"), String(good.dropLast(3)),
        ] {
            try unit.folder.write(bad, "var/state/clock")
            try unit.folder.write(good, "var/state/clock.previous")
            let status = await unit.load().report.status
            #expect(status.state == .active)
            #expect(status.warnings.count == 1)
            #expect(
                status.warnings.first?.hasPrefix("\(unit.folder.path)/var/state/clock: found ") == true, "\(status.warnings)")
            #expect(await unit.load().report.status.warnings == [], "written anew")
            // The one before it still guards.
            try unit.folder.write(bad, "var/state/clock")
            try unit.folder.write(good, "var/state/clock.previous")
            unit.set(clock: start)
            #expect(await unit.load().report.status.state == .clockRollback)
            unit.set(clock: start + day)
        }
        try unit.folder.write("junk", "var/state/clock")
        try unit.folder.write("junk", "var/state/clock.previous")
        unit.set(clock: start)
        #expect(await unit.load().report.status.state == .active, "only the signed time is left")
        try unit.folder.write("junk", "var/state/clock")
        try unit.folder.write("junk", "var/state/clock.previous")
        unit.set(clock: start - 2 * day)
        #expect(await unit.load().report.status.state == .clockRollback)
    }

    @Test func removingTheWitnessStartsAnew() async throws {
        let unit = try Unit()
        try await unit.put(claims(from: start - day, days: 10_000))
        let (keeper, _) = await unit.load()
        // The clock once ran far ahead, and was put right.
        unit.set(clock: start + 1000 * day)
        _ = keeper.status()
        unit.set(clock: start + day)
        #expect(await keeper.commit().status.state == .clockRollback)
        try unit.folder.remove("var/state/clock")
        #expect(await keeper.commit().status.state == .active)
        #expect(await unit.load().report.status.state == .active)
    }
}
