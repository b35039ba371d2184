// Where a segment's pages really lie on a machine with several memory nodes, and what CPUs that come and go do to the counts.
// Tests/NUMA/run.sh runs it on an emulated machine; on a real one it needs two nodes and 8 MB in /dev/shm.

import Admission
import AdmissionNUMA
import Glibc

var arguments = CommandLine.arguments.dropFirst()
let order = arguments.popFirst()
do {
    switch order {
    case nil:
        try Check.all(unplug: false)
    case "--unplug":
        try Check.all(unplug: true)
    case "touch":
        // As another process, on whatever CPU it was started: PATH FIRST-PAGE LAST-PAGE.
        try Check.touchAsAnother(
            arguments.popFirst() ?? "", Int(arguments.popFirst() ?? "") ?? 0, Int(arguments.popFirst() ?? "") ?? 0)
    case "create":
        // Makes a segment as a process that sees fewer CPUs: PATH CGROUP (or nothing).
        try Check.createConfined(arguments.popFirst() ?? "", cgroup: arguments.popFirst())
    case "offline":
        try Check.createWhileOffline(arguments.popFirst() ?? "")
    default:
        print("usage: NUMACheck [--unplug]")
        print("--unplug: also takes CPUs off line and fills a node's memory; for an emulated machine")
        exit(2)
    }
} catch {
    Check.expect(false, "\(error)")
}
Check.finish(summary: order == nil || order == "--unplug")
