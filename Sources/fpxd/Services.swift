// Services: the parts of the daemon that run until it is told to stop.

import Admission
import ControlPlane
import Foundation
import KeyedSessions
import Logging
import SPOE
import ServiceLifecycle
import Synchronization
import UnixSignals

extension Rounds {
    /// Takes back what the dead held. Nothing in it waits for a disk.
    static func reaping(_ daemon: Daemon, _ pulse: Pulse) -> Rounds {
        // Before the agent is started: sessions that begin without a watch are bound to no socket.
        let sockets = socketWatch(daemon)
        return Rounds(name: "reaper", interval: .milliseconds(25), pulse: pulse) {
            var trouble = ""
            var attendance = ProcessWatch()
            return {
                daemon.reap(&attendance)
                do {
                    try sockets?.tick()
                    trouble = ""
                } catch {
                    let text = "Socket events: \(error)"
                    if trouble != text { daemon.logger.warning("\(text)") }
                    trouble = text
                }
            }
        }
    }

    /// Whether the segment is in order.
    static func looking(_ daemon: Daemon) -> Rounds {
        Rounds(name: "segment", interval: .seconds(1)) { { daemon.lookAtSegment() } }
    }

    /// Samples, licence, events.
    static func housekeeping(_ daemon: Daemon, _ pulse: Pulse) -> Rounds {
        Rounds(name: "housekeeping", interval: .seconds(1), pulse: pulse) { { daemon.tick() } }
    }

    private static func socketWatch(_ daemon: Daemon) -> SocketWatch? {
        do {
            return try SocketWatch(sessions: daemon.sessions)
        } catch {
            daemon.logger.notice(
                "No socket events (\(error)): sessions of wire hooks end by the proxy's word and with its processes only")
            return nil
        }
    }
}

/// Tells the service manager of the end when it begins: the service that is told first of a shutdown, as the last of its group.
struct Farewell: Service {
    let manager: ServiceManager

    func run() async throws {
        try await gracefulShutdown()
        manager.notify("STOPPING=1")
    }
}

/// HAProxy's agent and the reader of its session ends.
struct HAProxyAgent: Service {
    private let sockets: (agent: String, ring: String)
    private let agent: SPOEServer
    private let ends: EndServer
    private let names: SocketNames

    /// Nil: the settings say that it is not to be served.
    ///
    /// - Parameters:
    ///   - meter: the pool that haproxy's bytes count in; the licence has one bandwidth for all types.
    ///   - full: told of each connection for which there is no room.
    init?(
        _ places: Places, sessions: KeyedSessions, meter: HostPool, names: SocketNames, shares: ConnectionShares,
        logger: Logger, full: @escaping @Sendable (String) -> Void
    ) throws {
        guard let paths = places.haproxy else { return nil }
        sockets = paths
        self.names = names
        var logger = logger
        logger[metadataKey: "hook"] = "haproxy"
        agent = try SPOEServer(
            settings: .init(path: paths.agent, connectionsMax: shares.agent), sessions: sessions, logger: logger, full: full)
        ends = try EndServer(
            path: paths.ring, connectionsMax: shares.ring, sessions: sessions, logger: logger, full: full
        ) { try meter.report(bytesIn: $0, out: $1) }
    }

    /// What was counted on both sockets.
    var counters: [String: Int] { agent.counters.merging(ends.counters) { $1 } }

    /// Makes the sockets, for the group that their folder belongs to: HAProxy's workers have no other group than their own.
    func start() async throws {
        try await startAgent()
        try await startEnds()
    }

    private func startAgent() async throws {
        try await agent.start()
        try Places.giveAsFolder(sockets.agent)
    }

    private func startEnds() async throws {
        try await ends.start()
        try Places.giveAsFolder(sockets.ring)
    }

    /// HAProxy connects to a path whenever it likes.
    private func keepNames() async {
        while (try? await Task.sleep(for: .seconds(1))) != nil {
            await names.keep(sockets.agent, isThere: agent.hasItsName, startAgent)
            await names.keep(sockets.ring, isThere: ends.hasItsName, startEnds)
        }
    }

    func run() async throws {
        try await cancelWhenGracefulShutdown {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await agent.run() }
                group.addTask { try await ends.run() }
                group.addTask { await keepNames() }
                try await group.waitForAll()
            }
        }
    }
}

/// SIGHUP is `commit`.
struct CommitOnHangup: Service {
    let daemon: Daemon

    func run() async throws {
        for await _ in await UnixSignalsSequence(trapping: .sighup).cancelOnGracefulShutdown() {
            _ = await daemon.commit(by: "SIGHUP")
        }
    }
}
