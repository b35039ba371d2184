// Real etcd members on loopback, each with data of its own in a temporary folder.

import Foundation
import Synchronization

/// Members of one cluster. Ends them, and removes their data, with its last reference.
public final class EtcdServer: Sendable {
    /// How clients and members prove who they are; paths of PEM files.
    public struct TLS: Sendable {
        public var certificate: String
        public var privateKey: String
        /// Whom clients must be vouched for by.
        public var authority: String

        public init(certificate: String, privateKey: String, authority: String) {
            self.certificate = certificate
            self.privateKey = privateKey
            self.authority = authority
        }
    }

    public struct Failure: Error, CustomStringConvertible { public let description: String }

    /// `URL` of each member, for clients.
    public let endpoints: [String]
    public let folder: String
    private let peers: [String]
    private let tls: TLS?
    private let client: TLS?
    private let arguments: [String]
    private let processes: Mutex<[ChildProcess?]>
    /// Who is kept for a whole run has no last reference: what is left at the exit goes then.
    private static let left = Mutex<[String: [Int: pid_t]]>([:])
    private static let exitHandler: Void = {
        atexit {
            EtcdServer.left.withLock { left in
                for (folder, members) in left {
                    for process in members.values { _ = Foundation.kill(process, SIGKILL) }
                    try? FileManager.default.removeItem(atPath: folder)
                }
            }
        }
    }()

    public var count: Int { endpoints.count }
    /// As settings want them.
    public var list: String { endpoints.joined(separator: ",") }

    /// Whether this machine has etcd.
    public static let isInstalled = ["etcd", "etcdctl"].allSatisfy { program in
        (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin").split(separator: ":").contains {
            access("\($0)/\(program)", X_OK) == 0
        }
    }

    /// Starts a cluster and waits until it answers.
    /// - Parameters:
    ///   - tls: of the members; nil: clients speak HTTP.
    ///   - client: what `etcdctl` shows to them.
    ///   - arguments: more of etcd's.
    public static func start(
        members: Int = 1, tls: TLS? = nil, client: TLS? = nil, arguments: [String] = []
    ) async throws -> EtcdServer {
        // A port that was free may be taken by the time that etcd asks for it: then with other ports.
        var last: any Error = Failure(description: "etcd was not started")
        for _ in 0..<3 {
            do {
                let server = try EtcdServer(members: members, tls: tls, client: client, arguments: arguments)
                for member in 0..<members { try server.start(member) }
                try await server.waitUntilHealthy()
                return server
            } catch { last = error }
        }
        throw last
    }

    private init(members: Int, tls: TLS?, client: TLS?, arguments: [String]) throws {
        folder = FileManager.default.temporaryDirectory.path + "/etcd-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let ports = try Self.freePorts(2 * members)
        endpoints = ports[..<members].map { (tls == nil ? "http" : "https") + "://127.0.0.1:\($0)" }
        peers = ports[members...].map { "http://127.0.0.1:\($0)" }
        self.tls = tls
        self.client = client
        self.arguments = arguments
        processes = Mutex(Array(repeating: nil, count: members))
    }

    deinit {
        for member in 0..<count { try? kill(member) }
        _ = Self.left.withLock { $0.removeValue(forKey: folder) }
        try? FileManager.default.removeItem(atPath: folder)
    }

