// Ledger: the memory that the conductor shares with its children, apart from the segments under test.
//
// It outlives a child that is killed at any instruction, so everything in it is written in an order that leaves it true at each
// one. A thread says in one word how many sessions it certainly holds and whether a call is under way that may change that:
//
//     before a call     held (for a release: less one), in flight
//     after it          held (for an admission: one more), idle
//
// so that at any instant  held <= sessions in use <= held + (in flight ? 1 : 0). In the rounds that are logged, each operation
// also leaves a record with the times of its call and return.

import Admission
import Glibc
import Synchronization

struct Ledger: @unchecked Sendable {
    static let generations = 1024
    static let children = 16
    private static let generationsAt = 4096
    private static let scratchAt = generationsAt + generations * Generation.bytes
    static let scratchBytes = 8 << 20
    private static let chunksAt = scratchAt + scratchBytes
    static let chunks = 1400
    /// The last ones are for the conductor alone: it must log the end of what it has begun.
    static let chunksOfConductor = 64
    private static let bytes = chunksAt + chunks * LogChunk.bytes

    let base: UnsafeMutableRawPointer

    /// Maps the file; `creating` makes it.
    init?(path: String, creating: Bool) {
        let descriptor = creating ? open(path, O_RDWR | O_CREAT | O_EXCL, 0o600) : open(path, O_RDWR)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        if creating && ftruncate(descriptor, Self.bytes) != 0 { return nil }
        let memory = mmap(nil, Self.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        guard let memory, memory != MAP_FAILED else { return nil }
        base = memory
    }

    private func word(_ index: Int) -> Word { Word(base, at: index * 8) }

    /// How many of 256 operations shall be admissions, before each thread's own deviation.
    var bias: Word { word(0) }
    /// For how many nanoseconds a thread naps in its signal handler.
    var nap: Word { word(1) }
    /// Where the conductor is, for its watchdog.
    var stage: Word { word(2) }
    var heartbeat: Word { word(3) }
    /// Log chunks that are taken.
    var chunksTaken: Word { word(4) }
    /// 1: the first threads of all children do nothing but reap.
    var reapStorm: Word { word(5) }
    /// The generation that lives as child `index`.
    func current(_ index: Int) -> Word { word(64 + index) }

    func generation(_ index: Int) -> Generation {
        Generation(base: base + Self.generationsAt + index * Generation.bytes, index: index)
    }
    func scratch(_ offset: Int) -> Word { Word(base, at: Self.scratchAt + offset) }
    func chunk(_ index: Int) -> LogChunk { LogChunk(base: base + Self.chunksAt + index * LogChunk.bytes) }

    /// Whether the children have no room left in the log.
    var isLogFull: Bool { chunksTaken.load() >= UInt64(Self.chunks - Self.chunksOfConductor) }

    /// Forgets the last round: `generations` were used in it.
    func reset(generations: Int) {
        memset(base + Self.generationsAt, 0, generations * Generation.bytes)
        for index in 0..<min(Int(chunksTaken.load()), Self.chunks) { chunk(index).count.store(0) }
        chunksTaken.store(0)
    }
}

/// What one process has to say: each respawned child is a generation of its own.
struct Generation: @unchecked Sendable {
    static let bytes = 8192
    static let threads = 16
    static let exchange = 64

    let base: UnsafeMutableRawPointer
    let index: Int

    private func word(_ index: Int) -> Word { Word(base, at: index * 8) }

    var processID: Word { word(0) }
    /// 1: attached, the threads run.
    var isReady: Word { word(1) }
    /// 1: the conductor is about to kill it.
    var isDoomed: Word { word(2) }
    /// The first thing that went wrong: `Fault` << 32 | detail.
    var fault: Word { word(3) }
    /// Cap that this process shall set, with a number of the request << 32, and the last one it has set.
    var capRequest: Word { word(4) }
    var capDone: Word { word(5) }
    /// How many forks it shall have made, and has.
    var forkRequest: Word { word(6) }
    var forks: Word { word(7) }
    var reaps: Word { word(8) }

    func line(_ thread: Int) -> ThreadLine { ThreadLine(base: base + 256 + thread * ThreadLine.bytes) }
    /// Sessions put down for another thread of this process: 1 or 0.
    func stash(_ index: Int) -> Word { Word(base, at: 4096 + index * 8) }
    /// Handles of this process' sessions, put down for any process to release.
    func mailbox(_ index: Int) -> Word { Word(base, at: 4096 + 512 + index * 8) }
    /// Handles that have been released: another release must fail.
    func spent(_ index: Int) -> Word { Word(base, at: 4096 + 1024 + index * 8) }
    /// Handles that somebody is about to release: one of two releases must fail.
    func raced(_ index: Int) -> Word { Word(base, at: 4096 + 1536 + index * 8) }

