// Segment: one process' attachment to the shared counters of a host.

import CAdmission

/// How claims and collectors meet in a segment; decided when it is made, so that all who attach do the same.
public enum FenceMode: UInt64, Sendable {
    /// Plain stores on the fast path; who collects fences all processes by membarrier.
    case membarrier = 1
    /// Locked stores on the fast path: for kernels and sandboxes that refuse membarrier, and for CPUs other than x86-64.
    case locked = 2

    /// What this machine can do.
    public static var best: FenceMode { FPX_PLAIN_FAST_PATH == 1 && fpx_fence_register() == 0 ? .membarrier : .locked }
}

/// An attachment of this process to a segment: a file in shared memory with the counters of up to 16 pools.
///
/// All methods may be called from any thread. The memory stays mapped for the life of the process, so that pools, lanes and
/// sessions are safe to use (and do nothing) after `detach` and in a forked child. An attachment, with its descriptor, lasts
/// until `detach` or the end of the process, also where nothing refers to this object any more: nobody can know whether its
/// sessions have ended.
@safe
public final class Segment: Sendable {
    public let path: String
    /// CPUs that have shards.
    public let cpus: Int
    public let fenceMode: FenceMode
    /// This process' slot, 0 to 510; the keeper's is 511.
    public let slot: Int
    /// Number of this attachment, counted over all there ever were.
    public let incarnation: UInt32

    let memory: SegmentMemory
    let file: SegmentFile
    let engines: [PoolEngine]
    /// Lanes in use, one word for each pool.
    nonisolated(unsafe) let openLanes: UnsafeMutableRawPointer

    private init(path: String, memory: SegmentMemory, file: SegmentFile, incarnation: UInt32) {
        self.path = path
        cpus = memory.cpus
        fenceMode = memory.plain ? .membarrier : .locked
        slot = memory.slot
        self.memory = memory
        self.file = file
        self.incarnation = incarnation
        engines = (0..<Limits.pools).map { PoolEngine(memory, pool: $0, file: file) }
        let bytes = Limits.pools * 8
        unsafe openLanes = .allocate(byteCount: bytes, alignment: 8)
        unsafe openLanes.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
    }
}

// MARK: - Create

extension Segment {
    static let lockBase: Int64 = 1 << 40

    /// Bytes of a segment's file. It is sparse: what nobody has ever used takes no memory.
    public static func byteCount(cpus: Int) -> Int { Layout.size(cpus: cpus) }

    /// Bytes of memory that a segment takes with so many processes, one of them the keeper. Handles come to it: 4 KiB for 512
    /// of one process.
    public static func bytesTaken(processes: Int, cpus: Int) -> Int {
        let workers = (max(0, processes - 1) * Layout.shardsOfProcess + Layout.pageBytes - 1) / Layout.pageBytes
        return Layout.processes + processes * Layout.processBytes + cpus * (workers + 1) * Layout.pageBytes
    }

