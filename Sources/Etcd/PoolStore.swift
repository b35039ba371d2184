// PoolStore: a copy of the keys of one prefix, kept up by reading what has changed, and the exchange that writes one's own key
// and reads all others' in one transaction.
//
// What makes the copy right:
//
// (a) A copy taken at revision r, with all keys that were written after r as of revision s put over it, holds every key that is
//     there at s, and of each the value of s. It is the state at s if it has as many keys as etcd counts there; if it has more,
//     keys were deleted, and all is read anew. An answer that was asked for at an earlier r says all of this too, and more.
// (b) Answers come in any order. One that tells of an earlier revision than the copy has says nothing new: the copy stays.
// (c) Revisions and terms of a cluster never go back from one question to a later one. Where they do, or where it is another
//     cluster, or where our own key is refused at the revision that the copy has of it, etcd was restored from an earlier
//     state: the copy tells of what is no more, so that all is read anew, and whoever asked is told.

/// A key as it was read.
package struct PoolValue: Equatable, Sendable {
    package let key: String
    package let value: [UInt8]
    /// The revision that wrote it last.
    package let revision: Int

    package init(key: String, value: [UInt8], revision: Int) {
        self.key = key
        self.value = value
        self.revision = revision
    }
}

/// etcd has forgotten what it knew.
package enum PoolLoss: Equatable, Sendable, CustomStringConvertible {
    case otherCluster(found: UInt64, expected: UInt64)
    /// Each with the number of elections until then.
    case restored(revision: Int, term: Int, seenRevision: Int, seenTerm: Int)

    package var description: String {
        switch self {
        case .otherCluster(let found, let expected): "\(EtcdError.otherCluster(found: found, expected: expected))"
        case .restored(let revision, let term, let seenRevision, let seenTerm):
            "found etcd at revision \(revision) (term \(term)) after revision \(seenRevision) (term \(seenTerm)), expected "
                + "what follows it: an earlier state of etcd was restored"
        }
    }
}

/// The keys of the prefix at one revision.
package struct PoolContents: Sendable {
    /// Sorted by key.
    package let values: [PoolValue]
    package let revision: Int
    /// It does not follow what was told before. Told once.
    package let loss: PoolLoss?
}

package struct PoolExchange: Sendable {
    package enum Outcome: Equatable, Sendable {
        case accepted(revision: Int)
        /// The key was at another revision.
        case refused
        /// Surely not written, unless the error's `isOutcomeUnknown`.
        case unknown(EtcdError)
    }

    package let outcome: Outcome
    /// Not before the outcome. What was accepted stays so where the contents could not be read.
    package let contents: Result<PoolContents, EtcdError>
}

