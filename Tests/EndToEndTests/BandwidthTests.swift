import Admission
import ControlAPI
import Foundation
import Testing

@testable import fpxd

extension EndToEnd {
    /// Bytes that sessions carry: every one is counted once, while it flows, and the daemon tells how fast they are.
    @Suite struct Bandwidth {}
}

/// nginx with a file to fetch, and what was counted since a moment.
private struct Site {
    static let fileBytes = 8_000_000

    let control: DaemonControl
    let nginx: NGINX
    /// Over stream, to an http server that meters nothing itself.
    let streamPort: UInt16
    private let files: TemporaryFolder
    private let observer: Segment

    init(cap: Int = 3, policy: OverLimitPolicy = .bypass, httpListen: String = "", locations: String = "") throws {
        control = try DaemonControl(cap: cap, policy: policy)
        files = try TemporaryFolder()
        try files.write(String(repeating: "x", count: Site.fileBytes), to: "file")
        try files.write("it is not there", to: "missing.html")
        streamPort = try Socket.freePort()
        let plainPort = try Socket.freePort()
        nginx = try NGINX(
            segment: control.segmentPath,
            NGINXSettings(
                http: "server { listen 127.0.0.1:\(plainPort); root \(files.path); }",
                httpServer: """
                    fpx on;
                    error_page 404 /missing.html;
                    location = /file { alias \(files.path)/file; }
                    location = /none { alias \(files.path)/none; }
                    location = /missing.html { root \(files.path); }
                    \(locations)
                    """,
                stream: "fpx on; server { listen 127.0.0.1:\(streamPort); proxy_pass 127.0.0.1:\(plainPort); }",
                httpListen: httpListen))
        observer = try control.attach()
    }

    func port(_ face: Face) -> UInt16 { face == .http ? nginx.httpPort : streamPort }

    func traffic() throws -> Traffic { try observer.pool(0).traffic() }

    /// Waits until exactly so much has been counted.
    func expect(_ bytesIn: Int, _ bytesOut: Int, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let expected = Traffic(bytesIn: UInt64(bytesIn), bytesOut: UInt64(bytesOut))
        var found = Traffic()
        let came = try eventually(within: 5) {
            found = try traffic()
            return found == expected
        }
        #expect(came, "found \(found), expected \(expected)", sourceLocation: sourceLocation)
    }
}

extension Socket {
    /// Sends a request, and returns how many bytes that were.
    fileprivate func ask(_ line: String, headers: String = "", body: Int = 0) throws -> Int {
        let request = "\(line) HTTP/1.1\r\nHost: test\r\n\(headers)\r\n" + String(repeating: "y", count: body)
        try send(request)
        return request.utf8.count
    }

    /// Receives one response and returns its size. `head`: it has no body, whatever it says.
    fileprivate func response(head: Bool = false) throws -> Int {
        var received: [UInt8] = []
        var end: Int?
        while true {
            if end == nil, let blank = received.firstRange(of: Array("\r\n\r\n".utf8)) {
                let text = String(decoding: received[..<blank.lowerBound], as: UTF8.self)
                let length = try #require(text.firstMatch(of: /content-length: (\d+)/.ignoresCase()).flatMap { Int($0.1) })
                end = blank.upperBound + (head ? 0 : length)
            }
            if let end, received.count >= end { return received.count }
            let bytes = try receive()
            if bytes.isEmpty { throw SocketError.closed(after: "\(received.count) bytes") }
            received += bytes
        }
    }
}

// MARK: - nginx

extension EndToEnd.Bandwidth {
    /// A download counts while it goes on: the client takes none of it at first.
    @Test(arguments: Face.allCases) func downloadsCountAsTheyFlow(_ face: Face) throws {
        let site = try Site()
        let socket = try Socket.connected(to: site.port(face))
        let asked = try socket.ask("GET /file")
        try expectEventually("what the kernel took is counted") { try site.traffic().bytesOut > 10_000 }
        #expect(try site.traffic().bytesOut < UInt64(Site.fileBytes))
        let size = try socket.response()
        #expect(size > Site.fileBytes && size < Site.fileBytes + 1000)
        try site.expect(asked, size)
        socket.close()
        try expectEventually("the session ends") { try site.control.figures().inUse == 0 }
        try site.expect(asked, size)
    }

