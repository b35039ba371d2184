import Foundation
import TestSupport
import Testing

@testable import SPOE

/// Frames as they were written by hand from the protocol's document.
@Suite struct CodecTests {
    private func encode(_ body: (inout SPOPWriter) -> Void) -> [UInt8] {
        var writer = SPOPWriter()
        body(&writer)
        return writer.bytes
    }

    @Test(
        arguments: [
            (0, [0x00]), (239, [0xef]), (240, [0xf0, 0x00]), (241, [0xf1, 0x00]), (2287, [0xff, 0x7f]),
            (2288, [0xf0, 0x80, 0x00]),
            (264431, [0xff, 0xff, 0x7f]), (264432, [0xf0, 0x80, 0x80, 0x00]), (33_818_863, [0xff, 0xff, 0xff, 0x7f]),
            (33_818_864, [0xf0, 0x80, 0x80, 0x80, 0x00]), (4_328_786_159, [0xff, 0xff, 0xff, 0xff, 0x7f]),
        ] as [(UInt64, [UInt8])])
    func varints(value: UInt64, bytes: [UInt8]) throws {
        #expect(encode { $0.varint(value) } == bytes)
        var reader = SPOPReader(bytes[...])
        #expect(try reader.varint() == value)
        #expect(reader.isAtEnd)
        for cut in 0..<bytes.count {
            var short = SPOPReader(bytes.prefix(cut))
            #expect(throws: SPOPError.invalidFrame) { try short.varint() }
        }
    }

