// What the tests of fpx share: a daemon that answers as it is told, and the program itself.

import ControlAPI
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import TestSupport
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
        let home = try Folder()
        defer { withExtendedLifetime(home) {} }
        let variables = ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? "", "HOME": home.path]
        // tmux leaves a program running: it is not waited for.
        let ended = try ChildProcess.run(
            [program] + arguments, environment: variables.merging(environment) { $1 }, folder: folder ?? "/", input: input)
        return Ended(status: ended.status, output: ended.output, error: ended.error)
    }
}
