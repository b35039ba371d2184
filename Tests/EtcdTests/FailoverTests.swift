import Etcd
import Foundation
import Testing
import TestSupport

extension WithEtcd {
    struct FailoverTests {
        let prefix = newPrefix()

        @Test func deadEndpointsCostNothing() async throws {
            let server = try await Shared.server.value
            // Nobody listens there, so that nothing is sent there: a change goes on to the next, too.
            let etcd = try client("http://127.0.0.1:1,http://127.0.0.1:2," + server.list)
            let revision = try await etcd.put(prefix, [1]).revision
            #expect(revision > 0)
            #expect(etcd.endpoints.map(\.isCurrent) == [false, false, true])
            let answer = try await etcd.transaction(
                EtcdTransaction(if: [.modRevision(key: prefix, revision)], then: [.delete(key: prefix)]))
            #expect(answer.succeeded)
            let nowhere = try client("http://127.0.0.1:1,http://127.0.0.1:2")
            let error = await failure { () throws(EtcdError) in try await nowhere.put(prefix, [1]) }
            #expect(error?.name == "unreachable" && error?.isOutcomeUnknown == false, "\(String(describing: error))")
        }

        @Test func leaderKilled() async throws {
            let server = try await EtcdServer.start(members: 3)
            let leader = try #require(try server.leader())
            let order = [leader] + (0..<3).filter { $0 != leader }
            let etcd = try client(order.map { server.endpoints[$0] }.joined(separator: ","), deadline: .milliseconds(1500))
            let store = PoolStore(etcd, prefix: prefix)
            var accepted = 0
            guard case .accepted(let revision) = await store.exchange(key: prefix + "a", value: [1], ifRevision: 0).outcome
            else {
                Issue.record("the first exchange failed")
                return
            }
            accepted = revision
            try server.kill(leader)
            let begin = ContinuousClock.now
            var value: UInt8 = 1
            let isBack = await poll {
                value += 1
                switch await store.exchange(key: prefix + "a", value: [value], ifRevision: accepted).outcome {
                case .accepted(let revision):
                    accepted = revision
                    return true
                case .refused:
                    // One whose outcome was unknown has taken effect.
                    if let own = try? await store.read().values.first { accepted = own.revision }
                    return false
                case .unknown: return false
                }
            }
            #expect(isBack)
            print("leader killed: back after \(ContinuousClock.now - begin)")
            #expect(try await store.read().values.map(\.value) == [[value]])
            #expect(etcd.endpoints[0].isReachable == false)
            // The killed one comes back, and the two others go in its place: calls find it.
            try server.start(leader)
            try await server.waitUntilHealthy()
            #expect(try await etcd.range(prefix).count == 1)
        }

        @Test func pausedMemberCostsOneDeadline() async throws {
            let server = try await EtcdServer.start(members: 3)
            let leader = try #require(try server.leader())
            let follower = (leader + 1) % 3
            let order = [follower] + (0..<3).filter { $0 != follower }
            let etcd = try client(order.map { server.endpoints[$0] }.joined(separator: ","), deadline: .milliseconds(1500))
            _ = try await etcd.put(prefix, [1])
            server.pause(follower)
            defer { server.resume(follower) }
            let begin = ContinuousClock.now
            let error = await failure { () throws(EtcdError) in try await etcd.put(prefix, [2]) }
            let took = ContinuousClock.now - begin
            #expect(error?.isOutcomeUnknown == true, "\(String(describing: error))")
            #expect(took >= .milliseconds(1500) && took < .milliseconds(2500), "\(took)")
            // The next goes elsewhere.
            #expect(try await etcd.put(prefix, [3]).revision > 0)
            #expect(etcd.endpoints.map(\.isCurrent) == [false, true, false])
            // A question finds another endpoint within its own deadline.
            let asking = try client(order.map { server.endpoints[$0] }.joined(separator: ","), deadline: .milliseconds(1500))
            #expect(try await asking.get(prefix)?.value == [3])
            #expect(asking.endpoints.map(\.isCurrent) == [false, true, false])
            // A watch on it is silent for ever, and ends by that.
            let watching = try client(server.endpoints[follower], deadline: .milliseconds(500))
            var iterator = watching.watch(prefix).makeAsyncIterator()
            #expect(await failure { () throws(EtcdError) in try await iterator.next() }?.name == "timeout")
        }

        @Test func lostQuorumHoldsTheDeadline() async throws {
            let server = try await EtcdServer.start(members: 3)
            let etcd = try client(server.list, deadline: .milliseconds(1500))
            _ = try await etcd.put(prefix, [1])
            let leader = try #require(try server.leader())
            let left = (leader + 1) % 3
            for member in 0..<3 where member != left { try server.kill(member) }
            for isQuestion in [true, false, true, false] {
                let begin = ContinuousClock.now
                let error = await failure { () throws(EtcdError) in
                    if isQuestion { _ = try await etcd.range(prefix) } else { _ = try await etcd.put(prefix, [2]) }
                }
                let took = ContinuousClock.now - begin
                #expect(error != nil)
                #expect(took < .milliseconds(2500), "\(took) \(String(describing: error))")
                if isQuestion { #expect(error?.isOutcomeUnknown == false) }
            }
            // With the header a member says that it has no leader, and that is sure.
            let alone = try client(server.endpoints[left], deadline: .milliseconds(1500))
            let isNamed = await poll {
                await failure { () throws(EtcdError) in try await alone.put(prefix, [3]) }?.name == "unavailable"
            }
            #expect(isNamed)
            var iterator = alone.watch(prefix).makeAsyncIterator()
            let error = await failure { () throws(EtcdError) in try await iterator.next() }
            #expect(error?.name == "unavailable", "\(String(describing: error))")
            #expect(await alone.status()[0].state.contains("no leader"))
        }

        @Test func cancelledCallsSaySo() async throws {
            let gateway = try await Gateway()
            defer { gateway.stop() }
            gateway.react { _ in .silence }
            for isQuestion in [true, false] {
                gateway.questions.withLock { $0 = [] }
                let etcd = try client(gateway.url, deadline: .seconds(60))
                let asking = Task { [prefix] in
                    await failure { () throws(EtcdError) in
                        if isQuestion { _ = try await etcd.range(prefix) } else { _ = try await etcd.put(prefix, [1]) }
                    }
                }
                #expect(await poll { gateway.questions.withLock { $0.count } == 1 })
                asking.cancel()
                let error = await asking.value
                #expect(error?.name == (isQuestion ? "cancelled" : "outcomeUnknown"), "\(String(describing: error))")
                #expect(await poll { gateway.open.withLock { $0 } == 0 })
            }
        }
    }
}
