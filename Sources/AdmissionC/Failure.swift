// How C is told what went wrong: a number to act on, and a text to read.

import Admission
import CAdmission

let ok = Int32(FPX_OK)

@inline(never)
func fail(_ error: SegmentError) -> Int32 {
    unsafe fpx_set_last_error(error.description)
    return Int32(error.code)
}

/// For a null pointer: which one, and what should have been there.
@inline(never)
func missing(_ function: StaticString, _ argument: StaticString, _ expected: StaticString) -> Int32 {
    unsafe fpx_set_last_error("\(function): found a null pointer for `\(argument)`, expected \(expected)")
    return Int32(FPX_E_ARGUMENT)
}

// The hot functions call these with next to nothing in hand, so that their own code has no error values and no stack frame.

@inline(never)
func missingSegment(_ function: StaticString) -> Int32 {
    missing(function, "segment", "the segment that fpx_attach gave")
}

@inline(never)
func missingLane(_ function: StaticString) -> Int32 { missing(function, "lane", "the lane that fpx_lane_open gave") }

@inline(never)
func wrongPool(_ pool: UInt32) -> Int32 {
    fail(.range(what: "pool", found: Int(pool), allowed: 0...(Limits.pools - 1)))
}

@inline(never)
func wrongVerdict(_ verdict: fpx_verdict) -> Int32 {
    fail(.range(what: "verdict", found: Int(verdict.rawValue), allowed: 0...Int(FPX_BLOCK.rawValue)))
}

@inline(never)
func wrongHandle(_ session: fpx_session) -> Int32 { fail(.handle(found: session)) }

@inline(never)
func detached() -> Int32 { fail(.detached) }

@inline(never)
func closedLane(_ function: StaticString) -> Int32 {
    unsafe fpx_set_last_error("\(function): found a closed lane, expected one that fpx_lane_open gave and nobody has closed")
    return Int32(FPX_E_ARGUMENT)
}

/// The verdict of a call that has failed: the session is refused, and there is nothing to release.
@inline(__always)
func refused(_ failure: Int32) -> fpx_verdict { FPX_BLOCK }

extension SegmentError {
    var code: Int {
        switch self {
        case .system, .exists, .inUse, .keeper, .room: FPX_E_SYSTEM
        case .format, .replaced: FPX_E_FORMAT
        case .range: FPX_E_ARGUMENT
        case .exhausted: FPX_E_LIMIT
        case .fenceUnavailable: FPX_E_PLATFORM
        case .handle: FPX_E_HANDLE
        case .detached: FPX_E_DETACHED
        }
    }
}
