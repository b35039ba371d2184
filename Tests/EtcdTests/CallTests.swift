import Etcd
import Foundation
import Testing
import TestSupport

extension WithEtcd {
    struct CallTests {
        let server: EtcdServer
        let etcd: EtcdClient
        let prefix = newPrefix()

        init() async throws {
            server = try await Shared.server.value
            etcd = try client(server.list)
        }

        @Test func keys() async throws {
            let first = try await etcd.put(prefix + "a", Array("1".utf8))
            #expect(first.revision > 1 && first.clusterID != 0 && first.memberID != 0 && first.term > 0)
            let second = try await etcd.put(prefix + "b", [0, 0xFF, 0x22])
            _ = try await etcd.put(String(prefix.dropLast()) + "0", [1])
            #expect(second.revision > first.revision)
            let all = try await etcd.range(prefix)
            #expect(all.values.map(\.key) == [prefix + "a", prefix + "b"])
            #expect(all.values.map(\.value) == [Array("1".utf8), [0, 0xFF, 0x22]])
            #expect(all.values.map(\.revision) == [first.revision, second.revision])
            #expect(all.count == 2 && !all.hasMore && all.header.revision >= second.revision)
            let later = try await etcd.range(prefix, minModRevision: second.revision)
            #expect(later.values.map(\.key) == [prefix + "b"] && later.count == 2)
            let one = try await etcd.range(prefix, limit: 1)
            #expect(one.values.count == 1 && one.count == 2 && one.hasMore)
            #expect(try await etcd.range(prefix, revision: first.revision).values.map(\.key) == [prefix + "a"])
            let counted = try await etcd.range(prefix, countOnly: true)
            #expect(counted.values.isEmpty && counted.count == 2)
            #expect(try await etcd.get(prefix + "a")?.createRevision == first.revision)
            #expect(try await etcd.get(prefix + "none") == nil)
            #expect(try await etcd.delete(prefix + "a") == 1)
            #expect(try await etcd.delete(prefix + "a") == 0)
            #expect(try await etcd.delete(prefix, isPrefix: true) == 1)
            #expect(try await etcd.range(prefix).count == 0)
            #expect(try await etcd.range("").count > 0)
        }

        @Test func oneOfManyTransactionsWins() async throws {
            for _ in 0..<5 {
                let key = prefix + UUID().uuidString
                let winners = try await withThrowingTaskGroup(of: (Int, Bool).self) { group in
                    for unit in 0..<20 {
                        group.addTask { [etcd] in
                            let answer = try await etcd.transaction(
                                EtcdTransaction(
                                    if: [.createRevision(key: key, 0)], then: [.put(key: key, value: [UInt8(unit)])],
                                    else: [.range(EtcdRangeRequest(key: key))]))
                            #expect(answer.succeeded == answer.ranges.isEmpty)
                            return (unit, answer.succeeded)
                        }
                    }
                    return try await group.reduce(into: [Int]()) { if $1.1 { $0.append($1.0) } }
                }
                #expect(winners.count == 1)
                #expect(try await etcd.get(key)?.value == winners.map { UInt8($0) })
            }
        }

        @Test func transactionTakesItsStepsInOrder() async throws {
            let a = try await etcd.put(prefix + "a", [1])
            let answer = try await etcd.transaction(
                EtcdTransaction(
                    if: [.modRevision(key: prefix + "a", a.revision)],
                    then: [
                        .range(EtcdRangeRequest(prefix: prefix)), .put(key: prefix + "b", value: [2]),
                        .delete(key: prefix + "a"),
                        .range(EtcdRangeRequest(prefix: prefix)),
                    ]))
            #expect(answer.succeeded && answer.header.revision > a.revision)
            #expect(answer.ranges.map { $0.values.map(\.key) } == [[prefix + "a"], [prefix + "b"]])
            let refused = try await etcd.transaction(
                EtcdTransaction(if: [.modRevision(key: prefix + "b", a.revision)], then: [.delete(key: prefix + "b")]))
            #expect(!refused.succeeded && refused.header.revision >= answer.header.revision)
            #expect(try await etcd.get(prefix + "b")?.value == [2])
        }

        @Test func leases() async throws {
            let lease = try await etcd.grantLease(seconds: 30)
            #expect(lease.seconds == 30)
            _ = try await etcd.put(prefix + "l", [1], lease: lease.id)
            #expect(try await etcd.get(prefix + "l")?.lease == lease.id)
            #expect(try await etcd.keepAlive(lease: lease.id) == 30)
            #expect((28...30).contains(try await etcd.timeToLive(lease: lease.id)))
            try await etcd.revoke(lease: lease.id)
            #expect(try await etcd.get(prefix + "l") == nil)
            #expect(await failure { () throws(EtcdError) in try await etcd.keepAlive(lease: lease.id) } == .leaseNotFound)
            #expect(await failure { () throws(EtcdError) in try await etcd.timeToLive(lease: lease.id) } == .leaseNotFound)
            #expect(await failure { () throws(EtcdError) in try await etcd.revoke(lease: lease.id) } == .leaseNotFound)
            #expect(
                await failure { () throws(EtcdError) in try await etcd.put(prefix + "l", [1], lease: lease.id) }
                    == .leaseNotFound)
            #expect(try await etcd.get(prefix + "l") == nil)
        }

