// TimeNamespace: whether those who admit go by the same clock as fpxd. Borrowed seats end at a reading of CLOCK_BOOTTIME, which whoever
// admits compares with his own (docs/decisions/0009); another time namespace has other readings.

import Admission
import CAdmission
import Foundation

enum TimeNamespace {
    /// Nil where the kernel has none: then all go by one clock.
    private static let own = read("self")

    private static func read(_ process: String) -> String? {
        try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/ns/time")
    }

    /// Attached processes that go by another clock, or of which that cannot be told.
    static func strangers(in segment: Segment) -> [String] {
        guard let own, segment.isAttached else { return [] }
        return segment.processes().filter { $0.slot != segment.slot && $0.isAlive }.compactMap { process in
            let name = "\(process.name) (\(process.processID))"
            // A number of another process namespace may be anybody's here.
            guard fpx_process_start(pid_t(truncatingIfNeeded: process.processID)) == process.startTime,
                let found = read("\(process.processID)")
            else { return "\(name) may be" }
            return found == own ? nil : "\(name) is"
        }
    }
}
