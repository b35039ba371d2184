/// One conversation with a haproxy worker: bytes in, bytes out. Knows nothing of sockets.
struct SPOPConnection {
    enum Phase: Equatable {
        case hello
        case open
        /// Nothing is read any more; the connection is to be closed when the output is out.
        case closed(SPOPError)
    }

    private(set) var phase = Phase.hello
    private(set) var isHealthcheck = false
    /// Largest frame, in bytes, without its length: ours until the hello, then the smaller of both.
    private(set) var maxFrameSize: Int
    /// Frames that have come whole.
    private(set) var frames = 0
    /// The beginning of a frame whose end has not come: never more than the largest frame and its length.
    private var unread: [UInt8] = []

    init(maxFrameSize: Int) { self.maxFrameSize = maxFrameSize }

    /// Whether haproxy owes us something: its hello or the rest of a frame.
    var isWaiting: Bool { phase == .hello || !unread.isEmpty }

    /// Takes what has come and returns what is to be sent.
    ///
    /// - Parameter decide: the variables that answer a message.
    mutating func receive(_ bytes: [UInt8], decide: (SPOPMessage) -> [SPOPSetVariable]) -> [UInt8] {
        var output: [UInt8] = []
        var input = (unread.isEmpty ? bytes : unread + bytes)[...]
        unread = []
        do throws(SPOPError) {
            while !isClosed, input.count >= 4 {
                let length = input.prefix(4).reduce(0) { $0 << 8 | Int($1) }
                guard length <= maxFrameSize else { throw .frameTooBig }
                guard input.count >= 4 + length else { break }
                let frame = try SPOPFrame(input.dropFirst(4).prefix(length))
                input = input.dropFirst(4 + length)
                frames += 1
                if let answer = try handle(frame, decide) { output += answer.encoded }
            }
        } catch {
            output += end(error)
        }
        if !isClosed { unread = Array(input) }
        return output
    }

    /// Ends the conversation from our side: the frame that says so.
    mutating func end(_ status: SPOPError) -> [UInt8] {
        guard !isClosed else { return [] }
        phase = .closed(status)
        unread = []
        return SPOPFrame.disconnect(status).encoded
    }

    private var isClosed: Bool { if case .closed = phase { true } else { false } }

    private mutating func handle(
        _ frame: SPOPFrame, _ decide: (SPOPMessage) -> [SPOPSetVariable]
    ) throws(SPOPError) -> SPOPFrame? {
        guard let type = SPOPFrameType(rawValue: frame.type) else { return nil }
        // Fragments: we have not announced that we read them.
        guard type != .unset, frame.flags & SPOPFrame.isFinal != 0 else { throw .fragmentationUnsupported }
        switch (type, phase) {
        case (.haproxyHello, .hello):
            guard frame.streamID == 0, frame.frameID == 0 else { throw .invalidFrame }
            let hello = try SPOPHello(frame.payload, largest: maxFrameSize)
            maxFrameSize = hello.maxFrameSize
            isHealthcheck = hello.isHealthcheck
            phase = isHealthcheck ? .closed(.normal) : .open
            return hello.answer
        case (.notify, .open):
            return try acknowledge(frame, decide)
        case (.haproxyDisconnect, _):
            phase = .closed(.normal)
            return .disconnect(.normal)
        default:
            throw .invalidFrame
        }
    }

    private func acknowledge(
        _ frame: SPOPFrame, _ decide: (SPOPMessage) -> [SPOPSetVariable]
    ) throws(SPOPError) -> SPOPFrame {
        // All messages are read before the first is acted upon: a frame that is refused has done nothing.
        let messages = try SPOPMessage.list(frame.payload)
        var actions = SPOPWriter()
        for message in messages {
            for variable in decide(message) { variable.write(to: &actions) }
        }
        let answer = SPOPFrame(type: .ack, streamID: frame.streamID, frameID: frame.frameID, payload: actions.bytes)
        // Each message was longer than its answer can be, except where there were a great many without arguments.
        guard answer.encoded.count - 4 <= maxFrameSize else { throw .frameTooBig }
        return answer
    }
}
