import AsyncHTTPClient
import Etcd
import Foundation
import Synchronization
import Testing
import TestSupport

extension WithEtcd {
    struct PoolStoreTests {
        let server: EtcdServer
        let etcd: EtcdClient
        let prefix = newPrefix()

        init() async throws {
            server = try await Shared.server.value
            etcd = try client(server.list)
        }

        /// The store's contents are etcd's.
        private func expectTruth(_ store: PoolStore, sourceLocation: SourceLocation = #_sourceLocation) async throws {
            let contents = try await store.read()
            let truth = try await etcd.range(prefix, revision: contents.revision)
            #expect(
                contents.values.map { "\($0.key) \($0.revision) \($0.value)" }
                    == truth.values.map { "\($0.key) \($0.revision) \($0.value)" }, sourceLocation: sourceLocation)
        }

        @Test func exchange() async throws {
            let store = PoolStore(etcd, prefix: prefix)
            let first = await store.exchange(key: prefix + "a", value: [1], ifRevision: 0)
            guard case .accepted(let revision) = first.outcome else {
                Issue.record("\(first)")
                return
            }
            #expect(try first.contents.get().values == [PoolValue(key: prefix + "a", value: [1], revision: revision)])
            #expect(try first.contents.get().revision == revision)
            // Somebody else's put, between.
            let other = try await etcd.put(prefix + "a", [2]).revision
            let second = await store.exchange(key: prefix + "a", value: [3], ifRevision: revision)
            #expect(second.outcome == .refused)
            #expect(try second.contents.get().values == [PoolValue(key: prefix + "a", value: [2], revision: other)])
            #expect(try second.contents.get().loss == nil)
            // There already.
            #expect(await store.exchange(key: prefix + "a", value: [3], ifRevision: 0).outcome == .refused)
            let third = await store.exchange(key: prefix + "a", value: [3], ifRevision: other)
            #expect(try third.contents.get().values.map(\.value) == [[3]])
        }

        @Test func onlyChangesTravelAndDeletesAreSeen() async throws {
            let gateway = try await Gateway(server.list)
            defer { gateway.stop() }
            let store = PoolStore(try client(gateway.url), prefix: prefix)
            for name in ["c", "a", "b"] { _ = try await etcd.put(prefix + name, [1]) }
            #expect(try await store.read().values.map(\.key) == ["a", "b", "c"].map { prefix + $0 })
            _ = try await etcd.put(prefix + "b", [2])
            _ = try await etcd.put(prefix + "aa", [2])
            #expect(try await store.read().values.map(\.key) == ["a", "aa", "b", "c"].map { prefix + $0 })
            gateway.questions.withLock { questions in
                #expect(questions.count == 2)
                #expect(questions.last.map { String(decoding: $0.body, as: UTF8.self).contains("min_mod_revision") } == true)
            }
            _ = try await etcd.delete(prefix + "a")
            #expect(try await store.read().values.map(\.key) == ["aa", "b", "c"].map { prefix + $0 })
            // As many as before, and others.
            _ = try await etcd.delete(prefix + "b")
            _ = try await etcd.put(prefix + "d", [1])
            #expect(try await store.read().values.map(\.key) == ["aa", "c", "d"].map { prefix + $0 })
            // Gone and back.
            _ = try await etcd.delete(prefix + "c")
            _ = try await etcd.put(prefix + "c", [9])
            try await expectTruth(store)
            _ = try await etcd.delete(prefix, isPrefix: true)
            #expect(try await store.read().values.isEmpty)
        }

        @Test func compactionChangesNothing() async throws {
            let server = try await EtcdServer.start()
            let etcd = try client(server.list)
            let store = PoolStore(etcd, prefix: prefix)
            _ = try await etcd.put(prefix + "a", [1])
            _ = try await store.read()
            for value in 0..<10 { _ = try await etcd.put(prefix + "b", [UInt8(value)]) }
            let last = try await etcd.put(prefix + "a", [2]).revision
            try server.control(["compact", "\(last)"])
            #expect(try await store.read().values.map(\.value) == [[2], [9]])
        }

