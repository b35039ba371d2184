// A real haproxy in front of two back ends; fpxd is the agent that it asks.

import Foundation
import Testing

/// A running haproxy with one face for connections and one for requests.
final class HAProxy: Sendable {
    let folder: TemporaryFolder
    let httpPort: UInt16
    let streamPort: UInt16
    private let backends: [Backend]
    private let process: ProxyProcess

    static let program = "/usr/sbin/haproxy"
    static let integration = URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "../../Integrations/haproxy").standardized.path

    /// Starts haproxy as a master with one worker, and waits until it serves.
    ///
    /// - Parameters:
    ///   - agent: the folder with fpxd's sockets.
    ///   - place: the network namespace that haproxy and the servers behind it run in; nil: that of the test.
    ///   - edit: what this test has otherwise than the example.
    init(
        agent: String, withRing: Bool = true, place: NetworkNamespace? = nil,
        edit: (inout Configuration) throws -> Void = { _ in }
    ) throws {
        _ = try required(HAProxy.program, "haproxy: apt-get install haproxy (`make setup` does it)")
        folder = try TemporaryFolder()
        (backends, httpPort, streamPort) = try NetworkNamespace.inside(place) {
            let backends = try [Backend.Style.stream, .http].flatMap { style in
                try ["inspect", "bypass"].map { try Backend($0, style) }
            }
            return (backends, try Socket.freePort(), try Socket.freePort())
        }
        var configuration = try HAProxy.configuration(
            folder: folder.path, agent: agent, http: httpPort, stream: streamPort, backends: backends.map(\.port),
            withRing: withRing)
        try edit(&configuration)
        try folder.write(configuration.text, to: "haproxy.cfg")
        try folder.write(configuration.agents, to: "fpx.cfg")
        process = try ProxyProcess(
            (place?.launcher ?? []) + [
                HAProxy.program, "-W", "-f", "\(folder.path)/fpx.cfg", "-f", "\(folder.path)/haproxy.cfg", "-p",
                "\(folder.path)/haproxy.pid",
            ],
            output: "\(folder.path)/output")
        let isReady = eventually { workers().count == 1 && isUp }
        if !isReady { throw EndToEndError.notReady(what: "haproxy", log: folder.read("output")) }
    }

    /// The text of a configuration, and of what is shipped to be read before it.
    struct Configuration {
        var text: String
        var agents: String
        let httpPort: UInt16
        let streamPort: UInt16

        /// Replaces a part, which must be there.
        mutating func replace(_ old: String, _ new: String) throws {
            try #require(text.contains(old), "the configuration has no \(old)")
            text = text.replacingOccurrences(of: old, with: new)
        }
    }

    /// The configuration that is shipped, with the ports and paths of a test, and without chroot.
    static func configuration(
        folder: String, agent: String, http: UInt16, stream: UInt16, backends: [UInt16], withRing: Bool
    ) throws -> Configuration {
        var text = Configuration(
            text: try String(contentsOfFile: integration + "/example.cfg", encoding: .utf8),
            agents: try String(contentsOfFile: integration + "/fpx.cfg", encoding: .utf8)
                .replacing("unix@/fpx/", with: "unix@\(agent)/"),
            httpPort: http, streamPort: stream)
        try text.replace(
            "    log /dev/log local0\n    chroot /var/lib/haproxy\n    user haproxy\n    group haproxy\n", "    nbthread 2\n")
        try text.replace("    master-worker\n", "")
        try text.replace("/var/lib/haproxy/admin.sock mode 660", "\(folder)/admin.sock mode 600")
        try text.replace("/etc/haproxy/spoe.conf", integration + "/spoe.conf")
        try text.replace("bind :7003", "bind 127.0.0.1:\(stream)")
        try text.replace("bind :7004", "bind 127.0.0.1:\(http)")
        for (port, ours) in zip([9011, 9012, 9021, 9022], backends) {
            try text.replace("127.0.0.1:\(port)", "127.0.0.1:\(ours)")
        }
        if !withRing { try text.replace("    log ring@fpxend format raw local0\n", "") }
        return text
    }

    func port(_ face: Face) -> UInt16 { face == .http ? httpPort : streamPort }
    func open(_ face: Face, idle: Bool = false) throws -> Client { try Client(face, port: port(face), idle: idle) }
    func open(_ count: Int, _ face: Face) throws -> [Client] { try (0..<count).map { _ in try open(face) } }

    func master() -> pid_t? {
        // The first line, until workers of before a reload are gone.
        folder.read("haproxy.pid").split(separator: "\n").first.flatMap { pid_t($0) }
    }

    func workers() -> [pid_t] { master().map { ProcessEntry.children(of: $0).map(\.id) } ?? [] }

    /// Whether haproxy has found its agent.
    var isUp: Bool { (try? ask("show servers state fpx_agents"))?.contains(" fpxd - 2 ") ?? false }

    /// Waits until haproxy knows that the agent is back (or gone).
    func awaitAgent(_ isThere: Bool = true) throws {
        let came = eventually { isUp == isThere }
        if !came { throw EndToEndError.notReady(what: "haproxy's check of the agent", log: try ask("show servers state")) }
    }

    /// The answer to a command on haproxy's own socket.
    func ask(_ command: String) throws -> String {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: "\(folder.path)/admin.sock".utf8) }
        let failed = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        if failed != 0 { throw SocketError.system(call: "connect", code: errno) }
        _ = "\(command)\n".withCString { write(descriptor, $0, strlen($0)) }
        var answer: [UInt8] = []
        var bytes = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = read(descriptor, &bytes, bytes.count)
            if count <= 0 { return String(decoding: answer, as: UTF8.self) }
            answer += bytes[..<count]
        }
    }

    /// SIGUSR2 to the master; returns when a new worker serves. Old ones stay while they have sessions.
    func reload() throws {
        let before = Set(workers())
        guard let master = master() else { throw EndToEndError.notReady(what: "a pid file", log: folder.read("output")) }
        // A reload loads the master anew, twice, and a signal that comes meanwhile is lost.
        let isSettled = eventually { ProcessEntry.isWaiting(master, for: SIGUSR2) }
        if !isSettled { throw EndToEndError.notReady(what: "haproxy's master", log: folder.read("output")) }
        kill(master, SIGUSR2)
        let isDone = eventually {
            let new = workers().filter { !before.contains($0) }
            guard let worker = new.first, let information = try? ask("show info") else { return false }
            return isUp && information.contains("Pid: \(worker)\n")
        }
        if !isDone { throw EndToEndError.notReady(what: "a reload of haproxy", log: folder.read("output")) }
    }
}

extension ProcessEntry {
    /// Whether a process sleeps, has a handler for the signal, and does not hold it back.
    fileprivate static func isWaiting(_ id: pid_t, for signal: Int32) -> Bool {
        let status = (try? String(contentsOfFile: "/proc/\(id)/status", encoding: .utf8)) ?? ""
        let title = (try? String(contentsOfFile: "/proc/\(id)/cmdline", encoding: .utf8)) ?? ""
        func field(_ name: String) -> Substring? {
            status.split(separator: "\n").first { $0.hasPrefix(name + ":") }?.split(separator: "\t").last
        }
        func has(_ name: String) -> Bool {
            (field(name).flatMap { UInt64($0, radix: 16) } ?? 0) >> UInt64(signal - 1) & 1 == 1
        }
        return field("State")?.hasPrefix("S") == true && has("SigCgt") && !has("SigBlk") && !title.contains("-sf")
    }
}
