// The way to the pool: etcd as the settings name it, and what is asked of it.

import Etcd
import Foundation
import SeatSharing
import struct SeatSharing.Unit
import Settings

extension SharedSeats {
    /// A way that is in use, by one unit after the other as licences change.
    final class Link: Sendable, CustomStringConvertible {
        /// What of the settings holds for the whole life of a unit.
        struct Way: Equatable {
            let mode: SharingMode
            let group: String
            /// Seconds.
            let term: Int
            let etcd: EtcdConfiguration

            /// Nil: nothing is shared.
            init?(_ settings: Settings) throws(EtcdError) {
                guard let mode = settings.sharingMode, let etcd = try EtcdConfiguration(settings) else { return nil }
                self.mode = mode
                group = settings[mode.isHA ? Setting.haGroupName : Setting.csfGroupName]
                term = settings.number(Setting.sharingTerm)
                self.etcd = etcd
            }
        }

        let way: Way
        let client: EtcdClient
        let store: PoolStore

        /// Asks nobody yet: that etcd does not answer is no fault of the settings.
        ///
        /// - Throws: for files that cannot be used, and where clocks do not run as lending needs them to.
        init(_ way: Way) throws {
            try Clock.checkRate()
            try way.etcd.checkFiles()
            self.way = way
            client = EtcdClient(way.etcd)
            store = PoolStore(client, prefix: Row.prefix(cluster: way.group))
        }

        /// As it is put on record.
        var pool: LentRecords.Pool {
            LentRecords.Pool(
                group: way.group,
                endpoints: way.etcd.endpoints.map { $0.replacing(/^https?:\/\//, with: "") })
        }

        var description: String { "pool \(way.group) of \(way.etcd.endpoints.joined(separator: ", "))" }
    }

    /// The way in use; nil: nothing is shared.
    var link: Link? { state.withLock { $0.way } }
}

extension SharedSeats {
    /// In large pools everybody is not asked about everybody else all the time.
    func readGap(_ state: State) -> Nanoseconds {
        guard let unit = state.unit else { return .second }
        return max(50 * .millisecond, Nanoseconds(unit.pool?.rows.count ?? 0) * .millisecond, unit.pace.gap / 4)
    }

    /// Somebody has written at this revision of that link's etcd.
    func nudge(revision: Int, of link: Link) {
        withState { state in
            guard link === state.way, let unit = state.unit, revision > unit.pool?.revision ?? 0 else { return }
            state.isNudged = true
            if Clock.now - state.readAt >= readGap(state) { read(&state) }
        }
    }

    func read(_ state: inout State) {
        guard let link = state.way, state.unit != nil, !state.isReading else { return }
        let life = state.life
        state.isReading = true
        state.isNudged = false
        state.readAt = Clock.now
        Task {
            let contents: Swift.Result<PoolContents, EtcdError>
            do throws(EtcdError) {
                contents = .success(try await link.store.read())
            } catch {
                contents = .failure(error)
            }
            let values = await checked(contents)
            withState { state in
                guard state.life == life else { return }
                state.isReading = false
                take(contents, values, &state)
            }
        }
    }

    func send(_ row: Row, _ revision: Int, _ state: State) {
        guard let link = state.way, let key, let license = state.license.token else { return }
        let life = state.life
        Task {
            let value: [UInt8]
            do { value = try await RowProofs.sign(row, license: license, with: key) } catch {
                return withState { $0.writingTrouble = "\(error)" }
            }
            let exchange = await link.store.exchange(
                key: Row.key(cluster: row.cluster, serial: row.serial), value: value, ifRevision: revision)
            let values = await checked(exchange.contents)
            let outcome: WriteOutcome
            switch exchange.outcome {
            case .accepted(let revision): outcome = .accepted(revision: revision)
            case .refused: outcome = .refused
            case .unknown: outcome = .unknown
            }
            withState { state in
                guard state.life == life else { return }
                state.writingTrouble = nil
                if case .unknown(let error) = exchange.outcome { state.writingTrouble = "\(error)" }
                step(.written(sequence: row.sequence, outcome), &state)
                take(exchange.contents, values, &state)
            }
        }
    }

    private func checked(_ contents: Swift.Result<PoolContents, EtcdError>) async -> [KeyValue] {
        guard case .success(let contents) = contents else { return [] }
        return await proofs.check(contents.values)
    }

    private func take(_ contents: Swift.Result<PoolContents, EtcdError>, _ values: [KeyValue], _ state: inout State) {
        switch contents {
        case .failure(let error): state.readingTrouble = "\(error)"
        case .success(let contents):
            state.readingTrouble = nil
            if let loss = contents.loss {
                // What was read before is worth nothing, and what is lent stays on record.
                state.note(.error, "etcd has forgotten (\(loss)): this unit begins anew")
                start(after: state.identity, &state)
                step(.tick(unixTime: Int(Date.now.timeIntervalSince1970)), &state)
            }
            // Late ones say nothing new.
            if let pool = try? state.reader?.read(values, revision: contents.revision, now: Clock.now) {
                step(.pool(pool), &state)
            }
        }
    }
}