    @Test func varintsOf64Bits() throws {
        var random = SeededGenerator(seed: 1)
        for _ in 0..<5000 {
            let value = random.next() >> UInt64.random(in: 0..<64, using: &random)
            var reader = SPOPReader(encode { $0.varint(value) }[...])
            #expect(try reader.varint() == value)
        }
        var largest = SPOPReader(encode { $0.varint(.max) }[...])
        #expect(try largest.varint() == .max)
        // One more than 64 bits can say, and more bytes than any number has.
        for bad in [
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f], [UInt8](repeating: 0xff, count: 40),
            [0xf0] + [UInt8](repeating: 0x80, count: 12) + [0],
        ] as [[UInt8]] {
            var reader = SPOPReader(bad[...])
            #expect(throws: SPOPError.invalidFrame) { try reader.varint() }
        }
    }

    @Test func typedData() throws {
        let golden: [([UInt8], SPOPValue)] = [
            ([0x00], .null), ([0x01], .boolean(false)), ([0x11], .boolean(true)), ([0x02, 0x05], .integer(5)),
            ([0x03, 0xef], .unsigned(239)), ([0x04, 0xf0, 0x00], .integer(240)), ([0x05, 0x01], .unsigned(1)),
            ([0x06, 127, 0, 0, 1], .ipv4([127, 0, 0, 1])), ([0x07] + [UInt8](0..<16), .ipv6([UInt8](0..<16))),
            ([0x08, 0x02, 0x68, 0x69], .string("hi")), ([0x09, 0x01, 0xff], .binary([0xff])),
            // -1 as haproxy sends it: all 64 bits.
            ([0x04] + encode { $0.varint(.max) }, .integer(-1)),
        ]
        for (bytes, value) in golden {
            var reader = SPOPReader(bytes[...])
            #expect(try reader.value() == value)
            #expect(reader.isAtEnd)
            for cut in 0..<bytes.count {
                var short = SPOPReader(bytes.prefix(cut))
                #expect(throws: SPOPError.invalidFrame) { try short.value() }
            }
            var back = SPOPReader(encode { $0.value(value) }[...])
            #expect(try back.value() == value)
        }
        for type in UInt8(10)...15 {
            var reader = SPOPReader([type, 0, 0][...])
            #expect(throws: SPOPError.invalidFrame) { try reader.value() }
        }
        #expect(SPOPValue.unsigned(.max).number == nil)
        #expect(SPOPValue.unsigned(80).number == 80 && SPOPValue.integer(-2).number == -2 && SPOPValue.null.number == nil)
    }

    @Test func helloAndItsAnswer() throws {
        let hello: [UInt8] =
            [0x00, 0x00, 0x00, 0x4b]  // 75 bytes follow
            + [0x01, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00]  // HAPROXY-HELLO, FIN, stream 0, frame 0
            + [0x12] + Array("supported-versions".utf8) + [0x08, 0x03] + Array("2.0".utf8)
            + [0x0e] + Array("max-frame-size".utf8) + [0x03, 0xfc, 0xf0, 0x06]
            + [0x0c] + Array("capabilities".utf8) + [0x08, 0x0a] + Array("pipelining".utf8)
        #expect(hello.count == 4 + 75)
        let answer: [UInt8] =
            [0x00, 0x00, 0x00, 0x40]
            + [0x65, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00]
            + [0x07] + Array("version".utf8) + [0x08, 0x03] + Array("2.0".utf8)
            + [0x0e] + Array("max-frame-size".utf8) + [0x03, 0xfc, 0xf0, 0x06]
            + [0x0c] + Array("capabilities".utf8) + [0x08, 0x0a] + Array("pipelining".utf8)
        var connection = SPOPConnection(maxFrameSize: 65536)
        #expect(connection.receive(hello) { _ in [] } == answer)
        #expect(connection.phase == .open)
        #expect(connection.maxFrameSize == 16380)
    }

    @Test func notifyAndItsAnswer() throws {
        var connection = SPOPConnection(maxFrameSize: 16380)
        _ = connection.receive(SPOPTestFrame.hello()) { _ in [] }
        let notify: [UInt8] =
            [0x00, 0x00, 0x00, 0x30]
            + [0x03, 0x00, 0x00, 0x00, 0x01, 0x05, 0x02]  // NOTIFY, FIN, stream 5, frame 2
            + [0x09] + Array("fpx-admit".utf8) + [0x03]
            + [0x02] + Array("id".utf8) + [0x08, 0x06] + Array("4:1a:0".utf8)
            + [0x03] + Array("src".utf8) + [0x06, 192, 0, 2, 1]
            + [0x05] + Array("sport".utf8) + [0x04, 0xf0, 0xa6, 0x17]
        var messages: [SPOPMessage] = []
        let answer = connection.receive(notify) {
            messages.append($0)
            return [SPOPSetVariable(name: "verdict", value: .string("inspect"))]
        }
        #expect(
            messages == [
                SPOPMessage(
                    name: "fpx-admit",
                    arguments: ["id": .string("4:1a:0"), "src": .ipv4([192, 0, 2, 1]), "sport": .integer(50000)])
            ])
        #expect(
            answer == [0x00, 0x00, 0x00, 0x1b, 0x67, 0x00, 0x00, 0x00, 0x01, 0x05, 0x02, 0x01, 0x03, 0x02, 0x07]
                + Array("verdict".utf8) + [0x08, 0x07] + Array("inspect".utf8))
    }

    @Test func disconnects() throws {
        let code: [UInt8] = [0x0b] + Array("status-code".utf8) + [0x03]
        let message: [UInt8] = [0x07] + Array("message".utf8) + [0x08]
        let normal: [UInt8] =
            [0x00, 0x00, 0x00, 0x25, 0x66, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00] + code + [0x00] + message + [0x06]
            + Array("normal".utf8)
        #expect(SPOPFrame.disconnect(.normal).encoded == normal)
        var connection = SPOPConnection(maxFrameSize: 16380)
        _ = connection.receive(SPOPTestFrame.hello()) { _ in [] }
        let goodbye = SPOPFrame(type: .haproxyDisconnect, payload: code + [0x00] + message + [0x06] + Array("normal".utf8))
        #expect(connection.receive(goodbye.encoded) { _ in [] } == normal)
        #expect(connection.phase == .closed(.normal))
        // After that nothing is answered.
        #expect(connection.receive(SPOPTestFrame.notify(1, "a")) { _ in [] } == [])
        #expect(connection.end(.timeout) == [])
    }

    /// What is wrong with a conversation is said by the protocol's own code, and it ends.
    @Test func protocolErrors() throws {
        typealias Frame = SPOPTestFrame
        let cases: [(SPOPError, [UInt8])] = [
            (.frameTooBig, [0x00, 0x00, 0x40, 0x00]), (.frameTooBig, [0xff, 0xff, 0xff, 0xff]),
            (.invalidFrame, [0, 0, 0, 0]), (.invalidFrame, [0, 0, 0, 1, 1]), (.invalidFrame, Frame.notify(1, "before hello")),
            (.invalidFrame, Frame.hello() + Frame.hello()),
            (.invalidFrame, Frame.hello() + [0, 0, 0, 9, 3, 0, 0, 0, 1, 1, 1, 200, 65]),
            (.noVersion, Frame.hello(versions: nil)), (.noMaxFrameSize, Frame.hello(size: nil)),
            (.noCapabilities, Frame.hello(capabilities: nil)), (.unsupportedVersion, Frame.hello(versions: "1.0, 3.0")),
            (.badMaxFrameSize, Frame.hello(size: 255)),
            (.fragmentationUnsupported, Frame.hello() + Frame.raw(type: 3, flags: 0)),
            (.fragmentationUnsupported, Frame.hello() + Frame.raw(type: 0, flags: 1)),
            (.fragmentationUnsupported, Frame.hello() + Frame.raw(type: 0, flags: 3)),
            (.frameTooBig, Frame.hello(size: 256) + [0, 0, 1, 1]),
            // The answer to one message is longer than the largest frame: sixty messages without arguments.
            (
                .frameTooBig,
                Frame.hello(size: 256)
                    + SPOPFrame(
                        type: .notify, streamID: 1, frameID: 1,
                        payload: (0..<60).flatMap { _ in [1, 65, 0] as [UInt8] }
                    ).encoded
            ),
            (.invalidFrame, Frame.raw(type: 101, flags: 1)),
        ]
        for (index, (status, input)) in cases.enumerated() {
            var connection = SPOPConnection(maxFrameSize: 16380)
            let output = connection.receive(input) { _ in [SPOPSetVariable(name: "verdict", value: .string("inspect"))] }
            #expect(connection.phase == .closed(status), "case \(index)")
            let expected = SPOPFrame.disconnect(status).encoded
            #expect(Array(output.suffix(expected.count)) == expected, "case \(index)")
        }
    }

    @Test func theHandshake() throws {
        var connection = SPOPConnection(maxFrameSize: 1000)
        let hello = SPOPTestFrame.hello(versions: "1.0, 2.0", size: 16380, capabilities: "async, pipelining")
        _ = connection.receive(hello) { _ in [] }
        #expect(connection.maxFrameSize == 1000 && connection.phase == .open)
        connection = SPOPConnection(maxFrameSize: 1000)
        _ = connection.receive(SPOPTestFrame.hello(size: 256, capabilities: "")) { _ in [] }
        #expect(connection.maxFrameSize == 256 && connection.phase == .open)
        connection = SPOPConnection(maxFrameSize: 1000)
        let answer = connection.receive(SPOPTestFrame.hello(healthcheck: true)) { _ in [] }
        #expect(answer[4] == 101 && connection.phase == .closed(.normal) && connection.isHealthcheck)
        // Unknown frames, messages and arguments are nobody's business.
        connection = SPOPConnection(maxFrameSize: 1000)
        _ = connection.receive(SPOPTestFrame.hello()) { _ in [] }
        #expect(connection.receive(SPOPTestFrame.raw(type: 77, flags: 1)) { _ in [] } == [])
        #expect(connection.phase == .open)
    }

    /// However the bytes are cut, the answers are the same.
    @Test func anyCut() throws {
        let input = SPOPTestFrame.hello() + zip(1...3, ["a", "b", "c"]).flatMap { SPOPTestFrame.notify($0, $1) }
        func answer(_ message: SPOPMessage) -> [SPOPSetVariable] {
            [SPOPSetVariable(name: "verdict", value: message.arguments["id"] ?? .null)]
        }
        var whole = SPOPConnection(maxFrameSize: 16380)
        let expected = whole.receive(input, decide: answer)
        var bytewise = SPOPConnection(maxFrameSize: 16380)
        #expect(input.flatMap { bytewise.receive([$0], decide: answer) } == expected)
        #expect(!bytewise.isWaiting)
        for cut in 0..<input.count {
            var connection = SPOPConnection(maxFrameSize: 16380)
            let first = connection.receive(Array(input.prefix(cut)), decide: answer)
            #expect(first + connection.receive(Array(input.dropFirst(cut)), decide: answer) == expected)
        }
    }
}

