// A real nginx in front of two back ends, with the modules of this repository.

import Foundation
import Testing

/// What a test wants different from a plain nginx with one worker that admits on both faces.
struct NGINXSettings: Sendable {
    var workers = 1
    var user = "root"
    /// Directives for the main context, the events block, the http block, the http server, and the stream block.
    var main = ""
    var events = ""
    var http = ""
    var httpServer = "fpx on;"
    var stream = "fpx on;"
    /// More parameters of the `listen` directives.
    var httpListen = ""
    var listen = ""
}

/// A running nginx. Its `http` and `stream` ports send each session to the back end that its verdict names.
final class NGINX: Sendable {
    let httpPort: UInt16
    let streamPort: UInt16
    let folder: TemporaryFolder
    let webBackends: [Backend]
    private let streamBackends: [Backend]
    private let process: ProxyProcess

    static let program = "/usr/sbin/nginx"
    static let streamModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

    /// Starts nginx and waits until a worker answers.
    ///
    /// - Parameter segment: the file for `fpx_segment`; nil: nginx runs without the modules.
    init(segment: String?, _ settings: NGINXSettings = NGINXSettings()) throws {
        folder = try TemporaryFolder()
        webBackends = try ["inspect", "bypass"].map { try Backend($0, .http) }
        streamBackends = try ["inspect", "bypass"].map { try Backend($0, .stream) }
        httpPort = try Socket.freePort()
        streamPort = try Socket.freePort()
        let readyPort = try Socket.freePort()
        let configuration = try NGINX.configuration(
            settings, segment: segment, folder: folder.path, ports: (httpPort, streamPort, readyPort), web: webBackends,
            streams: streamBackends)
        try folder.write(configuration, to: "nginx.conf")
        process = try ProxyProcess(
            [NGINX.program, "-p", folder.path, "-c", "\(folder.path)/nginx.conf"], output: "\(folder.path)/output")
        let ready = eventually { (try? Socket.connected(to: readyPort)) != nil }
        guard ready, try eventually({ try workers().count == settings.workers }) else {
            throw EndToEndError.notReady(what: "nginx", log: folder.read("output") + log)
        }
        // Workers attach before they answer. If they could not, every test would fail of it, and none would say why.
        if let segment, FileManager.default.fileExists(atPath: segment), log.contains("fpx: \(segment): ") {
            throw EndToEndError.notReady(what: "nginx' attachment to the segment (is dist older than Sources?)", log: log)
        }
    }

    private static func configuration(
        _ settings: NGINXSettings, segment: String?, folder: String, ports: (http: UInt16, stream: UInt16, ready: UInt16),
        web: [Backend], streams: [Backend]
    ) throws -> String {
        try """
        \(loadModules(segment != nil))
        daemon off;
        user \(settings.user);
        worker_processes \(settings.workers);
        pid \(folder)/nginx.pid;
        error_log \(folder)/error.log warn;
        \(settings.main)
        events { worker_connections 2048; \(settings.events) }
        http {
            access_log off;
            client_body_temp_path \(folder)/body;
            proxy_temp_path \(folder)/proxy;
            fastcgi_temp_path \(folder)/fastcgi;
            uwsgi_temp_path \(folder)/uwsgi;
            scgi_temp_path \(folder)/scgi;
            \(segment.map { "fpx_segment \($0);" } ?? "")
            \(upstreams(web))
            \(settings.http)
            server { listen 127.0.0.1:\(ports.ready); location / { return 204; } }
            server {
                listen 127.0.0.1:\(ports.http) \(settings.listen) \(settings.httpListen);
                client_max_body_size 0;
                \(settings.httpServer)
                location / {
                    proxy_pass http://\(segment == nil ? "inspect" : "$fpx_verdict");
                    proxy_buffering off;
                }
            }
        }
        stream {
            \(segment.map { "fpx_segment \($0);" } ?? "")
            \(upstreams(streams))
            \(settings.stream)
            server {
                listen 127.0.0.1:\(ports.stream) \(settings.listen);
                proxy_pass \(segment == nil ? "inspect" : "$fpx_verdict");
            }
        }
        """
    }

    static func loadModules(_ withAdmission: Bool = true) throws -> String {
        _ = try required(program, "nginx: apt-get install nginx-core (`make setup` does it)")
        let stream = try required(
            streamModule, "nginx' stream module: apt-get install libnginx-mod-stream (`make setup` does it)")
        let ours = try ["ngx_http_fpx_module.so", "ngx_stream_fpx_module.so"].map {
            try required(
                "\(distribution)/lib/nginx/\($0)", "the nginx modules: run `make integrations`, or set FPX_DIST to its OUT")
        }
        return (withAdmission ? [stream] + ours : [stream]).map { "load_module \($0);" }.joined(separator: "\n")
    }

    private static func upstreams(_ backends: [Backend]) -> String {
        backends.map { "upstream \($0.name) { server 127.0.0.1:\($0.port); }" }.joined(separator: "\n")
    }

    func port(_ face: Face) -> UInt16 {
        switch face {
        case .http: httpPort
        case .stream: streamPort
        }
    }

    func open(_ face: Face, idle: Bool = false) throws -> Client { try Client(face, port: port(face), idle: idle) }

    /// So many sessions, opened one after the other.
    func open(_ count: Int, _ face: Face, idle: Bool = false) throws -> [Client] {
        try (0..<count).map { _ in try open(face, idle: idle) }
    }

    var log: String { folder.read("error.log") }

    func master() throws -> pid_t {
        guard let id = pid_t(folder.read("nginx.pid").trimmingCharacters(in: .newlines)) else {
            throw EndToEndError.notReady(what: "a pid file of nginx", log: log)
        }
        return id
    }

    /// Process ids of the workers that accept connections.
    func workers() throws -> [pid_t] {
        guard let master = try? master() else { return [] }
        return ProcessEntry.children(of: master).filter { $0.title == "nginx: worker process" }.map(\.id)
    }

    /// Workers of before a reload that still have connections.
    func oldWorkers() throws -> [pid_t] {
        ProcessEntry.children(of: try master()).filter { $0.title == "nginx: worker process is shutting down" }.map(\.id)
    }

    /// `nginx -s reload`; returns when new workers have taken over.
    func reload() throws {
        let before = Set(try workers())
        let result = try run(NGINX.program, ["-p", folder.path, "-c", "\(folder.path)/nginx.conf", "-s", "reload"])
        let done = try eventually {
            let now = Set(try workers())
            return now.count == before.count && now.isDisjoint(with: before)
        }
        guard result.status == 0, done else {
            throw EndToEndError.notReady(what: "a reload of nginx", log: result.output + log)
        }
    }

    /// Kills all workers that accept connections, with SIGKILL; the master starts new ones.
    func killWorkers() throws { for worker in try workers() { kill(worker, SIGKILL) } }
}
