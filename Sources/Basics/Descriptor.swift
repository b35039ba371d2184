import Foundation

/// What the C library has for descriptors, without the wall clock and without signals.
package enum Descriptor {
    /// Waits until a descriptor can be read from or written to, or has failed; at most until a time.
    package static func isReady(_ descriptor: Int32, for events: Int32, before time: ContinuousClock.Instant) -> Bool {
        var polled = pollfd(fd: descriptor, events: Int16(events), revents: 0)
        while true {
            // A begun millisecond counts, or the last one would be waited away in a busy loop. The kernel counts by
            // CLOCK_MONOTONIC: after a suspend of the machine the time is looked at again.
            let left = max(0, min((time - .now) / .milliseconds(1), 60_000))
            if poll(&polled, 1, Int32(left.rounded(.up))) > 0 { return true }
            if ContinuousClock.now >= time { return false }
        }
    }

    /// Writes all of it, however long that takes.
    /// - Returns: whether it was taken; if not, `errno` says why.
    package static func write(_ bytes: [UInt8], to descriptor: Int32) -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
            if count >= 0 {
                rest = rest.dropFirst(count)
            } else if errno == EAGAIN {
                // Another process has made what it shares with us non-blocking.
                _ = isReady(descriptor, for: POLLOUT, before: .now + .seconds(60))
            } else if errno != EINTR {
                return false
            }
        }
        return true
    }

    /// Where log lines go. A process that was started without a standard error has something else under its number, and log
    /// lines would go there: then it is /dev/null.
    package static let standardError: Int32 = {
        var status = stat()
        // What libdispatch has opened before us is of no kind.
        return fstat(2, &status) == 0 && status.st_mode & S_IFMT != 0 ? 2 : open("/dev/null", O_WRONLY | O_CLOEXEC)
    }()

    /// For programs that have keys: no memory goes to disk when the process fails.
    package static func keepMemoryOffDisk() {
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &none)
        // A program that the kernel hands dumps to gets them whatever the limit is: then none of the memory is in them.
        let filter = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC)
        guard filter >= 0 else { return }
        _ = write([UInt8(ascii: "0")], to: filter)
        close(filter)
    }

    /// For the beginning of a server's life. No standard descriptor is missing, or the next file that is opened would get its
    /// number; a peer that goes away is an error of a call and not a signal; there are as many descriptors as the system
    /// allows, for many connections; and no memory, in which keys are, goes to disk when the process fails.
    package static func prepareProcess() {
        keepMemoryOffDisk()
        _ = standardError
        var descriptor: Int32
        repeat { descriptor = open("/dev/null", O_RDWR) } while (0...2).contains(descriptor)
        if descriptor > 2 { close(descriptor) }
        signal(SIGPIPE, SIG_IGN)
        var limit = rlimit()
        if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
            limit.rlim_cur = min(limit.rlim_max, 65_536)
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        }
    }

    /// How many this process may have open.
    package static var countMax: Int {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        return Int(clamping: limit.rlim_cur)
    }
}
