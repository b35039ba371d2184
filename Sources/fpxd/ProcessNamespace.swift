// ProcessNamespace: whether fpxd sees the processes of the whole host.

import Foundation

enum ProcessNamespace {
    /// The kernel gives its first one this number (PROC_PID_INIT_INO in linux/proc_ns.h).
    private static let first = "pid:[4026531836]"

    /// False in a container with processes of its own: those outside are not in its /proc.
    static var isOfHost: Bool { (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/pid")) == first }
}
