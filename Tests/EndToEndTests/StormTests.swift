import Admission
import Foundation
import Synchronization
import TestSupport
import Testing

extension EndToEnd {
    /// Everything that can be killed, reloaded or changed is, in random order, while sessions come and go through both proxies.
    ///
    /// `SEED=N` repeats the order of events; `STORM_SECONDS=N` makes it long (`make storm`).
    @Suite struct Storm {}
}

private enum Trouble: String, CaseIterable {
    case killWorkers, killHAProxy, killDaemon, stopDaemon, reloadNGINX, reloadHAProxy, policy, cap, commitGarbage
}

extension EndToEnd.Storm {
    @Test func neverOverTheCapAndNothingLeftBehind() throws {
        let seed = testSeed()
        let seconds = ProcessInfo.processInfo.environment["STORM_SECONDS"].flatMap(Double.init) ?? 20
        var random = SeededGenerator(seed: seed)
        let highestCap = 40
        let control = try DaemonControl(cap: highestCap)
        var settings = NGINXSettings()
        settings.workers = 2
        let nginx = try NGINX(segment: control.segmentPath, settings)
        var haproxy = try HAProxy(agent: control.runFolder)
        let ports = Mutex((http: haproxy.httpPort, stream: haproxy.streamPort))
        let highest = Atomic(0)
        let sessions = Atomic(0)
        let sampler = BackgroundThread { thread in
            while !thread.isStopped {
                highest.max((try? control.settledInUse()) ?? 0, ordering: .relaxed)
                usleep(500)
            }
        }
        let load = (0..<6).map { index in
            BackgroundThread { thread in
                var held: [Client] = []
                var round = index
                while !thread.isStopped {
                    round += 1
                    let face: Face = round % 2 == 0 ? .http : .stream
                    let client: Client? =
                        if round % 4 < 2 {
                            try? nginx.open(face, idle: round % 3 == 0)
                        } else {
                            try? Client(
                                face, port: ports.withLock { face == .http ? $0.http : $0.stream }, idle: round % 3 == 0)
                        }
                    if let client {
                        held.append(client)
                        sessions.add(1, ordering: .relaxed)
                    } else {
                        usleep(1000)  // what it wanted is dead just now
                    }
                    if held.count > 12 || round % 5 == 0, let oldest = held.first {
                        held.removeFirst()
                        if round % 7 == 0 { oldest.socket.reset() } else { oldest.socket.close() }
                    }
                }
                held.close()
            }
        }
        var troubles: [Trouble: Int] = [:]
        let start = ContinuousClock.now
        while ContinuousClock.now - start < .seconds(seconds) {
            let trouble = Trouble.allCases.randomElement(using: &random)!
            troubles[trouble, default: 0] += 1
            switch trouble {
            case .killWorkers: for worker in try nginx.workers() { kill(worker, SIGKILL) }
            case .killHAProxy:
                for process in haproxy.workers() + [haproxy.master()].compactMap({ $0 }) { kill(process, SIGKILL) }
                haproxy = try HAProxy(agent: control.runFolder)
                ports.withLock { $0 = (haproxy.httpPort, haproxy.streamPort) }
            case .killDaemon, .stopDaemon:
                try control.end(by: trouble == .killDaemon ? SIGKILL : SIGTERM)
                usleep(UInt32.random(in: 0...100_000, using: &random))
                try control.start()
            case .reloadNGINX: try nginx.reload()
            case .reloadHAProxy: try haproxy.reload()
            case .policy: try control.set(policy: Bool.random(using: &random) ? .block : .bypass)
            case .cap: try control.set(cap: Int.random(in: 1...highestCap, using: &random))
            case .commitGarbage:
                let good = try Data(contentsOf: URL(filePath: control.licenseFile))
                // The last byte is a line end, which no licence needs.
                try good.dropLast(Int.random(in: 2...good.count, using: &random)).write(to: URL(filePath: control.licenseFile))
                #expect(try control.ask("commit").status == 1)
                try good.write(to: URL(filePath: control.licenseFile))
                #expect(try control.ask("commit").status == 0)
            }
            usleep(UInt32.random(in: 0...200_000, using: &random))
        }
        for thread in load { thread.stop() }
        sampler.stop()
        let counts = troubles.map { "\($0.key.rawValue) \($0.value)" }.sorted().joined(separator: ", ")
        print(
            "storm: seed \(seed), \(sessions.load(ordering: .relaxed)) sessions, \(counts), "
                + "at most \(highest.load(ordering: .relaxed)) of \(highestCap) in use")
        #expect(highest.load(ordering: .relaxed) <= highestCap, "seed \(seed)")
        #expect(sessions.load(ordering: .relaxed) > 500, "seed \(seed)")
        try control.set(cap: highestCap)
        try control.set(policy: .bypass)
        try expectEventually("nothing is in use after seed \(seed)") { try control.inUseByCommand() == 0 }
        try expectEventually("no session is listed after seed \(seed)") { try control.counters()["listed"] == 0 }
        // All of it is there to be had.
        try haproxy.awaitAgent()
        let clients = try (0..<(highestCap + 4)).map {
            $0 % 2 == 0 ? try nginx.open(.stream) : try haproxy.open(.stream)
        }
        #expect(clients.count(of: .inspect) == highestCap, "seed \(seed)")
        clients.close()
        try expectEventually("nothing is in use at the end, seed \(seed)") { try control.inUseByCommand() == 0 }
    }
}
