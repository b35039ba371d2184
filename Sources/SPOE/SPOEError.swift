import Glibc

/// What can fail while a server is started, with what was found and what was expected.
public enum SPOEError: Error, Equatable {
    /// A system call failed.
    case system(call: String, path: String, code: Int32)
    /// A socket's path is too long for the kernel.
    case pathLength(path: String, bytes: Int, max: Int)
    /// There is a file of that name that is no socket.
    case notASocket(path: String)
    /// A living process listens there.
    case inUse(path: String)
    /// A setting is out of range.
    case range(what: String, found: Int, allowed: ClosedRange<Int>)
}

extension SPOEError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .system(let call, let path, let code):
            "\(path): \(call) failed: \(unsafe String(cString: strerror(code)))"
        case .pathLength(let path, let bytes, let max):
            "\(path): found a path of \(bytes) bytes, expected at most \(max) for a socket"
        case .notASocket(let path):
            "\(path): found a file that is no socket, expected none or the socket of a daemon that is gone"
        case .inUse(let path):
            "\(path): found a living process that listens there, expected none"
        case .range(let what, let found, let allowed):
            "\(what): found \(found), expected \(allowed.lowerBound) to \(allowed.upperBound)"
        }
    }
}
