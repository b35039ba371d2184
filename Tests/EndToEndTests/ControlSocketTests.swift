import Foundation
import Synchronization
import TestSupport
import Testing

extension EndToEnd {
    /// The control socket as clients of all kinds meet it.
    @Suite struct ControlSocketTests {}
}

/// A raw connection to a unix socket, for requests that no client library would send.
final class RawConnection {
    private let descriptor: Int32

    init(_ path: String) throws {
        descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let code = withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        if code != 0 { throw SocketError.system(call: "connect", code: errno) }
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { _ = close(descriptor) }

    /// What the peer has closed already is not sent.
    func send(_ bytes: [UInt8]) { _ = Foundation.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }
    func send(_ text: String) { send(Array(text.utf8)) }

    /// Tells the peer that nothing more is sent.
    func finish() { _ = shutdown(descriptor, Int32(SHUT_WR)) }

    /// Whether there is something to receive, or the peer has closed, by a time.
    func isReadable(by deadline: ContinuousClock.Instant) -> Bool {
        var poll = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        let (seconds, attoseconds) = (deadline - .now).components
        return Foundation.poll(&poll, 1, max(0, Int32(seconds * 1000 + attoseconds / 1_000_000_000_000_000))) > 0
    }

    /// All that comes until the peer closes or the answer is whole. Nil: neither came about in 20 seconds.
    func receive() -> String? {
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count < 0, errno != ECONNRESET { return nil }
            if count <= 0 { return String(decoding: all, as: UTF8.self) }
            all += chunk[..<count]
            if let text = String(validating: all, as: UTF8.self), Self.isWhole(text) { return text }
        }
    }

    private static func isWhole(_ text: String) -> Bool {
        guard let end = text.range(of: "\r\n\r\n"),
            let field = text[..<end.lowerBound].firstMatch(of: /(?i)content-length: (\d+)/), let length = Int(field.1)
        else { return false }
        return text[end.upperBound...].utf8.count >= length
    }

    static func ask(_ path: String, _ text: String) throws -> String {
        let connection = try RawConnection(path)
        connection.send(text)
        return connection.receive() ?? ""
    }
}

struct Answer {
    let status: Int
    let json: Any

    /// Nil: no answer, or not JSON.
    init?(_ text: String) {
        guard let end = text.range(of: "\r\n\r\n"), let status = Int(text.dropFirst(9).prefix(3)),
            let field = text[..<end.lowerBound].firstMatch(of: /(?i)content-length: (\d+)/), let length = Int(field.1),
            let json = try? JSONSerialization.jsonObject(
                with: Data(text[end.upperBound...].utf8.prefix(length)), options: .fragmentsAllowed)
        else { return nil }
        self.status = status
        self.json = json
    }

    /// The code of the one error form.
    var errorCode: String? {
        guard let error = (json as? [String: Any])?["error"] as? [String: String], error.keys.sorted() == ["code", "message"]
        else { return nil }
        return error["code"]
    }
}

/// Where a value is not as its schema says; nil: it is. The part of JSON Schema that the document uses.
private func mismatch(_ value: Any, _ schema: [String: Any], _ document: [String: Any], at place: String = "$") -> String? {
    if let reference = schema["$ref"] as? String {
        let name = reference.split(separator: "/").last.map(String.init) ?? ""
        let schemas = (document["components"] as? [String: Any])?["schemas"] as? [String: Any]
        guard let target = schemas?[name] as? [String: Any] else { return "\(place): no schema \(name)" }
        return mismatch(value, target, document, at: place)
    }
    switch schema["type"] as? String {
    case "string":
        guard let text = value as? String else { return "\(place): not text" }
        if schema["format"] as? String == "date-time", (try? Date(text, strategy: .iso8601)) == nil {
            return "\(place): no time"
        }
    case "integer":
        guard let number = value as? NSNumber, number.doubleValue == number.doubleValue.rounded() else {
            return "\(place): no integer"
        }
    case "boolean":
        guard value is Bool else { return "\(place): no boolean" }
    case "array":
        guard let list = value as? [Any], let items = schema["items"] as? [String: Any] else { return "\(place): no list" }
        for (index, item) in list.enumerated() {
            if let found = mismatch(item, items, document, at: "\(place)[\(index)]") { return found }
        }
    case "object":
        guard let object = value as? [String: Any] else { return "\(place): no object" }
        let properties = schema["properties"] as? [String: [String: Any]] ?? [:]
        for name in schema["required"] as? [String] ?? [] where object[name] == nil { return "\(place).\(name): missing" }
        for (name, member) in object {
            guard let of = properties[name] ?? schema["additionalProperties"] as? [String: Any] else {
                return "\(place).\(name): not in the schema"
            }
            if let found = mismatch(member, of, document, at: "\(place).\(name)") { return found }
        }
    default: return "\(place): schema without a type"
    }
    return nil
}

extension EndToEnd.ControlSocketTests {
    private func request(_ method: String, _ path: String, body: String = "") -> String {
        "\(method) \(path) HTTP/1.1\r\nHost: fpx\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
    }

