// The debug library: each release is looked at, and one too many ends the process.
//
// A lane is counted on in the caller's own code, which the header inlines. In the debug library the lane that the caller sees is
// one whose gate is always closed, so that each call comes here; the lane's real record is known to the library alone. Programs
// need not be compiled anew.

import Admission
import CAdmission

extension UnsafeMutablePointer<fpx_lane> {
    /// The record that the lane counts on.
    var record: UnsafeMutablePointer<fpx_writer> {
        #if FPX_DEBUG
            unsafe attachment.pointee.owners[Int(pointee.pool) * Limits.lanes + Int(pointee.index)].writer
        #else
            unsafe pointee.writer
        #endif
    }
}

/// Ends the process where it has no session of this verdict to release. In the debug library alone.
@inline(__always)
func checkRelease(_ function: StaticString, _ engine: PoolEngine, pool: UInt32, _ verdict: Verdict) {
    #if FPX_DEBUG
        guard engine.isAttached, let inUse = engine.inUseHere() else { return }
        let (count, name) = verdict == .inspect ? (inUse.licensed, "FPX_INSPECT") : (inUse.bypassed, "FPX_BYPASS")
        if count > 0 { return }
        unsafe fpx_die(
            "\(function): found a release of \(name) too many: this process has no such session in use in pool \(pool); "
                + "expected one release for each admission")
    #endif
}
