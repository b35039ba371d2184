// A gateway between client and etcd that does what no decent one does.

import AsyncHTTPClient
import Foundation
import NIOCore
import NIOPosix
import Synchronization

struct Question: Sendable {
    /// `/v3/kv/range`
    var path = ""
    /// By names in small letters.
    var headers: [String: String] = [:]
    var body: [UInt8] = []

    /// nil until all of it is there.
    init?(_ bytes: [UInt8]) {
        let text = String(decoding: bytes, as: UTF8.self)
        guard let end = text.range(of: "\r\n\r\n") else { return nil }
        let lines = text[..<end.lowerBound].components(separatedBy: "\r\n")
        path = lines[0].split(separator: " ").dropFirst().first.map(String.init) ?? ""
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { continue }
            headers[line[..<colon].lowercased()] = line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
        }
        body = Array(text[end.upperBound...].utf8)
        guard body.count == Int(headers["content-length"] ?? "0") else { return nil }
    }
}

enum Reaction: Sendable {
    case forward
    /// Closes without passing it on, or after that.
    case close
    case lose
    /// The answer comes so much later.
    case late(Duration)
    /// Passed on twice, the second answer counts; or the answer is sent twice.
    case twice
    case answerTwice
    /// Passed on, and the answer breaks off in its middle, with the length of all of it.
    case truncate
    /// Passed on, and this is sent instead.
    case replace([UInt8])
    /// This is sent, without passing it on.
    case send([UInt8])
    /// The first once, the second for ever, each so far from the other.
    case drip(first: [UInt8], then: [UInt8], every: TimeAmount)
    case silence

    static func json(_ status: String = "200 OK", _ body: String) -> [UInt8] {
        Array("HTTP/1.1 \(status)\r\nContent-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)".utf8)
    }
}

final class Gateway: Sendable {
    private final class Conversation: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let gateway: Gateway
        private var bytes: [UInt8] = []

        init(_ gateway: Gateway) { self.gateway = gateway }

        func channelActive(context: ChannelHandlerContext) { gateway.open.withLock { $0 += 1 } }

        func channelInactive(context: ChannelHandlerContext) { gateway.open.withLock { $0 -= 1 } }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            bytes += unwrapInboundIn(data).readableBytesView
            guard let question = Question(bytes) else { return }
            bytes = []
            let (gateway, channel) = (gateway, context.channel)
            gateway.questions.withLock { $0.append(question) }
            Task { await gateway.act(question, on: channel) }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    let questions = Mutex<[Question]>([])
    /// Connections of clients.
    let open = Mutex(0)
    private let upstream: Mutex<String>
    private let reaction = Mutex<@Sendable (Question) -> Reaction>({ _ in .forward })
    private let channel = Mutex<(any Channel)?>(nil)

    var url: String { "http://127.0.0.1:\(channel.withLock { $0?.localAddress?.port } ?? 0)" }

    init(_ upstream: String = "") async throws {
        self.upstream = Mutex(upstream)
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Conversation(self))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        self.channel.withLock { $0 = channel }
    }

    func react(_ reaction: @escaping @Sendable (Question) -> Reaction) { self.reaction.withLock { $0 = reaction } }
    func lead(to upstream: String) { self.upstream.withLock { $0 = upstream } }
    func stop() { channel.withLock { $0 }?.close(promise: nil) }

    private func act(_ question: Question, on channel: any Channel) async {
        switch reaction.withLock({ $0 })(question) {
        case .forward: send(await forward(question), on: channel)
        case .close: channel.close(promise: nil)
        case .lose:
            _ = await forward(question)
            channel.close(promise: nil)
        case .late(let wait):
            let answer = await forward(question)
            try? await Task.sleep(for: wait)
            send(answer, on: channel)
        case .twice:
            _ = await forward(question)
            send(await forward(question), on: channel)
        case .answerTwice:
            let answer = await forward(question)
            send(answer + answer, on: channel)
        case .truncate:
            let answer = await forward(question)
            channel.writeAndFlush(ByteBuffer(bytes: answer.dropLast(20))).whenComplete { _ in channel.close(promise: nil) }
        case .replace(let bytes):
            _ = await forward(question)
            send(bytes, on: channel)
        case .send(let bytes): send(bytes, on: channel)
        case .drip(let first, let then, let pause):
            channel.writeAndFlush(ByteBuffer(bytes: first), promise: nil)
            channel.eventLoop.scheduleRepeatedTask(initialDelay: pause, delay: pause) { task in
                guard channel.isActive else { return task.cancel() }
                channel.writeAndFlush(ByteBuffer(bytes: then), promise: nil)
            }
        case .silence: break
        }
    }

    private func send(_ bytes: [UInt8], on channel: any Channel) {
        if bytes.isEmpty { channel.close(promise: nil) } else { channel.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil) }
    }

    /// etcd's answer; empty where there is none.
    private func forward(_ question: Question) async -> [UInt8] {
        var request = HTTPClientRequest(url: upstream.withLock { $0 } + question.path)
        request.method = .POST
        if let token = question.headers["authorization"] { request.headers.add(name: "Authorization", value: token) }
        request.body = .bytes(question.body)
        guard let response = try? await HTTPClient.shared.execute(request, timeout: .seconds(10)),
            let body = try? await response.body.collect(upTo: 64 << 20)
        else { return [] }
        return Reaction.json("\(response.status.code) \(response.status.reasonPhrase)", String(buffer: body))
    }
}