    @Test func theDocumentMatchesWhatIsServed() throws {
        let daemon = try DaemonControl()
        func ask(_ method: String, _ path: String, body: String = "") throws -> Answer {
            try #require(
                Answer(try RawConnection.ask(daemon.controlSocket, request(method, path, body: body))), "\(method) \(path)")
        }
        let document = try #require(try ask("GET", "/v1/openapi.json").json as? [String: Any])
        let paths = try #require(document["paths"] as? [String: [String: [String: Any]]])
        #expect(paths.count >= 11)
        for (path, operations) in paths {
            for (method, operation) in operations {
                let body =
                    switch (method, path) {
                    case ("patch", "/v1/config"): #"{"path":"system global","set":{"log-level":"debug"}}"#
                    case ("post", "/v1/license/replace_stolen_key"): #"{"stolen":"k1","kid":"k2","pem":""}"#
                    default: ""
                    }
                let answer = try ask(
                    method.uppercased(), path.replacing("{id}", with: "8000000000000001").replacing("{serial}", with: "FPX9"),
                    body: body)
                let responses = try #require(operation["responses"] as? [String: [String: Any]])
                let response = try #require(responses[answer.status == 200 ? "200" : "default"])
                let content = response["content"] as? [String: [String: [String: Any]]]
                let schema = try #require(content?["application/json"]?["schema"])
                #expect(mismatch(answer.json, schema, document) == nil, "\(method) \(path)")
                // No session has that id, there is no authority to ask, and nothing is shared; everything else must work.
                let isAway =
                    ["/v1/license/renew", "/v1/license/replace_stolen_key"].contains(path) || path.contains("{serial}")
                let status = path.contains("{id}") ? 404 : isAway ? 503 : 200
                #expect(answer.status == status, "\(method) \(path)")
                let other = operations.keys.contains("put") ? "GET" : "PUT"
                if !path.contains("{") { #expect(try ask(other, path).status == 405, "\(other) \(path)") }
            }
        }
    }