        @Test func watchTellsOfPutsAndDeletes() async throws {
            let start = try await etcd.put(prefix + "a", [1]).revision
            let (told, telling) = AsyncStream<EtcdEvents>.makeStream()
            let watching = Task { [etcd, prefix] () throws in
                defer { telling.finish() }
                for try await events in etcd.watch(prefix, from: start) { telling.yield(events) }
            }
            var events: [EtcdEvent] = []
            var batches = told.makeAsyncIterator()
            events += await batches.next()?.events ?? []
            let put = try await etcd.put(prefix + "b", [2]).revision
            events += await batches.next()?.events ?? []
            _ = try await etcd.put("elsewhere/\(UUID())", [3])
            let deletion = try await etcd.transaction(EtcdTransaction(then: [.delete(key: prefix + "b")])).header.revision
            events += await batches.next()?.events ?? []
            watching.cancel()
            try await watching.value
            guard events.count == 3, case .put(let first) = events[0], case .put(let second) = events[1] else {
                Issue.record("\(events)")
                return
            }
            #expect(first.key == prefix + "a" && first.revision == start)
            #expect(second.key == prefix + "b" && second.value == [2] && second.revision == put)
            #expect(events[2] == .delete(key: prefix + "b", revision: deletion))
        }

        @Test func watchThatIsCancelledClosesItsConnection() async throws {
            let gateway = try await Gateway()
            defer { gateway.stop() }
            // Chunked, and without an end.
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            let line = #"{"result":{"header":{"cluster_id":"1","revision":"5"},"created":true}}"# + "\n"
            let chunk = Array("\(String(line.utf8.count, radix: 16))\r\n\(line)\r\n".utf8)
            gateway.react { _ in .drip(first: Array(head.utf8) + chunk, then: chunk, every: .milliseconds(20)) }
            let etcd = try client(gateway.url)
            let watching = Task { () throws in
                var iterator = etcd.watch("p").makeAsyncIterator()
                return try await iterator.next()
            }
            #expect(await poll { gateway.open.withLock { $0 } == 1 })
            watching.cancel()
            #expect(try await watching.value == nil)
            #expect(await poll { gateway.open.withLock { $0 } == 0 })
            #expect(gateway.questions.withLock { $0.first?.headers["grpc-metadata-hasleader"] } == "true")
        }

        @Test func silenceEndsAWatch() async throws {
            var iterator = etcd.watch(prefix, silenceMax: .milliseconds(300)).makeAsyncIterator()
            let error = await failure { () throws(EtcdError) in try await iterator.next() }
            #expect(error?.name == "timeout", "\(String(describing: error))")
        }

        @Test func compactedRevisionsAreNamed() async throws {
            // Compaction is of all keys, so this has a member of its own.
            let server = try await EtcdServer.start()
            let etcd = try client(server.list)
            var last = 0
            for value in 0..<5 { last = try await etcd.put(prefix + "a", [UInt8(value)]).revision }
            try server.control(["compact", "\(last)"])
            #expect(
                await failure { () throws(EtcdError) in try await etcd.range(prefix, revision: 2) } == .compacted(revision: 0))
            var old = etcd.watch(prefix, from: 2).makeAsyncIterator()
            #expect(await failure { () throws(EtcdError) in try await old.next() } == .compacted(revision: last))
            var new = etcd.watch(prefix, from: last).makeAsyncIterator()
            #expect(try await new.next()?.events.count == 1)
        }

        @Test func quotaIsNamedAndReadingGoesOn() async throws {
            let server = try await EtcdServer.start(arguments: ["--quota-backend-bytes", "2000000"])
            let etcd = try client(server.list)
            var error: EtcdError?
            for place in 0..<20 where error == nil {
                error = await failure { () throws(EtcdError) in
                    try await etcd.put(prefix + "\(place)", Array(repeating: 1, count: 300_000))
                }
            }
            #expect(error == .noSpace(endpoint: server.endpoints[0]))
            #expect(try await etcd.range(prefix).count > 1)
            let store = PoolStore(etcd, prefix: prefix)
            let exchange = await store.exchange(key: prefix + "0", value: [1], ifRevision: 0)
            #expect(exchange.outcome == .unknown(.noSpace(endpoint: server.endpoints[0])))
            #expect(error?.isOutcomeUnknown == false)
            let status = await etcd.status()
            #expect(status[0].isReachable && status[0].state.contains("alarm:NOSPACE"), "\(status)")
        }

        @Test func largeRequestIsRefused() async throws {
            let error = await failure { () throws(EtcdError) in
                try await etcd.put(prefix, Array(repeating: 0, count: 2_000_000))
            }
            #expect(error?.name == "refused", "\(String(describing: error))")
        }

        @Test func status() async throws {
            let etcd = try client(server.list + ",http://127.0.0.1:1")
            _ = try await etcd.range(prefix)
            let status = await etcd.status()
            #expect(status.map(\.isReachable) == [true, false])
            #expect(status[0].state.hasPrefix("leader, etcd 3."), "\(status)")
            #expect(status[1].state.hasSuffix("is out of reach: Connection refused"), "\(status)")
            #expect(etcd.endpoints.map(\.state) == ["answers", "not asked yet"])
        }
    }
}
