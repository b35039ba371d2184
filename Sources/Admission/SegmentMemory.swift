// SegmentMemory: one process' view of a segment's memory, and of what in it belongs to no pool of its own: the header, the
// records of processes, the tables of handles.

import CAdmission

/// What all engines of an attachment share: plain numbers, so that to copy it counts no reference.
@safe
struct SegmentMemory: @unchecked Sendable {
    /// Never unmapped: after a detach or a fork it is empty, and empty memory refuses.
    let base: UnsafeMutableRawPointer
    /// CPUs that have shards.
    let cpus: Int
    /// This process' slot; `Limits.processes`: it has none.
    let slot: Int
    /// Whether gates may be open to plain stores: all processes are fenced by membarrier.
    let plain: Bool

    init(_ base: UnsafeMutableRawPointer, cpus: Int, slot: Int = Limits.processes, plain: Bool = false) {
        unsafe self.base = base
        self.cpus = cpus
        self.slot = slot
        self.plain = plain
    }

    /// The view of a process that has taken a slot.
    func held(by slot: Int) -> SegmentMemory { unsafe SegmentMemory(base, cpus: cpus, slot: slot, plain: plain) }

    func header(_ word: Int) -> Word { unsafe Word(base, at: word) }
    func process(_ slot: Int, _ word: Int) -> Word { unsafe Word(base, at: Layout.process(slot) + word) }

    var isAttached: Bool { header(Layout.headerMagic).load() == Layout.magic }
    /// Whether somebody has given up on this segment.
    var isDamaged: Bool { header(Layout.headerDamage).load() != 0 }
    /// False: it is damaged, or its keeper has marked it as replaced.
    var takesSessions: Bool { header(Layout.headerReplaced).load() == 0 && !isDamaged }

    /// Whether a process slot was ever used. The memory of others has not been reserved.
    func isUsed(slot: Int) -> Bool { header(Layout.headerSlots + slot / 64 * 8).load() >> UInt64(slot & 63) & 1 == 1 }

    func markUsed(slot: Int) { header(Layout.headerSlots + slot / 64 * 8).insert(bits: 1 << UInt64(slot & 63)) }

    /// Process slots that have ever been used.
    func forEachSlot(_ body: (Int) -> Void) {
        for word in 0..<Layout.slotWords {
            var slots = header(Layout.headerSlots + word * 8).load()
            while slots != 0 {
                body(word * 64 + slots.trailingZeroBitCount)
                slots &= slots &- 1
            }
        }
    }
}

// MARK: - Tables of handles

extension SegmentMemory {
    func entry(_ index: Int, of slot: Int) -> Word {
        unsafe Word(base, at: Layout.handles(cpus: cpus) + (slot * Limits.handles + index) * Layout.handleBytes)
    }

    /// The word with a chunk's bit, and the bit.
    func chunkBit(_ word: Int, _ chunk: Int, of slot: Int) -> (word: Word, bit: UInt64) {
        (process(slot, word + chunk / 64 * 8), 1 << UInt64(chunk & 63))
    }

    /// Whether a process has ever used a chunk of its table. Any slot and chunk may be asked for.
    func isUsed(chunk: Int, of slot: Int) -> Bool {
        guard slot == self.slot || isUsed(slot: slot) else { return false }
        let used = chunkBit(Layout.processHandles, chunk, of: slot)
        return used.word.load() & used.bit != 0
    }

    /// Calls `body` for each entry of the chunks that a process has ever used.
    func forEachHandle(of slot: Int, _ body: (_ index: Int, _ entry: Word) -> Void) {
        for chunk in 0..<Layout.handleChunks where isUsed(chunk: chunk, of: slot) {
            for index in chunk * Layout.handlesOfChunk..<(chunk + 1) * Layout.handlesOfChunk {
                body(index, entry(index, of: slot))
            }
        }
    }

    /// To be called whenever an entry has become free.
    func noteFree(_ index: Int, of slot: Int) {
        let full = chunkBit(Layout.processFullHandles, index / Layout.handlesOfChunk, of: slot)
        if full.word.load() & full.bit != 0 { full.word.remove(bits: full.bit) }
    }
}
