import Admission
import Foundation
import TestSupport
import Testing

extension EndToEnd {
    /// The wall clock is set while fpxd and the authority run: by hand, by a time server, by a hypervisor.
    @Suite struct FieldClock {
        /// Nothing that waits stands still or hurries, and the licence is judged by the new time at once.
        @Test(arguments: [(-3600, "back", "Clock-rollback"), (3600, "forward", "Expired")])
        func settingTheClockStopsNothing(_ seconds: Int, _ direction: String, _ state: String) throws {
            let clock = try ShiftedClock()
            let manager = try NotifySocket()
            let daemon = try DaemonControl(
                cap: 100, launcher: clock.launcher + ["NOTIFY_SOCKET=\(manager.path)", "WATCHDOG_USEC=200000"])
            let end = Date(timeIntervalSinceNow: 40).formatted(.iso8601)
            try daemon.sign(cap: 100, "--expires", end)
            _ = try daemon.fpx("commit")
            #expect(try daemon.fpx("get", "system", "status").contains("License: Active"))
            let nginx = try NGINX(segment: daemon.segmentPath)
            let held = try nginx.open(58, .stream)
            #expect(held.count(of: .inspect) == 58)
            let idle = try RawConnection(daemon.controlSocket)

            try clock.set(ahead: seconds)
            // The master first: it would start another worker.
            for process in try [nginx.master()] + nginx.workers() { kill(process, SIGKILL) }
            let start = ContinuousClock.now
            let isBack = try eventually(within: 5) { try daemon.figures().inUse == 0 }
            let left = try daemon.figures().inUse
            #expect(
                Field.row(
                    "daemon.2", "clock set \(direction) by an hour, then a worker with 58 sessions is killed",
                    expected: "0 counted", found: "\(left) counted"))
            if isBack { print("sessions of a killed worker were back after \(ContinuousClock.now - start)") }
            var found = ""
            _ = try eventually(within: 5) {
                found =
                    try daemon.fpx("get", "system", "status").firstMatch(of: /License: ([A-Za-z-]+),/).map { String($0.1) }
                    ?? ""
                return found == state
            }
            #expect(
                Field.row(
                    "daemon.2", "clock set \(direction) by an hour during a lease of 40 seconds", expected: state, found: found)
            )
            manager.forget()
            let heard = manager.receive(within: 2)
            #expect(
                Field.row(
                    "daemon.2", "clock set \(direction) by an hour: the watchdog hears", expected: "WATCHDOG=1", found: heard))
            // A connection that has been silent for moments is not one that has been silent for an hour.
            idle.send("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
            let status = idle.receive().flatMap(Answer.init)?.status ?? 0
            #expect(
                Field.row(
                    "daemon.2", "clock set \(direction) by an hour: an idle control connection asks", expected: "status 200",
                    found: "status \(status)"))
            // And back again: what stood still must not hurry, and what is right now is right at once.
            try clock.set(ahead: 0)
            let isActive = try eventually(within: 5) { try daemon.fpx("get", "system", "status").contains("License: Active") }
            // A clock that was ahead has been seen: set right, it is one that was set back.
            #expect(isActive == (seconds < 0))
        }

        /// Of the whole kind: over a renewal, a usage report, a slow request and an idle one, no thread of either program waits
        /// until a time of the wall clock.
        @Test func nothingWaitsByTheWallClock() throws {
            let vendor = try ShiftedClock()
            let unit = try ShiftedClock()
            let authority = try AuthorityControl(launcher: vendor.launcher)
            let daemon = try DaemonControl(launcher: unit.launcher, authority: authority)
            try expectEventually("a licence is in force") {
                try daemon.fpx("get", "system", "status").contains("License: Active")
            }
            let slow = try RawConnection(daemon.controlSocket)
            slow.send("PATCH /v1/config HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
            _ = try daemon.fpx("set", "renew_license")
            try unit.set(ahead: -200)
            try vendor.set(ahead: -200)
            let start = ContinuousClock.now
            #expect(slow.receive().flatMap(Answer.init)?.status == 408)
            let waited = ContinuousClock.now - start
            #expect(waited > .seconds(8) && waited < .seconds(20), "\(waited)")
            for (name, clock) in [("fpxd", unit), ("fpx-authority", vendor)] {
                #expect(
                    Field.row(
                        "daemon.2", "calls of \(name) that wait until a time of the wall clock", expected: "none",
                        found: clock.waits.isEmpty ? "none" : clock.waits.sorted().joined(separator: ", ")))
            }
        }
    }
}
