// Control: the shared memory through which the coordinator drives all workers, and the clocks that they read.

import Admission
import Glibc

/// Nanoseconds of a clock.
@inline(__always)
func nanoseconds(_ clock: clockid_t) -> UInt64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
}

@inline(__always)
func now() -> UInt64 { nanoseconds(CLOCK_MONOTONIC) }

/// What it costs to read the clock twice, taken off where single operations are timed. The least, since the operation overlaps
/// with some of it.
let timerCost: UInt64 = {
    var differences = (0..<20_000).map { _ in
        let start = now()
        return now() - start
    }
    differences.sort()
    return differences[differences.count / 2]
}()

struct BenchFailure: Error, CustomStringConvertible {
    let description: String
    init(_ text: String) { description = text }
}

func describe(_ code: Int32) -> String { String(cString: strerror(code)) }

/// A file in shared memory, mapped.
func mapShared(_ path: String, bytes: Int, create: Bool) throws -> UnsafeMutableRawPointer {
    let descriptor = open(path, create ? O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC : O_RDWR | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw BenchFailure("\(path): open failed: \(describe(errno))") }
    defer { close(descriptor) }
    if create, ftruncate(descriptor, bytes) != 0 { throw BenchFailure("\(path): ftruncate failed: \(describe(errno))") }
    guard let memory = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0), memory != MAP_FAILED else {
        throw BenchFailure("\(path): mmap failed: \(describe(errno))")
    }
    return memory
}

/// One worker's part of the control block. A seat is a thread in some process, which sleeps until it is woken.
struct Seat {
    static let bytes = 512
    let memory: UnsafeMutableRawPointer

    var wake: UnsafeMutablePointer<sem_t> { memory.assumingMemoryBound(to: sem_t.self) }
    private func word(_ index: Int) -> Word { Word(memory, at: 128 + index * 8) }

    /// Which worker of the scenario this seat plays: also the CPU that it is pinned to.
    var worker: Word { word(0) }
    /// Its last window: units done, nanoseconds on the wall, whether it was disturbed, nanoseconds of a unit where the
    /// scenario has timed those itself (else 0).
    var units: Word { word(1) }
    var wall: Word { word(2) }
    var disturbed: Word { word(3) }
    var timed: Word { word(4) }
    /// Not 0: the command failed.
    var failed: Word { word(5) }
    var process: Word { word(6) }
}

/// The control block: a command, a barrier, a stop flag, a few words for the scenarios, and the seats.
struct Control: @unchecked Sendable {
    enum Command: UInt64 {
        case prepare, run, finish, quit
    }

    static let bytes = 4096 + 128 * Seat.bytes
    let memory: UnsafeMutableRawPointer

    private func word(_ offset: Int) -> Word { Word(memory, at: offset) }
    var command: Word { word(0) }
    var scenario: Word { word(8) }
    /// Units of this window for each worker, and how many to warm up with.
    var units: Word { word(16) }
    var seed: Word { word(24) }
    var workers: Word { word(32) }
    /// Workers that are ready to start; counts up through the life of the block.
    var arrived: Word { word(256) }
    var barrier: Word { word(264) }
    /// The number of the last window in which somebody has finished: the others stop too, so that all are measured together.
    var stopped: Word { word(512) }
    var window: Word { word(40) }
    /// For what the workers of one scenario tell each other.
    func scratch(_ index: Int) -> Word { word(1024 + index * 256) }

    var done: UnsafeMutablePointer<sem_t> { (memory + 768).assumingMemoryBound(to: sem_t.self) }
    func seat(_ index: Int) -> Seat { Seat(memory: memory + 4096 + index * Seat.bytes) }

    /// Waits until a condition holds: spinning, and after a while giving the CPU away (more workers than CPUs).
    @inline(__always)
    static func spin(until condition: () -> Bool) {
        var turns = 0
        while !condition() {
            turns += 1
            if turns > 20_000 { sched_yield() }
        }
    }
}

/// Waits for a semaphore. False: `seconds` have gone by.
func wait(_ semaphore: UnsafeMutablePointer<sem_t>, seconds: Int) -> Bool {
    var deadline = timespec()
    clock_gettime(CLOCK_REALTIME, &deadline)
    deadline.tv_sec += seconds
    while sem_timedwait(semaphore, &deadline) != 0 {
        if errno != EINTR { return false }
    }
    return true
}

/// Keeps the calling thread on one CPU. By its name: the C library declares it for GNU programs only.
func pin(toCPU cpu: Int) {
    typealias Function = @convention(c) (Int32, Int, UnsafeRawPointer) -> Int32
    guard let symbol = dlsym(nil, "sched_setaffinity") else { return }
    var mask = [UInt64](repeating: 0, count: 16)
    mask[cpu / 64] = 1 << UInt64(cpu % 64)
    _ = unsafeBitCast(symbol, to: Function.self)(0, mask.count * 8, mask)
}

/// The CPUs that this process may use.
func allowedCPUs() -> [Int] {
    typealias Function = @convention(c) (Int32, Int, UnsafeMutableRawPointer) -> Int32
    var mask = [UInt64](repeating: 0, count: 16)
    guard let symbol = dlsym(nil, "sched_getaffinity"),
        unsafeBitCast(symbol, to: Function.self)(0, mask.count * 8, &mask) == 0
    else { return [0] }
    return (0..<1024).filter { mask[$0 / 64] >> UInt64($0 % 64) & 1 == 1 }
}

/// How often this thread has left its CPU: because it waited, and because others wanted it.
func contextSwitches() -> (voluntary: Int, involuntary: Int) {
    var usage = rusage()
    getrusage(1, &usage)  // RUSAGE_THREAD
    return (usage.ru_nvcsw, usage.ru_nivcsw)
}
