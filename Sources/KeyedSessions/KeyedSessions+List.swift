// What an operator sees of keyed sessions.

public import Admission
import CKeyedTable

/// A keyed session in progress.
public struct KeyedSession: Equatable, Sendable {
    public let handle: SessionHandle
    /// Empty where it is not known.
    public let key: String
    /// Nil: its record is lost, and nothing but the handle is known of it.
    public let hook: Hook?
    public let client: Endpoint?
    /// 0: unknown.
    public let processID: Int
    /// Milliseconds since 1970. Where nothing is known: when its record was found to be lost.
    public let started: UInt64

    public var pool: Int { handle.pool }
    public var verdict: Verdict { handle.isBypassed ? .bypass : .inspect }

    /// The handle in 16 hexadecimal digits.
    public var id: String {
        let digits = String(handle.rawValue, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

extension SessionHandle {
    /// From a session's `id`; nil if it is not one.
    public init?(id: String) {
        guard id.utf8.count == 16, id.utf8.allSatisfy({ UInt8(ascii: "0") <= $0 && $0 <= UInt8(ascii: "f") }),
            let value = UInt64(id, radix: 16)
        else { return nil }
        self.init(rawValue: value)
    }
}

extension KeyedSessions {
    /// The oldest sessions in progress, at most `limit`, and how many there are in all.
    public func list(limit: Int) -> (total: Int, sessions: [KeyedSession]) {
        var all: [KeyedSession] = []
        table.reading {
            table.forEach { node in
                let state = node.state.load()
                guard State.isLive(state) else { return }
                let record = node.record
                all.append(
                    KeyedSession(
                        handle: SessionHandle(rawValue: state), key: node.hook == nil ? "" : record.keyText, hook: node.hook,
                        client: record.clientEndpoint,
                        processID: Int(record.owner_pid), started: record.started))
            }
        }
        all.sort { ($0.started, $0.handle.rawValue) < ($1.started, $1.handle.rawValue) }
        return (all.count, Array(all.prefix(max(0, limit))))
    }

    /// How often something has happened since the start of this process.
    public func count(_ counter: SessionCounter, of hook: Hook) -> Int { counters[counter, hook] }

    /// All counters of a hook by their names.
    public func statistics(of hook: Hook) -> [String: Int] {
        Dictionary(uniqueKeysWithValues: SessionCounter.allCases.map { ($0.name, counters[$0, hook]) })
    }
}
