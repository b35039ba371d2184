import Etcd
import Foundation
import Settings

/// Why the daemon does not start.
enum DaemonError: Error, CustomStringConvertible {
    case system(call: String, path: String, code: Int32)
    case group(name: String)
    /// Something that somebody else has put where the daemon keeps what it shares, or may put there.
    case foreign(path: String, found: String, expected: String)
    /// Another daemon serves from this folder.
    case running(path: String, processID: String)
    /// Ticks of the kernel's clock, in microseconds.
    case clockRate(found: Int, expected: ClosedRange<Int>)

    var description: String {
        switch self {
        case .system(let call, let path, let code): "\(path): \(call): \(String(cString: strerror(code)))"
        case .group(let name):
            "group: found no group \"\(name)\" on this host, expected it: groupadd --system \(name), or set group to another"
        case .foreign(let path, let found, let expected): "\(path): found \(found), expected \(expected)"
        case .clockRate(let found, let expected):
            "clock: found a tick of \(found) us (adjtimex), expected \(expected.lowerBound) to \(expected.upperBound): seats "
                + "are lent by clocks that run within 1 % of real time"
        case .running(let path, let processID):
            "\(path): found fpxd running there (process \(processID)), expected none: a run-folder has one fpxd at a time"
        }
    }
}

/// An error about what a setting says: its place in the configuration is told with it.
protocol NamesSetting: Error {
    /// Nil: it is about something else.
    var settingName: String? { get }
}

extension DaemonError: NamesSetting {
    var settingName: String? { if case .group = self { Setting.group } else { nil } }
}

extension EtcdError: NamesSetting {
    var settingName: String? { if case .setting(let name, _, _) = self { name } else { nil } }
}
