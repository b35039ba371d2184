import Etcd
import Foundation
import NIOCore
import Testing
import TestSupport

/// Answers that etcd does not give, and gateways that do not answer as they should.
@Suite(.serialized)
struct AnswerTests {
    private static let header =
        #""header":{"cluster_id":"14841639068965178418","member_id":"1","revision":"7","raft_term":"2"}"#

    private func asked(
        _ reaction: Reaction, deadline: Duration = .milliseconds(1500), bytesMax: Int = 64 << 20
    ) async throws -> EtcdError? {
        let gateway = try await Gateway()
        defer { gateway.stop() }
        gateway.react { _ in reaction }
        var configuration = try EtcdConfiguration(endpoints: gateway.url)
        configuration.deadline = deadline
        configuration.answerBytesMax = bytesMax
        configuration.attemptsMax = 1
        let etcd = EtcdClient(configuration)
        let error = await failure { () throws(EtcdError) in try await etcd.range("a") }
        // The same answer to a change: nobody knows what became of it.
        let change = await failure { () throws(EtcdError) in try await etcd.put("a", [1]) }
        if error?.name == "answer" || error?.name == "broken" {
            #expect(change == nil || change?.isOutcomeUnknown == true, "\(String(describing: change))")
        }
        return error
    }

    @Test(arguments: [
        "", " ", "{", "}", "[]", "null", "7", "\"a\"", "{}", "{\"header\":{}}", "{\(header)", "{\(header),}", "{\(header)} x",
        "{\(header),\"kvs\":{}}", "{\(header),\"kvs\":[1]}", "{\(header),\"kvs\":[{}],\"count\":\"1\"}",
        "{\(header),\"kvs\":[{\"key\":\"YQ==\"}],\"count\":\"1\"}",
        "{\(header),\"kvs\":[{\"key\":\"YQ=\",\"mod_revision\":\"1\"}],\"count\":\"1\"}",
        "{\(header),\"kvs\":[{\"key\":\"Y!==\",\"mod_revision\":\"1\"}],\"count\":\"1\"}",
        "{\(header),\"kvs\":[{\"key\":\"=YQ=\",\"mod_revision\":\"1\"}],\"count\":\"1\"}",
        "{\(header),\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"1\",\"value\":7}],\"count\":\"1\"}",
        "{\(header),\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"-1\"}],\"count\":\"1\"}",
        "{\(header),\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":1.5}],\"count\":\"1\"}",
        "{\(header),\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":1e3}],\"count\":\"1\"}",
        "{\(header),\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"99999999999999999999\"}],\"count\":\"1\"}",
        "{\(header),\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"\"}],\"count\":\"1\"}",
        "{\(header),\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"1\"}],\"count\":\"0\"}",
        "{\(header),\"count\":\"-1\"}", "{\(header),\"more\":\"yes\"}", "{\"header\":{\"revision\":\"-7\"}}",
        "{\"header\":{\"revision\":\"7\",\"cluster_id\":\"-1\"}}", "{\(header),\"x\":\"\\\"}", "{\(header),\"\\ud800\":1}",
        "{\(header),\"x\":" + String(repeating: "[", count: 100_000),
        "{\(header),\"x\":" + String(repeating: "{\"a\":", count: 100_000), "<html>no</html>", "\u{0}\u{1}\u{2}",
    ])
    func answersThatAreNone(body: String) async throws {
        let error = try await asked(.send(Reaction.json("200 OK", body)))
        #expect(error?.name == "answer", "\(String(describing: error))")
    }

    @Test(arguments: [
        "{\(header)}", " {\n\(header) , \"count\" : 0 } \r\n",
        "{\"header\":{\"cluster_id\":1,\"revision\":7,\"raft_term\":2},\"count\":1,"
            + "\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":3}]}",
        "{\(header),\"kvs\":null,\"count\":null,\"new\":[{\"a\":[1,-2.5e3,true,false,null,\"\\\\\\\"\"]}]}",
        "{\(header),\"kvs\":[{\"key\":\"\\u0059Q\\u003d=\",\"mod_revision\":\"3\"}],\"count\":\"1\"}",
    ])
    func answersInOtherWords(body: String) async throws {
        #expect(try await asked(.send(Reaction.json("200 OK", body))) == nil)
    }

    @Test func gatewaysThatAreNone() async throws {
        let notHTTP = try await asked(.send(Array("SSH-2.0-OpenSSH_9.2\r\n".utf8)))
        #expect(notHTTP?.name == "broken", "\(String(describing: notHTTP))")
        #expect(try await asked(.close)?.name == "broken")
        let short = Array("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}".utf8)
        #expect(try await asked(.send(short), deadline: .milliseconds(300))?.name == "timeout")
        let large = try await asked(.send(Reaction.json("200 OK", String(repeating: " ", count: 100_000))), bytesMax: 50_000)
        #expect(large?.name == "answer", "\(String(describing: large))")
        let html = try await asked(.send(Reaction.json("502 Bad Gateway", "<html>\u{1B}[2J</html>")))
        #expect(html?.name == "answer" && html?.description.contains("\u{1B}") == false, "\(String(describing: html))")
    }

    @Test func slowAndEndlessAnswers() async throws {
        let head = Array("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".utf8)
        let blanks = Array(("10000\r\n" + String(repeating: " ", count: 65536) + "\r\n").utf8)
        for reaction in [
            Reaction.drip(first: Array("HTTP/1.1 200 OK\r\n".utf8), then: Array("X: y\r\n".utf8), every: .milliseconds(20)),
            .drip(first: head, then: Array("1\r\n \r\n".utf8), every: .milliseconds(20)), .silence,
        ] {
            let begin = ContinuousClock.now
            let error = try await asked(reaction, deadline: .milliseconds(400))
            #expect(error?.name == "timeout", "\(String(describing: error))")
            // Two calls.
            #expect(ContinuousClock.now - begin < .seconds(3))
        }
        let endless = try await asked(
            .drip(first: head, then: blanks, every: .milliseconds(1)), deadline: .seconds(20), bytesMax: 1 << 20)
        #expect(endless?.name == "answer", "\(String(describing: endless))")
    }

    @Test(arguments: [
        (500, 2, "context deadline exceeded", true), (503, 14, "etcdserver: request timed out", true),
        (503, 14, "etcdserver: server stopped", true), (503, 14, "etcdserver: no leader", false),
        (504, 4, "context deadline exceeded", true), (429, 8, "etcdserver: too many requests", false),
        (429, 8, "etcdserver: mvcc: database space exceeded", false), (403, 7, "etcdserver: permission denied", false),
        (400, 3, "etcdserver: key is not provided", false), (401, 16, "etcdserver: invalid auth token", false),
    ])
    func refusalsOfAChange(status: Int, code: Int, message: String, isUnknown: Bool) async throws {
        let gateway = try await Gateway()
        defer { gateway.stop() }
        let body = "{\"error\":\"\(message)\",\"message\":\"\(message)\",\"code\":\(code)}"
        gateway.react { _ in .send(Reaction.json("\(status) X", body)) }
        let etcd = try client(gateway.url)
        let error = await failure { () throws(EtcdError) in try await etcd.put("a", [1]) }
        #expect(error?.isOutcomeUnknown == isUnknown, "\(String(describing: error))")
        #expect(error?.description.contains(gateway.url) == true || !isUnknown)
        if isUnknown { #expect(gateway.questions.withLock { $0.count } == 1) }
    }

    @Test func aChangeIsSentOnce() async throws {
        let server = try await Shared.server.value
        let gateway = try await Gateway(server.list)
        defer { gateway.stop() }
        let prefix = newPrefix()
        let spoilt = Reaction.json("500 Internal Server Error", #"{"message":"context deadline exceeded","code":2}"#)
        for reaction in [Reaction.lose, .truncate, .close, .replace(spoilt), .late(.seconds(3)), .silence] {
            gateway.questions.withLock { $0 = [] }
            gateway.react { _ in reaction }
            let etcd = try client(gateway.url + "," + server.list, deadline: .milliseconds(500))
            let error = await failure { () throws(EtcdError) in try await etcd.put(prefix, [1]) }
            #expect(error?.isOutcomeUnknown == true, "\(reaction): \(String(describing: error))")
            #expect(gateway.questions.withLock { $0.count } == 1)
            // A question is asked again, elsewhere.
            let asking = try client(gateway.url + "," + server.list, deadline: .seconds(2))
            #expect(try await asking.range(prefix).header.revision > 0, "\(reaction)")
        }
        // What comes twice is taken once.
        gateway.react { _ in .answerTwice }
        let etcd = try client(gateway.url)
        for value in 0..<5 {
            _ = try await etcd.put(prefix + "twice", [UInt8(value)])
            #expect(try await etcd.get(prefix + "twice")?.value == [UInt8(value)])
        }
    }

    @Test func otherClusterIsNamed() async throws {
        let gateway = try await Gateway()
        defer { gateway.stop() }
        gateway.react { [gateway] _ in
            let cluster = gateway.questions.withLock { $0.count }
            return .send(Reaction.json("200 OK", #"{"header":{"cluster_id":"\#(cluster)","revision":"7","raft_term":"2"}}"#))
        }
        let etcd = try client(gateway.url)
        _ = try await etcd.range("a")
        #expect(
            await failure { () throws(EtcdError) in try await etcd.range("a") } == .otherCluster(found: 2, expected: 1))
        let change = await failure { () throws(EtcdError) in try await etcd.put("a", [1]) }
        #expect(change == .otherCluster(found: 3, expected: 1) && change?.isOutcomeUnknown == true)
        etcd.accept(cluster: 4)
        _ = try await etcd.range("a")
    }
}
