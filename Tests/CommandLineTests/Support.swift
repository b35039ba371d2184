// What the tests of fpx share: a daemon that answers as it is told, and the program itself.

import ControlAPI
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import Testing

private let numbers = Atomic<Int>(0)

/// A folder of its own for one test; goes away with it.
final class Folder: Sendable {
    let path: String

    init() throws {
        path = "/tmp/fpx-cli-\(getpid())-\(numbers.add(1, ordering: .relaxed).newValue)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// What the daemon of a test says.
enum Reply: Sendable {
    case answer(Int, Data)
    /// Not HTTP, or not all of it; then the end of the connection.
    case bytes(String)
    /// A head that announces more than any answer may be, and zeros without end.
    case flood
    case silence

    static func value(_ value: some Encodable & Sendable) -> Reply {
        do { return .answer(200, try ControlJSON.encoder().encode(value)) } catch { return .bytes("\(error)") }
    }

    static func refusal(_ status: Int, _ code: String, _ message: String) -> Reply {
        guard case .answer(_, let body) = value(APIError(code: code, message: message)) else { return .silence }
        return .answer(status, body)
    }
}

/// Serves the control socket of a test. Requests are read by NIO's parser, so one that is not HTTP/1.1 gets no answer.
final class TestDaemon: Sendable {
    typealias Answer = @Sendable (_ request: String, _ body: Data) -> Reply

    let folder: Folder
    let socket: String
    private let channel: any Channel
    private let log = Log()

    /// `METHOD PATH BODY` of each request so far.
    var requests: [String] { log.requests.withLock { $0 } }

    init(_ answer: @escaping Answer = Samples.answer) throws {
        folder = try Folder()
        socket = folder.path + "/control.sock"
        let log = log
        channel = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let decoder = ByteToMessageHandler(HTTPRequestDecoder())
                    try channel.pipeline.syncOperations.addHandlers([decoder, Server(log, answer)])
                }
            }
            .bind(unixDomainSocketPath: socket).wait()
    }

    deinit { channel.close(promise: nil) }
}

/// Requests of all connections, in the order of their ends.
private final class Log: Sendable {
    let requests = Mutex<[String]>([])
}

private final class Server: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = ByteBuffer

    private let log: Log
    private let answer: TestDaemon.Answer
    private var head: HTTPRequestHead?
    private var body = ByteBuffer()

    init(_ log: Log, _ answer: @escaping TestDaemon.Answer) {
        self.log = log
        self.answer = answer
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): self.head = head
        case .body(var part): body.writeBuffer(&part)
        case .end:
            guard let head, head.headers["host"].count == 1 else { return context.close(promise: nil) }
            let request = "\(head.method.rawValue) \(head.uri)"
            let data = Data(body.readableBytesView)
            let text = data.isEmpty ? request : request + " " + String(decoding: data, as: UTF8.self)
            log.requests.withLock { $0.append(text) }
            reply(answer(request, data), context)
        }
    }

    private func reply(_ reply: Reply, _ context: ChannelHandlerContext) {
        let channel = context.channel
        switch reply {
        case .answer(let status, let body):
            var buffer = ByteBuffer(
                string: "HTTP/1.1 \(status) -\r\ncontent-type: application/json\r\ncontent-length: \(body.count)\r\n\r\n")
            buffer.writeBytes(body)
            context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
        case .bytes(let text):
            channel.writeAndFlush(ByteBuffer(string: text)).whenComplete { _ in channel.close(promise: nil) }
        case .flood:
            context.writeAndFlush(
                wrapOutboundOut(ByteBuffer(string: "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")), promise: nil)
            Self.flood(channel)
        case .silence: break
        }
    }

    private static func flood(_ channel: any Channel) {
        channel.writeAndFlush(ByteBuffer(repeating: 0x20, count: 1 << 20)).whenSuccess { flood(channel) }
    }
}

/// How one run of fpx ended.
struct Ended: Equatable {
    var status: Int32
    var output: String
    var error: String

    static func done(_ output: String) -> Ended { Ended(status: 0, output: output, error: "") }
    static func failed(_ status: Int32, _ error: String, output: String = "") -> Ended {
        Ended(status: status, output: output, error: "fpx: \(error)\n")
    }
}

enum Program {
    /// Beside the test bundle.
    static let path: String = {
        let bundle = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return (bundle as NSString).deletingLastPathComponent + "/fpx"
    }()

    static func run(
        _ arguments: [String], socket: String? = nil, input: String = "", folder: String? = nil,
        environment: [String: String] = [:]
    ) throws -> Ended {
        try run(
            path, arguments, input: input, folder: folder,
            environment: environment.merging(socket.map { ["FPX_SOCKET": $0] } ?? [:]) { $1 })
    }

    static func run(
        _ program: String, _ arguments: [String], input: String = "", folder: String? = nil,
        environment: [String: String] = [:]
    ) throws -> Ended {
        let scratch = try Folder()
        // Files and not pipes: whatever the program writes and whenever, neither side waits for the other.
        let files = ["in", "out", "err"].map { scratch.path + "/" + $0 }
        try Data(input.utf8).write(to: URL(fileURLWithPath: files[0]))
        let variables = ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? "", "HOME": scratch.path]
            .merging(environment) { $1 }
        let status = try spawn(
            ["/usr/bin/env", "-C", folder ?? "/", program] + arguments, variables.map { "\($0)=\($1)" }, files: files)
        func text(_ file: String) throws -> String {
            String(decoding: try Data(contentsOf: URL(fileURLWithPath: file)), as: UTF8.self)
        }
        return Ended(status: status, output: try text(files[1]), error: try text(files[2]))
    }

    struct SpawnFailure: Error {
        let program: String
        let error: Int32
    }

    /// Foundation's Process takes a child for alive as long as a grandchild is, and tmux leaves one.
    private static func spawn(_ arguments: [String], _ environment: [String], files: [String]) throws -> Int32 {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, files[0], O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, files[1], O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, files[2], O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        // The threads that tests run on block signals, and a child would too: Ctrl-C would be lost on it.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigaddset(&signals, SIGINT)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        let argv = arguments.map { strdup($0) } + [nil]
        let envp = environment.map { strdup($0) } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        var pid: pid_t = 0
        let error = posix_spawn(&pid, arguments[0], &actions, &attributes, argv, envp)
        guard error == 0 else { throw SpawnFailure(program: arguments[0], error: error) }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        return status & 0x7F == 0 ? status >> 8 & 0xFF : -(status & 0x7F)
    }
}
