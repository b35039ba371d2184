// The functions of fpxadmission.h, which documents them. The compiler checks each against its declaration there.

import Admission
import CAdmission

private func attachment(_ segment: OpaquePointer) -> UnsafePointer<Attachment> { unsafe UnsafePointer(segment) }

extension fpx_verdict {
    @inline(__always)
    init(_ verdict: Verdict) { self.init(UInt32(verdict.rawValue)) }
}

// MARK: - Attach and detach

@c @implementation
public func fpx_attach(
    _ path: UnsafePointer<CChar>?, _ segment: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
    guard let segment = unsafe segment else { return missing("fpx_attach", "segment", "where to store the segment") }
    unsafe segment.pointee = nil
    guard let path = unsafe path else { return missing("fpx_attach", "path", "the name of a segment's file") }
    guard let name = unsafe String(validatingCString: path) else {
        unsafe fpx_set_last_error("fpx_attach: found a `path` that is not UTF-8, expected the name of a segment's file")
        return Int32(FPX_E_ARGUMENT)
    }
    do throws(SegmentError) {
        unsafe segment.pointee = Attachment.make(try Segment.attach(path: name))
        return ok
    } catch {
        return fail(error)
    }
}

@c @implementation
public func fpx_detach(_ segment: OpaquePointer?) -> Int32 {
    guard let segment = unsafe segment else { return missingSegment("fpx_detach") }
    let attachment = unsafe attachment(segment).pointee
    let isAttached = attachment.isAttached
    guard attachment.detached.compareExchange(0, 1).exchanged else { return detached() }
    unsafe attachment.segment.takeUnretainedValue().detach()
    return isAttached ? ok : detached()
}

@c @implementation
public func fpx_is_attached(_ segment: OpaquePointer?) -> Bool {
    guard let segment = unsafe segment else { return false }
    return unsafe attachment(segment).pointee.isAttached
}

@c @implementation
public func fpx_is_current(_ segment: OpaquePointer?) -> Bool {
    guard let segment = unsafe segment else { return false }
    return unsafe attachment(segment).pointee.engines[0].isCurrent
}

// MARK: - Lanes

@c @implementation
public func fpx_lane_open(
    _ segment: OpaquePointer?, _ pool: UInt32, _ lane: UnsafeMutablePointer<UnsafeMutablePointer<fpx_lane>?>?
) -> Int32 {
    guard let lane = unsafe lane else { return missing("fpx_lane_open", "lane", "where to store the lane") }
    unsafe lane.pointee = nil
    guard let segment = unsafe segment else { return missingSegment("fpx_lane_open") }
    let attachment = unsafe attachment(segment)
    do throws(SegmentError) {
        let owner = try unsafe attachment.pointee.segment.takeUnretainedValue().openLane(pool: Int(pool))
        let index = Int(pool) * Limits.lanes + owner.index
        let opened = unsafe attachment.pointee.lanes + index
        #if FPX_DEBUG
            unsafe opened.pointee.writer = attachment.pointee.watching
        #else
            unsafe opened.pointee.writer = owner.writer
        #endif
        unsafe (attachment.pointee.owners + index).initialize(to: owner)
        unsafe lane.pointee = opened
        return ok
    } catch {
        return fail(error)
    }
}

@c @implementation
public func fpx_lane_close(_ lane: UnsafeMutablePointer<fpx_lane>?) -> Int32 {
    guard let lane = unsafe lane else { return missingLane("fpx_lane_close") }
    let attachment = unsafe lane.attachment
    guard unsafe attachment.pointee.close(lane) else { return closedLane("fpx_lane_close") }
    return unsafe attachment.pointee.isAttached ? ok : detached()
}

@c @implementation
public func fpx_lane_admit_slow(_ lane: UnsafeMutablePointer<fpx_lane>?, _ stored: Bool) -> fpx_verdict {
    guard let lane = unsafe lane else { return refused(missingLane("fpx_lane_admit_slow")) }
    if unsafe lane.isClosed { return refused(closedLane("fpx_lane_admit")) }
    let engine = unsafe lane.engine
    return answer(unsafe engine.admitOffFastPath(lane: lane.record, stored: stored), engine)
}

@c @implementation
public func fpx_lane_release_slow(_ lane: UnsafeMutablePointer<fpx_lane>?, _ stored: Bool) {
    guard let lane = unsafe lane else { return _ = missingLane("fpx_lane_release_slow") }
    if unsafe lane.isClosed {
        _ = closedLane("fpx_lane_release")
    } else {
        checkRelease("fpx_lane_release", unsafe lane.engine, pool: unsafe lane.pointee.pool, .inspect)
        unsafe lane.engine.releaseOffFastPath(lane: lane.record, stored: stored)
    }
}

@c @implementation
public func fpx_lane_release_bypassed(_ lane: UnsafeMutablePointer<fpx_lane>?) {
    guard let lane = unsafe lane else { return _ = missingLane("fpx_lane_release_bypassed") }
    if unsafe lane.isClosed {
        _ = closedLane("fpx_lane_release")
    } else {
        checkRelease("fpx_lane_release", unsafe lane.engine, pool: unsafe lane.pointee.pool, .bypass)
        unsafe lane.engine.releaseBypassed(lane: lane.record)
    }
}

// MARK: - Any thread