    @Test(arguments: Face.allCases) func uploadsCountAsTheyFlow(_ face: Face) throws {
        let site = try Site()
        let socket = try Socket.connected(to: face == .http ? site.nginx.httpPort : site.nginx.port(.stream))
        let (whole, half) = (4_000_000, 2_000_000)
        var sent = try face == .http ? socket.ask("POST /", headers: "Content-Length: \(whole)\r\n") : 0
        try socket.send(String(repeating: "y", count: half))
        sent += half
        // At most a buffer or two of it are on their way.
        try expectEventually("half of it is counted") { try site.traffic().bytesIn > UInt64(half - 65536) }
        #expect(try site.traffic().bytesIn <= UInt64(sent))
        try socket.send(String(repeating: "y", count: whole - half))
        sent += whole - half
        let size = try face == .http ? socket.response() : "inspect\n".utf8.count
        try site.expect(sent, size)
        socket.close()
        try expectEventually("the session ends") { try site.control.figures().inUse == 0 }
        try site.expect(sent, size)
    }

    /// Requests of one connection: with bodies and without, answered here or there, redirected inside.
    @Test func everyByteOfAConnectionCountsOnce() throws {
        let site = try Site()
        let socket = try Socket.connected(to: site.nginx.httpPort)
        var (sent, received) = (0, 0)
        for _ in 1...3 {
            for (line, headers, body, head) in [
                ("GET /", "", 0, false), ("HEAD /file", "", 0, true), ("GET /none", "", 0, false),
                ("POST /", "Content-Length: 70000\r\n", 70000, false), ("GET /file", "Range: bytes=0-999\r\n", 0, false),
            ] {
                sent += try socket.ask(line, headers: headers, body: body)
                received += try socket.response(head: head)
            }
        }
        try site.expect(sent, received)
        // Two at once: what has come of the second one belongs to it.
        sent += try socket.ask("POST /", headers: "Content-Length: 9\r\n", body: 9) + socket.ask("GET /")
        let two = "HTTP/1.1 200 OK"
        var bytes: [UInt8] = []
        while String(decoding: bytes, as: UTF8.self).components(separatedBy: two).count < 3
            || String(decoding: bytes, as: UTF8.self).components(separatedBy: "inspect").count < 3
        {
            bytes += try socket.receive()
        }
        try site.expect(sent, received + bytes.count)
    }

    /// Bypassed sessions count as well; refused ones, and places without fpx, do not.
    @Test func bypassedCountsAndRefusedDoesNot() throws {
        let site = try Site(cap: 1, locations: "location = /off { fpx off; alias /etc/hostname; }")
        let holder = try site.nginx.open(.http, idle: true)
        #expect(holder.outcome == .inspect)
        try expectEventually("the holder's request is counted to its end") { try site.traffic().bytesIn > 0 }
        let before = try site.traffic()
        for face in Face.allCases {
            let start = try site.traffic()
            let socket = try Socket.connected(to: site.port(face))
            let sent = try socket.ask("GET /file")
            let size = try socket.response()
            #expect(try site.control.figures().bypassed == 1)
            try site.expect(Int(start.bytesIn) + sent, Int(start.bytesOut) + size)
            socket.close()
            try expectEventually("it ends") { try site.control.figures().bypassed == 0 }
        }
        let after = try site.traffic()
        #expect(after.bytesOut > before.bytesOut + UInt64(2 * Site.fileBytes))
        try site.control.set(policy: .block)
        #expect(try site.nginx.open(.http).outcome == .refused)
        let socket = try Socket.connected(to: site.nginx.httpPort)
        _ = try socket.ask("GET /off")
        _ = try socket.response()
        #expect(try site.traffic() == after)
    }

    /// Frames and compressed headers count; nothing else comes on top.
    @Test func http2() throws {
        let site = try Site(httpListen: "http2")
        let (status, output) = try run(
            "/usr/bin/curl",
            [
                "-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_version} %{size_download}",
                "http://127.0.0.1:\(site.nginx.httpPort)/file",
            ])
        #expect(status == 0 && output == "2 \(Site.fileBytes)")
        try expectEventually("all is counted") { try site.traffic().bytesOut > UInt64(Site.fileBytes) }
        let traffic = try site.traffic()
        #expect(traffic.bytesOut < UInt64(Site.fileBytes + Site.fileBytes / 100))
        #expect(traffic.bytesIn > 10 && traffic.bytesIn < 1000)
    }

