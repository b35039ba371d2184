import Admission
import Synchronization

/// Which kind of proxy a session belongs to: those that name their sessions by keys over a wire.
public enum Hook: UInt8, CaseIterable, Sendable {
    /// SPOE agent; the key is haproxy's unique id.
    case haproxy = 1
    /// External ACL helper; the key is the client's address and port.
    case squid = 2

    public var name: String { "\(self)" }

    /// Whether no two sessions ever have the same key. An end that comes before its admission can then be told from the end of
    /// an earlier session, and is remembered for a while.
    public var keysAreUnique: Bool { self == .haproxy }
}

/// What is counted for each hook since the start of the daemon.
public enum SessionCounter: Int, CaseIterable, Sendable {
    /// New sessions by their verdicts: inspect, bypass, block.
    case admitted, bypassed, blocked
    /// Admissions of a session in progress: same verdict, not counted again.
    case repeated
    /// Ended by the hook.
    case released
    /// Ends of sessions that nobody knows: of an earlier life, or the agent was not asked.
    case unknownEnds
    /// Ends of sessions that had ended already, for instance because the socket was gone first.
    case repeatedEnds
    /// Admissions that came after their session's end: answered `bypass`, not counted.
    case late
    /// Ends that tell that our verdict did not reach the proxy in time: the session ran uninspected while it was counted.
    case unheeded
    /// Ended because the proxy's process died, the client's socket is gone, or an operator said so.
    case endedByOwnerDeath, endedBySocket, cleared
    /// Taken over from the daemon's earlier life.
    case restored
    /// Admitted or bypassed sessions that are bound to no socket: END lines and the process' death end them.
    case unbound
    /// No handle, memory or room in the journal was left: answered by the over-limit policy, not counted.
    case exhausted

    /// As in the session statistics: `unknown_ends`.
    public var name: String {
        "\(self)".reduce(into: "") { text, letter in text += letter.isUppercase ? "_" + letter.lowercased() : String(letter) }
    }
}

/// The counters of all hooks. Any thread may count and read; reads are of about one moment.
@safe
final class Counters: Sendable {
    private nonisolated(unsafe) let memory: UnsafeMutableRawPointer
    private static let stride = SessionCounter.allCases.count

    init() {
        let bytes = (Int(Hook.allCases.map(\.rawValue).max() ?? 0) + 1) * Self.stride * 8
        unsafe memory = .allocate(byteCount: bytes, alignment: 64)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
    }

    deinit { unsafe memory.deallocate() }

    private func word(_ counter: SessionCounter, _ hook: Hook) -> Word {
        unsafe Word(memory, at: (Int(hook.rawValue) * Self.stride + counter.rawValue) * 8)
    }

    func count(_ counter: SessionCounter, _ hook: Hook) { word(counter, hook).add(1) }

    subscript(_ counter: SessionCounter, _ hook: Hook) -> Int { Int(truncatingIfNeeded: word(counter, hook).load()) }
}
