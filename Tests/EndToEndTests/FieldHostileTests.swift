import Foundation
import TestSupport
import Testing

extension EndToEnd {
    /// Whoever answers in the authority's place, floods the servers with connections, or sends them what is expensive to read.
    @Suite struct FieldHostile {
        /// CPU seconds that a process has used.
        private static func used(_ process: pid_t) -> Double {
            guard let stat = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8),
                let name = stat.lastIndex(of: ")")
            else { return 0 }
            let fields = stat[name...].dropFirst(2).split(separator: " ")
            return (Double(fields[11]) ?? 0) / 100 + (Double(fields[12]) ?? 0) / 100
        }

        private static func base64URL(_ text: String) -> String {
            Data(text.utf8).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
        }

        /// Lists in one another, side by side, of 53 KB with all that is around them.
        private static var lists: String {
            let list = String(repeating: "[", count: 500) + String(repeating: "]", count: 500)
            return #"{"alg":"EdDSA","kid":"test","typ":"fpx-answer+jwt","a":["#
                + Array(repeating: list, count: 38).joined(separator: ",") + "]}"
        }

        /// Something in the authority's place, with its certificate: what it says nobody has signed.
        @Test(arguments: ["header", "payload"])
        func anAnswerThatIsExpensiveToRead(_ part: String) throws {
            let parts =
                part == "header"
                ? [Self.lists, "{}"] : [#"{"alg":"EdDSA","kid":"test","typ":"fpx-answer+jwt"}"#, Self.lists]
            let token = (parts.map(Self.base64URL) + [String(repeating: "A", count: 86)]).joined(separator: ".")
            let folder = try TemporaryFolder()
            try folder.write(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\nFpx-Answer: \(token)\r\n\r\n{}", to: "answer")
            let certificates = try Certificates.shared.get()
            let authority = try ProxyProcess(
                [
                    "/usr/bin/python3", "-c",
                    """
                    import socket, ssl, sys
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(sys.argv[1], sys.argv[2])
                    answer = open(sys.argv[3], 'rb').read()
                    listener = socket.create_server(('127.0.0.1', 0))
                    print('port', listener.getsockname()[1], flush=True)
                    while True:
                        try:
                            with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                                connection.recv(65536)
                                connection.sendall(answer)
                                # What is left unread when a socket is closed resets the connection.
                                connection.settimeout(5)
                                while connection.recv(65536): pass
                        except OSError: pass
                    """, certificates.path("server.pem"), certificates.path("server.key"), folder.path + "/answer",
                ], output: folder.path + "/output")
            defer { withExtendedLifetime(authority) {} }
            try folder.write("key", to: "account")
            var port = ""
            expectEventually("the other authority listens") {
                port = folder.read("output").firstMatch(of: /port (\d+)\n/).map { String($0.1) } ?? ""
                return !port.isEmpty
            }
            let daemon = try DaemonControl()
            try daemon.end(by: SIGTERM)
            try """
            authority: https://localhost:\(port)
            account-key-file: \(folder.path)/account
            authority-ca: \(certificates.authority)

            """.write(toFile: daemon.home + "/fpxd.yaml", atomically: true, encoding: .utf8)
            try daemon.start()
            let process = try #require(daemon.processID)
            let before = Self.used(process)
            let (status, output) = try daemon.ask("--timeout", "20", "set", "renew_license")
            let used = Self.used(process) - before
            #expect(status == 1 && output.contains("found an answer that is not to be believed"), "\(output)")
            #expect(
                Field.row(
                    "daemon.8", "an answer of 53 KB, lists in one another in the \(part) of its seal",
                    expected: "refused within 2 s of CPU", found: used < 2 ? "refused within 2 s of CPU" : "\(used) s"))
            // While such answers come it can be told to stop.
            let asking = BackgroundThread { _ in _ = try? daemon.ask("set", "renew_license") }
            kill(process, SIGTERM)
            let hasEnded = eventually(within: 5) { kill(process, 0) != 0 || ProcessEntry.isZombie(process) }
            #expect(
                Field.row(
                    "daemon.8", "SIGTERM while such answers come", expected: "ends", found: hasEnded ? "ends" : "goes on"))
            if !hasEnded { kill(process, SIGKILL) }
            asking.stop()
        }

        @Test func bodiesOfTheControlSocket() throws {
            let daemon = try DaemonControl()
            let process = try #require(daemon.processID)
            let body = #"{"path":"system global","set":{},"unset":"# + String(repeating: "[", count: 65_000)
            let before = Self.used(process)
            let answer = Answer(
                try RawConnection.ask(
                    daemon.controlSocket,
                    "PATCH /v1/config HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"))
            let used = Self.used(process) - before
            let message = ((answer?.json as? [String: Any])?["error"] as? [String: String])?["message"] ?? ""
            #expect(
                Field.row(
                    "daemon.8", "a request of 65,000 brackets to the control socket",
                    expected: "body: found JSON of more than 16 levels, expected at most 16", found: message))
            #expect(used < 1)
        }
    }
}

extension EndToEnd.FieldHostile {
    /// Connections that ask nothing, held open by a process of another user, or of many addresses.
    private func idle(_ script: String, as user: [String] = [], count: Int) throws -> (ProxyProcess, TemporaryFolder) {
        let folder = try TemporaryFolder()
        let process = try ProxyProcess(
            user + [
                "/usr/bin/python3", "-c",
                """
                import socket, time, resource
                resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
                held = []
                for i in range(\(count)):
                    \(script)
                    held.append(s)
                print('held', flush=True)
                time.sleep(600)
                """,
            ], output: folder.path + "/output")
        expectEventually("\(count) connections are made: \(folder.read("output"))") { folder.read("output").contains("held") }
        return (process, folder)
    }

