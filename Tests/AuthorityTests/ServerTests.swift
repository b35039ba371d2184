import AsyncHTTPClient
import AuthorityAPI
import ControlAPI
import Foundation
import Licensing
import NIOCore
import NIOSSL
import Synchronization
import TestSupport
import Testing
import WebAPI

@testable import AuthorityServer

private let question = LeaseRequest(hardware: machine, licenseId: nil, epoch: nil, version: "1.0.0")

@Suite struct ServerTests {
    @Test func aLeaseOverTLS() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        try await serving(authority.store) { port in
            try await withClient { client in
                let ask = try Ask(question, accountKey: authority.accountKey)
                let first = try await ask.send(client, port, trusted: authority.trusted)
                #expect(first.reply.status == 200 && first.reply.lease?.externalAddress == "127.0.0.1")
                #expect(first.reply.claims?.leaseExpiry == start + 14 * day && first.seal.serverTime == start)
                // The same again, a day later: the old answer under a new seal.
                authority.now += day
                let again = try await ask.send(client, port, trusted: authority.trusted)
                #expect(again.reply.body == first.reply.body && again.seal.serverTime == start + day)
                // A seal is for one question.
                await #expect(throws: AnswerError.self) {
                    try await ask.send(client, port, trusted: authority.trusted, sealedFor: newID())
                }
                await #expect(throws: AnswerError.self) {
                    try await ask.send(client, port, trusted: authority.trusted, id: newID())
                }
                // What an operator does meanwhile, by another process of the authority, counts at once.
                let operators = try AuthorityStore(
                    path: authority.databasePath, keysFolder: authority.folder.path + "/keys", clock: { Date() })
                let license = try #require(first.reply.claims).licenseID
                _ = try await operators.suspend(license, reason: "unpaid")
                let refused = try await Ask(question, unit: ask.unit!, accountKey: authority.accountKey)
                    .send(client, port, trusted: authority.trusted)
                #expect(refused.reply.status == 403 && refused.reply.error?.code == "suspended")
                let key = try await operators.rotateKey(overlapSeconds: 0).kid
                _ = try await operators.reinstate(license, reason: "paid")
                authority.now = Timestamp.seconds(Date()) + 1
                let lease = try await Ask(question, unit: ask.unit!, accountKey: authority.accountKey)
                    .send(client, port, trusted: authority.trusted)
                #expect(lease.reply.lease?.keys.last?.kid == key && lease.reply.claims?.epoch == 2)
            }
        }
    }

    @Test func wrongQuestions() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let key = authority.accountKey
        let good = String(decoding: try ControlJSON.encoder().encode(question), as: UTF8.self)
        func body(_ old: String, _ new: String) -> Ask {
            #expect(good.contains(old))
            return Ask(accountKey: key, body: good.replacing(old, with: new))
        }
        let cases: [(Ask, Int, String, String)] = [
            (Ask(accountKey: nil, body: good), 401, "unauthorized", "Bearer KEY"),
            (Ask(accountKey: key + "x", body: good), 401, "unauthorized", "unknown account key: check account-key-file"),
            (Ask(accountKey: "99.x", body: good), 401, "unauthorized", "unknown account key: check account-key-file"),
            (Ask(accountKey: key, body: ""), 400, "bad_request", "not JSON"),
            (Ask(accountKey: key, body: "[]"), 400, "bad_request", "an object"),
            (Ask(accountKey: key, body: "{"), 400, "bad_request", "not JSON"),
            (Ask(accountKey: key, body: "{}"), 400, "bad_request", "field \"hardware\" is missing"),
            (Ask(accountKey: key, body: String(repeating: "[", count: 60_000)), 400, "bad_request", "body"),
            (Ask(accountKey: key, body: "\u{0}\u{1}"), 400, "bad_request", "zero byte"),
            (body("\"version\"", "\"Version\""), 400, "bad_request", "field \"version\" is missing"),
            (body("\"version\":", "\"licenseId\":\"x\",\"version\":"), 400, "bad_request", "found field \"licenseId\""),
            (body("\"hostname\":", "\"host\":1,\"hostname\":"), 400, "bad_request", "found field \"hardware.host\""),
            (body("16005", "\"16005\""), 400, "bad_request", "\"hardware.total_memory_size\": expected a number"),
            (body("16005", "1e300"), 400, "bad_request", "body"),
            (body("16005", "-1"), 422, "invalid_value", "hardware.total_memory_size: found -1"),
            (body("16005", "9223372036854775807"), 422, "invalid_value", "hardware.total_memory_size"),
            (
                body("\"logical_cpus_number\":2", "\"logical_cpus_number\":0"), 422, "invalid_value",
                "hardware.logical_cpus_number"
            ),
            (body("192.0.2.1", "192.0.2.256"), 422, "invalid_value", "\"192.0.2.256\""),
            (body("192.0.2.1", "::1"), 422, "invalid_value", "\"::1\""),
            (body("Test CPU", String(repeating: "x", count: 300)), 422, "invalid_value", "hardware.cpu_model: found 308 bytes"),
            (body("Test CPU", "\\u001b[2J"), 422, "invalid_value", "control codes"),
            (body("\"1.0.0\"", "\"\""), 422, "invalid_value", "version: found 0 bytes"),
            (body("\"version\":", "\"epoch\":-1,\"version\":"), 422, "invalid_value", "epoch: found -1"),
            (Ask("GET", accountKey: key), 405, "method_not_allowed", "expected POST"),
            (Ask("DELETE", AuthorityPath.usage, accountKey: key), 405, "method_not_allowed", "expected POST"),
            (Ask("POST", "/v1/leases", accountKey: key, body: good), 404, "not_found", "/v1/leases"),
            (Ask("POST", "/v1/lease/", accountKey: key, body: good), 404, "not_found", "/v1/lease/"),
            (Ask("POST", "//v1/lease", accountKey: key, body: good), 404, "not_found", "found path //v1/lease"),
            (Ask("POST", "/v1/lease?unit=1", accountKey: key, body: good), 400, "bad_request", "found \"unit\""),
            (Ask(accountKey: key, body: String(repeating: " ", count: 65_537)), 413, "too_large", "65536 bytes"),
        ]
        try await serving(authority.store) { port in
            try await withClient { client in
                for (ask, status, code, text) in cases {
                    let (reply, _, headers) = try await ask.send(client, port, trusted: authority.trusted)
                    #expect(reply.status == status && reply.error?.code == code, "\(ask.path) \(reply)")
                    #expect(reply.error?.message.contains(text) == true, "\(reply.error?.message ?? "nothing") and \(text)")
                    #expect(headers["content-type"] == "application/json")
                    if status == 405 { #expect(headers["allow"] == "POST") }
                }
                // Who asks, in a form that cannot be: refused, and sealed for nobody.
                for unit in ["x", newID().uppercased(), newID() + "0", ""] {
                    let ask = Ask(unit: unit, accountKey: key, body: good)
                    let reply = try await ask.send(client, port, trusted: authority.trusted, sealedFor: "").reply
                    #expect(reply.status == 400 && reply.error?.message.hasPrefix("Fpx-Unit: found \"") == true)
                }
                for id in [String(repeating: "x", count: 65), "a b", "ä"] {
                    let ask = Ask(requestID: id, accountKey: key, body: good)
                    let reply = try await ask.send(client, port, trusted: authority.trusted, id: "").reply
                    #expect(reply.status == 400 && reply.error?.message.hasPrefix("Idempotency-Key: found \"") == true)
                }
                let silent = Ask(unit: nil, requestID: nil, accountKey: key, body: good)
                #expect(try await silent.send(client, port, trusted: authority.trusted).reply.status == 400)
            }
        }
        #expect(try await authority.store.licenses().isEmpty, "no wrong question has changed anything")
    }

    @Test func usageReports() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        let report = Examples.usageReport
        try await serving(authority.store) { port in
            try await withClient { client in
                let early = try Ask(report, path: AuthorityPath.usage, unit: unit, accountKey: authority.accountKey)
                #expect(try await early.send(client, port, trusted: authority.trusted).reply.error?.code == "no_subscription")
                _ = try await authority.ask(unit)
                let ask = try Ask(report, path: AuthorityPath.usage, unit: unit, accountKey: authority.accountKey)
                for _ in 1...2 {
                    let reply = try await ask.send(client, port, trusted: authority.trusted).reply
                    #expect(reply.status == 200 && String(decoding: reply.body, as: UTF8.self) == "{\"reports\":1}")
                }
                // Its key is taken for a lease too.
                var other = try Ask(question, unit: unit, accountKey: authority.accountKey)
                other.requestID = ask.requestID
                #expect(
                    try await other.send(client, port, trusted: authority.trusted).reply.error?.code == "idempotency_conflict")
                var wrong = report
                wrong.sessions = -1
                let refused = try await Ask(wrong, path: AuthorityPath.usage, unit: unit, accountKey: authority.accountKey)
                    .send(client, port, trusted: authority.trusted).reply
                #expect(refused.status == 422 && refused.error?.message.hasPrefix("sessions: found -1") == true)
                for _ in 1...AuthorityStore.usageReportsMax {
                    authority.now += 3600
                    _ = try await Ask(report, path: AuthorityPath.usage, unit: unit, accountKey: authority.accountKey)
                        .send(client, port, trusted: authority.trusted)
                }
            }
        }
        let license = try await authority.license(of: unit).id
        let kept = try await authority.store.usage(license: license)
        #expect(
            kept.count == AuthorityStore.usageReportsMax && kept.first?.at == start + 3600 && kept.last?.at == authority.now)
        #expect(try ControlJSON.decoder().decode(UsageReport.self, from: Data(kept[0].body.utf8)) == report)
        #expect(try await authority.store.usage().map(\.at) == [authority.now])
    }

    @Test func tooManyQuestions() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        @Sendable func ask(_ client: HTTPClient, _ port: Int, key: String? = nil) async throws -> (Reply, retryAfter: String?) {
            let result = try await Ask(question, unit: unit, accountKey: key ?? authority.accountKey)
                .send(client, port, trusted: authority.trusted)
            return (result.reply, result.headers["retry-after"])
        }
        let now = Mutex(ContinuousClock.now)
        @Sendable func pass(_ seconds: Int) { now.withLock { $0 += .seconds(seconds) } }
        try await serving(authority.store, ratePerAccount: 6, clock: { now.withLock { $0 } }) { port in
            try await withClient { client in
                for _ in 1...6 { #expect(try await ask(client, port).0.status == 200) }
                let (refused, after) = try await ask(client, port)
                #expect(refused.status == 429 && refused.error?.code == "rate_limited" && after == "10")
                #expect(refused.error?.message.hasPrefix("customer \(authority.customer.id!): ") == true)
                pass(9)
                #expect(try await ask(client, port).retryAfter == "1")
                pass(1)
                #expect(try await ask(client, port).0.status == 200)
                #expect(try await ask(client, port).0.status == 429)
                // The wall clock fills nothing, and blocks for no longer.
                authority.now += day
                #expect(try await ask(client, port).0.status == 429)
                authority.now -= day
                pass(10)
                #expect(try await ask(client, port).0.status == 200)
            }
        }
        try await serving(authority.store, ratePerAddress: 2) { port in
            try await withClient { client in
                // Who has no account is counted too, and keeps none from asking who has one.
                for status in [401, 401, 429, 429] {
                    #expect(try await ask(client, port, key: "\(authority.customer.id!).guess").0.status == status)
                }
                var found: [Int] = []
                for _ in 1...2 { found.append(try await ask(client, port).0.status) }
                #expect(
                    Field.row(
                        "licence.8", "account keys are guessed at an address until no guess is answered: a genuine unit there",
                        expected: "[200, 200]", found: "\(found)"))
                let (refused, after) = try await ask(client, port)
                let document = try await Ask("GET", AuthorityPath.document, unit: nil, requestID: nil, accountKey: nil)
                    .send(client, port, trusted: authority.trusted)
                #expect(document.reply.status == 429)
                #expect(refused.status == 429 && after == "30")
                #expect(refused.error?.message.hasPrefix("address 127.0.0.1: ") == true)
            }
        }
    }

    @Test func clientCertificates() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        try await serving(authority.store, clientCA: true) { port in
            let ask = try Ask(question, accountKey: authority.accountKey)
            try await withClient(certificate: "client") { client in
                let status = try await ask.send(client, port, trusted: authority.trusted).reply.status
                #expect(status == 200)
            }
            for certificate in [nil, "stranger"] {
                try await withClient(certificate: certificate) { client in
                    _ = await #expect(throws: (any Error).self) {
                        try await ask.send(client, port, trusted: authority.trusted)
                    }
                }
            }
        }
    }

    @Test func certificatesThatAreNone() async throws {
        let authority = try await TestAuthority()
        let certificates = try Certificates.shared.get()
        for (certificate, key, ca, wrong) in [
            ("server.key", "server.key", nil, "server.key"), ("server.pem", "server.pem", nil, "server.pem"),
            ("none.pem", "server.key", nil, "none.pem"), ("server.pem", "client.key", nil, "server.pem"),
            ("server.pem", "server.key", "none.pem", "none.pem"),
        ] as [(String, String, String?, String)] {
            do throws(AuthorityError) {
                _ = try AuthorityServer(
                    store: authority.store,
                    configuration: .init(
                        host: "127.0.0.1", port: 0, certificate: certificates.path(certificate),
                        privateKey: certificates.path(key), clientCA: ca.map(certificates.path)), version: "1",
                    logger: .init(label: "tests"))
                Issue.record("\(certificate) and \(key) were taken")
            } catch {
                guard case .tls(let path, _, _) = error else { throw error }
                #expect(path == certificates.path(wrong))
            }
        }
    }
}
