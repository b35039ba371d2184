public import Admission
import CKeyedTable

/// What can fail while keyed sessions are set up or asked for, with what was found and what was expected.
public enum KeyedSessionsError: Error, Equatable {
    /// A system call failed.
    case system(call: String, path: String, code: Int32)
    /// The segment refuses what sessions need.
    case segment(SegmentError)
    /// A session's key is empty or too long.
    case key(bytes: Int, allowed: ClosedRange<Int>)
    /// A number that the caller gave is out of range.
    case range(what: String, found: Int, allowed: ClosedRange<Int>)
    /// Text that is no IP address.
    case address(found: String)
}

extension KeyedSessionsError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .system(let call, let path, let code):
            "\(path): \(call) failed: \(unsafe String(cString: fpx_errno_name(code)))"
        case .segment(let error): "\(error)"
        case .key(let bytes, let allowed):
            "session key: found \(bytes) bytes, expected \(allowed.lowerBound) to \(allowed.upperBound)"
        case .range(let what, let found, let allowed):
            "\(what): found \(found), expected \(allowed.lowerBound) to \(allowed.upperBound)"
        case .address(let found):
            "found \"\(found)\", expected an IPv4 or IPv6 address"
        }
    }
}
