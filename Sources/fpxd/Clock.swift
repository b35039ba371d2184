// Clock: what seats are lent by.

import CAdmission
import Foundation
import SeatSharing

enum Clock {
    /// CLOCK_BOOTTIME.
    static var now: Instant {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Instant(Nanoseconds(time.tv_sec) * .second + Nanoseconds(time.tv_nsec))
    }

    /// Microseconds.
    private static let tick = 10_000
    /// Half of the drift that lending allows for; the other half is for the crystal.
    private static let tickTolerance = 50

    /// - Throws: `clockRate`, where the kernel is told to let its clock run faster or slower than lending allows for.
    static func checkRate() throws(DaemonError) {
        let found = Int(fpx_clock_tick())
        if found < 0 { throw .system(call: "adjtimex", path: "clock", code: errno) }
        if abs(found - tick) > tickTolerance {
            throw .clockRate(found: found, expected: tick - tickTolerance...tick + tickTolerance)
        }
    }
}
