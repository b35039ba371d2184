import Foundation
import LicenseClient
import Licensing
import Testing
import TestSupport

@Suite struct ScheduleTests {
    @Test func withoutALicenceAtOnce() {
        let schedule = RenewalSchedule(unitID: "u", lastSuccess: nil) { $0.lowerBound }
        #expect(schedule.isDue(start))
    }

    /// Once a day at the unit's time, for every unit and any time of the last success.
    @Test func daily() {
        var random = SeededGenerator(seed: testSeed())
        var offsets: Set<Int> = []
        for _ in 0..<500 {
            let unit = UUID().uuidString.lowercased()
            let begin = start + Int.random(in: 0..<day, using: &random)
            var schedule = RenewalSchedule(unitID: unit, lastSuccess: begin) { $0.upperBound }
            offsets.insert(schedule.offset)
            #expect(schedule.next > begin && schedule.next <= begin + day + RenewalSchedule.jitterMax)
            #expect(!schedule.isDue(begin) && !schedule.isDue(schedule.next - 1) && schedule.isDue(schedule.next))
            for _ in 0..<3 {
                let asked = schedule.next
                schedule.succeeded(at: asked)
                #expect(schedule.next == asked + day)
            }
        }
        #expect(offsets.count > 400, "units are spread over the day")
    }

    @Test func waitsDoubleToAnHour() {
        var schedule = RenewalSchedule(unitID: "u", lastSuccess: nil) { $0.upperBound }
        var waits: [Int] = []
        for _ in 0..<9 {
            schedule.failed(at: start, retryAfter: nil)
            waits.append(schedule.next - start)
        }
        #expect(waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600])
        // All of a wait is left to chance.
        var lucky = RenewalSchedule(unitID: "u", lastSuccess: nil) { $0.lowerBound }
        lucky.failed(at: start, retryAfter: nil)
        #expect(lucky.next == start + 1)
        // A success begins anew.
        schedule.succeeded(at: start)
        schedule.failed(at: start, retryAfter: nil)
        #expect(schedule.next == start + 60)
    }

    @Test func whatTheAuthorityAsksForIsHonoured() async throws {
        let station = try await Station()
        station.answer(Forge.refusal(station, "rate_limited", status: 429, headers: ["Retry-After: 1000"]))
        await station.renewal.renew().expect("the authority refuses (rate_limited)")
        #expect(await station.renewal.nextAt == start + 1060)
        // No more than a day, and only what is a number.
        for (text, wait) in [("999999999", 86_460), ("-5", 61), ("tomorrow", 480)] {
            station.answer(Forge.refusal(station, "rate_limited", status: 429, headers: ["Retry-After: \(text)"]))
            await station.renewal.renew().expect("the authority refuses (rate_limited)")
            #expect(await station.renewal.nextAt == start + wait, "\(text)")
        }
    }

    @Test func aClockThatWasWrongStopsNothing() {
        var schedule = RenewalSchedule(unitID: "u", lastSuccess: nil) { $0.upperBound }
        schedule.succeeded(at: start + 365 * day)
        #expect(schedule.isDue(start))
    }

    /// A clock that is set back after a failure puts the next attempt off for no time, and the next day's renewal neither.
    @Test func aClockSetBackPutsNothingOff() async throws {
        let station = try await Station()
        func pass(_ seconds: Int) { station.world.uptime.withLock { $0 += .seconds(seconds) } }
        station.answer(Forge.refusal(station, "unavailable", status: 503))
        await station.renewal.renew().expect("the authority refuses (unavailable)")
        station.set(start - 200)
        #expect(await station.renewal.renewIfDue() == nil)
        pass(59)
        #expect(await station.renewal.renewIfDue() == nil)
        pass(1)
        station.answer(Forge(station))
        #expect(try await station.renewal.renewIfDue()?.get().epoch == 1)
        let wait = await station.renewal.nextAt - (start - 200)
        station.set(start - day)
        pass(wait - 1)
        #expect(await station.renewal.renewIfDue() == nil)
        pass(1)
        #expect(await station.renewal.renewIfDue() != nil)
    }

    @Test func byTheClock() async throws {
        let station = try await Station()
        station.answer(Forge(station))
        #expect(try await station.renewal.renewIfDue()?.get().epoch == 1)
        #expect(await station.renewal.renewIfDue() == nil)
        let next = await station.renewal.nextAt
        station.set(next - 1)
        #expect(await station.renewal.renewIfDue() == nil)
        station.set(next)
        station.answer(Forge(station, epoch: 2))
        #expect(try await station.renewal.renewIfDue()?.get().epoch == 2)
        #expect(await station.renewal.nextAt == next + day)
    }
}