    /// Makes the file of a segment with all caps 0. It appears under its name complete or not at all.
    ///
    /// A segment is never resized in place. One of another version or size can be replaced while no process is attached.
    ///
    /// - Parameters:
    ///   - path: a new file, on a file system in memory (/dev/shm).
    ///   - cpus: CPUs that get shards, 1 to `Limits.cpus`; nil: all the host may ever have.
    ///   - mode: permission bits of the file.
    ///   - replacing: whether a file of that name that no process uses may be replaced.
    public static func create(
        path: String, cpus: Int? = nil, fenceMode: FenceMode = .best, mode: UInt32 = 0o660, replacing: Bool = false
    ) throws(SegmentError) {
        let cpus = cpus ?? min(max(Int(fpx_configured_cpus()), 1), Limits.cpus)
        guard (1...Limits.cpus).contains(cpus) else {
            throw .range(what: "CPUs of a segment", found: cpus, allowed: 1...Limits.cpus)
        }
        if replacing {
            let users = try attachedProcesses(path: path)
            if users > 0 { throw .inUse(path: path, processes: users) }
        }
        let temporary = "\(path).new.\(fpx_process_id())"
        var descriptor: Int32 = -1
        unsafe fpx_file_remove(temporary)
        try check(unsafe fpx_file_open(temporary, true, mode, &descriptor), "open", temporary)
        defer {
            fpx_file_close(descriptor)
            unsafe fpx_file_remove(temporary)
        }
        let size = Layout.size(cpus: cpus)
        try check(fpx_file_set_size(descriptor, Int64(size)), "ftruncate", temporary)
        let file = try SegmentFile(descriptor, path: temporary)
        try file.reserve(0, Layout.processes)
        var memory: UnsafeMutableRawPointer?
        try check(unsafe fpx_map(descriptor, size, &memory), "mmap", temporary)
        guard let memory = unsafe memory else { throw .detached }
        defer { unsafe fpx_unmap(memory, size) }
        for (offset, value) in [
            (Layout.headerVersion, Layout.version), (Layout.headerSize, UInt64(size)), (Layout.headerCPUs, UInt64(cpus)),
            (Layout.headerPools, UInt64(Limits.pools)), (Layout.headerFence, fenceMode.rawValue),
            (Layout.headerMagic, Layout.magic),
        ] {
            unsafe Word(memory, at: offset).store(value)
        }
        let error = unsafe fpx_file_publish(temporary, path, replacing)
        if error == EEXIST { throw .exists(path: path) }
        try check(error, "link", path)
    }

    /// How many process slots of the segment in `path` are locked by a living process; 0 if there is no such file.
    public static func attachedProcesses(path: String) throws(SegmentError) -> Int {
        var descriptor: Int32 = -1
        let error = unsafe fpx_file_open(path, false, 0, &descriptor)
        if error == ENOENT { return 0 }
        try check(error, "open", path)
        defer { fpx_file_close(descriptor) }
        return (0..<Limits.processes).count { fpx_file_byte_is_locked(descriptor, lockBase + Int64($0)) }
    }

    static func check(_ code: Int32, _ call: String, _ path: String) throws(SegmentError) {
        if code != 0 { throw .system(call: call, path: path, code: code) }
    }
}

// MARK: - Attach and detach

extension Segment {
    /// Attaches this process. Do it after fork; a child does not inherit an attachment.
    ///
    /// - Throws: among others `room` when the file system is full, `exhausted` when all slots are taken, `replaced` when the
    ///   segment takes no new sessions: try again a second later.
    public static func attach(path: String) throws(SegmentError) -> Segment { try attach(path: path, asKeeper: false) }

    static func attach(path: String, asKeeper: Bool) throws(SegmentError) -> Segment {
        var descriptor: Int32 = -1
        fpx_fork_hold()
        defer { fpx_fork_resume() }
        try check(unsafe fpx_file_open(path, false, 0, &descriptor), "open", path)
        // The mapping keeps the open file description, and with it the lock, alive.
        defer { fpx_file_close(descriptor) }
        return try attach(descriptor, path: path, asKeeper: asKeeper)
    }

    /// Within `fpx_fork_hold`.
    ///
    /// - Parameter descriptor: an open file description of its own, which takes the lock.
    static func attach(_ descriptor: Int32, path: String, asKeeper: Bool) throws(SegmentError) -> Segment {
        var status = fpx_file_status()
        try check(unsafe fpx_file_stat(descriptor, nil, &status), "fstat", path)
        // The header says what version it is of, and with it what size is right.
        guard status.regular, status.size >= Int64(Layout.pageBytes) else {
            throw .format(path: path, field: "size", found: UInt64(status.size), expected: UInt64(Layout.size(cpus: 1)))
        }
        let size = Int(status.size)
        var mapped: UnsafeMutableRawPointer?
        try check(unsafe fpx_map(descriptor, size, &mapped), "mmap", path)
        guard let base = unsafe mapped else { throw .detached }
        var probe: Int32 = -1
        do throws(SegmentError) {
            guard unsafe fpx_guard_memory(base, size) else {
                throw SegmentError.system(call: "malloc", path: path, code: ENOMEM)
            }
            let (cpus, fenceMode) = unsafe try validate(base, path: path, size: UInt64(size))
            try check(unsafe fpx_file_reopen(descriptor, &probe), "open", path)
            let file = try SegmentFile(probe, path: path)
            let memory = unsafe SegmentMemory(base, cpus: cpus, plain: fenceMode == .membarrier)
            if !asKeeper, !memory.takesSessions { throw SegmentError.replaced(path: path) }
            let slot =
                asKeeper ? try takeKeeperSlot(descriptor, memory, path) : try takeSlot(descriptor, memory, file)
            try file.reserve(slot: slot, cpus: cpus)
            return enter(path: path, memory: memory.held(by: slot), file: file)
        } catch {
            if probe >= 0 { fpx_file_close(probe) }
            unsafe fpx_unguard_memory_held(base)
            unsafe fpx_unmap(base, size)
            throw error
        }
    }