/// Frames that haproxy sends.
enum SPOPTestFrame {
    static func hello(
        versions: String? = "2.0", size: UInt64? = 16380, capabilities: String? = "pipelining", healthcheck: Bool? = nil
    ) -> [UInt8] {
        var payload = SPOPWriter()
        func add(_ name: String, _ value: SPOPValue?) {
            guard let value else { return }
            payload.string(name)
            payload.value(value)
        }
        add("supported-versions", versions.map { .string($0) })
        add("max-frame-size", size.map { .unsigned($0) })
        add("capabilities", capabilities.map { .string($0) })
        add("healthcheck", healthcheck.map { .boolean($0) })
        add("engine-id", .string("00000000-0000"))
        return SPOPFrame(type: .haproxyHello, payload: payload.bytes).encoded
    }

    static func notify(
        _ stream: UInt64, _ id: String?, message: String = "fpx-admit", client: (address: [UInt8], port: Int64)? = nil,
        extra: [String: SPOPValue] = [:]
    ) -> [UInt8] {
        var arguments: [(String, SPOPValue)] = extra.map { ($0.key, $0.value) }
        if let id { arguments.append(("id", .string(id))) }
        if let client {
            arguments.append(("src", client.address.count == 4 ? .ipv4(client.address) : .ipv6(client.address)))
            arguments.append(("sport", .integer(client.port)))
        }
        var payload = SPOPWriter()
        payload.string(message)
        payload.byte(UInt8(arguments.count))
        for (name, value) in arguments {
            payload.string(name)
            payload.value(value)
        }
        return SPOPFrame(type: .notify, streamID: stream, frameID: 1, payload: payload.bytes).encoded
    }

    static func raw(type: UInt8, flags: UInt32) -> [UInt8] {
        var frame = SPOPFrame(type: .notify, streamID: 1, frameID: 1)
        frame.type = type
        frame.flags = flags
        return frame.encoded
    }

    /// The frames in some bytes; nil: they do not end with one.
    static func split(_ bytes: [UInt8]) -> [SPOPFrame]? {
        var rest = bytes[...]
        var frames: [SPOPFrame] = []
        while !rest.isEmpty {
            guard rest.count >= 4 else { return nil }
            let length = rest.prefix(4).reduce(0) { $0 << 8 | Int($1) }
            guard rest.count >= 4 + length, let frame = try? SPOPFrame(rest.dropFirst(4).prefix(length)) else { return nil }
            frames.append(frame)
            rest = rest.dropFirst(4 + length)
        }
        return frames
    }

    /// The text of the first set-var action of an ACK.
    static func verdict(_ frame: SPOPFrame) -> String? {
        var reader = SPOPReader(frame.payload)
        guard (try? reader.bytes(3)) == [1, 3, 2], (try? reader.string()) == Array("verdict".utf8) else { return nil }
        return (try? reader.value())?.bytes.map { String(decoding: $0, as: UTF8.self) }
    }
}
