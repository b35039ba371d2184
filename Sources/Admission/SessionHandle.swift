// SessionHandle: sessions as 8-byte values that any process may release, checked.
//
// Each process has a table of entries in the segment: { generation : 32 | bypassed : 1 | pool : 4 | state : 2 }. A handle names
// process slot, pool, kind, entry and generation, so that a release finds out whether that very session is still in use. Who
// releases first swaps the entry's state; the second finds another state or generation and changes nothing.
//
// Within the owner's process the entry becomes free and the session ends on the releasing thread's shard. If the process dies
// between the two, all it held comes back anyway. For another process' session the entry becomes *releasing*, and one
// operation of the pool takes the session off that process' balance and frees the entry. Who dies in between leaves an entry
// in that state: who reaps it publishes the operation for it, before its slot becomes free. An entry leaves the state by that
// operation alone, so whoever finds it there after `begin` knows that it has not been done.
//
// The table is used by chunks of a page. Their memory is reserved before their first entry is used, and their bit is set after
// that: whoever walks a table walks those chunks alone. A second bit tells that a chunk had no entry free when somebody had
// looked at all of it *after* setting the bit; who frees an entry takes the bit away. So a full table is refused by two loads.

import CAdmission

/// An 8-byte name of a session in progress. Never zero.
///
///     valid : 1 | 0 | process slot : 9 | pool : 4 | bypassed : 1 | entry : 16 | generation : 32
public struct SessionHandle: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt64

    public init(rawValue: UInt64) { self.rawValue = rawValue }

    init(slot: Int, pool: Int, bypassed: Bool, entry: Int, generation: UInt32) {
        rawValue =
            1 << 63 | UInt64(slot) << 53 | UInt64(pool) << 49 | (bypassed ? 1 << 48 : 0) | UInt64(entry) << 32
            | UInt64(generation)
    }

    package var isValid: Bool { rawValue >> 62 == 2 }
    var slot: Int { Int(rawValue >> 53 & 511) }
    public var pool: Int { Int(rawValue >> 49 & 15) }
    public var isBypassed: Bool { rawValue >> 48 & 1 == 1 }
    /// Place in the table of its process, below `Limits.handles`: no other session has it meanwhile.
    public var entry: Int { Int(rawValue >> 32 & 0xffff) }
    var generation: UInt32 { UInt32(truncatingIfNeeded: rawValue) }
}

enum Entry {
    static let free: UInt64 = 0
    static let inUse: UInt64 = 1
    static let releasing: UInt64 = 2

    static func make(_ generation: UInt32, _ pool: Int, bypassed: Bool, _ state: UInt64) -> UInt64 {
        UInt64(generation) << 32 | (bypassed ? 1 << 6 : 0) | UInt64(pool) << 2 | state
    }
    /// The same session in another state.
    static func with(_ state: UInt64, _ entry: UInt64) -> UInt64 { entry & ~3 | state }
    static func isBypassed(_ entry: UInt64) -> Bool { entry >> 6 & 1 == 1 }
    static func state(_ entry: UInt64) -> UInt64 { entry & 3 }
    static func pool(_ entry: UInt64) -> Int { Int(entry >> 2 & 15) }
    static func generation(_ entry: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: entry >> 32) }
}

extension PoolEngine {
    private var isTableFull: Bool {
        (0..<Layout.handleChunks / 64).allSatisfy { memory.process(slot, Layout.processFullHandles + $0 * 8).load() == .max }
    }