    private func seconds(_ body: () throws -> Void) rethrows -> Double {
        let start = ContinuousClock.now
        try body()
        return (ContinuousClock.now - start) / .seconds(1)
    }

    /// What a genuine request takes, to the row's words: no more than some seconds of a busy machine over what it takes alone.
    private func words(_ seconds: Double, alone: Double) -> String {
        seconds < max(1, 3 * alone) ? "at once" : "after \(Int(seconds)) s"
    }

    @Test(arguments: [
        ("1,000 idle connections from the unit's own address", 1000, "s = socket.create_connection(('127.0.0.1', PORT))"),
        (
            "1,000 idle connections from 50 addresses", 1000,
            "s = socket.create_connection(('127.0.0.1', PORT), source_address=('127.0.1.%d' % (i % 50 + 1), 0))"
        ),
    ])
    func idleConnectionsToTheAuthority(_ name: String, _ count: Int, _ script: String) throws {
        let authority = try AuthorityControl()
        let daemon = try DaemonControl(authority: authority)
        expectEventually("the first licence") { daemon.log.contains("We store license on disk") }
        let alone = try seconds { _ = try daemon.fpx("set", "renew_license") }
        let port = try #require(authority.flags[1].split(separator: ":").last)
        let held = try idle(script.replacing("PORT", with: String(port)), count: count)
        var status: Int32 = 0
        let took = try seconds { status = try daemon.ask("set", "renew_license").status }
        withExtendedLifetime(held) {}
        #expect(status == 0)
        #expect(
            Field.row(
                "daemon.9", "\(name) to the authority: a genuine unit renews", expected: "at once",
                found: words(took, alone: alone)))
        #expect(authority.log.contains("Too many connections"))
    }

    @Test(.enabled(if: geteuid() == 0, "needs root, to become somebody else"))
    func idleConnectionsToTheControlSocket() throws {
        let daemon = try DaemonControl()
        let fpx = daemon.folder.path + "/fpx"
        try FileManager.default.copyItem(atPath: try Programs.path("fpx"), toPath: fpx)
        chmod(daemon.home, 0o755)
        func user(_ id: Int) -> [String] {
            ["/usr/bin/setpriv", "--reuid", "\(id)", "--regid", "www-data", "--clear-groups"]
        }
        func ask(_ user: [String]) throws -> Int32 {
            let words = user + [fpx, "--socket", daemon.controlSocket, "get", "system", "status"]
            return try run(words[0], Array(words.dropFirst())).status
        }
        let alone = try seconds { _ = try ask(["/usr/bin/env"]) }
        let script = "s = socket.socket(socket.AF_UNIX); s.connect('\(daemon.controlSocket)')"
        // As many users as it takes to reach the limit of all.
        let held = try (0..<10).map { try idle(script, as: user(60_000 + $0), count: $0 == 0 ? 600 : 100) }
        for (name, user) in [("root", ["/usr/bin/env"]), ("another user", user(61_000)), ("the same user", user(60_000))] {
            var status: Int32 = 0
            let took = try seconds { status = try ask(user) }
            #expect(status == 0)
            #expect(
                Field.row(
                    "daemon.9", "1,500 idle connections of users of the group to the control socket: \(name) asks",
                    expected: "at once", found: words(took, alone: alone)))
        }
        // Nobody keeps root out, and root keeps no one out.
        let ours = try (0..<600).map { _ in try RawConnection(daemon.controlSocket) }
        var status: Int32 = 1
        let took = try seconds { status = try ask(["/usr/bin/env"]) }
        #expect(status == 0)
        #expect(
            Field.row(
                "daemon.9", "600 idle connections of root to the control socket: root asks", expected: "at once",
                found: words(took, alone: alone)))
        #expect(daemon.log.contains("Control socket: Too many connections"))
        withExtendedLifetime((held, ours)) {}
    }

    /// Who asks much and reads no answer holds a place no more than who asks nothing.
    @Test(.enabled(if: geteuid() == 0, "needs root, to become somebody else"))
    func answersThatNobodyReads() throws {
        let daemon = try DaemonControl()
        chmod(daemon.home, 0o755)
        let script =
            "s = socket.socket(socket.AF_UNIX); s.connect('\(daemon.controlSocket)'); "
            + "s.setblocking(False); s.send(b'GET /v1/openapi.json HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' * 200)"
        let user = ["/usr/bin/setpriv", "--reuid", "60000", "--regid", "www-data", "--clear-groups"]
        let held = try idle(script, as: user, count: 64)
        let fpx = daemon.folder.path + "/fpx"
        try FileManager.default.copyItem(atPath: try Programs.path("fpx"), toPath: fpx)
        var status: Int32 = 0
        let took = try seconds {
            status = try run(user[0], user.dropFirst() + [fpx, "--socket", daemon.controlSocket, "get", "system", "status"])
                .status
        }
        withExtendedLifetime(held) {}
        #expect(status == 0)
        #expect(
            Field.row(
                "daemon.9", "64 connections that read no answer to the control socket: the same user asks", expected: "at once",
                found: words(took, alone: 1)))
    }
}
