import Admission
import Foundation
import Testing

extension EndToEnd {
    /// What an operator writes.
    @Suite struct NGINXConfiguration {}
}

extension EndToEnd.NGINXConfiguration {
    /// `nginx -t` of a configuration with these directives in the given block.
    private func check(_ block: String, _ directives: String) throws -> (status: Int32, output: String) {
        let folder = try TemporaryFolder()
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map { "\($0)_temp_path \(folder.path)/\($0);" }
        try folder.write(
            """
            \(NGINX.loadModules())
            pid \(folder.path)/pid;
            error_log stderr;
            events {}
            \(block) { \(block == "http" ? temporary.joined() : "") \(directives) }
            """, to: "nginx.conf")
        return try run(NGINX.program, ["-t", "-p", folder.path, "-c", "\(folder.path)/nginx.conf"])
    }

    @Test(
        arguments: ["http", "stream"],
        [
            ("fpx yes;", #"invalid value "yes" in "fpx" directive, it must be "on" or "off""#),
            ("fpx on off;", #"invalid number of arguments in "fpx" directive"#),
            (
                "fpx_pool gold;",
                #"directive "fpx_pool": found "gold", expected furl, fnbi, fcas, or the number of a pool, 0 to 15"#
            ),
            ("fpx_pool 16;", #"directive "fpx_pool": found "16", expected furl, fnbi, fcas, or the number of a pool, 0 to 15"#),
            ("fpx_pool -1;", #"directive "fpx_pool": found "-1", expected furl"#),
            ("fpx_pool furl; fpx_pool fcas;", #""fpx_pool" directive is duplicate"#),
            ("fpx_fail maybe;", #"directive "fpx_fail": found "maybe", expected open or closed"#),
            ("fpx_fail open; fpx_fail open;", #""fpx_fail" directive is duplicate"#),
            (
                "fpx_segment run/segment;",
                #"directive "fpx_segment": found "run/segment", expected an absolute path such as /dev/shm/fpx/segment"#
            ),
            ("fpx_segment /a; fpx_segment /b;", #""fpx_segment" directive is duplicate"#),
            ("server { fpx_segment /a; }", #""fpx_segment" directive is not allowed here"#),
        ])
    func wrongDirectivesAreNamed(_ block: String, _ wrong: (directives: String, expected: String)) throws {
        let result = try check(block, wrong.directives)
        #expect(result.status != 0)
        #expect(result.output.contains(wrong.expected), "\(result.output)")
    }

    @Test(
        arguments: ["http", "stream"],
        [
            "fpx on; fpx_segment /dev/shm/fpx/segment; fpx_pool fnbi; fpx_fail closed;", "fpx_pool 15; fpx_fail open;",
            "fpx off;",
        ])
    func rightDirectivesPass(_ block: String, _ directives: String) throws {
        let result = try check(block, directives)
        #expect(result.status == 0, "\(result.output)")
    }

    @Test func locationsChooseTheirPool() throws {
        let control = try DaemonControl(cap: 1)
        var settings = NGINXSettings()
        settings.httpServer = """
            fpx on;
            location /isolated { fpx_pool fnbi; proxy_pass http://$fpx_verdict; }
            location /health { fpx off; return 200 "verdict=$fpx_verdict."; }
            """
        let nginx = try NGINX(segment: control.segmentPath, settings)
        let client = try nginx.open(.http, idle: true)
        #expect(client.outcome == .inspect)
        // Pool fnbi has a cap of 0 here; furl's session of the same connection goes on.
        #expect(try body(of: "/isolated", over: client) == "bypass")
        #expect(try body(of: "/health", over: client) == "verdict=.")
        #expect(try client.request() == .inspect)
        #expect(try control.figures() == Figures(inUse: 1, bypassed: 0, workers: 1))
    }

    @Test func verdictIsTheSameWhoeverReadsItFirst() throws {
        let control = try DaemonControl(cap: 1, policy: .block)
        var settings = NGINXSettings()
        settings.http = "map $fpx_verdict $class { inspect gold; bypass silver; block none; }"
        // Read by the rewrite phase, by a map, and by a header after admission; an error page is served to the refused.
        settings.httpServer = """
            fpx on;
            set $early $fpx_verdict;
            error_page 503 /refused;
            add_header X-Verdict "$early $fpx_verdict $class" always;
            location = /refused { proxy_pass http://bypass/; }
            location = /told { proxy_pass http://$fpx_verdict/; }
            """
        let nginx = try NGINX(segment: control.segmentPath, settings)
        let first = try Socket.connected(to: nginx.httpPort)
        #expect(try answer(to: "/told", over: first).contains("X-Verdict: inspect inspect gold"))
        let second = try Socket.connected(to: nginx.httpPort)
        let refused = try answer(to: "/told", over: second)
        #expect(refused.hasPrefix("HTTP/1.1 503 "))
        #expect(refused.contains("X-Verdict: block block none") && refused.hasSuffix("bypass"))
        #expect(try control.figures() == Figures(inUse: 1, bypassed: 0, workers: 1))
    }

    @Test func accessLogsStartNoSession() throws {
        let control = try DaemonControl(cap: 1)
        var settings = NGINXSettings()
        settings.http = "log_format verdict $uri=$fpx_verdict;"
        settings.httpServer = "fpx on; access_log access.log verdict; location = /moved { return 204; }"
        let nginx = try NGINX(segment: control.segmentPath, settings)
        // Answered before admission: no verdict, and no session, though the connection stays.
        let client = try Socket.connected(to: nginx.httpPort)
        #expect(try answer(to: "/moved", over: client).hasPrefix("HTTP/1.1 204 "))
        expectEventually("the request is logged") { nginx.folder.read("access.log").contains("/moved=") }
        #expect(try control.figures().inUse == 0)
        #expect(try answer(to: "/", over: client).hasSuffix("inspect"))
        expectEventually("the request is logged") { nginx.folder.read("access.log").contains("/=") }
        #expect(nginx.folder.read("access.log") == "/moved=-\n/=inspect\n")
        #expect(try control.figures().inUse == 1)
    }

    private func body(of path: String, over client: Client) throws -> String {
        try String(answer(to: path, over: client.socket).split(separator: "\r\n").last ?? "")
    }

    /// A whole answer that comes in one piece.
    private func answer(to path: String, over socket: Socket) throws -> String {
        try socket.send("GET \(path) HTTP/1.1\r\nHost: test\r\n\r\n")
        var received: [UInt8] = []
        while true {
            received += try socket.receive()
            var copy = received
            if Message.take(from: &copy) != nil { return String(decoding: received, as: UTF8.self) }
        }
    }
}
