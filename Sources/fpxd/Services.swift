// Services: the parts of the daemon that run until it is told to stop.

import ControlPlane
import Foundation
import KeyedSessions
import Logging
import SPOE
import ServiceLifecycle
import Synchronization
import UnixSignals

/// Work that comes round, on a thread of its own: what it does must not wait for any other task.
struct Housekeeping: Service {
    /// Seconds.
    static let reapInterval = 0.025

    private final class Stop: Sendable {
        let isAsked = Atomic<Bool>(false)
    }

    let daemon: Daemon
    let manager: ServiceManager

    func run() async throws {
        let stop = Stop()
        await cancelWhenGracefulShutdown {
            await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in
                    let thread = Thread {
                        work(until: stop)
                        continuation.resume()
                    }
                    thread.name = "housekeeping"
                    thread.start()
                }
            } onCancel: {
                stop.isAsked.store(true, ordering: .relaxed)
            }
        }
    }

    private func work(until stop: Stop) {
        let sockets = socketWatch()
        let clock = ContinuousClock()
        var nextSecond = clock.now + .seconds(1)
        var nextWatchdog = clock.now
        var trouble = ""
        while !stop.isAsked.load(ordering: .relaxed) {
            daemon.reap()
            do {
                try sockets?.tick()
                trouble = ""
            } catch {
                if trouble != "\(error)" { daemon.logger.warning("Socket events: \(error)") }
                trouble = "\(error)"
            }
            if clock.now >= nextSecond {
                daemon.tick()
                nextSecond += .seconds(1)
                // After a pause of the machine one tick is enough.
                if nextSecond < clock.now { nextSecond = clock.now + .seconds(1) }
            }
            if let interval = manager.watchdogInterval, clock.now >= nextWatchdog {
                manager.notify("WATCHDOG=1")
                nextWatchdog = clock.now + interval
            }
            Thread.sleep(forTimeInterval: Self.reapInterval)
        }
    }

    private func socketWatch() -> SocketWatch? {
        do {
            return try SocketWatch(sessions: daemon.sessions)
        } catch {
            daemon.logger.notice(
                "No socket events (\(error)): sessions of wire hooks end by the proxy's word and with its processes only")
            return nil
        }
    }
}

/// HAProxy's agent and the reader of its session ends.
struct HAProxyAgent: Service {
    private let sockets: [String]
    private let agent: SPOEServer
    private let ends: EndServer

    /// Nil: the settings say that it is not to be served.
    init?(_ places: Places, sessions: KeyedSessions, logger: Logger) throws {
        guard let paths = places.haproxy else { return nil }
        sockets = [paths.agent, paths.ring]
        var logger = logger
        logger[metadataKey: "hook"] = "haproxy"
        agent = try SPOEServer(settings: .init(path: paths.agent), sessions: sessions, logger: logger)
        ends = try EndServer(path: paths.ring, sessions: sessions, logger: logger)
    }

    /// What was counted on both sockets.
    var counters: [String: Int] { agent.counters.merging(ends.counters) { $1 } }

    /// Makes the sockets, for the group that their folder belongs to: HAProxy's workers have no other group than their own.
    func start() async throws {
        try await agent.start()
        try await ends.start()
        for path in sockets { try Places.giveAsFolder(path) }
    }

    func run() async throws {
        try await cancelWhenGracefulShutdown {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await agent.run() }
                group.addTask { try await ends.run() }
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
            _ = await daemon.commit()
        }
    }
}