    private static func validate(
        _ memory: UnsafeMutableRawPointer, path: String, size: UInt64
    ) throws(SegmentError) -> (cpus: Int, fenceMode: FenceMode) {
        func expect(_ field: String, _ offset: Int, _ expected: UInt64) throws(SegmentError) {
            let found = unsafe Word(memory, at: offset).load()
            if found != expected { throw .format(path: path, field: field, found: found, expected: expected) }
        }
        try expect("magic", Layout.headerMagic, Layout.magic)
        try expect("version", Layout.headerVersion, Layout.version)
        try expect("pools", Layout.headerPools, UInt64(Limits.pools))
        let cpus = unsafe Word(memory, at: Layout.headerCPUs).load()
        guard (1...UInt64(Limits.cpus)).contains(cpus) else {
            throw .format(path: path, field: "CPUs", found: cpus, expected: UInt64(Limits.cpus))
        }
        let expectedSize = UInt64(Layout.size(cpus: Int(cpus)))
        try expect("size", Layout.headerSize, expectedSize)
        if expectedSize != size { throw .format(path: path, field: "size", found: size, expected: expectedSize) }
        for pool in 0..<Limits.pools {
            let engine = PoolEngine(unsafe SegmentMemory(memory, cpus: Int(cpus)), pool: pool)
            defer { engine.discard() }
            let cap = engine.cap, free = engine.loadPool().free
            guard (0...Limits.cap).contains(cap) else {
                throw .format(
                    path: path, field: "cap of pool \(pool)", found: UInt64(bitPattern: Int64(cap)),
                    expected: UInt64(Limits.cap))
            }
            let loan = Loan(rawValue: engine.loanWord.load())
            guard loan.sessions <= Limits.cap - cap else {
                throw .format(
                    path: path, field: "borrowed sessions of pool \(pool)", found: UInt64(loan.sessions),
                    expected: UInt64(Limits.cap - cap))
            }
            guard free <= cap else {
                throw .format(
                    path: path, field: "free sessions of pool \(pool)", found: UInt64(bitPattern: Int64(free)),
                    expected: UInt64(cap))
            }
        }
        let fence = unsafe Word(memory, at: Layout.headerFence).load()
        guard let fenceMode = FenceMode(rawValue: fence) else {
            throw .format(path: path, field: "fence mode", found: fence, expected: FenceMode.membarrier.rawValue)
        }
        if fenceMode == .membarrier {
            let code = FPX_PLAIN_FAST_PATH == 1 ? fpx_fence_register() : ENOSYS
            if code != 0 { throw .fenceUnavailable(path: path, code: code) }
        }
        return (Int(cpus), fenceMode)
    }

