import ControlAPI
import Foundation
import HTTPTypes
import Hummingbird
import NIOCore
import NIOHTTPTypes

/// What comes on a connection and is not HTTP: the server's empty answer to it gets the one JSON form, and the connection is
/// closed when there was time to send it: nothing after it can be read.
final class WhatIsNotHTTP: ChannelInboundHandler, ChannelOutboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart
    typealias Sealing = @Sendable (HTTPResponse.Status, Data) async -> HTTPFields
    /// How long the peer may take to read the answer.
    static let patience = TimeAmount.milliseconds(200)
    /// How long the answer may take, on a busy host.
    static let answerPatience = TimeAmount.seconds(5)

    private let sealing: Sealing?
    private var error: (any Error)?
    /// What comes after a head that is being sealed, the end of the connection too.
    private var waiting: [(ChannelHandlerContext) -> Void]?

    init(sealing: Sealing?) { self.sealing = sealing }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if error != nil, case .end = unwrapOutboundIn(data) { close(context.channel, in: Self.patience) }
        if waiting != nil {
            waiting?.append { $0.write(data, promise: promise) }
            return
        }
        guard let error, case .head(var head) = unwrapOutboundIn(data), head.headerFields[.contentLength] == "0",
            let answer = try? ControlJSON.encoder().encode(
                APIError(code: WebRefusal.notHTTP(error).code, message: WebRefusal.notHTTP(error).message))
        else { return context.write(data, promise: promise) }
        head.headerFields[.contentType] = "application/json"
        head.headerFields[.contentLength] = "\(answer.count)"
        guard let sealing else { return write(head, answer, context, promise) }
        waiting = []
        let sealed = context.eventLoop.makePromise(of: HTTPFields.self)
        sealed.completeWithTask { [status = head.status] in await sealing(status, answer) }
        let bound = NIOLoopBound((handler: self, context: context, head: head, promise: promise), eventLoop: context.eventLoop)
        sealed.futureResult.whenSuccess { seal in
            var (handler, context, head, promise) = bound.value
            for field in seal { head.headerFields[field.name] = field.value }
            handler.write(head, answer, context, promise)
            let waiting = handler.waiting ?? []
            handler.waiting = nil
            for step in waiting { step(context) }
        }
    }

    private func write(
        _ head: HTTPResponse, _ answer: Data, _ context: ChannelHandlerContext, _ promise: EventLoopPromise<Void>?
    ) {
        context.write(wrapOutboundOut(.head(head)), promise: promise)
        context.write(wrapOutboundOut(.body(ByteBuffer(data: answer))), promise: nil)
    }

    func flush(context: ChannelHandlerContext) {
        if waiting != nil { waiting?.append { $0.flush() } } else { context.flush() }
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if waiting != nil {
            waiting?.append { $0.close(mode: mode, promise: promise) }
        } else {
            context.close(mode: mode, promise: promise)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        self.error = error
        context.fireErrorCaught(error)
        close(context.channel, in: Self.answerPatience)
    }

    private func close(_ channel: any Channel, in time: TimeAmount) {
        channel.eventLoop.scheduleTask(in: time) { channel.close(promise: nil) }
    }
}