    /// An upgraded connection goes past nginx' filters, and counts at its end.
    @Test func anUpgradedConnection() throws {
        let server = try Socket.listening()
        let site = try Site(
            locations: """
                location /socket {
                    proxy_pass http://127.0.0.1:\(try server.port());
                    proxy_http_version 1.1;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection upgrade;
                }
                """)
        let client = try Socket.connected(to: site.nginx.httpPort)
        let asked = try client.ask("GET /socket", headers: "Upgrade: test\r\nConnection: upgrade\r\n")
        let peer = try #require(server.accept())
        _ = try peer.receive()
        try peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: test\r\nConnection: upgrade\r\n\r\n")
        func move(_ count: Int, from: Socket, to: Socket) throws -> Int {
            var bytes = 0
            for _ in 0..<(count / 10_000) {
                try from.send(String(repeating: "z", count: 10_000))
                var rest = 10_000
                while rest > 0 {
                    let came = try to.receive().count
                    bytes += came
                    rest -= came
                }
            }
            return bytes
        }
        // The response's header comes before the first bytes.
        var header: [UInt8] = []
        while header.firstRange(of: Array("\r\n\r\n".utf8)) == nil { header += try client.receive() }
        let up = try move(500_000, from: client, to: peer)
        let down = try move(300_000, from: peer, to: client)
        #expect(up == 500_000 && down == 300_000)
        client.close()
        try expectEventually("the session ends") { try site.control.figures().inUse == 0 }
        let traffic = try site.traffic()
        #expect(traffic.bytesOut == UInt64(header.count + down))
        #expect(abs(Int(traffic.bytesIn) - up - asked) < 200)
    }

    /// What a killed worker has reported stays counted.
    @Test func aKilledWorkersBytesStay() throws {
        let site = try Site()
        let socket = try Socket.connected(to: site.nginx.httpPort)
        let sent = try socket.ask("GET /file")
        let size = try socket.response()
        try site.expect(sent, size)
        for _ in 1...3 {
            let old = try site.nginx.workers()
            try site.nginx.killWorkers()
            try expectEventually("a new worker") {
                let now = try site.nginx.workers()
                return now.count == 1 && now != old
            }
            #expect(try site.traffic() == Traffic(bytesIn: UInt64(sent), bytesOut: UInt64(size)))
        }
    }
}

// MARK: - HAProxy

extension EndToEnd.Bandwidth {
    /// haproxy tells at the end of a stream what it has carried.
    @Test func haproxyTellsAtTheEnd() throws {
        let control = try DaemonControl()
        let haproxy = try HAProxy(agent: control.runFolder)
        let observer = try control.attach()
        let stream = try haproxy.open(.stream)
        #expect(stream.outcome == .inspect)
        try stream.socket.send(String(repeating: "y", count: 100_000))
        stream.socket.close()
        let expected = Traffic(bytesIn: 100_000, bytesOut: UInt64("inspect\n".utf8.count))
        try expectEventually("the stream's bytes are counted") { try observer.pool(0).traffic() == expected }
        let web = try Socket.connected(to: haproxy.httpPort)
        let sent = try web.ask("POST /", headers: "Content-Length: 50000\r\n", body: 50000)
        let received = try web.response()
        try expectEventually("the request's bytes are counted") { try observer.pool(0).traffic().bytesOut > expected.bytesOut }
        let more = try observer.pool(0).traffic().growth(since: expected)
        #expect(abs(Int(more.bytesIn) - sent) < 200 && abs(Int(more.bytesOut) - received) < 200)
        #expect(try control.counters()["unmetered"] == 0)
    }
}

// MARK: - fpxd

extension EndToEnd.Bandwidth {
    /// Nothing is metered against a licence of 0 mbits; under one of 1 mbits the same traffic raises an event, and its end another.
    @Test func speedAndEvents() throws {
        let site = try Site()
        try site.control.sign(cap: 3, "--bandwidth", "0")
        _ = try site.control.fpx("commit")
        let socket = try Socket.connected(to: site.nginx.httpPort)
        _ = try socket.ask("GET /file")
        let size = try socket.response()
        func performance() throws -> PerformanceReport {
            let text = try site.control.fpx("get", "system", "performance", "status", "--json")
            return try ControlJSON.decoder().decode(PerformanceReport.self, from: Data(text.utf8))
        }
        // All of it came within the last ten seconds.
        try expectEventually("the speed is told") { abs(try performance().speed.bitsOut - size * 8 / 10) < size * 8 / 500 }
        #expect(try performance().windows.allSatisfy { $0.averageSpeed.bitsOut > 0 })
        let text = try site.control.fpx("get", "system", "performance", "status")
        #expect(text.contains(#/\nCurrent network usage: 0\.0 / 6\.[34] mbits in 10 seconds\n/#), "\(text)")
        #expect(text.contains(#/\nAverage network usage: \d+ / \d\d+ kbps in 1 minute, /#), "\(text)")
        func events() throws -> [Substring] {
            try site.control.fpx("get", "system", "events").split(separator: "\n").filter { $0.contains("  Bandwidth: ") }
        }
        #expect(try events() == [])
        try site.control.sign(cap: 3, "--bandwidth", "1")
        _ = try site.control.fpx("commit")
        try expectEventually("an event") { try !events().isEmpty }
        let over = try #require(try events().first)
        #expect(over.contains("  warning  limit "))
        let sentence = /Bandwidth: 0\.0 mbits in, 6\.[34] mbits out over 10 seconds, more than the licensed 1 mbits$/
        #expect(over.contains(sentence), "\(over)")
        let isOver = try eventually(within: 20) { try events().count == 2 }
        #expect(isOver)
        let below = try #require(try events().last)
        #expect(below.contains("  info     limit "))
        #expect(below.hasSuffix("  Bandwidth: 0.0 mbits in, 0.0 mbits out over 10 seconds, within the licensed 1 mbits again"))
        #expect(try performance().speed == PerformanceReport.Speed(bitsIn: 0, bitsOut: 0))
    }

