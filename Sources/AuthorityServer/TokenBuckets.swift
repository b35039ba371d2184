// Token buckets: how often one account, or one address, may ask.

import Synchronization

/// Thread safety: may be used from any task. Cost: one lock, one look into a table.
final class TokenBuckets: Sendable {
    /// More start over with full buckets.
    static let sourcesMax = 65_536

    private struct Bucket {
        var tokens: Double
        var at: Int
    }

    private let perMinute: Int
    private let buckets = Mutex<[String: Bucket]>([:])

    /// - Parameter perMinute: questions a minute, and as many at once after a silence; 0: no limit.
    init(perMinute: Int) { self.perMinute = perMinute }

    /// Takes a token.
    /// - Returns: nil; or where there is none, in how many seconds there will be one.
    func take(_ source: String, now: Int) -> Int? {
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

    /// A clock that was set back fills nothing, and starts over from there.
    private func filled(_ bucket: Bucket, _ now: Int) -> Bucket {
        let seconds = Double(max(now - bucket.at, 0))
        return Bucket(tokens: min(bucket.tokens + seconds * Double(perMinute) / 60, Double(perMinute)), at: now)
    }
}