        @Test func keysThatAreNoTextStayApart() async throws {
            for key in [[0xFF], [0xFE], Array("\u{212A}".utf8), Array("K".utf8)] as [[UInt8]] {
                let body = #"{"key":"\#(Data(prefix.utf8 + key).base64EncodedString())","value":"AQ=="}"#
                _ = try await post(server.endpoints[0] + "/v3/kv/put", body)
            }
            let store = PoolStore(etcd, prefix: prefix)
            let keys = try await store.read().values.map { Array($0.key.dropFirst(prefix.count).utf8) }
            #expect(keys == [Array("K".utf8), Array("\u{212A}".utf8), Array("\\xfe".utf8), Array("\\xff".utf8)])
            _ = try await etcd.put(prefix + "K", [2])
            #expect(try await store.read().values.map(\.value) == [[2], [1], [1], [1]])
        }

        /// An answer that was overtaken tells nothing new, whatever it was asked with.
        @Test func lateAnswers() async throws {
            let gateway = try await Gateway(server.list)
            defer { gateway.stop() }
            let store = PoolStore(try client(gateway.url, deadline: .seconds(5)), prefix: prefix)
            for isFirst in [true, false] {
                _ = try await etcd.put(prefix + "a", [isFirst ? 1 : 11])
                let count = Mutex(0)
                gateway.react { _ in
                    count.withLock { count in
                        count += 1
                        return count == 1 ? .late(.milliseconds(400)) : .forward
                    }
                }
                async let late = store.read()
                #expect(await poll { count.withLock { $0 } == 1 })
                // The late one has been answered by etcd by then, as the gateway passes questions on at once.
                try await Task.sleep(for: .milliseconds(100))
                _ = try await etcd.put(prefix + "a", [isFirst ? 2 : 12])
                _ = try await etcd.put(prefix + "b", [3])
                let newer = try await store.read()
                #expect(newer.values.map(\.value) == [[isFirst ? 2 : 12], [3]])
                let overtaken = try await late
                #expect(overtaken.revision == newer.revision && overtaken.values == newer.values)
                #expect(overtaken.loss == nil && newer.loss == nil)
            }
            try await expectTruth(store)
        }

        @Test func otherCluster() async throws {
            let other = try await EtcdServer.start()
            let gateway = try await Gateway(server.list)
            defer { gateway.stop() }
            let store = PoolStore(try client(gateway.url), prefix: prefix)
            let first = await store.exchange(key: prefix + "a", value: [1], ifRevision: 0)
            #expect(try first.contents.get().values.count == 1)
            gateway.lead(to: other.list)
            let second = try await store.read()
            #expect(second.values.isEmpty)
            guard case .otherCluster = second.loss else {
                Issue.record("\(second)")
                return
            }
            #expect(try await store.read().loss == nil)
            gateway.lead(to: server.list)
            let third = await store.exchange(key: prefix + "b", value: [1], ifRevision: 0)
            guard case .unknown(.otherCluster) = third.outcome else {
                Issue.record("\(third)")
                return
            }
            // It has taken effect, and can be seen.
            #expect(try third.contents.get().values.map(\.key) == [prefix + "a", prefix + "b"])
            #expect(try third.contents.get().loss != nil)
        }

        /// etcd's data of some time ago, put in place of today's: at a lower revision, and with more written since.
        @Test(arguments: [false, true])
        func restored(isAhead: Bool) async throws {
            let server = try await EtcdServer.start()
            let etcd = try client(server.list)
            let store = PoolStore(etcd, prefix: prefix)
            guard case .accepted(let old) = await store.exchange(key: prefix + "a", value: [1], ifRevision: 0).outcome else {
                Issue.record("no first exchange")
                return
            }
            _ = try await etcd.put(prefix + "b", [1])
            try server.kill(0)
            try FileManager.default.copyItem(atPath: server.folder + "/m0", toPath: server.folder + "/copy")
            try server.start(0)
            try await server.waitUntilHealthy()
            for value in 2..<6 { _ = try await etcd.put(prefix + "b", [UInt8(value)]) }
            guard case .accepted(let new) = await store.exchange(key: prefix + "a", value: [2], ifRevision: old).outcome else {
                Issue.record("no second exchange")
                return
            }
            try server.kill(0)
            try FileManager.default.removeItem(atPath: server.folder + "/m0")
            try FileManager.default.moveItem(atPath: server.folder + "/copy", toPath: server.folder + "/m0")
            try server.start(0)
            try await server.waitUntilHealthy()
            let another = try client(server.list)
            if isAhead { for _ in 0..<20 { _ = try await another.put("elsewhere", [1]) } }
            let exchange = await store.exchange(key: prefix + "a", value: [3], ifRevision: new)
            #expect(exchange.outcome == .refused)
            let contents = try exchange.contents.get()
            guard case .restored = contents.loss else {
                Issue.record("\(exchange)")
                return
            }
            #expect(contents.values.map(\.value) == [[1], [1]])
            #expect(contents.values.first?.revision == old)
            #expect(try await store.read().loss == nil)
        }

