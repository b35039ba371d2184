// SessionHandle: sessions as 8-byte values that any process may release, checked.
//
// Each process has a table of entries in the segment: { generation : 32 | bypassed : 1 | pool : 4 | state : 2 }. A handle names process slot, pool, kind,
// entry and generation, so that a release finds out whether that very session is still in use. Who releases first swaps the
// entry's state; the second finds another state or generation and changes nothing.
//
// Within the owner's process the entry becomes free and the session ends on the releasing thread's shard. If the process dies
// between the two, all it held comes back anyway. For another process' session the entry becomes *releasing*, and one
// operation of the pool takes the session off that process' balance and frees the entry. Who dies in between leaves an entry
// in that state: who reaps it publishes the operation for it, before its slot becomes free. An entry leaves the state by that
// operation alone, so whoever finds it there after `begin` knows that it has not been done.

import CAdmission

/// An 8-byte name of a session in progress. Never zero.
///
///     valid : 1 | process slot : 6 | pool : 4 | bypassed : 1 | entry : 16 | generation : 32
public struct SessionHandle: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt64

    public init(rawValue: UInt64) { self.rawValue = rawValue }

    init(slot: Int, pool: Int, bypassed: Bool, entry: Int, generation: UInt32) {
        rawValue =
            1 << 63 | UInt64(slot) << 53 | UInt64(pool) << 49 | (bypassed ? 1 << 48 : 0) | UInt64(entry) << 32
            | UInt64(generation)
    }

    package var isValid: Bool { rawValue >> 59 == 1 << 4 }
    var slot: Int { Int(rawValue >> 53 & 63) }
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
    static let usesHandles: UInt64 = 1

    func entry(_ index: Int, of slot: Int) -> Word {
        unsafe Word(base, at: Layout.handles(cpus: cpus) + (slot * Limits.handles + index) * Layout.handleBytes)
    }

    /// Takes a free entry for a session that this process has admitted; nil: all are in use.
    package func makeHandle(bypassed: Bool) -> SessionHandle? {
        let flags = processWord(slot, Layout.processFlags)
        if flags.load() & Self.usesHandles == 0 { flags.insert(bits: Self.usesHandles) }
        let writer = currentWriter()
        // Writers start apart from one another, and each goes back to the entry that it has freed last.
        let start = Int(truncatingIfNeeded: writer.cursor.load()) &+ (writer.target & 1023) &* 4099
        for step in 0..<Limits.handles {
            let index = (start &+ step) & (Limits.handles - 1)
            let entry = entry(index, of: slot)
            let old = entry.load()
            guard Entry.state(old) == Entry.free else { continue }
            let generation = Entry.generation(old) &+ 1
            guard entry.compareExchange(old, Entry.make(generation, pool, bypassed: bypassed, Entry.inUse)).exchanged
            else { continue }
            if step > 0 { writer.cursor.store(writer.cursor.load() &+ UInt64(step)) }
            return SessionHandle(slot: slot, pool: pool, bypassed: bypassed, entry: index, generation: generation)
        }
        return nil
    }

    /// Ends the session of a handle. False: it is not in use, and nothing was changed.
    package func release(_ handle: SessionHandle) -> Bool {
        let entry = entry(handle.entry, of: handle.slot)
        let inUse = Entry.make(handle.generation, pool, bypassed: handle.isBypassed, Entry.inUse)
        let own = handle.slot == slot
        let state = own || handle.isBypassed ? Entry.free : Entry.releasing
        // What has freed the entry for this session must be done before the entry is releasing again (freeEntry).
        if state == Entry.releasing { _ = begin() }
        guard entry.compareExchange(inUse, Entry.with(state, inUse)).exchanged else { return false }
        if own {
            release(handle.isBypassed ? .bypass : .inspect)
        } else if handle.isBypassed {
            if let writer = writer(slot: handle.slot, index: Self.lockedIndex, kind: .locked) {
                processWord(handle.slot, Layout.processLanes).insert(bits: 1)
                writer.bypassed.add(UInt64.max)
            }
        } else {
            releaseForeign(handle.entry, of: handle.slot)
        }
        return true
    }

    /// Takes the session of a releasing entry off its process' balance.
    func releaseForeign(_ index: Int, of slot: Int) {
        let entry = entry(index, of: slot)
        while true {
            let word = begin()
            let now = entry.load()
            guard Entry.state(now) == Entry.releasing, Entry.pool(now) == pool else { return }
            if balance(slot).account.phase != Account.live {
                // The process is gone and so is its session; only the entry is left.
                if entry.compareExchange(now, Entry.with(Entry.free, now)).exchanged { return }
                continue
            }
            if transact(word, free: 1, .releaseHandle, target: slot << 10 | Self.balanceIndex, amount: index) { return }
        }
    }

    /// The first half of a `releaseHandle` operation, which its balance lacks until the second one.
    ///
    /// Who comes late may find the next session of the entry being released. That one's releaser has seen this operation done,
    /// so the balance has it, or the pool another one.
    func freeEntry(_ index: Int, of slot: Int, by word: PoolWord) {
        let entry = entry(index, of: slot)
        while true {
            let now = entry.load()
            guard Entry.state(now) == Entry.releasing, balance(slot).account.sequence != word.sequence,
                high.load() == word.high
            else { return }
            if entry.compareExchange(now, Entry.with(Entry.free, now)).exchanged { return }
        }
    }
}