    /// Takes a free entry for a session that this process has admitted.
    ///
    /// - Returns: nil where all are in use, or no memory is left for more of them (`handleError` tells which).
    package func makeHandle(bypassed: Bool) -> SessionHandle? {
        if isTableFull { return nil }
        let writer = currentWriter()
        // Writers start in chunks of their own, and each goes back to the entry that it has freed last.
        let start = Int(truncatingIfNeeded: writer.cursor.load()) &+ writer.target.index &* Layout.handlesOfChunk
        let first = start / Layout.handlesOfChunk
        var hasRoom = true
        for step in 0..<Layout.handleChunks {
            let chunk = (first &+ step) & (Layout.handleChunks - 1)
            let full = memory.chunkBit(Layout.processFullHandles, chunk, of: slot)
            if full.word.load() & full.bit != 0 { continue }
            if !memory.isUsed(chunk: chunk, of: slot) {
                if hasRoom { hasRoom = takeIntoUse(chunk) }
                if !hasRoom { continue }
            }
            let from = step == 0 ? start & (Layout.handlesOfChunk - 1) : 0
            if let handle = makeHandle(in: chunk, from: from, writer, bypassed: bypassed) { return handle }
            full.word.insert(bits: full.bit)
            if let handle = makeHandle(in: chunk, from: 0, writer, bypassed: bypassed) {
                full.word.remove(bits: full.bit)
                return handle
            }
        }
        return nil
    }

    /// Looks at each entry of a chunk once, beginning with one of them.
    @inline(__always)
    private func makeHandle(in chunk: Int, from: Int, _ writer: Writer, bypassed: Bool) -> SessionHandle? {
        for step in 0..<Layout.handlesOfChunk {
            let index = chunk * Layout.handlesOfChunk + ((from &+ step) & (Layout.handlesOfChunk - 1))
            let entry = memory.entry(index, of: slot)
            let old = entry.load()
            guard Entry.state(old) == Entry.free else { continue }
            let generation = Entry.generation(old) &+ 1
            guard entry.compareExchange(old, Entry.make(generation, pool, bypassed: bypassed, Entry.inUse)).exchanged
            else { continue }
            let cursor = UInt64(truncatingIfNeeded: index &- writer.target.index &* Layout.handlesOfChunk)
            if writer.cursor.load() != cursor { writer.cursor.store(cursor) }
            return SessionHandle(slot: slot, pool: pool, bypassed: bypassed, entry: index, generation: generation)
        }
        return nil
    }

    @inline(never)
    private func takeIntoUse(_ chunk: Int) -> Bool {
        let offset = Layout.handles(cpus: cpus) + (slot * Limits.handles + chunk * Layout.handlesOfChunk) * Layout.handleBytes
        guard isAttached, let file, (try? file.reserve(offset, Layout.pageBytes)) != nil else { return false }
        let used = memory.chunkBit(Layout.processHandles, chunk, of: slot)
        used.word.insert(bits: used.bit)
        return true
    }

    /// Why there is no handle.
    package var handleError: SegmentError {
        isTableFull
            ? .exhausted(what: "session handles of this process", limit: Limits.handles)
            : .room(path: file?.path ?? "", bytes: Layout.pageBytes, code: ENOSPC)
    }

    /// Ends the session of a handle. False: it is not in use, and nothing was changed.
    package func release(_ handle: SessionHandle) -> Bool {
        // A handle of another segment may name a table that nobody has ever used.
        guard memory.isUsed(chunk: handle.entry / Layout.handlesOfChunk, of: handle.slot) else { return false }
        let entry = memory.entry(handle.entry, of: handle.slot)
        let inUse = Entry.make(handle.generation, pool, bypassed: handle.isBypassed, Entry.inUse)
        let own = handle.slot == slot
        let state = own || handle.isBypassed ? Entry.free : Entry.releasing
        // What has freed the entry for this session must be done before the entry is releasing again (freeEntry).
        if state == Entry.releasing { _ = begin() }
        guard entry.compareExchange(inUse, Entry.with(state, inUse)).exchanged else { return false }
        if state == Entry.free { memory.noteFree(handle.entry, of: handle.slot) }
        if own {
            release(handle.isBypassed ? .bypass : .inspect)
        } else if handle.isBypassed {
            if let writer = writer(slot: handle.slot, index: Self.lockedIndex, kind: .locked) {
                memory.process(handle.slot, Layout.processLanes).insert(bits: 1)
                writer.bypassed.add(UInt64.max)
            }
        } else {
            releaseForeign(handle.entry, of: handle.slot)
        }
        return true
    }