    @Test func watchIsQuietAroundTheLimit() {
        typealias Speed = PerformanceReport.Speed
        var watch = BandwidthWatch()
        let start = ContinuousClock.now
        func judge(_ bitsIn: Int, _ bitsOut: Int, after seconds: Int, licensed: Int = 2) -> BandwidthWatch.News? {
            watch.judge(Speed(bitsIn: bitsIn, bitsOut: bitsOut), licensed: licensed, now: start + .seconds(seconds))
        }
        #expect(judge(2_000_000, 2_000_000, after: 0) == nil, "the limit itself is licensed")
        #expect(judge(2_000_001, 0, after: 1) == .over)
        #expect(judge(9_000_000, 9_000_000, after: 2) == nil)
        #expect(judge(0, 1_900_000, after: 3) == nil, "not below by a twentieth")
        #expect(judge(1_899_999, 1_899_999, after: 4) == .below)
        #expect(judge(0, 3_000_000, after: 60) == nil, "within a minute")
        #expect(judge(0, 3_000_000, after: 61) == .over)
        #expect(judge(0, 3_000_000, after: 200) == nil)
        #expect(judge(0, 3_000_000, after: 201, licensed: 0) == nil)
        #expect(judge(0, 0, after: 202) == nil, "nothing is metered any more, so nothing is below")
        #expect(judge(0, .max, after: 203) == .over)
        #expect(judge(0, .max, after: 204, licensed: .max) == nil)
        #expect(judge(.max, .max, after: 300, licensed: .max) == nil)
        #expect(judge(0, 0, after: 301, licensed: .max) == .below)
    }

    /// Processes come, report and go between two samples, die, and are followed by others in the same slot.
    @Test func theSamplerNeverGoesBackward() throws {
        let path = newSegmentPath()
        try Segment.create(path: path)
        defer { unlink(path) }
        let segment = try Segment.attach(path: path)
        defer { segment.detach() }
        let host = HostSegment(segment, former: [], pools: 3, maker: .init(make: { throw CancellationError() }, publish: {}))
        let pools = host.hostPools
        try pools[1].report(bytesIn: 777, out: 777)
        var now = ContinuousClock.now
        let sampler = Sampler(pools: pools, at: now)
        func sample(after seconds: Int = 1) -> PerformanceReport.Speed {
            now += .seconds(seconds)
            sampler.sample(at: now)
            return sampler.speed()
        }
        #expect(sample() == .init(bitsIn: 0, bitsOut: 0), "what was there before is not of now")
        for round in 1...5 {
            let worker = try Segment.attach(path: path)
            try worker.pool(round % 3).report(bytesIn: 1000, out: 50_000)
            if round == 2 { #expect(sample() == .init(bitsIn: 2 * 800, bitsOut: 2 * 40_000)) }
            worker.detach()
        }
        #expect(sample() == .init(bitsIn: 5 * 800, bitsOut: 5 * 40_000))
        for _ in 1...8 { #expect(sample() == .init(bitsIn: 5 * 800, bitsOut: 5 * 40_000)) }
        // The first two rounds' sample is the eleventh now.
        #expect(sample() == .init(bitsIn: 3 * 800, bitsOut: 3 * 40_000))
        #expect(sample() == .init(bitsIn: 0, bitsOut: 0))
        // After a pause of the machine the average is over all of it.
        try pools[0].report(bytesIn: 0, out: 1_000_000)
        #expect(sample(after: 91) == .init(bitsIn: 0, bitsOut: 80_000))
        try pools[0].report(bytesIn: Limits.report, out: Limits.report)
        #expect(sample().bitsOut > 1 << 46)
        let report = sampler.report(uptimeSeconds: 1)
        #expect(report.windows.map(\.minutes) == [1, 10, 30])
        #expect(report.windows.allSatisfy { $0.averageSpeed.bitsOut > 1 << 42 })
    }
}
