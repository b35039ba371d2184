import AuthorityAPI
import ControlAPI
import Foundation
import Licensing
import NIOCore
import TestSupport
import Testing
import WebAPI

@testable import AuthorityServer

/// What no HTTP client of good manners sends, by openssl's plain TLS client.
@Suite struct WireTests {
    /// Sends bytes, keeps the connection open, and returns what came until the server closed it.
    private func exchange(_ port: Int, _ text: String) async throws -> (answer: String, seconds: Double) {
        let authority = try Certificates.shared.get().path("ca.pem")
        return try await blocking {
            let begin = ContinuousClock.now
            let process = try ChildProcess(
                [
                    "openssl", "s_client", "-quiet", "-connect", "localhost:\(port)", "-servername", "localhost", "-CAfile",
                    authority, "-verify_return_error",
                ], input: .pipe, output: .pipe, error: .pipe)
            try process.input?.write(contentsOf: Data(text.utf8))
            let answer = String(decoding: try process.output?.readToEnd() ?? Data(), as: UTF8.self)
            process.wait()
            if answer.isEmpty {
                let text = String(decoding: try process.error?.readToEnd() ?? Data(), as: UTF8.self)
                Issue.record("s_client has heard nothing: \(text)")
            }
            return (answer, (ContinuousClock.now - begin) / .seconds(1))
        }
    }

    private func token(in answer: String) -> String? {
        answer.split(separator: "\r\n").first { $0.lowercased().hasPrefix("fpx-answer: ") }.map { String($0.dropFirst(12)) }
    }

    @Test func whatIsNotHTTPIsAnsweredUnderSeal() async throws {
        let authority = try await TestAuthority()
        try await serving(authority.store) { port in
            for text in [
                "GARBAGE\r\n\r\n", "POST /v1/lease HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
                "POST /v1/lease HTTP/1.1\r\nHost: x\r\nA: \(String(repeating: "x", count: 20_000))\r\n\r\n",
            ] {
                let answer = try await exchange(port, text).answer
                #expect(answer.hasPrefix("HTTP/1.1 400 "), "\(answer)")
                let sealed = try #require(token(in: answer))
                let body = try #require(answer.range(of: "\r\n\r\n").map { String(answer[$0.upperBound...]) })
                #expect(body.contains("\"code\":\"bad_request\",\"message\":\"not HTTP: "))
                let seal = try await AnswerSeal.verify(
                    sealed, status: 400, body: Array(body.utf8), unitID: "", requestID: "", with: authority.trusted
                ).seal
                #expect(seal.serverTime == start)
            }
        }
    }

    @Test func aSlowBodyIsNotWaitedFor() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let head =
            "POST /v1/lease HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer \(authority.accountKey)\r\n"
            + "Fpx-Unit: \(newID())\r\nIdempotency-Key: k\r\nContent-Length: 100\r\n\r\n{"
        try await serving(authority.store) { port in
            let (answer, seconds) = try await exchange(port, head)
            #expect(answer.hasPrefix("HTTP/1.1 408 ") && answer.contains("\"code\":\"timeout\""), "\(answer)")
            #expect(token(in: answer) != nil && seconds >= 9)
        }
        #expect(try await authority.store.licenses().isEmpty)
    }
}

