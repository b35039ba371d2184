// ControlClient: one request and its answer over fpxd's control socket.

import ControlAPI
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix

/// Where fpxd listens, and for how long and how much of an answer to wait. Each request is a connection of its own.
struct ControlClient: Sendable {
    let socket: String
    /// nil: as long as the request's answer may take.
    let timeoutSeconds: Int?

    /// More than the longest answer that there is: 100,000 sessions.
    static let answerBytesMax = 64 << 20

    /// The place of an installed fpxd, and that of one which runs in a working copy.
    static let places = ["/run/fpx/control.sock", "./.fpx/run/control.sock"]

    /// The socket that is meant where none is named.
    static func defaultSocket(environment: [String: String]) -> String {
        if let path = environment["FPX_SOCKET"], !path.isEmpty { return path }
        // One that may not be looked at is there: the error to tell is then about permissions.
        let isMissing = { (path: String) in unsafe access(path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR) }
        return isMissing(places[0]) && !isMissing(places[1]) ? places[1] : places[0]
    }

    /// The body of an answer of success.
    func send(_ request: Request) throws(Failure) -> Data {
        let answer: Answer
        do {
            answer = try exchange(request)
        } catch {
            throw failure(error, of: request)
        }
        let body = Data(answer.body.readableBytesView)
        if (200..<300).contains(answer.status.code) { return body }
        guard let refusal = try? ControlJSON.decode(APIError.self, from: body) else {
            throw .badAnswer(socket: socket, found: "status \(answer.status.code) without a reason", expected: "a reason")
        }
        throw .refused(code: refusal.error.code, message: refusal.error.message)
    }

    private func exchange(_ request: Request) throws -> Answer {
        let seconds = timeoutSeconds ?? request.seconds
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let answer = loop.makePromise(of: Answer.self)
        let timer = loop.scheduleTask(in: .seconds(Int64(seconds))) { answer.fail(TimedOut()) }
        ClientBootstrap(group: loop)
            .connectTimeout(.seconds(Int64(seconds)))
            .channelInitializer { channel in
                answer.futureResult.whenComplete { _ in channel.close(promise: nil) }
                return channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHTTPClientHandlers()
                    try channel.pipeline.syncOperations.addHandler(Conversation(request, answer: answer))
                }
            }
            .connect(unixDomainSocketPath: socket)
            .whenFailure { answer.fail($0) }
        defer { timer.cancel() }
        return try answer.futureResult.wait()
    }

    private func failure(_ error: any Error, of request: Request) -> Failure {
        switch error {
        case let error as IOError where error.errnoCode == EACCES || error.errnoCode == EPERM:
            return .noPermission(socket: socket)
        case let error as IOError:
            return .noDaemon(socket: socket, reason: message(of: error.errnoCode))
        case is TimedOut, ChannelError.connectTimeout:
            return .noAnswer(socket: socket, seconds: timeoutSeconds ?? request.seconds)
        case is SocketAddressError:
            return .badSocketPath(path: socket, reason: "it has \(socket.utf8.count) bytes; expected 1 to 107")
        case let problem as Conversation.Problem:
            return .badAnswer(socket: socket, found: problem.found, expected: problem.expected)
        default: return .badAnswer(socket: socket, found: "\(error)", expected: "an answer in HTTP/1.1")
        }
    }
}

private typealias Answer = (status: HTTPResponseStatus, body: ByteBuffer)

private struct TimedOut: Error {}

/// Sends a request as soon as it may, gathers the answer, keeps it to a limit.
private final class Conversation: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    struct Problem: Error {
        let found: String
        let expected: String
    }

    private let request: Request
    private let answer: EventLoopPromise<Answer>
    private var status = HTTPResponseStatus.ok
    private var body = ByteBuffer()

    init(_ request: Request, answer: EventLoopPromise<Answer>) {
        self.request = request
        self.answer = answer
    }

    func channelActive(context: ChannelHandlerContext) {
        var headers: HTTPHeaders = ["host": "fpxd", "connection": "close", "accept": "application/json"]
        if let body = request.body {
            headers.add(name: "content-type", value: "application/json")
            headers.add(name: "content-length", value: String(body.count))
        }
        let head = HTTPRequestHead(
            version: .http1_1, method: .RAW(value: request.method.rawValue), uri: request.path, headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if let body = request.body {
            context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: body)))), promise: nil)
        }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): status = head.status
        case .body(var part):
            guard body.readableBytes + part.readableBytes <= ControlClient.answerBytesMax else {
                answer.fail(
                    Problem(
                        found: "an answer of more than \(ControlClient.answerBytesMax) bytes", expected: "at most as many"))
                return
            }
            body.writeBuffer(&part)
        case .end: answer.succeed((status, body))
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { answer.fail(error) }

    /// A promise is kept once: after an answer or an error this is without effect.
    func channelInactive(context: ChannelHandlerContext) {
        answer.fail(Problem(found: "the end of the connection", expected: "an answer"))
    }
}