        /// Two units exchange through a gateway that loses, delays, doubles, cuts and spoils answers at random.
        @Test(arguments: 1...3)
        func spoiltAnswers(seed: UInt64) async throws {
            let gateway = try await Gateway(server.list)
            defer { gateway.stop() }
            let generator = Mutex(SeededGenerator(seed: seed))
            let isSpoiling = Mutex(true)
            let spoilt = Reaction.json("500 Internal Server Error", #"{"message":"context deadline exceeded","code":2}"#)
            gateway.react { _ in
                guard isSpoiling.withLock({ $0 }) else { return .forward }
                let choices = [
                    Reaction.close, .lose, .late(.milliseconds(30)), .late(.milliseconds(120)), .twice, .answerTwice, .truncate,
                    .replace(spoilt), .send(spoilt),
                ]
                return generator.withLock { generator in
                    UInt8.random(in: 0...1, using: &generator) == 0
                        ? .forward : choices[Int.random(in: 0..<choices.count, using: &generator)]
                }
            }
            let stores = try (0..<2).map { _ in
                PoolStore(try client(gateway.url, deadline: .milliseconds(100)), prefix: prefix)
            }
            let seen = try await withThrowingTaskGroup(of: (Int, [Int]).self) { group in
                for (unit, store) in stores.enumerated() {
                    group.addTask { [prefix] in
                        var revision = 0
                        var last = 0
                        var accepted: [Int] = []
                        for step in 0..<60 {
                            let exchange = await store.exchange(
                                key: prefix + "\(unit)", value: Array("\(unit) \(step)".utf8), ifRevision: revision)
                            if case .accepted(let new) = exchange.outcome {
                                #expect(new > revision)
                                revision = new
                                accepted.append(step)
                            } else if let own = try? await store.read().values.first(where: { $0.key == prefix + "\(unit)" }) {
                                #expect(own.revision >= revision)
                                revision = own.revision
                            }
                            if case .success(let contents) = exchange.contents {
                                #expect(contents.revision >= last && contents.loss == nil, "seed \(seed) step \(step)")
                                last = contents.revision
                            }
                        }
                        return (unit, accepted)
                    }
                }
                return try await group.reduce(into: [Int: [Int]]()) { $0[$1.0] = $1.1 }
            }
            #expect(seen.values.allSatisfy { $0.count > 5 }, "seed \(seed): \(seen)")
            isSpoiling.withLock { $0 = false }
            for store in stores { try await expectTruth(store) }
        }

        @Test func largePool() async throws {
            let count = 10_000
            for begin in stride(from: 0, to: count, by: 100) {
                let puts = (begin..<(begin + 100)).map { place in
                    let key = prefix + "unit-\(place)"
                    return EtcdTransaction.Step.put(key: key, value: Array(repeating: UInt8(place & 0x7F), count: 500))
                }
                _ = try await etcd.transaction(EtcdTransaction(then: puts))
            }
            // Slow by far: this is built for tests.
            let store = PoolStore(try client(server.list, deadline: .seconds(30)), prefix: prefix)
            var begin = ContinuousClock.now
            #expect(try await store.read().values.count == count)
            print("first reading of \(count) keys took: \(ContinuousClock.now - begin)")
            begin = ContinuousClock.now
            let exchange = await store.exchange(key: prefix + "unit-own", value: [1], ifRevision: 0)
            #expect(try exchange.contents.get().values.count == count + 1)
            print("an exchange of \(count) keys took: \(ContinuousClock.now - begin)")
        }
    }
}
