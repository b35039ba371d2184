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
