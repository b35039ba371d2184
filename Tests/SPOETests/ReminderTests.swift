import Foundation
import Logging
import NIOCore
import NIOEmbedded
import Synchronization
import Testing

@testable import KeyedSessions
@testable import SPOE

/// Lines that come with each connection fill no log.
@Suite struct ReminderTests {
    private final class Lines: Sendable { let all = Mutex<[String]>([]) }

    private struct Handler: LogHandler {
        let lines: Lines
        var logLevel = Logger.Level.info
        var metadata: Logger.Metadata = [:]

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) { lines.all.withLock { $0.append("\(event.message)") } }
    }

    private let fixture: Fixture
    private let lines = Lines()
    private let agent: SPOEAgent

    init() throws {
        fixture = try Fixture(cap: 1)
        let lines = lines
        agent = SPOEAgent(
            sessions: fixture.sessions, pools: [:], statistics: SPOEStatistics(),
            logger: Logger(label: "test") { _ in Handler(lines: lines) })
    }

    @Test func onceAMinuteWithTheirNumber() {
        let reminder = Reminder()
        let now = ContinuousClock.now
        #expect(reminder.count("a", now: now) == 1)
        for second in 1..<60 { #expect(reminder.count("a", now: now + .seconds(second)) == nil) }
        #expect(reminder.count("b", now: now + .seconds(59)) == 1)
        #expect(reminder.count("a", now: now + .seconds(60)) == 60)
        for kind in 0..<1000 { #expect(reminder.count("\(kind)", now: now + .seconds(61)) == 1) }
    }

    /// HAProxy's check connects anew every two seconds.
    @Test func aProcessThatCannotBeSeenIsToldOnce() {
        for _ in 0..<100 { _ = agent.peer(processID: 0, network: nil) }
        for _ in 0..<100 { _ = agent.peer(processID: getpid(), network: Network.cookie + 1) }
        #expect(lines.all.withLock { $0.count } == 3, "\(lines.all.withLock { $0 })")
        #expect(lines.all.withLock { $0.count { $0.contains("cannot be seen") } } == 1)
    }

    @Test(arguments: [0, 1]) func clientsThatSayNothing(_ bytes: Int) throws {
        for _ in 0..<100 {
            let loop = EmbeddedEventLoop()
            let handler = SPOEHandler(agent: agent, maxFrameSize: 16380, patience: .seconds(10), isRefused: false)
            let channel = EmbeddedChannel(loop: loop)
            try channel.pipeline.syncOperations.addHandler(handler)
            channel.connect(to: try SocketAddress(unixDomainSocketPath: "/none"), promise: nil)
            if bytes > 0 { try channel.writeInbound(ByteBuffer(bytes: [0])) }
            loop.advanceTime(by: .seconds(11))
            #expect(!channel.isActive)
        }
        #expect(agent.statistics.all["protocol_errors"] == 100)
        let told = lines.all.withLock { $0.filter { $0.contains("conversation") || $0.contains("said nothing") } }
        #expect(told.count == bytes, "half a frame is a fault, told once; silence is none")
    }
}
