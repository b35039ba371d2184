// Lane: a writer that one thread owns, for event loops. No restartable sequence, so it works everywhere, also under valgrind.

public import CAdmission

/// A thread's own writer of one pool. At most `Limits.lanes` for each process and pool.
///
/// It may move between threads but be used by one at a time, and not from signal handlers. When it goes out of scope another
/// thread may open it again; its sessions stay counted until they end.
@safe
public struct Lane: ~Copyable, @unchecked Sendable {
    @usableFromInline package let writer: UnsafeMutablePointer<fpx_writer>
    @usableFromInline let engine: PoolEngine
    package let index: Int
    private let openLanes: Word

    fileprivate init(
        writer: UnsafeMutablePointer<fpx_writer>, engine: PoolEngine, index: Int, openLanes: Word
    ) {
        unsafe self.writer = writer
        self.engine = engine
        self.index = index
        self.openLanes = openLanes
    }

    deinit { openLanes.remove(bits: 1 << UInt64(index)) }

    /// A verdict for a new session. Wait-free while the lane has spare sessions: plain instructions on the lane's own line.
    @inlinable @inline(__always)
    public func admit() -> Session {
        let step = unsafe fpx_writer_admit(writer)
        if step == FPX_STEP_DONE { return Session(.inspect, engine) }
        let verdict = unsafe engine.admitOffFastPath(lane: writer, stored: step == FPX_STEP_CHANGED)
        return Session(verdict, engine)
    }

    /// Ends a session of the same pool, whoever has admitted it; of another pool, on its shard.
    @inlinable @inline(__always)
    public func release(_ session: consuming Session) {
        guard session.engine == engine else { return session.end() }
        release(session.detach())
    }

    /// Ends a detached session of the same pool.
    @inlinable @inline(__always)
    public func release(_ verdict: Verdict) {
        if verdict == .inspect {
            let step = unsafe fpx_writer_release(writer)
            if step != FPX_STEP_DONE {
                unsafe engine.releaseOffFastPath(lane: writer, stored: step == FPX_STEP_CHANGED)
            }
        } else if verdict == .bypass {
            unsafe engine.releaseBypassed(lane: writer)
        }
    }
}

extension PoolEngine {
    /// The lane whose record is at `memory`.
    private func lane(_ memory: UnsafeMutablePointer<fpx_writer>) -> Writer {
        let distance = unsafe UnsafeMutableRawPointer(memory) - (base + Layout.process(slot) + Layout.extras)
        let index = Self.lockedIndex &+ Int(UInt(bitPattern: distance) / UInt(Limits.pools * Layout.writerBytes))
        let target = Target(slot: slot, index: index)
        return unsafe Writer(memory: memory, target: target, kind: .lane)
    }

    @usableFromInline @inline(never)
    package func admitOffFastPath(lane memory: UnsafeMutablePointer<fpx_writer>, stored: Bool) -> Verdict {
        unsafe !stored && blocks(memory) ? .block : admitByPool(lane: memory, stored: stored)
    }

    @inline(never)
    private func admitByPool(lane memory: UnsafeMutablePointer<fpx_writer>, stored: Bool) -> Verdict {
        let writer = unsafe lane(memory)
        return admitSlowly(stored ? .changed(writer) : .closed, by: { writer }) {
            Attempt(unsafe fpx_writer_admit(memory), writer)
        }
    }

    @usableFromInline @inline(never)
    package func releaseOffFastPath(lane memory: UnsafeMutablePointer<fpx_writer>, stored: Bool) {
        let writer = unsafe lane(memory)
        releaseSlowly(stored ? .changed(writer) : .closed, by: { writer }) {
            Attempt(unsafe fpx_writer_release(memory), writer)
        }
    }

    @usableFromInline @inline(never)
    package func releaseBypassed(lane memory: UnsafeMutablePointer<fpx_writer>) {
        let writer = unsafe lane(memory)
        markUsed(writer)
        writer.bypassed.store(writer.bypassed.load() &- 1)
    }
}

extension Segment {
    /// Opens a lane of a pool.
    public func openLane(pool: Int) throws(SegmentError) -> Lane {
        let engine = try self.pool(pool).engine
        guard isAttached else { throw .detached }
        let openLanes = unsafe Word(self.openLanes, at: pool * 8)
        while true {
            let taken = openLanes.load()
            let index = (~taken).trailingZeroBitCount
            guard index < Limits.lanes else {
                throw .exhausted(what: "lanes of this process in pool \(pool)", limit: Limits.lanes)
            }
            guard openLanes.compareExchange(taken, taken | 1 << UInt64(index)).exchanged else { continue }
            guard
                let writer = engine.writer(
                    slot: slot, index: PoolEngine.firstLaneIndex + index, kind: .lane)
            else { preconditionFailure() }
            let memory = unsafe writer.memory.assumingMemoryBound(to: fpx_writer.self)
            return unsafe Lane(writer: memory, engine: engine, index: index, openLanes: openLanes)
        }
    }
}