    /// Locks a slot that nobody has. One of a dead process is reaped first: if it were locked before, and this thread stopped,
    /// the dead would look alive.
    private static func takeSlot(
        _ descriptor: Int32, _ memory: SegmentMemory, _ file: SegmentFile
    ) throws(SegmentError) -> Int {
        let reaper = Reaper(
            memory: memory, engines: (0..<Limits.pools).map { PoolEngine(memory, pool: $0, file: file) }, file: file)
        defer { for engine in reaper.engines { engine.discard() } }
        for _ in 0..<Limits.processes {
            _ = reaper.reap()
            for slot in 0..<Layout.keeperSlot where !reaper.isTaken(slot) {
                let byte = lockBase + Int64(slot)
                guard fpx_file_lock_byte(descriptor, byte) == 0 else { continue }
                if !reaper.isTaken(slot) { return slot }
                fpx_file_unlock_byte(descriptor, byte)  // taken and left by another since
            }
            if (0..<Layout.keeperSlot).allSatisfy(reaper.isLocked) { break }
        }
        memory.header(Layout.headerRefusedProcesses).count(1)
        throw .exhausted(what: "process slots", limit: Layout.keeperSlot)
    }

    /// Enters the slot whose lock this process holds: nobody else changes it.
    private static func enter(path: String, memory: SegmentMemory, file: SegmentFile) -> Segment {
        memory.markUsed(slot: memory.slot)
        let incarnation = UInt32(truncatingIfNeeded: memory.header(Layout.headerIncarnation).add(1) &+ 1)
        let segment = Segment(path: path, memory: memory, file: file, incarnation: incarnation)
        segment.identify()
        // The keeper's entries and writers hold its predecessor's sessions. In a pool that it has not entered yet they are
        // clean.
        if memory.slot == Layout.keeperSlot {
            segment.takeOver()
        } else {
            segment.resetHandles()
            for pool in 0..<Limits.pools { segment.engine(pool).enter(incarnation: incarnation) }
        }
        return segment
    }

    /// Writes down who holds the slot.
    private func identify() {
        func word(_ offset: Int) -> Word { memory.process(slot, offset) }
        word(Layout.processIdentity).store(UInt64(fpx_process_id()))
        word(Layout.processStart).store(fpx_process_start(fpx_process_id()))
        word(Layout.processFenceError).store(0)
        var name = (UInt64(0), UInt64(0))
        unsafe fpx_process_name(&name)
        word(Layout.processName).store(name.0)
        word(Layout.processName + 8).store(name.1)
    }

    /// Whether this process is attached: false in a forked child and after `detach`.
    public var isAttached: Bool { memory.isAttached }

    /// Whether the memory was taken away, and the locks of all whom that befell with it: what is empty is no segment's. Where
    /// it is there and says nothing that makes sense, `isAttached` is false and this is too.
    package var isLost: Bool { memory.header(Layout.headerMagic).load() == 0 }

    /// Gives back all sessions of this process (the keeper's stay counted for the next one), and its slot. What still refers to
    /// the segment does nothing from now on.
    ///
    /// Lost memory is as a replaced segment: attach again for new sessions, and detach when those that were counted have ended.
    /// Until then the open descriptor alone tells fpxd that there may be some; it is closed here. No other thread of this
    /// process may be inside a call on the segment meanwhile.
    public func detach() {
        if isAttached, slot != Layout.keeperSlot {
            for pool in 0..<Limits.pools { engine(pool).reap(slot: slot, incarnation: incarnation) }
        }
        file.close()
        unsafe fpx_discard_memory(memory.base)
    }

    /// Whether this is the segment to start sessions in: attached, and not replaced by another of the same name. Where it is
    /// not, attach again for new sessions, and detach from this one when those that it counts have ended.
    public var isCurrent: Bool { engines[0].isCurrent }

    /// Attachments in vain since the segment was made: every process slot was taken.
    public var refusedProcesses: Int {
        Int(truncatingIfNeeded: memory.header(Layout.headerRefusedProcesses).load())
    }

    package func engine(_ pool: Int) -> PoolEngine { engines[pool] }

    /// Whether a living process holds a slot.
    func isLocked(_ slot: Int) -> Bool { file.isLocked(slot) }
}

extension Segment {
    /// The shards of one CPU: whole pages, for placing them on a memory node.
    package func shardRegion(cpu: Int) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            start: memory.base + Layout.shards + cpu * Layout.cpuStride, count: Layout.cpuStride)
    }
}
