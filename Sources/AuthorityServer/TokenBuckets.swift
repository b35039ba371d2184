// Token buckets: how often one account, or one address, may ask.

import Synchronization

/// Thread safety: may be used from any task. Cost: one lock, one look into a table.
final class TokenBuckets: Sendable {
    /// More start over with full buckets.
    static let sourcesMax = 65_536

    private struct Bucket {
        var tokens: Double
        var at: ContinuousClock.Instant
    }

    private let perMinute: Int
    private let buckets = Mutex<[String: Bucket]>([:])

    /// - Parameter perMinute: questions a minute, and as many at once after a silence; 0: no limit.
    init(perMinute: Int) { self.perMinute = perMinute }

    /// Takes a token.
    /// - Parameter now: not of the wall clock, which is set at will: by an hour, and all buckets would be full.
    /// - Returns: nil; or where there is none, in how many seconds there will be one.
    func take(_ source: String, now: ContinuousClock.Instant) -> Int? {
        guard perMinute > 0 else { return nil }
        return buckets.withLock { buckets in
            // Whoever has that many addresses is not stopped by counting; this only bounds the memory.
            if buckets.count >= Self.sourcesMax, buckets[source] == nil { buckets.removeAll(keepingCapacity: true) }
            var bucket = filled(buckets[source] ?? Bucket(tokens: Double(perMinute), at: now), now)
            defer { buckets[source] = bucket }
            guard bucket.tokens < 1 else {
                bucket.tokens -= 1
                return nil
            }
            return max(1, Int(((1 - bucket.tokens) * 60 / Double(perMinute)).rounded(.up)))
        }
    }

    private func filled(_ bucket: Bucket, _ now: ContinuousClock.Instant) -> Bucket {
        let seconds = (now - bucket.at) / .seconds(1)
        return Bucket(tokens: min(bucket.tokens + seconds * Double(perMinute) / 60, Double(perMinute)), at: now)
    }
}
