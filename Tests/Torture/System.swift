// System: what Swift's view of the C library leaves out, a clock, and random numbers that can be repeated.

import Admission
import Glibc

enum System {
    private static func function<T>(_ name: String, _ type: T.Type) -> T {
        guard let address = dlsym(nil, name) else { fatalError("the C library has no \(name)") }
        return unsafeBitCast(address, to: type)
    }

    /// Swift hides fork, for good reasons: the child may only do what needs no other thread of its parent.
    nonisolated(unsafe) static let fork = function("fork", (@convention(c) () -> Int32).self)
    nonisolated(unsafe) static let threadID = function("gettid", (@convention(c) () -> Int32).self)
    nonisolated(unsafe) static let signalThread = function(
        "tgkill", (@convention(c) (Int32, Int32, Int32) -> Int32).self)
    nonisolated(unsafe) private static let prctl = function("prctl", (@convention(c) (Int, Int) -> Int32).self)
    nonisolated(unsafe) private static let setAffinity = function(
        "sched_setaffinity", (@convention(c) (Int32, Int, UnsafeRawPointer) -> Int32).self)
    nonisolated(unsafe) private static let getAffinity = function(
        "sched_getaffinity", (@convention(c) (Int32, Int, UnsafeMutableRawPointer) -> Int32).self)

    nonisolated(unsafe) static let trace = function("ptrace", (@convention(c) (Int, Int, Int, Int) -> Int).self)

    /// A child dies with the conductor: PR_SET_PDEATHSIG.
    static func dieWithParent() { _ = prctl(1, Int(SIGKILL)) }

    /// CPUs that this process may run on.
    static let allowedCPUs: [Int] = {
        var mask = [UInt64](repeating: 0, count: 16)
        guard getAffinity(0, mask.count * 8, &mask) > 0 || mask[0] != 0 else { return [0] }
        return (0..<1024).filter { mask[$0 / 64] >> UInt64($0 % 64) & 1 == 1 }
    }()

    static func pin(thread: Int32, to cpus: some Sequence<Int>) -> Bool {
        var mask = [UInt64](repeating: 0, count: 16)
        for cpu in cpus { mask[cpu / 64] |= 1 << UInt64(cpu % 64) }
        return setAffinity(thread, mask.count * 8, &mask) == 0
    }

    /// How long the calling thread has waited for a CPU since it began, in ns; 0 where the kernel does not tell.
    static func waitedForCPU() -> UInt64 {
        guard let file = fopen("/proc/thread-self/schedstat", "r") else { return 0 }
        defer { fclose(file) }
        var text = [CChar](repeating: 0, count: 128)
        guard fgets(&text, Int32(text.count), file) != nil else { return 0 }
        var end: UnsafeMutablePointer<CChar>?
        return text.withUnsafeMutableBufferPointer {
            _ = strtoull($0.baseAddress!, &end, 10)
            return UInt64(strtoull(end!, nil, 10))
        }
    }

    /// Whether a thread runs or waits for a CPU only.
    static func isRunnable(thread: Int32) -> Bool {
        guard let file = fopen("/proc/\(thread)/stat", "r") else { return false }
        defer { fclose(file) }
        var text = [CChar](repeating: 0, count: 256)
        guard fgets(&text, Int32(text.count), file) != nil, let end = strrchr(text, Int32(UInt8(ascii: ")"))) else {
            return false
        }
        return UInt8(bitPattern: end[2]) == UInt8(ascii: "R")
    }

    static func sleep(microseconds: Int) { usleep(UInt32(max(0, microseconds))) }
}

/// Nanoseconds of a clock that all CPUs and processes share.
@inline(__always)
func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
}

/// How a child process has ended or stopped, as waitpid tells it.
struct WaitStatus: CustomStringConvertible {
    let code: Int32
    var isStopped: Bool { code & 0xff == 0x7f }
    var signal: Int32 { code & 0x7f }
    var isKilled: Bool { !isStopped && signal == SIGKILL }
    var description: String {
        isStopped ? "stopped" : signal != 0 ? "ended by signal \(signal)" : "exited with \(code >> 8 & 0xff)"
    }
}

/// SplitMix64: good enough, and its state is one word.
struct Random {
    private var state: UInt64

    /// The same parts give the same numbers.
    init(_ parts: UInt64...) {
        state = 0
        for part in parts { state = Self.mix(state &+ part &+ 0x9E37_79B9_7F4A_7C15) }
    }

    @inline(__always)
    private static func mix(_ value: UInt64) -> UInt64 {
        var z = value
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    @inline(__always)
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return Self.mix(state)
    }

    /// A number from 0 to `bound - 1`.
    @inline(__always)
    mutating func below(_ bound: Int) -> Int { Int(next() >> 33) % bound }

    mutating func chance(oneIn count: Int) -> Bool { below(count) == 0 }

    mutating func pick<T>(_ choices: [T]) -> T { choices[below(choices.count)] }
}

/// Prints a line at once, also into a pipe.
func say(_ line: String) {
    print(line)
    fflush(nil)
}