    @Test func wrongRequestsGetTheOneErrorForm() throws {
        let daemon = try DaemonControl()
        for (text, status, code) in [
            (request("GET", "/"), 404, "not_found"), (request("GET", "/v2/status"), 404, "not_found"),
            (request("GET", "/v1/../../etc/passwd"), 404, "not_found"),
            (request("DELETE", "/v1/status"), 405, "method_not_allowed"),
            (request("GET", "/v1/sessions?limit=0"), 422, "invalid_value"),
            (request("GET", "/v1/sessions?limit=99999999999999999999"), 422, "invalid_value"),
            (request("GET", "/v1/sessions?limit=ten"), 422, "invalid_value"),
            (request("GET", "/v1/sessions?count=1"), 400, "bad_request"),
            (request("DELETE", "/v1/sessions/xyz"), 422, "invalid_value"),
            // A script that has no id must not end all sessions.
            (request("DELETE", "/v1/sessions/"), 404, "not_found"), (request("DELETE", "//v1/sessions"), 404, "not_found"),
            (request("DELETE", "/v1//sessions"), 404, "not_found"), (request("GET", "/v1/status/"), 404, "not_found"),
            (request("PATCH", "/v1/config"), 400, "bad_request"),
            (request("PATCH", "/v1/config", body: "{"), 400, "bad_request"),
            (request("PATCH", "/v1/config", body: "[]"), 400, "bad_request"),
            (request("PATCH", "/v1/config", body: #"{"path":"system global"}"#), 400, "bad_request"),
            (request("PATCH", "/v1/config", body: #"{"path":"system global","set":{},"unsett":[]}"#), 400, "bad_request"),
            (request("PATCH", "/v1/config", body: #"{"path":"system global","set":{"log-level":1}}"#), 400, "bad_request"),
            (request("PATCH", "/v1/config", body: #"{"path":"system nothing","set":{}}"#), 404, "not_found"),
            (
                request("PATCH", "/v1/config", body: #"{"path":"system global","set":{"log-levle":"info"}}"#), 422,
                "invalid_value"
            ),
            (request("PATCH", "/v1/config", body: #"{"path":"system global","set":{"segment":"/x"}}"#), 422, "invalid_value"),
            (request("PATCH", "/v1/config", body: String(repeating: " ", count: 70_000)), 413, "too_large"),
        ] {
            let answer = try #require(Answer(try RawConnection.ask(daemon.controlSocket, text)), "\(text.prefix(80))")
            #expect(answer.status == status, "\(text.prefix(80))")
            #expect(answer.errorCode == code, "\(text.prefix(80))")
        }
        #expect(try daemon.fpx("show", "full", "system", "global").contains("log-level info"), "nothing was changed")
    }

    /// Whatever comes, the daemon answers in the one form or closes, and goes on.
    @Test func malformedHTTPHarmsNobody() throws {
        let daemon = try DaemonControl()
        let seed = testSeed()
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        var texts = [
            "\r\n\r\n", "GET\r\n\r\n", "GET /v1/status\r\n\r\n", "GET /v1/status HTTP/9.9\r\n\r\n",
            "get /v1/status http/1.1\r\n\r\n",
            "GET /v1/status HTTP/1.1\r\nHost fpx\r\n\r\n", "GET /v1/status HTTP/1.1\r\n: x\r\n\r\n",
            "POST /v1/commit HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            "POST /v1/commit HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST /v1/commit HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            "POST /v1/commit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
            "POST /v1/commit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "GET /\(String(repeating: "a", count: 100_000)) HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\n\(String(repeating: "a: b\r\n", count: 20_000))\r\n",
            "GET / HTTP/1.1\r\nX: \(String(repeating: "y", count: 1_000_000))\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ].map { Array($0.utf8) }
        let valid = Array(request("PATCH", "/v1/config", body: #"{"path":"system global","set":{"log-level":"info"}}"#).utf8)
        for _ in 0..<200 {
            var mutated = valid
            for _ in 0...Int.random(in: 0..<4, using: &random) {
                mutated[Int.random(in: 0..<mutated.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            texts.append(mutated)
        }
        let connections = try texts.map { text in
            let connection = try RawConnection(daemon.controlSocket)
            connection.send(text)
            return connection
        }
        // A request that can still become whole is waited for, but not when its sender says that nothing more comes.
        let patience = ContinuousClock.now + .seconds(2)
        for (text, connection) in zip(texts, connections) {
            if !connection.isReadable(by: patience) { connection.finish() }
            let request = "\(String(decoding: text.prefix(100), as: UTF8.self)), seed \(seed)"
            let received = try #require(connection.receive(), "\(request): neither answered nor closed")
            if received.isEmpty { continue }
            let answer = try #require(Answer(received), "\(request): \(received)")
            // A change can have made another request that makes sense.
            #expect(answer.status == 200 || answer.errorCode != nil, "\(request): \(received)")
        }
        #expect(try daemon.ask("get", "system", "status").status == 0, "\(daemon.log)")
    }

    @Test func slowClientsAreCutOff() throws {
        let daemon = try DaemonControl()
        let start = ContinuousClock.now
        let body = try RawConnection(daemon.controlSocket)
        body.send("PATCH /v1/config HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        let answer = try #require(body.receive().flatMap(Answer.init), "a body that does not come is answered")
        #expect(answer.status == 408)
        #expect(answer.errorCode == "timeout")
        #expect(ContinuousClock.now - start >= .seconds(9))
    }

    @Test func twoHundredClientsAtOnce() throws {
        let daemon = try DaemonControl()
        // Idle ones are in nobody's way.
        let idle = try (0..<100).map { _ in try RawConnection(daemon.controlSocket) }
        let done = Atomic(0)
        let clients = (0..<200).map { _ in
            BackgroundThread { _ in
                for path in ["/v1/status", "/v1/seats", "/v1/sessions/stats"] {
                    let text = (try? RawConnection.ask(daemon.controlSocket, "GET \(path) HTTP/1.1\r\nHost: x\r\n\r\n")) ?? ""
                    if Answer(text)?.status == 200 { done.add(1, ordering: .relaxed) }
                }
            }
        }
        for client in clients { client.stop() }
        #expect(done.load(ordering: .relaxed) == 600)
        withExtendedLifetime(idle) {}
    }

    @Test(.enabled(if: geteuid() == 0, "needs root, to become somebody else"))
    func unknownPeersAreRefused() throws {
        let daemon = try DaemonControl()
        let fpx = daemon.folder.path + "/fpx"
        try FileManager.default.copyItem(atPath: try Programs.path("fpx"), toPath: fpx)
        func asNobody(_ words: String...) throws -> (status: Int32, output: String) {
            try run(
                "/usr/bin/setpriv",
                ["--reuid", "65534", "--regid", "65534", "--clear-groups", fpx, "--socket", daemon.controlSocket] + words)
        }
        let closed = try asNobody("get", "system", "status")
        #expect(closed.status == 3)
        #expect(closed.output.contains("no permission"), "\(closed)")
        // With the door wide open whoever comes may ask, and change nothing.
        chmod(daemon.home + "/run", 0o755)
        chmod(daemon.controlSocket, 0o666)
        #expect(try asNobody("get", "system", "status").status == 0)
        let refused = try asNobody("config", "system", "global", "set", "license-overlimit", "block", "end")
        #expect(refused.status == 1)
        #expect(refused.output.contains("found user 65534"), "\(refused)")
        #expect(try asNobody("commit").status == 1)
        #expect(try daemon.fpx("show", "full", "system", "global").contains("license-overlimit bypass"))
        // A member of the group may.
        let member = try run(
            "/usr/bin/setpriv",
            ["--reuid", "65534", "--regid", "www-data", "--clear-groups", fpx, "--socket", daemon.controlSocket, "commit"])
        #expect(member.status == 0, "\(member)")
    }
}
