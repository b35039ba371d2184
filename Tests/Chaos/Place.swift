// Place: the namespaces that a process lives in. This program enters them and then becomes the one that it was asked for, with
// the same process id, so that nothing is left between a fault and its victim.

import Foundation

struct Place: Sendable {
    /// The first argument of this program when it is to enter a place.
    static let mark = "__enter"

    /// A name of `ip netns`; empty: the network of whoever starts it.
    var network = ""
    /// Seconds that CLOCK_BOOTTIME is ahead in a time namespace of its own; 0: no such namespace.
    var bootSeconds = 0

    var arguments: [String] { [network, String(bootSeconds)] }

    /// Never returns: `NETWORK SECONDS PROGRAM ARGUMENT...`.
    static func enter(_ arguments: [String]) -> Never {
        guard arguments.count >= 3, let seconds = Int(arguments[1]) else {
            fail("found \(arguments), expected NETWORK SECONDS PROGRAM")
        }
        // PR_SET_PDEATHSIG: nothing outlives the campaign.
        if prctl(1, UInt(SIGKILL)) != 0 { fail("prctl: \(errno)") }
        if !arguments[0].isEmpty { join("/run/netns/\(arguments[0])", cloneNewNet) }
        if seconds != 0 {
            if unshare(cloneNewTime) != 0 { fail("unshare a time namespace: errno \(errno)") }
            // 7: CLOCK_BOOTTIME. Not before this process' children are in it, or it itself.
            let offsets = open("/proc/self/timens_offsets", O_WRONLY)
            let text = "7 \(seconds) 0"
            if write(offsets, text, text.utf8.count) != text.utf8.count { fail("/proc/self/timens_offsets: errno \(errno)") }
            close(offsets)
            join("/proc/self/ns/time_for_children", cloneNewTime)
        }
        var words: [UnsafeMutablePointer<CChar>?] = arguments.dropFirst(2).map { strdup($0) } + [nil]
        execvp(arguments[2], &words)
        fail("\(arguments[2]): \(String(cString: strerror(errno)))")
    }

    private static let cloneNewNet: Int32 = 0x4000_0000
    private static let cloneNewTime: Int32 = 0x80

    private static func join(_ path: String, _ kind: Int32) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        if descriptor < 0 || setns(descriptor, kind) != 0 { fail("\(path): errno \(errno)") }
        close(descriptor)
    }

    private static func fail(_ text: String) -> Never { die(text, 126) }

    // Swift's view of the C library leaves these out.
    private static func function<T>(_ name: String, _ type: T.Type) -> T {
        guard let address = dlsym(nil, name) else { fail("the C library has no \(name)") }
        return unsafeBitCast(address, to: type)
    }
    private static func prctl(_ option: Int, _ value: UInt) -> Int32 {
        function("prctl", (@convention(c) (Int, UInt) -> Int32).self)(option, value)
    }
    private static func unshare(_ flags: Int32) -> Int32 { function("unshare", (@convention(c) (Int32) -> Int32).self)(flags) }
    private static func setns(_ descriptor: Int32, _ kind: Int32) -> Int32 {
        function("setns", (@convention(c) (Int32, Int32) -> Int32).self)(descriptor, kind)
    }
}