/// A verdict for C. One that is not `inspect` may be so because this process is not attached: then the text says so.
@inline(__always)
private func answer(_ verdict: Verdict, _ engine: PoolEngine) -> fpx_verdict {
    if verdict != .inspect, !engine.isAttached { _ = detached() }
    return fpx_verdict(verdict)
}

@c @implementation
public func fpx_pool_admit(_ segment: OpaquePointer?, _ pool: UInt32) -> fpx_verdict {
    guard let segment = unsafe segment else { return refused(missingSegment("fpx_pool_admit")) }
    guard pool < Limits.pools else { return refused(wrongPool(pool)) }
    let engine = unsafe attachment(segment).pointee.engines[Int(pool)]
    return answer(engine.admit(), engine)
}

@c @implementation
public func fpx_pool_release(_ segment: OpaquePointer?, _ pool: UInt32, _ verdict: fpx_verdict) -> Int32 {
    guard let segment = unsafe segment else { return missingSegment("fpx_pool_release") }
    guard pool < Limits.pools else { return wrongPool(pool) }
    let engine = unsafe attachment(segment).pointee.engines[Int(pool)]
    if verdict == FPX_INSPECT {
        checkRelease("fpx_pool_release", engine, pool: pool, .inspect)
        engine.release(.inspect)
    } else if verdict == FPX_BYPASS {
        checkRelease("fpx_pool_release", engine, pool: pool, .bypass)
        engine.release(.bypass)
    } else if verdict != FPX_BLOCK {
        return wrongVerdict(verdict)
    }
    return engine.isAttached ? ok : detached()
}

// MARK: - Handles

@c @implementation
public func fpx_admit(
    _ segment: OpaquePointer?, _ pool: UInt32, _ session: UnsafeMutablePointer<fpx_session>?,
    _ verdict: UnsafeMutablePointer<fpx_verdict>?
) -> Int32 {
    guard let session = unsafe session else { return missing("fpx_admit", "session", "where to store the session") }
    guard let verdict = unsafe verdict else { return missing("fpx_admit", "verdict", "where to store the verdict") }
    unsafe session.pointee = 0
    unsafe verdict.pointee = FPX_BLOCK
    guard let segment = unsafe segment else { return missingSegment("fpx_admit") }
    guard pool < Limits.pools else { return wrongPool(pool) }
    let engine = unsafe attachment(segment).pointee.engines[Int(pool)]
    guard engine.isAttached else { return detached() }
    let given = engine.admit()
    if given == .block { return ok }
    guard let handle = engine.makeHandle(bypassed: given == .bypass) else {
        engine.release(given)
        return fail(engine.handleError)
    }
    unsafe session.pointee = handle.rawValue
    unsafe verdict.pointee = fpx_verdict(given)
    return ok
}

@c @implementation
public func fpx_release(_ segment: OpaquePointer?, _ session: fpx_session) -> Int32 {
    guard let segment = unsafe segment else { return missingSegment("fpx_release") }
    let handle = SessionHandle(rawValue: session)
    let engine = unsafe attachment(segment).pointee.engines[handle.pool]
    guard engine.isAttached else { return detached() }
    guard handle.isValid, engine.release(handle) else { return wrongHandle(session) }
    return ok
}

// MARK: - Figures

@c @implementation
public func fpx_report_bytes(
    _ segment: OpaquePointer?, _ pool: UInt32, _ bytesIn: UInt64, _ bytesOut: UInt64
) -> Int32 {
    guard let segment = unsafe segment else { return missingSegment("fpx_report_bytes") }
    guard pool < Limits.pools else { return wrongPool(pool) }
    do throws(SegmentError) {
        let engine = unsafe attachment(segment).pointee.engines[Int(pool)]
        try engine.report(bytesIn: Int(clamping: bytesIn), out: Int(clamping: bytesOut))
        return ok
    } catch {
        return fail(error)
    }
}

@c @implementation
public func fpx_stats(
    _ segment: OpaquePointer?, _ pool: UInt32, _ stats: UnsafeMutablePointer<fpx_pool_stats>?
) -> Int32 {
    guard let stats = unsafe stats else { return missing("fpx_stats", "stats", "where to store the figures") }
    unsafe stats.pointee = fpx_pool_stats()
    guard let segment = unsafe segment else { return missingSegment("fpx_stats") }
    do throws(SegmentError) {
        guard unsafe attachment(segment).pointee.isAttached else { throw .detached }
        let snapshot = try unsafe attachment(segment).pointee.segment.takeUnretainedValue().pool(Int(pool)).snapshot()
        unsafe stats.pointee = fpx_pool_stats(
            cap: Int64(snapshot.cap), in_use: Int64(snapshot.inUse), free_sessions: Int64(snapshot.free),
            bypassed: Int64(snapshot.bypassed), bypassed_peak: Int64(snapshot.bypassedPeak),
            admitted: snapshot.fastAdmissions &+ snapshot.poolAdmissions, refused: snapshot.refused,
            processes: UInt32(snapshot.processes),
            over_limit: snapshot.policy == .block ? FPX_BLOCK : FPX_BYPASS)
        return ok
    } catch {
        return fail(error)
    }
}

@c @implementation
public func fpx_reap(_ segment: OpaquePointer?) -> Int32 {
    guard let segment = unsafe segment else { return missingSegment("fpx_reap") }
    guard unsafe attachment(segment).pointee.isAttached else { return detached() }
    unsafe attachment(segment).pointee.segment.takeUnretainedValue().reap()
    return ok
}
