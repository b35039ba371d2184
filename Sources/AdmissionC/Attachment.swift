// Attachment: what an fpx_segment points to.

import Admission
import CAdmission

/// A segment as C sees it: everything that the hot functions need, in memory that is never freed, so that C may pass the
/// pointer on after a detach and in a forked child. No class is touched on the hot ways: a reference count is a shared line.
@safe
struct Attachment {
    let segment: Unmanaged<Segment>
    let engines: InlineArray<16, PoolEngine>
    /// Every lane that there can be, `Limits.lanes` for each pool. A closed one points to the writer that refuses.
    let lanes: UnsafeMutablePointer<fpx_lane>
    /// What keeps an open lane open; initialised while it is.
    let owners: UnsafeMutablePointer<Lane>
    /// All zero, and so closed: who uses a closed lane goes the slow way and is told so.
    let refusing: UnsafeMutablePointer<fpx_writer>
    #if FPX_DEBUG
        /// The same for open lanes, so that the library sees each admission and release.
        let watching: UnsafeMutablePointer<fpx_writer>
    #endif
    /// 1 after fpx_detach.
    let detached: Word

    static let laneCount = Limits.pools * Limits.lanes

    private init(_ segment: Segment, _ memory: UnsafeMutablePointer<Attachment>) {
        unsafe self.segment = .passRetained(segment)
        engines = InlineArray { segment.engine($0) }
        unsafe refusing = .allocate(capacity: 1)
        unsafe refusing.initialize(to: fpx_writer())
        #if FPX_DEBUG
            unsafe watching = .allocate(capacity: 1)
            unsafe watching.initialize(to: fpx_writer())
        #endif
        unsafe lanes = .allocate(capacity: Self.laneCount)
        for index in 0..<Self.laneCount {
            unsafe (lanes + index).initialize(
                to: fpx_lane(
                    writer: refusing, segment: OpaquePointer(memory), pool: UInt32(index / Limits.lanes),
                    index: UInt32(index % Limits.lanes)))
        }
        unsafe owners = .allocate(capacity: Self.laneCount)
        let word = UnsafeMutableRawPointer.allocate(byteCount: 8, alignment: 8)
        unsafe detached = Word(word, at: 0)
        detached.store(0)
    }

    static func make(_ segment: Segment) -> OpaquePointer {
        let memory = UnsafeMutablePointer<Attachment>.allocate(capacity: 1)
        unsafe memory.initialize(to: Attachment(segment, memory))
        return OpaquePointer(memory)
    }

    var isAttached: Bool { engines[0].isAttached }

    /// Takes the lane out of use; false: it was closed already. Only one caller gets true.
    func close(_ lane: UnsafeMutablePointer<fpx_lane>) -> Bool {
        // The writer is the first field of an fpx_lane.
        let writer = unsafe Word(UnsafeMutableRawPointer(lane), at: 0)
        let closed = unsafe UInt64(UInt(bitPattern: refusing))
        let open = writer.load()
        guard open != closed, writer.compareExchange(open, closed).exchanged else { return false }
        let index = unsafe Int(lane.pointee.pool) * Limits.lanes + Int(lane.pointee.index)
        _ = unsafe (owners + index).move()
        return true
    }
}

extension UnsafeMutablePointer<fpx_lane> {
    var attachment: UnsafePointer<Attachment> { unsafe UnsafePointer(pointee.segment) }
    var isClosed: Bool { unsafe pointee.writer == attachment.pointee.refusing }
    var engine: PoolEngine { unsafe attachment.pointee.engines[Int(pointee.pool)] }
}
