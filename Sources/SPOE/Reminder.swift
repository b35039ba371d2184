import Synchronization

/// Lets a line that could come with each connection through once a minute, with how often it was meant since. Any thread.
final class Reminder: Sendable {
    private struct State {
        var toldAt: ContinuousClock.Instant?
        var count = 0
    }

    static let every: Duration = .seconds(60)
    /// Lines of so many kinds are told apart.
    private static let kindsMax = 64

    private let states = Mutex<[String: State]>([:])

    /// - Parameter kind: of which lines it is one.
    /// - Returns: how many lines of the kind there were since the last that was told, this one with it; nil: it is not to be
    ///   told.
    func count(_ kind: String, now: ContinuousClock.Instant = .now) -> Int? {
        states.withLock { states in
            if states[kind] == nil, states.count >= Self.kindsMax { states = [:] }
            var state = states[kind] ?? State()
            defer { states[kind] = state }
            state.count += 1
            if let toldAt = state.toldAt, now - toldAt < Self.every { return nil }
            defer { (state.toldAt, state.count) = (now, 0) }
            return state.count
        }
    }
}