/// The keys of one prefix. Safe from any task: several questions may be under way at once.
package actor PoolStore {
    private struct Mirror {
        var values: [PoolValue] = []
        /// By the key's bytes: there are texts that Swift takes for equal and etcd does not.
        private var places: [[UInt8]: Int] = [:]
        var revision: Int
        var term: Int

        init(_ range: EtcdRange, term: Int) {
            revision = range.header.revision
            self.term = term
            values.reserveCapacity(range.values.count)
            put(range)
        }

        /// 0: it is not there.
        func revision(of key: String) -> Int { places[Array(key.utf8)].map { values[$0].revision } ?? 0 }

        mutating func put(_ range: EtcdRange) {
            for value in range.values {
                let value = PoolValue(key: value.key, value: value.value, revision: value.revision)
                if let place = places[Array(value.key.utf8)] {
                    values[place] = value
                } else {
                    places[Array(value.key.utf8)] = values.count
                    values.append(value)
                }
            }
        }

        /// - Returns: nil where it has more keys than etcd has.
        func with(_ changes: EtcdRange, term: Int) -> Mirror? {
            var mirror = self
            let known = mirror.values.count
            mirror.put(changes)
            guard mirror.values.count == changes.count else { return nil }
            mirror.revision = changes.header.revision
            mirror.term = max(mirror.term, term)
            if mirror.values.count > known { mirror.sort() }
            return mirror
        }

        private mutating func sort() {
            values.sort { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
            for (place, value) in values.enumerated() { places[Array(value.key.utf8)] = place }
        }
    }

    /// What was known when a question was asked.
    private struct Before {
        var generation: Int
        var revision: Int
        var term: Int
    }

    package nonisolated let prefix: String
    private let client: EtcdClient
    private var mirror: Mirror?
    /// Counts how often the copy was thrown away: what was asked before that is not put over what was read after it.
    private var generation = 0
    /// Not told yet.
    private var loss: PoolLoss?

    package init(_ client: EtcdClient, prefix: String) {
        self.client = client
        self.prefix = prefix
    }

    private var before: Before {
        Before(generation: generation, revision: mirror?.revision ?? 0, term: mirror?.term ?? 0)
    }

    private func changes(since before: Before) -> EtcdRangeRequest {
        EtcdRangeRequest(prefix: prefix, minModRevision: before.revision == 0 ? 0 : before.revision + 1)
    }

    /// Reads what has changed.
    package func read() async throws(EtcdError) -> PoolContents {
        let before = before
        do throws(EtcdError) {
            let range = try await client.range(changes(since: before))
            return try await contents(after: range, term: range.header.term, before: before)
        } catch {
            guard case .otherCluster(let found, let expected) = error else { throw error }
            adopt(found, expected: expected)
            return try await readAll()
        }
    }

    /// Puts a value if its key is at that revision (0: is not there), and reads what has changed: one transaction.
    package func exchange(key: String, value: [UInt8], ifRevision revision: Int) async -> PoolExchange {
        let before = before
        let changes = EtcdTransaction.Step.range(changes(since: before))
        let answer: EtcdTransaction.Answer
        do throws(EtcdError) {
            answer = try await client.transaction(
                EtcdTransaction(
                    if: [revision == 0 ? .createRevision(key: key, 0) : .modRevision(key: key, revision)],
                    then: [.put(key: key, value: value), changes], else: [changes]))
        } catch {
            guard case .otherCluster(let found, let expected) = error else {
                return PoolExchange(outcome: .unknown(error), contents: .failure(error))
            }
            adopt(found, expected: expected)
            return PoolExchange(
                outcome: .unknown(error), contents: await result { store throws(EtcdError) in try await store.readAll() })
        }
        // The transaction's own revision is the one that it wrote.
        var range = answer.ranges[0]
        range.header = answer.header
        let outcome: PoolExchange.Outcome = answer.succeeded ? .accepted(revision: answer.header.revision) : .refused
        let contents = await result { [range] store throws(EtcdError) in
            let contents = try await store.contents(after: range, term: answer.header.term, before: before)
            // (c) It is not there as the copy has it, and no change of it was told: the copy is of another past.
            guard outcome == .refused, key.hasPrefix(store.prefix), before.generation == store.generation,
                let mirror = store.mirror, mirror.revision == range.header.revision, mirror.revision(of: key) == revision
            else { return contents }
            store.lose(range.header, before: before)
            return try await store.readAll()
        }
        return PoolExchange(outcome: outcome, contents: contents)
    }

    private func result(
        _ contents: (isolated PoolStore) async throws(EtcdError) -> PoolContents
    ) async -> Result<PoolContents, EtcdError> {
        do throws(EtcdError) { return .success(try await contents(self)) } catch { return .failure(error) }
    }

    /// The contents once an answer has come.
    private func contents(after range: EtcdRange, term: Int, before: Before) async throws(EtcdError) -> PoolContents {
        guard before.generation == generation else { return try await newest() }
        if range.header.revision < before.revision || term < before.term {
            lose(range.header, before: before)
            return try await readAll()
        }
        guard let mirror else {
            // The first answer: what was asked for was all.
            self.mirror = Mirror(range, term: term)
            return told()
        }
        // (b)
        guard range.header.revision > mirror.revision else { return told() }
        // (a) Asked for all, before the first answer to another question came: it is all there is.
        let next = before.revision == 0 ? Mirror(range, term: max(term, mirror.term)) : mirror.with(range, term: term)
        guard let next else { return try await readAll() }
        self.mirror = next
        return told()
    }

    private func newest() async throws(EtcdError) -> PoolContents {
        if mirror != nil { return told() }
        return try await readAll()
    }

    private func readAll() async throws(EtcdError) -> PoolContents {
        let before = before
        let range: EtcdRange
        do throws(EtcdError) { range = try await client.range(EtcdRangeRequest(prefix: prefix)) } catch {
            if case .otherCluster(let found, let expected) = error { adopt(found, expected: expected) }
            throw error
        }
        guard before.generation == generation else { return try await newest() }
        if range.header.revision < before.revision || range.header.term < before.term { lose(range.header, before: before) }
        if range.header.revision > mirror?.revision ?? 0 { mirror = Mirror(range, term: range.header.term) }
        return told()
    }

    private func told() -> PoolContents {
        defer { loss = nil }
        return PoolContents(values: mirror?.values ?? [], revision: mirror?.revision ?? 0, loss: loss)
    }

    private func adopt(_ found: UInt64, expected: UInt64) {
        client.accept(cluster: found)
        forget(.otherCluster(found: found, expected: expected))
    }

    private func lose(_ header: EtcdHeader, before: Before) {
        forget(
            .restored(
                revision: header.revision, term: header.term, seenRevision: before.revision, seenTerm: before.term))
    }

    private func forget(_ loss: PoolLoss) {
        self.loss = loss
        generation += 1
        mirror = nil
    }
}
