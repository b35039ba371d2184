// A TLS server that speaks HTTP by hand, so that it can do what no decent server does.

import Foundation
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization
import TestSupport

/// What a client sent.
struct RawQuestion: Sendable {
    /// `POST /v1/lease HTTP/1.1`
    var line = ""
    /// By names in small letters.
    var headers: [String: String] = [:]
    var body: [UInt8] = []

    var unit: String { headers["fpx-unit"] ?? "" }
    var id: String { headers["idempotency-key"] ?? "" }

    /// nil until all of it is there.
    init?(_ bytes: [UInt8]) {
        let separator = Array("\r\n\r\n".utf8)
        guard let end = bytes.indices.first(where: { bytes[$0...].starts(with: separator) }) else { return nil }
        let lines = String(decoding: bytes[..<end], as: UTF8.self).components(separatedBy: "\r\n")
        line = lines[0]
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { continue }
            headers[line[..<colon].lowercased()] = line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
        }
        body = Array(bytes[(end + separator.count)...])
        guard body.count == Int(headers["content-length"] ?? "0") else { return nil }
    }
}

enum Reaction: Sendable {
    /// Sends it and closes.
    case send([UInt8])
    /// A byte at a time, so many milliseconds apart, for ever.
    case drip([UInt8], milliseconds: Int64)
    /// Says nothing.
    case silence
}

final class RawServer: Sendable {
    private final class Conversation: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let server: RawServer
        private var bytes: [UInt8] = []
        private var isAnswered = false

        init(_ server: RawServer) { self.server = server }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            bytes += unwrapInboundIn(data).readableBytesView
            guard !isAnswered, let question = RawQuestion(bytes) else { return }
            isAnswered = true
            server.answer(question, on: context.channel)
        }

        // Who refuses the certificate, or breaks off, ends the conversation and nothing else.
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    /// What it does with a question; it can be changed at any time.
    private let reaction = Mutex<@Sendable (RawQuestion) async -> Reaction>({ _ in .silence })
    let questions = Mutex<[RawQuestion]>([])
    private let channel = Mutex<(any Channel)?>(nil)

    var port: Int { channel.withLock { $0?.localAddress?.port } ?? 0 }
    var url: String { "https://localhost:\(port)" }

    /// - Parameters:
    ///   - certificate: name of one of `Certificates`.
    ///   - clientAuthority: whom a client's certificate must come from; nil: none is asked for.
    static func start(certificate: String = "server", clientAuthority: String? = nil) async throws -> RawServer {
        let folder = try Certificates.shared.get().folder
        var tls = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMFile("\(folder)/\(certificate).pem").map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(file: "\(folder)/\(certificate).key", format: .pem)))
        if let clientAuthority {
            tls.trustRoots = .file(clientAuthority)
            tls.certificateVerification = .noHostnameVerification
        }
        let context = try NIOSSLContext(configuration: tls)
        let server = RawServer()
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context))
                    try channel.pipeline.syncOperations.addHandler(Conversation(server))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        server.channel.withLock { $0 = channel }
        return server
    }

    private func answer(_ question: RawQuestion, on channel: any Channel) {
        questions.withLock { $0.append(question) }
        let react = reaction.withLock { $0 }
        Task { Self.act(await react(question), on: channel) }
    }

    private static func act(_ reaction: Reaction, on channel: any Channel) {
        switch reaction {
        case .send(let bytes):
            channel.writeAndFlush(ByteBuffer(bytes: bytes)).whenComplete { _ in channel.close(promise: nil) }
        case .drip(let bytes, let milliseconds):
            for (index, byte) in bytes.enumerated() {
                channel.eventLoop.scheduleTask(in: .milliseconds(Int64(index) * milliseconds)) {
                    if channel.isActive { channel.writeAndFlush(ByteBuffer(bytes: [byte]), promise: nil) }
                }
            }
        case .silence: break
        }
    }

    func react(_ reaction: @escaping @Sendable (RawQuestion) async -> Reaction) { self.reaction.withLock { $0 = reaction } }

    func stop() { channel.withLock { $0 }?.close(promise: nil) }
}