extension Segment {
    /// Gives a session a handle that can be stored, passed on and released by any attached process.
    ///
    /// - Returns: nil for a blocked session, which holds nothing.
    /// - Throws: `exhausted` when this process has `Limits.handles` in use; the session has then ended.
    public func handle(_ session: consuming Session) throws(SegmentError) -> SessionHandle? {
        guard session.verdict != .block else { return nil }
        let handle = session.engine.makeHandle(bypassed: session.verdict == .bypass)
        guard let handle else {
            session.end()
            throw .exhausted(what: "session handles of this process", limit: Limits.handles)
        }
        _ = session.detach()
        return handle
    }

    /// Whether the session of a handle is in progress.
    public func isInUse(_ handle: SessionHandle) -> Bool {
        guard isAttached, handle.isValid else { return false }
        let entry = engine(handle.pool).entry(handle.entry, of: handle.slot).load()
        return entry == Entry.make(handle.generation, handle.pool, bypassed: handle.isBypassed, Entry.inUse)
    }

    /// The handles of this process' sessions in progress.
    public func handlesInUse() -> [SessionHandle] {
        guard engine(0).processWord(slot, Layout.processFlags).load() & PoolEngine.usesHandles != 0 else { return [] }
        return (0..<Limits.handles).compactMap { index in
            let entry = engine(0).entry(index, of: slot).load()
            guard Entry.state(entry) == Entry.inUse else { return nil }
            return SessionHandle(
                slot: slot, pool: Entry.pool(entry), bypassed: Entry.isBypassed(entry), entry: index,
                generation: Entry.generation(entry))
        }
    }

    /// Ends the session of a handle, once.
    public func release(_ handle: SessionHandle) throws(SegmentError) {
        guard isAttached else { throw .detached }
        guard handle.isValid, engine(handle.pool).release(handle) else { throw .handle(found: handle.rawValue) }
    }

    /// Frees what the last holder of this slot has left in the table.
    func resetHandles() {
        let flags = engine(0).processWord(slot, Layout.processFlags)
        guard flags.load() & PoolEngine.usesHandles != 0 else { return }
        for index in 0..<Limits.handles {
            let entry = engine(0).entry(index, of: slot)
            let now = entry.load()
            if Entry.state(now) != Entry.free { entry.store(Entry.with(Entry.free, now)) }
        }
        flags.store(0)
    }
}

extension Reaper {
    /// Publishes the releases that a dead process has begun for others' sessions.
    func finishForeignReleases() {
        engines[0].forEachSlot { slot in
            guard engines[0].processWord(slot, Layout.processFlags).load() & PoolEngine.usesHandles != 0 else { return }
            for index in 0..<Limits.handles {
                let now = engines[0].entry(index, of: slot).load()
                if Entry.state(now) == Entry.releasing { engines[Entry.pool(now)].releaseForeign(index, of: slot) }
            }
        }
    }
}
