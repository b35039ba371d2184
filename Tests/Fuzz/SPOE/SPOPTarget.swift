// A conversation of haproxy with the agent.

/// What a conversation came to.
private struct Outcome: Equatable {
    var phase: SPOPConnection.Phase
    var isWaiting: Bool
    var isHealthcheck: Bool
    var maxFrameSize: Int
    var frames: Int
    var messages: [SPOPMessage] = []
    var output: [UInt8] = []
}

/// Above what the hello may offer and below it, so that both sides are the one that decides.
private let ourMaxFrameSize = 600

private func converse(_ pieces: [[UInt8]]) -> Outcome {
    var connection = SPOPConnection(maxFrameSize: ourMaxFrameSize)
    var messages: [SPOPMessage] = []
    var output: [UInt8] = []
    for piece in pieces {
        let wasClosed = isClosed(connection.phase)
        let answer = connection.receive(piece) { message in
            messages.append(message)
            // Answers as long as what was asked: some pass the largest frame.
            return message.arguments.sorted { $0.key < $1.key }.map { SPOPSetVariable(name: $0.key, value: $0.value) }
        }
        expect(!wasClosed || answer.isEmpty, "an ended conversation answered")
        output += answer
    }
    return Outcome(
        phase: connection.phase, isWaiting: connection.isWaiting, isHealthcheck: connection.isHealthcheck,
        maxFrameSize: connection.maxFrameSize, frames: connection.frames, messages: messages, output: output)
}

private func isClosed(_ phase: SPOPConnection.Phase) -> Bool { if case .closed = phase { true } else { false } }

/// The bodies of the frames; ends the process where there is anything but whole frames.
private func frames(in output: [UInt8]) -> [ArraySlice<UInt8>] {
    var frames: [ArraySlice<UInt8>] = []
    var rest = output[...]
    while !rest.isEmpty {
        expect(rest.count >= 4, "the output ends within a length")
        let length = rest.prefix(4).reduce(0) { $0 << 8 | Int($1) }
        expect(rest.count >= 4 + length, "the output ends within a frame")
        frames.append(rest.dropFirst(4).prefix(length))
        rest = rest.dropFirst(4 + length)
    }
    return frames
}

private func checkOutput(_ outcome: Outcome) throws {
    let frames = frames(in: outcome.output)
    expect(frames.allSatisfy { $0.count <= outcome.maxFrameSize }, "found a longer frame than \(outcome.maxFrameSize) bytes")
    let types = try frames.map { try SPOPFrame($0).type }
    var isHello = true
    for (index, type) in types.enumerated() {
        switch SPOPFrameType(rawValue: type) {
        case .agentHello: expect(index == 0, "a second hello")
        case .ack: expect(!isHello, "an answer before the hello")
        case .agentDisconnect: expect(index == types.count - 1, "a frame after the last")
        default: expect(false, "found a frame of type \(type)")
        }
        isHello = false
    }
    expect(outcome.frames >= types.filter { $0 == SPOPFrameType.ack.rawValue }.count, "more answers than frames")
    if case .closed(let status) = outcome.phase, !outcome.isHealthcheck {
        let last = try frames.last.map { try SPOPFrame($0) }
        expect(last == .disconnect(status), "an ended conversation without its last frame")
        expect(!outcome.isWaiting, "an ended conversation waits")
    } else if !isClosed(outcome.phase) {
        expect(!types.contains(SPOPFrameType.agentDisconnect.rawValue), "the last frame of a conversation that goes on")
        expect((outcome.phase == .open) == !types.isEmpty, "phase \(outcome.phase) after \(types.count) frames")
    }
}

/// What was read is written so that it reads the same.
private func checkWriter(_ message: SPOPMessage) throws {
    var writer = SPOPWriter()
    writer.string(message.name)
    writer.byte(UInt8(message.arguments.count))
    for (name, value) in message.arguments {
        writer.string(name)
        writer.value(value)
    }
    let read = try SPOPMessage.list(writer.bytes[...])
    expect(read == [message], "found \(read), expected \(message)")
}

private func checkFrames(_ bytes: [UInt8]) throws {
    guard let frame = try? SPOPFrame(bytes[...]) else { return }
    let again = try SPOPFrame(frame.encoded.dropFirst(4))
    expect(again == frame, "found \(again), expected \(frame)")
    for message in (try? SPOPMessage.list(bytes[...])) ?? [] { try checkWriter(message) }
}

func fuzzSPOP(_ bytes: [UInt8]) {
    do {
        let whole = converse([bytes])
        let cut = converse(pieces(of: bytes))
        expect(cut == whole, "in pieces \(cut), in one \(whole)")
        try checkOutput(whole)
        for message in whole.messages { try checkWriter(message) }
        try checkFrames(bytes)
    } catch {
        expect(false, "what was written cannot be read: \(error)")
    }
}