    private static func freePorts(_ count: Int) throws -> [Int] {
        // All are held until the last is found, so that none is found twice.
        var sockets: [Int32] = []
        defer { for socket in sockets { close(socket) } }
        return try (0..<count).map { _ in
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            sockets.append(descriptor)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = inet_addr("127.0.0.1")
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let isBound = withUnsafeMutablePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
                }
            }
            guard isBound else { throw Failure(description: "no free port: \(String(cString: strerror(errno)))") }
            return Int(UInt16(bigEndian: address.sin_port))
        }
    }

    // MARK: Members

    /// Starts a member; with the data it had, if it ran before.
    public func start(_ member: Int) throws {
        var options = [
            "etcd", "--name", "m\(member)", "--data-dir", "\(folder)/m\(member)", "--listen-client-urls", endpoints[member],
            "--advertise-client-urls", endpoints[member], "--listen-peer-urls", peers[member],
            "--initial-advertise-peer-urls", peers[member], "--initial-cluster",
            peers.enumerated().map { "m\($0)=\($1)" }.joined(separator: ","), "--heartbeat-interval", "50",
            "--election-timeout", "500", "--logger", "zap", "--log-level", "error", "--auto-compaction-retention", "0",
        ]
        if let tls {
            options += [
                "--cert-file", tls.certificate, "--key-file", tls.privateKey, "--client-cert-auth", "--trusted-ca-file",
                tls.authority,
            ]
        }
        let process = try ChildProcess(options + arguments, output: .file("\(folder)/m\(member).log"))
        processes.withLock { $0[member] = process }
        Self.left.withLock { $0[folder, default: [:]][member] = process.processID }
        _ = Self.exitHandler
    }

    /// SIGKILL, and waits for its end.
    public func kill(_ member: Int) throws {
        let process = processes.withLock { processes in
            defer { processes[member] = nil }
            return processes[member]
        }
        guard let process else { return }
        _ = Self.left.withLock { $0[folder]?.removeValue(forKey: member) }
        process.signal(SIGKILL)
        process.wait()
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    public func pause(_ member: Int) { signal(member, SIGSTOP) }

    public func resume(_ member: Int) { signal(member, SIGCONT) }

    private func signal(_ member: Int, _ signal: Int32) {
        processes.withLock { $0[member]?.signal(signal) }
    }

    /// What a member has logged.
    public func log(_ member: Int) -> String {
        (try? String(contentsOfFile: "\(folder)/m\(member).log", encoding: .utf8)) ?? ""
    }

    /// Polls until every member that runs answers.
    public func waitUntilHealthy(user: String? = nil, seconds: Int = 20) async throws {
        let end = ContinuousClock.now + .seconds(seconds)
        for member in 0..<count {
            while processes.withLock({ $0[member] != nil }) {
                do {
                    try await health(of: member, user: user)
                    break
                } catch {
                    guard ContinuousClock.now < end, processes.withLock({ $0[member].map { $0.status == nil } ?? true }) else {
                        throw Failure(description: "member \(member) does not answer: \(error)\n\(log(member))")
                    }
                    try await Task.sleep(for: .milliseconds(20))
                }
            }
        }
    }

    /// Not on the threads that tasks share: etcdctl waits for its answer.
    private func health(of member: Int, user: String?) async throws {
        try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
            DispatchQueue.global().async { [self] in
                done.resume(
                    with: Result {
                        _ = try control(["endpoint", "health", "--command-timeout", "1s"], members: [member], user: user)
                    })
            }
        }
    }

    /// Which member leads; nil while there is none.
    public func leader() throws -> Int? {
        let running = (0..<count).filter { member in processes.withLock { $0[member] != nil } }
        for member in running {
            // endpoint, ID, version, size, leader, ...
            let fields = try control(["endpoint", "status", "--command-timeout", "1s"], members: [member]).split(separator: ",")
            if fields.count > 4, fields[4].trimmingCharacters(in: .whitespaces) == "true" { return member }
        }
        return nil
    }

    // MARK: etcdctl

    /// Runs etcdctl.
    /// - Parameters:
    ///   - members: whom it asks; nil: all.
    ///   - user: `NAME:PASSWORD`
    ///   - input: what it reads.
    /// - Returns: what it printed.
    @discardableResult
    public func control(
        _ arguments: [String], members: [Int]? = nil, user: String? = nil, input: String = ""
    ) throws -> String {
        let endpoints = (members ?? Array(0..<count)).map { self.endpoints[$0] }.joined(separator: ",")
        var options = ["etcdctl", "--endpoints", endpoints]
        if let user { options += ["--user", user] }
        if let client { options += ["--cert", client.certificate, "--key", client.privateKey, "--cacert", client.authority] }
        return try Self.run(options + arguments, input: input)
    }

    /// Turns authentication on: root, and a user with all rights to the keys of a prefix.
    public func enableAuthentication(root: String, user: String, password: String, prefix: String) throws {
        try control(["user", "add", "root:\(root)"])
        try control(["user", "grant-role", "root", "root"])
        try control(["user", "add", "\(user):\(password)"])
        try control(["role", "add", user])
        try control(["role", "grant-permission", user, "--prefix=true", "readwrite", prefix])
        try control(["user", "grant-role", user, user])
        try control(["auth", "enable"])
    }

    private static func run(_ arguments: [String], input: String) throws -> String {
        var environment = ProcessInfo.processInfo.environment
        environment["ETCDCTL_API"] = "3"
        let ended = try ChildProcess.run(arguments, environment: environment, input: input)
        guard ended.status == 0 else {
            throw Failure(description: "\(arguments.joined(separator: " ")): \(ended.text)")
        }
        return ended.text
    }
}
