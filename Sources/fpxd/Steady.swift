import SeatSharing

/// A value that people are told of as it changes, but not of each turn on the way: a change is told when it has stood for a second, and
/// ten seconds after the one before.
struct Steady<Value: Equatable> {
    private static var stands: Nanoseconds { .second }
    private static var toldEvery: Nanoseconds { 10 * .second }

    private(set) var told: Value
    private var toldAt = Instant(.min)
    private var seen: Value
    private var seenAt = Instant(.min)

    init(_ value: Value) {
        told = value
        seen = value
    }

    /// - Returns: what was told before, where the value is to be told now.
    mutating func look(_ value: Value, now: Instant) -> Value? {
        if value != seen { (seen, seenAt) = (value, now) }
        guard seen != told, now - seenAt >= Self.stands, now - toldAt >= Self.toldEvery else { return nil }
        defer { (told, toldAt) = (seen, now) }
        return told
    }
}