    func report(_ fault: Fault, _ detail: Int) {
        _ = self.fault.compareExchange(0, fault.rawValue << 32 | UInt64(UInt32(truncatingIfNeeded: detail)))
    }
}

/// What a child can find wrong by itself.
enum Fault: UInt64 {
    case attach = 1, lane, handle, doubleRelease, lostHandle, forkedChildAdmitted, wrongSegmentError, spawn
    /// A verdict that the pool's policy does not give.
    case verdict
}

/// One thread's words, on lines of their own.
struct ThreadLine: @unchecked Sendable {
    static let bytes = 192
    let base: UnsafeMutableRawPointer

    private func word(_ index: Int) -> Word { Word(base, at: index * 8) }

    /// Sessions certainly held << 16 | what is under way.
    var balance: Word { word(0) }
    static let idle: UInt64 = 0
    static let own: UInt64 = 1
    /// A release of a session of another generation is under way.
    static func foreign(_ generation: Int) -> UInt64 { UInt64(generation) + 2 }

    var operations: Word { word(8) }
    var admitted: Word { word(9) }
    var refused: Word { word(10) }
    var threadID: Word { word(11) }
    /// 1: its log is full and it does nothing any more.
    var isIdle: Word { word(12) }
    var doubleReleases: Word { word(13) }
    var foreignReleases: Word { word(14) }
}

// MARK: - The log

enum RecordKind: UInt8 {
    case admit = 1
    case release
    /// A release by handle that another thread may try at the same time.
    case racedRelease
    /// The other thread's try.
    case rivalRelease
}

enum RecordResult: UInt8 {
    case pending = 0, done, refused
    /// The handle was released already.
    case nothing
}

struct Record {
    var begin: UInt64
    var end: UInt64
    var kind: UInt8
    var result: UInt8
    /// The generation that the session counts for.
    var owner: UInt16
    var unused: UInt32 = 0
}

/// A piece of one thread's log.
struct LogChunk {
    static let capacity = 2046
    static let bytes = 49152
    let base: UnsafeMutableRawPointer

    /// Records begun.
    var count: Word { Word(base, at: 0) }
    var generation: Word { Word(base, at: 8) }
    var records: UnsafeMutablePointer<Record> { (base + 32).assumingMemoryBound(to: Record.self) }
}

/// Writes one thread's log. A record is begun before the operation, and ended after it.
struct LogWriter {
    private let ledger: Ledger
    private let generation: Int
    private let isOn: Bool
    private var chunk: LogChunk
    private var used = LogChunk.capacity

    init(ledger: Ledger, generation: Int, isOn: Bool) {
        self.ledger = ledger
        self.generation = generation
        self.isOn = isOn
        chunk = ledger.chunk(0)
    }

    /// Whether `count` more operations can be logged; takes a new chunk for them.
    mutating func hasRoom(for count: Int) -> Bool {
        if !isOn || used + count <= LogChunk.capacity { return true }
        let limit = Ledger.chunks - (generation == 0 ? 0 : Ledger.chunksOfConductor)
        guard ledger.chunksTaken.load() < limit else { return false }
        let index = Int(ledger.chunksTaken.add(1))
        guard index < limit else { return false }
        chunk = ledger.chunk(index)
        chunk.generation.store(UInt64(generation))
        used = 0
        return true
    }

    @inline(__always)
    mutating func begin(_ kind: RecordKind, owner: Int? = nil) {
        guard isOn else { return }
        chunk.records[used] = Record(
            begin: now(), end: 0, kind: kind.rawValue, result: RecordResult.pending.rawValue,
            owner: UInt16(owner ?? generation))
        used += 1
        chunk.count.store(UInt64(used))
        // The compiler may not move the operation before the record of it. The processor does not: its stores stay in order.
        atomicMemoryFence(ordering: .acquiringAndReleasing)
    }

    @inline(__always)
    mutating func end(_ result: RecordResult) {
        guard isOn else { return }
        atomicMemoryFence(ordering: .acquiringAndReleasing)
        chunk.records[used - 1].end = now()
        atomicMemoryFence(ordering: .acquiringAndReleasing)
        chunk.records[used - 1].result = result.rawValue
    }
}