@Suite struct DocumentTests {
    private func document() throws -> [String: Any] {
        try #require(
            try JSONSerialization.jsonObject(with: try AuthorityServer.document(version: "1.0.0")) as? [String: Any])
    }

    @Test func routesAndDocumentAreTheSame() throws {
        let document = try document()
        let paths = try #require(document["paths"] as? [String: [String: Any]])
        #expect(document["openapi"] as? String == "3.1.0")
        #expect(Set(paths.keys) == [AuthorityPath.lease, AuthorityPath.usage])
        #expect(Set(routes.map { "\($0.operation.method) \($0.operation.path)" }) == ["POST /v1/lease", "POST /v1/usage"])
        for path in paths.values {
            let operation = try #require(path["post"] as? [String: Any])
            let parameters = try #require(operation["parameters"] as? [[String: Any]])
            #expect(parameters.compactMap { $0["name"] as? String } == ["Fpx-Unit", "Idempotency-Key", "Fpx-Proof"])
            #expect(operation["security"] != nil)
            let responses = try #require(operation["responses"] as? [String: [String: Any]])
            for (status, response) in responses {
                #expect((response["headers"] as? [String: Any])?["Fpx-Answer"] != nil, "\(status)")
            }
        }
        let lease = try #require((paths["/v1/lease"]?["post"] as? [String: Any])?["responses"] as? [String: [String: Any]])
        #expect(Set(lease.keys) == ["200", "400", "401", "403", "408", "409", "413", "422", "429", "500", "503"])
        #expect(lease["409"]?["description"] as? String == "held, offline")
    }

    @Test func everyReferenceIsThere() throws {
        let document = try document()
        let schemas = try #require((document["components"] as? [String: Any])?["schemas"] as? [String: [String: Any]])
        func references(_ value: Any) -> [String] {
            switch value {
            case let object as [String: Any]:
                return object.flatMap { $0.key == "$ref" ? [$0.value as? String ?? ""] : references($0.value) }
            case let list as [Any]: return list.flatMap(references)
            default: return []
            }
        }
        for reference in references(document) {
            #expect(schemas[reference.replacing("#/components/schemas/", with: "")] != nil, "\(reference)")
        }
        let lease = try #require(schemas["LeaseRequest"])
        #expect(Set((lease["properties"] as? [String: Any] ?? [:]).keys) == ["hardware", "license_id", "epoch", "version"])
        #expect(Set(lease["required"] as? [String] ?? []) == ["hardware", "version"])
        let keys =
            ((schemas["LeaseAnswer"]?["properties"] as? [String: Any])?["keys"] as? [String: Any])?["items"] as? [String: Any]
        #expect(Set((keys?["properties"] as? [String: Any] ?? [:]).keys) == ["kid", "pem"])
    }

    @Test func examplesAreWhatTheServerTakes() throws {
        let paths = try #require(try document()["paths"] as? [String: [String: Any]])
        func example(_ path: String) throws -> Data {
            let body = (paths[path]?["post"] as? [String: Any])?["requestBody"] as? [String: Any]
            let media = (body?["content"] as? [String: [String: Any]])?["application/json"]
            return try JSONSerialization.data(withJSONObject: try #require(media?["example"]))
        }
        let lease = try StrictJSON.decode(LeaseRequest.self, from: try example("/v1/lease"))
        try lease.check()
        #expect(lease == Examples.leaseRequest)
        let usage = try StrictJSON.decode(UsageReport.self, from: try example("/v1/usage"))
        try usage.check()
        #expect(usage == Examples.usageReport)
    }

    @Test func theDocumentIsServed() async throws {
        let authority = try await TestAuthority()
        try await serving(authority.store) { port in
            try await withClient { client in
                let served = try await Ask("GET", AuthorityPath.document, unit: nil, requestID: nil, accountKey: nil)
                    .send(client, port, trusted: authority.trusted)
                #expect(served.reply.status == 200)
                #expect(served.reply.body == (try AuthorityServer.document(version: "1.0.0")))
            }
        }
    }

    @Test func sourcesOfQuestions() {
        #expect(Address.source("192.0.2.1") == "192.0.2.1" && Address.source("::ffff:192.0.2.1") == "192.0.2.1")
        #expect(Address.source("2001:db8::1") == Address.source("2001:db8::ffff:2"))
        #expect(Address.source("2001:db8::1") != Address.source("2001:db8:0:1::1"))
        let buckets = TokenBuckets(perMinute: 1)
        let now = ContinuousClock.now
        #expect(buckets.take("a", now: now) == nil && buckets.take("a", now: now) == 60 && buckets.take("b", now: now) == nil)
        // A flood from everywhere bounds the memory, not the traffic.
        for source in 0..<TokenBuckets.sourcesMax { #expect(buckets.take("\(source)", now: now) == nil) }
        #expect(buckets.take("a", now: now) == nil)
    }
}
