import Foundation
import NIOCore
import NIOEmbedded
import Testing

@testable import KeyedSessions
@testable import SPOE

/// How long the agent waits for a connection, in virtual time.
@Suite struct PatienceTests {
    private let fixture: Fixture
    private let loop = EmbeddedEventLoop()
    private let channel: EmbeddedChannel

    init() throws {
        fixture = try Fixture(cap: 100)
        let agent = SPOEAgent(
            sessions: fixture.sessions, pools: ["furl": 0], statistics: SPOEStatistics(), logger: quiet)
        let handler = SPOEHandler(agent: agent, maxFrameSize: 16380, patience: .seconds(10), isRefused: false)
        channel = EmbeddedChannel(loop: loop)
        try channel.pipeline.syncOperations.addHandler(handler)
        channel.connect(to: try SocketAddress(unixDomainSocketPath: "/none"), promise: nil)
    }

    /// The frames that the agent has sent since the last call.
    private func receive() throws -> [SPOPFrame] {
        var bytes: [UInt8] = []
        while let buffer = try channel.readOutbound(as: ByteBuffer.self) { bytes += Array(buffer.readableBytesView) }
        return try #require(SPOPTestFrame.split(bytes))
    }

    private func send(_ bytes: some Sequence<UInt8>) throws { try channel.writeInbound(ByteBuffer(bytes: Array(bytes))) }

    @Test(arguments: [[], Array(SPOPTestFrame.hello().prefix(20)), SPOPTestFrame.hello() + [0, 0, 0, 50, 3]])
    func aSlowConnectionIsEnded(start: [UInt8]) throws {
        try send(start)
        loop.advanceTime(by: .milliseconds(9999))
        #expect(channel.isActive)
        loop.advanceTime(by: .milliseconds(2))
        #expect(!channel.isActive)
        #expect(try receive().last == SPOPFrame.disconnect(.timeout))
    }

    @Test func bytesOfOneFrameDoNotBuyTime() throws {
        for byte in SPOPTestFrame.hello().prefix(20) {
            try? send([byte])
            loop.advanceTime(by: .seconds(1))
        }
        #expect(!channel.isActive)
        #expect(try receive() == [SPOPFrame.disconnect(.timeout)])
    }

    @Test func anIdleConnectionIsNotSlow() throws {
        try send(SPOPTestFrame.hello())
        loop.advanceTime(by: .hours(5))
        try send(SPOPTestFrame.notify(1, "a"))
        #expect(try receive().map(\.type) == [101, 103])
        loop.advanceTime(by: .hours(5))
        #expect(channel.isActive)
    }

    /// Always in the middle of a frame, and never for long in the same.
    @Test func aBusyConnectionIsNotSlow() throws {
        try send(SPOPTestFrame.hello())
        let bytes = (1...40).flatMap { SPOPTestFrame.notify(UInt64($0), "\($0 + 10)") }
        let frame = bytes.count / 40
        var sent = 0
        for number in 1...40 {
            let next = number < 40 ? number * frame + frame / 2 : bytes.count
            try send(bytes[sent..<next])
            sent = next
            loop.advanceTime(by: .seconds(1))
        }
        let verdicts = try receive().dropFirst().map { SPOPTestFrame.verdict($0) }
        #expect(verdicts == Array(repeating: "inspect", count: 40))
        #expect(channel.isActive)
    }
}
