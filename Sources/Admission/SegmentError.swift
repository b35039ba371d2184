import CAdmission

/// What can fail while a segment is made, attached or set up, with what was found and what was expected.
public enum SegmentError: Error, Equatable {
    /// A system call failed.
    case system(call: String, path: String, code: Int32)
    /// The file system has no room for what this process would use.
    case room(path: String, bytes: Int, code: Int32)
    /// There is a file of that name already.
    case exists(path: String)
    /// The file is in use by this many processes and may not be replaced.
    case inUse(path: String, processes: Int)
    /// The file is no segment: something of it is not what it must be.
    case format(path: String, field: String, found: UInt64, expected: UInt64)
    /// The segment is damaged, or its keeper is about to put another in its place.
    case replaced(path: String)
    /// A number that the caller gave is out of range.
    case range(what: String, found: Int, allowed: ClosedRange<Int>)
    /// All of a limited number of things are taken.
    case exhausted(what: String, limit: Int)
    /// Another living process is the segment's keeper.
    case keeper(path: String, processID: Int)
    /// The kernel refuses membarrier, on which this segment's fences rest.
    case fenceUnavailable(path: String, code: Int32)
    /// The session handle is not in use: released before, of a dead process, or of another segment.
    case handle(found: UInt64)
    /// This process is not attached: it is a forked child, or has detached.
    case detached
}

extension SegmentError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .system(let call, let path, let code):
            "\(path): \(call) failed: \(Self.name(code))"
        case .room(let path, let bytes, let code):
            "\(path): found no room for \(bytes) bytes (\(Self.name(code))), expected it on the file system of the segment: "
                + "make it larger, or remove files from it"
        case .exists(let path):
            "\(path): exists already; attach to it, or remove it when no process uses it"
        case .inUse(let path, let processes):
            "\(path): found \(processes) attached processes, expected none: stop them before the segment is replaced"
        case .format(let path, let field, let found, let expected):
            "\(path): not a segment of this version: found \(field) \(found), expected \(expected)"
        case .replaced(let path):
            "\(path): found a segment that is damaged or replaced, expected one for new sessions; fpxd puts another in its place"
        case .range(let what, let found, let allowed):
            "\(what): found \(found), expected \(allowed.lowerBound) to \(allowed.upperBound)"
        case .exhausted(let what, let limit):
            "all \(limit) \(what) are taken"
        case .keeper(let path, let processID):
            "\(path): found a keeper already (process \(processID)), expected none: a segment has one fpxd at a time"
        case .fenceUnavailable(let path, let code):
            "\(path): the kernel refuses membarrier (\(Self.name(code))), which this segment needs; "
                + "allow the system call, or make the segment with locked fences"
        case .handle(let found):
            "found session handle \(found), which is not in use: released before, or of a process that is gone"
        case .detached:
            "this process is not attached: attach after fork, and use nothing after detach"
        }
    }

    private static func name(_ code: Int32) -> String { unsafe String(cString: fpx_error_name(code)) }
}
