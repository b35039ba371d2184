// EtcdClient: etcd's v3 API through its JSON gateway, of etcd 3.4 and newer.
//
// A call stays with the endpoint that worked last, and moves on to the next where that one fails. A question may be asked
// again; a change is sent once, and what may have been sent is never called a failure: `outcomeUnknown` says that nobody knows.

import Basics
import Foundation
import Synchronization

/// Asks etcd. Safe to use from any task; needs no closing.
package final class EtcdClient: Sendable {
    struct State {
        /// The endpoint that is asked first.
        var current = 0
        /// What calls have found at each; nil: it has not been asked yet.
        var found: [Result<Void, EtcdError>?]
        var token: String?
        /// There is a user, and etcd does not ask who we are.
        var isAuthenticationOff = false
        var clusterID: UInt64?
        var connections: Connections?
        var stamps: [FileStamp] = []
        /// Of files that have changed and cannot be used: the ones before are still in use.
        var filesProblem: EtcdError?
    }

    package let configuration: EtcdConfiguration
    let state: Mutex<State>

    package init(_ configuration: EtcdConfiguration) {
        self.configuration = configuration
        state = Mutex(State(found: Array(repeating: nil, count: configuration.endpoints.count)))
    }

    // MARK: Keys

    /// The keys that begin with `prefix`; an empty one: all.
    /// - Parameters:
    ///   - minModRevision: keys that were written before are counted only.
    ///   - revision: 0: the newest.
    ///   - limit: 0: none.
    package func range(
        _ prefix: String, minModRevision: Int = 0, revision: Int = 0, limit: Int = 0, countOnly: Bool = false
    ) async throws(EtcdError) -> EtcdRange {
        var request = EtcdRangeRequest(prefix: prefix, minModRevision: minModRevision)
        request.revision = revision
        request.limit = limit
        request.countOnly = countOnly
        return try await range(request)
    }

    package func range(_ request: EtcdRangeRequest) async throws(EtcdError) -> EtcdRange {
        try await call("/v3/kv/range", request.body, isQuestion: true) { reader throws(JSONFault) in
            let range = try EtcdRange(&reader)
            return (range.header, range)
        }
    }

    package func get(_ key: String) async throws(EtcdError) -> EtcdValue? {
        try await range(EtcdRangeRequest(key: key)).values.first
    }

    /// Takes all steps of one branch, or none.
    package func transaction(_ transaction: EtcdTransaction) async throws(EtcdError) -> EtcdTransaction.Answer {
        try await call("/v3/kv/txn", transaction.body, isQuestion: transaction.isQuestion) { reader throws(JSONFault) in
            let answer = try transaction.answer(&reader)
            return (answer.header, answer)
        }
    }

    /// - Parameter lease: 0: none; else the key goes with it.
    package func put(_ key: String, _ value: [UInt8], lease: Int = 0) async throws(EtcdError) -> EtcdHeader {
        try await call("/v3/kv/put", EtcdTransaction.put(key, value, lease: lease), isQuestion: false) {
            reader throws(JSONFault) in
            let (header, _) = try Self.members(&reader, nil)
            return (header, header)
        }
    }

    /// - Returns: how many keys there were.
    package func delete(_ key: String, isPrefix: Bool = false) async throws(EtcdError) -> Int {
        try await call("/v3/kv/deleterange", "{\(EtcdKey.range(key, isPrefix: isPrefix))}", isQuestion: false) {
            reader throws(JSONFault) in
            let (header, deleted) = try Self.members(&reader, "deleted")
            return (header, deleted ?? 0)
        }
    }

    // MARK: Leases

    /// - Returns: the lease, and the seconds that etcd gives it.
    package func grantLease(seconds: Int) async throws(EtcdError) -> (id: Int, seconds: Int) {
        try await call("/v3/lease/grant", "{\"TTL\":\"\(seconds)\"}", isQuestion: false) { reader throws(JSONFault) in
            var lease = (id: 0, seconds: 0)
            var header = EtcdHeader()
            try reader.object { name, reader throws(JSONFault) in
                switch name {
                case "header": header = try EtcdHeader(&reader)
                case "ID": lease.id = try reader.integer()
                case "TTL": lease.seconds = try reader.integer()
                default: try reader.skip()
                }
            }
            guard lease.id != 0, lease.seconds > 0 else {
                throw JSONFault(at: 0, found: "lease \(lease.id) of \(lease.seconds) s", expected: "an ID and a TTL")
            }
            return (header, lease)
        }
    }

    /// - Returns: how many seconds it has from now on.
    /// - Throws: `leaseNotFound` for one that has ended.
    package func keepAlive(lease: Int) async throws(EtcdError) -> Int {
        try await seconds(of: lease, "/v3/lease/keepalive") { reader throws(JSONFault) in
            // The answer is a stream of one.
            var result: (EtcdHeader, Int?)?
            try reader.object { name, reader throws(JSONFault) in
                if name == "result" { result = try Self.members(&reader, "TTL") } else { try reader.skip() }
            }
            guard let result else { throw JSONFault(at: 0, found: "no result", expected: "one") }
            return result
        }
    }

    /// - Returns: how many seconds it has left.
    /// - Throws: `leaseNotFound` for one that has ended.
    package func timeToLive(lease: Int) async throws(EtcdError) -> Int {
        try await seconds(of: lease, "/v3/lease/timetolive") { reader throws(JSONFault) in try Self.members(&reader, "TTL") }
    }

    private func seconds(
        of lease: Int, _ path: String, _ decode: (inout JSONReader) throws(JSONFault) -> (EtcdHeader, Int?)
    ) async throws(EtcdError) -> Int {
        let left = try await call(path, "{\"ID\":\"\(lease)\"}", isQuestion: true, decode)
        // One that has ended has no TTL in one answer, and -1 in the other.
        guard let left, left > 0 else { throw .leaseNotFound }
        return left
    }

    /// Ends it, and the keys that go with it.
    package func revoke(lease: Int) async throws(EtcdError) {
        try await call("/v3/lease/revoke", "{\"ID\":\"\(lease)\"}", isQuestion: false) { reader throws(JSONFault) in
            (try Self.members(&reader, nil).0, ())
        }
    }

    /// The header, and one number.
    private static func members(_ reader: inout JSONReader, _ number: String?) throws(JSONFault) -> (EtcdHeader, Int?) {
        var header: EtcdHeader?
        var value: Int?
        try reader.object { name, reader throws(JSONFault) in
            switch name {
            case "header": header = try EtcdHeader(&reader)
            case number: value = try reader.integer()
            default: try reader.skip()
            }
        }
        guard let header else { throw JSONFault(at: 0, found: "no header", expected: "one") }
        return (header, value)
    }
}