    /// Takes the session of a releasing entry off its process' balance.
    func releaseForeign(_ index: Int, of slot: Int) {
        let entry = memory.entry(index, of: slot)
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let word = begin()
            let now = entry.load()
            guard Entry.state(now) == Entry.releasing, Entry.pool(now) == pool else { return }
            if balance(slot).account.phase != Account.live {
                // The process is gone and so is its session; only the entry is left.
                if entry.compareExchange(now, Entry.with(Entry.free, now)).exchanged { return memory.noteFree(index, of: slot) }
                continue
            }
            if transact(word, free: 1, .releaseHandle, target: .balance(slot), amount: index) { return }
        }
    }

    /// The first half of a `releaseHandle` operation, which its balance lacks until the second one.
    ///
    /// Who comes late may find the next session of the entry being released. That one's releaser has seen this operation done,
    /// so the balance has it, or the pool another one.
    func freeEntry(_ index: Int, of slot: Int, by word: PoolWord) {
        guard memory.isUsed(chunk: index / Layout.handlesOfChunk, of: slot) else { return }
        let entry = memory.entry(index, of: slot)
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let now = entry.load()
            guard Entry.state(now) == Entry.releasing, balance(slot).account.sequence != word.sequence,
                high.load() == word.high
            else { return }
            if entry.compareExchange(now, Entry.with(Entry.free, now)).exchanged { return memory.noteFree(index, of: slot) }
        }
    }
}

extension Segment {
    /// Gives a session a handle that can be stored, passed on and released by any attached process.
    ///
    /// - Returns: nil for a blocked session, which holds nothing.
    /// - Throws: `exhausted` when this process has `Limits.handles` in use, `room` when there is no memory for more; the
    ///   session has then ended.
    public func handle(_ session: consuming Session) throws(SegmentError) -> SessionHandle? {
        guard session.verdict != .block else { return nil }
        let engine = session.engine
        guard let handle = engine.makeHandle(bypassed: session.verdict == .bypass) else {
            session.end()
            throw engine.handleError
        }
        _ = session.detach()
        return handle
    }

    /// Whether the session of a handle is in progress.
    public func isInUse(_ handle: SessionHandle) -> Bool {
        guard isAttached, handle.isValid else { return false }
        guard memory.isUsed(chunk: handle.entry / Layout.handlesOfChunk, of: handle.slot) else { return false }
        let entry = memory.entry(handle.entry, of: handle.slot).load()
        return entry == Entry.make(handle.generation, handle.pool, bypassed: handle.isBypassed, Entry.inUse)
    }

    /// The handles of this process' sessions in progress.
    public func handlesInUse() -> [SessionHandle] {
        var all: [SessionHandle] = []
        memory.forEachHandle(of: slot) { index, entry in
            let now = entry.load()
            guard Entry.state(now) == Entry.inUse else { return }
            all.append(
                SessionHandle(
                    slot: slot, pool: Entry.pool(now), bypassed: Entry.isBypassed(now), entry: index,
                    generation: Entry.generation(now)))
        }
        return all
    }

    /// Ends the session of a handle, once.
    public func release(_ handle: SessionHandle) throws(SegmentError) {
        guard isAttached else { throw .detached }
        guard handle.isValid, engine(handle.pool).release(handle) else { throw .handle(found: handle.rawValue) }
    }

    /// Frees what the last holder of this slot has left in the table.
    func resetHandles() {
        memory.forEachHandle(of: slot) { _, entry in
            let now = entry.load()
            if Entry.state(now) != Entry.free { entry.store(Entry.with(Entry.free, now)) }
        }
        for word in 0..<Layout.handleChunks / 64 { memory.process(slot, Layout.processFullHandles + word * 8).store(0) }
    }
}

extension Reaper {
    /// Publishes the releases that a dead process has begun for others' sessions.
    func finishForeignReleases() {
        memory.forEachSlot { slot in
            memory.forEachHandle(of: slot) { index, entry in
                let now = entry.load()
                if Entry.state(now) == Entry.releasing { engines[Entry.pool(now)].releaseForeign(index, of: slot) }
            }
        }
    }
}
