// The first hour of whoever runs the authority, with units of the real thing.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldFirstHourAuthorityTests {}
}

extension EndToEnd.FieldFirstHourAuthorityTests {
    @Test func seatsThatAreSoldLaterAreDelivered() throws {
        let authority = try AuthorityControl()
        let daemon = try DaemonControl(authority: authority)
        #expect(try daemon.eventualState("Active") == "Active", "\(daemon.log)")
        try authority.command("subscription", "change", "1", "--seats", "60")
        _ = try daemon.fpx("set", "renew_license")
        #expect(
            Field.row(
                "first.1", "subscription change 1 --seats 60, on the unit",
                expected: "Purchased License Seat: 60; Available License Seat: 60; Max Licensed Session: 1500",
                found: try daemon.fpx("diagnose", "wad", "license", "detail").split(separator: "\n").joined(separator: "; ")))
    }
}
