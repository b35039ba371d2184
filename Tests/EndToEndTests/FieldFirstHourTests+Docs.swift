// The first hour: what the documents say, followed to the letter.

import Admission
import Foundation
import TestSupport
import Testing

/// A document of this repository, or of an installation.
struct Document {
    static let sources = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..").standardized.path

    let path: String
    let text: String

    init(_ path: String, in root: String = sources) throws {
        self.path = root + "/" + path
        text = try String(contentsOfFile: self.path, encoding: .utf8)
    }

    /// Blocks between ``` of a language ("" for none).
    func blocks(_ language: String) -> [String] {
        text.matches(of: /(?ms)^```([a-z]*)\n(.*?)^```$/).filter { $0.1 == language }.map { String($0.2) }
    }

    /// The text without what is shown as it is.
    private var prose: String { text.replacing(/(?ms)^```.*?^```$/, with: "").replacing(/`[^`\n]*`/, with: "code") }

    /// Relative links, with their anchors.
    var links: [String] {
        prose.matches(of: /\]\(([^)\s]+)\)/).map { String($0.1) }.filter { !$0.contains(/^[a-z]+:/) }
    }

    /// What headings are called in links: lower case, blanks as `-`, other signs left out.
    var anchors: Set<String> {
        let headings = text.replacing(/(?ms)^```.*?^```$/, with: "").matches(of: /(?m)^#+ (.*)$/).map {
            String($0.1).lowercased()
        }
        return Set(
            headings.map { heading in
                String(
                    String.UnicodeScalarView(
                        heading.unicodeScalars.filter {
                            $0 == "-" || $0 == "_" || $0 == " " || $0.properties.isAlphabetic
                                || $0.properties.numericType != nil
                        })
                ).replacing(" ", with: "-")
            })
    }

    /// Links of all documents below a folder that lead nowhere.
    static func deadLinks(in root: String) throws -> [String] {
        let search = ["-name", ".?*", "-prune", "-o", "-name", "dist", "-prune", "-o", "-name", "*.md", "-printf", "%P\\n"]
        let names = try run("/usr/bin/find", [root] + search).output.split(separator: "\n").map(String.init)
        #expect(names.count > 10, "\(root): \(names)")
        var dead: [String] = []
        for name in names.sorted() {
            let document = try Document(name, in: root)
            for link in document.links {
                let parts = link.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
                let folder = (document.path as NSString).deletingLastPathComponent
                let target = parts[0].isEmpty ? document.path : folder + "/" + parts[0]
                var isThere = FileManager.default.fileExists(atPath: target)
                if isThere, parts.count > 1, target.hasSuffix(".md") {
                    let other = try Document((target as NSString).standardizingPath, in: "")
                    isThere = other.anchors.contains(parts[1])
                }
                if !isThere { dead.append("\(name): \(link)") }
            }
        }
        return dead
    }
}

extension EndToEnd.FieldFirstHour {
    private func row(_ situation: String, _ expected: String, _ found: String) {
        #expect(Field.row("first-hour.docs", situation, expected: expected, found: found))
    }

    private func told(_ dead: [String]) -> String { dead.isEmpty ? "none is dead" : dead.joined(separator: ", ") }

    @Test func everyLinkLeadsSomewhere() throws {
        row("links and anchors, in the sources", "none is dead", told(try Document.deadLinks(in: Document.sources)))
        let folder = try TemporaryFolder()
        let (status, output) = try run(
            "/usr/bin/env", ["make", "-s", "-C", Document.sources, "install-docs", "PREFIX=/opt/x", "DESTDIR=\(folder.path)"])
        #expect(status == 0, "\(output)")
        let installed = folder.path + "/opt/x/share/doc/fpx"
        row("links and anchors, as installed", "none is dead", told(try Document.deadLinks(in: installed)))
        let modules = folder.read("opt/x/share/doc/fpx/Integrations/nginx/fpx-modules.conf")
        #expect(modules.contains("load_module /opt/x/lib/nginx/ngx_http_fpx_module.so;"), "\(modules)")
    }

    /// Whoever changes the test of links sees that it finds some.
    @Test func aDeadLinkIsFound() throws {
        let folder = try TemporaryFolder()
        for number in 1...11 { try folder.write("# Some `thing`: a-b\n", to: "\(number).md") }
        try folder.write(
            "[a](1.md#some-thing-a-b) [b](1.md#none) [c](none.md) [d](#e) `[f](none)` [g](https://none)\n```\n[h](none)\n```\n",
            to: "0.md")
        #expect(try Document.deadLinks(in: folder.path) == ["0.md: 1.md#none", "0.md: none.md", "0.md: #e"])
    }

    @Test func theSwiftExampleRunsAgain() throws {
        let folder = try TemporaryFolder()
        let example = try #require(try Document("README.md").blocks("swift").first)
        let segment = newSegmentPath()
        defer { unlink(segment) }
        try folder.write(example.replacing("/dev/shm/fpx-demo", with: segment), to: "main.swift")
        let (modules, ours) = (Programs.folder + "/Modules", Programs.folder)
        let (built, complaint) = try run(
            "/bin/sh",
            [
                "-c",
                "cd \(folder.path) && swiftc -swift-version 6 -I \(modules) -Xcc -I\(Document.sources)/Sources/CAdmission/include "
                    + "-Xcc -fmodule-map-file=\(ours)/CAdmission.build/module.modulemap main.swift \(ours)/Admission.build/*.o "
                    + "\(ours)/CAdmission.build/*.o -o example",
            ])
        try #require(built == 0, "\(complaint)")
        for time in ["first", "second"] {
            let (status, output) = try run(folder.path + "/example", [])
            row(
                "README's Swift example, its \(time) run", "status 0, inspect",
                status == 0 && output.hasPrefix("inspect\n") ? "status 0, inspect" : output)
        }
    }

    /// `make install` as root, on a copy of /etc and /usr/local that goes with the mount namespace; then README's C program.
    @Test(.enabled(if: geteuid() == 0, "needs root, to install"))
    func makeInstallIsEnough() throws {
        let daemon = try DaemonControl(cap: 100)
        let folder = daemon.folder.path
        let compile = try #require(
            try Document("README.md").blocks("sh").joined().split(separator: "\n").first { $0.hasPrefix("cc $(pkg-config") })
        try daemon.folder.write(
            """
            set -e
            mount --make-rprivate /
            mkdir \(folder)/copy && mount -t tmpfs tmpfs \(folder)/copy
            for place in /etc /usr/local /var/cache; do
                mkdir -p \(folder)/copy$place/upper \(folder)/copy$place/work
                mount -t overlay overlay -o lowerdir=$place,upperdir=\(folder)/copy$place/upper,workdir=\(folder)/copy$place/work $place
            done
            make -s -C \(Document.sources) -o daemon -o integrations install DAEMON=\(Programs.folder) OUT=\(distribution) >/dev/null
            cd \(folder)
            cp \(Document.sources)/Integrations/c/example.c worker.c
            unset LD_LIBRARY_PATH PKG_CONFIG_PATH
            \(compile) -pthread
            exec ./a.out \(daemon.segmentPath)
            """, to: "install.sh")
        let (status, output) = try run("/usr/bin/unshare", ["-m", "/bin/bash", "\(folder)/install.sh"])
        row("make install, then README's C program", "ok", status == 0 && output.hasSuffix("ok\n") ? "ok" : output)
    }

    // MARK: nginx

    /// The example and its two snippets as they are shipped, with the ports and folders of a test.
    @Test func nginxsExample() throws {
        let control = try DaemonControl(cap: 1)
        _ = try NGINX.loadModules()
        let folder = try TemporaryFolder()
        let ports = try ["8080", "8443", "8081", "8082"].map { ($0, "\(try Socket.freePort())") }
        for name in ["example.conf", "fpx-http.conf", "fpx-modules.conf"] {
            var text = try Document("Integrations/nginx/" + name).text
                .replacing("/usr/local/lib/nginx", with: distribution + "/lib/nginx").replacing(
                    "/var/log/nginx", with: folder.path
                )
                .replacing("/run/nginx-fpx.pid", with: folder.path + "/nginx.pid")
                .replacing("include fpx-http.conf;", with: "include fpx-http.conf; fpx_segment \(control.segmentPath);")
                .replacing("stream {", with: "stream { fpx_segment \(control.segmentPath);")
            for (shipped, ours) in ports { text = text.replacing(shipped, with: ours) }
            try folder.write(text, to: name)
        }
        let nginx = try ProxyProcess(
            [NGINX.program, "-p", folder.path, "-c", folder.path + "/example.conf", "-g", "daemon off;"],
            output: folder.path + "/output")
        defer { withExtendedLifetime(nginx) {} }
        func get(_ port: String) throws -> String { try run("/usr/bin/curl", ["-sS", "http://127.0.0.1:\(port)/"]).output }
        let isUp = try eventually { try get(ports[2].1) == "inspected\n" }
        try #require(isUp, "\(folder.read("output") + folder.read("error.log"))")
        row("nginx's example over http", "inspected", try get(ports[0].1).trimmingCharacters(in: .newlines))
        try expectEventually("the session has ended") { try control.figures().inUse == 0 }
        row("nginx's example over stream", "inspected", try get(ports[1].1).trimmingCharacters(in: .newlines))
        try expectEventually("the session has ended") { try control.figures().inUse == 0 }
        // One session too many: it passes, and the log says so.
        let held = try control.attach().pool(0).admit()
        let verdict = held.verdict
        #expect(verdict == .inspect)
        row("nginx's example over the limit", "bypassed", try get(ports[0].1).trimmingCharacters(in: .newlines))
        held.end()
        let front = folder.read("fpx.log").split(separator: "\n").filter { $0.contains("HTTP/1.1") && !$0.hasSuffix(" -") }
        row(
            "the access log where fpx is on", "inspect, bypass",
            front.map { $0.split(separator: " ").last ?? "" }.joined(separator: ", "))
        let behind = folder.read("fpx.log").split(separator: "\n").filter { $0.contains("HTTP/1.0") }
        row(
            "the access log where fpx is off", "-, -",
            behind.map { $0.split(separator: " ").last ?? "" }.joined(separator: ", "))
    }

    // MARK: HAProxy

    /// What the page says to write into a configuration of one's own, in one like Debian's.
    @Test(arguments: [Face.http, .stream])
    func haproxysSnippets(_ face: Face) throws {
        let control = try DaemonControl(cap: 1)
        let page = try Document("docs/operations/haproxy.md")
        let blocks = page.blocks("")
        let common = try #require(blocks.first { $0.contains("unique-id-format") })
        var rules = try #require(blocks.first { $0.contains("filter spoe engine fpx") })
            .replacing("INSPECT", with: "mine").replacing("BYPASS", with: "past")
            .replacing("/etc/haproxy/spoe.conf", with: HAProxy.integration + "/spoe.conf")
        if face == .http {
            let refusal = try #require(page.text.firstMatch(of: /`(http-request deny deny_status 503 if) \.\.\.`/)?.1)
            rules = rules.replacing("tcp-request content reject if", with: refusal)
        }
        let folder = try TemporaryFolder()
        let backends = try ["inspect", "bypass"].map { try Backend($0, face == .http ? .http : .stream) }
        let port = try Socket.freePort()
        try folder.write(
            """
            global
                stats socket \(folder.path)/admin.sock mode 600 level admin
            defaults
                log global
                mode \(face == .http ? "http" : "tcp")
                option \(face == .http ? "httplog" : "tcplog")
                option dontlognull
                timeout connect 5000
                timeout client 500000
                timeout server 500000
            \(common)
            frontend in
                bind 127.0.0.1:\(port)
            \(rules)
            backend mine
                server a 127.0.0.1:\(backends[0].port)
            backend past
                server a 127.0.0.1:\(backends[1].port)

            """, to: "haproxy.cfg")
        let snippet = try Document("Integrations/haproxy/fpx.cfg").text.replacing(
            "unix@/fpx/", with: "unix@\(control.runFolder)/")
        try folder.write(snippet, to: "fpx.cfg")
        // Before one's own, as the page says, and behind it, as Debian's unit has it.
        for order in [["fpx.cfg", "haproxy.cfg"], ["haproxy.cfg", "fpx.cfg"]] {
            let files = order.flatMap { ["-f", folder.path + "/" + $0] }
            let (status, output) = try run(HAProxy.program, ["-c"] + files)
            #expect(status == 0 && !output.contains("ALERT"), "\(order): \(output)")
            let checks = try control.counters()["healthchecks"] ?? 0
            let haproxy = try ProxyProcess([HAProxy.program, "-db"] + files, output: folder.path + "/output")
            defer { withExtendedLifetime(haproxy) {} }
            // To look at the port would be a session.
            let isUp = try eventually { try control.counters()["healthchecks"] ?? 0 > checks }
            try #require(isUp, "\(folder.read("output"))")
            let first = try Client(face, port: port)
            let second = try Client(face, port: port)
            row("haproxy.md's lines, \(face), \(order[0]) first", "inspect, bypass", "\(first.outcome), \(second.outcome)")
            first.socket.close()
            second.socket.close()
            try expectEventually("both sessions have ended") {
                try control.figures() == Figures(inUse: 0, bypassed: 0, workers: 0)
            }
        }
        // Sockets end sessions too, so that a missing line would not show: clients of tcp have sent nothing here.
        try expectEventually("END lines of all four by the ring") { try control.counters()["lines"] ?? 0 >= 4 }
    }

    /// Twice the line that the pages have for fpxd.yaml.
    @Test(arguments: ["README.md", "docs/operations/haproxy.md"])
    func theFolderForHAProxyIsSetOnce(_ page: String) throws {
        let folder = try TemporaryFolder()
        let line = try #require(
            try Document(page).blocks("sh").joined().split(separator: "\n").first { $0.contains(">>/etc/fpx/fpxd.yaml") })
        let ours = String(line).replacing("/etc/fpx/fpxd.yaml", with: folder.path + "/fpxd.yaml")
        for time in ["once", "twice"] {
            _ = try run("/bin/sh", ["-c", ours])
            let (status, output) = try run(try Programs.path("fpxd"), ["--home", folder.path, "-t"])
            let isSet = status == 0 && output.contains("haproxy-folder: /var/lib/haproxy/fpx\n")
            row("\(page)'s line for fpxd.yaml, \(time)", "accepted", isSet ? "accepted" : output)
        }
    }
}
