import Admission
import Foundation
import Synchronization
import Testing

extension EndToEnd {
    /// Reloads, killed workers, segments that come late, and ways to run workers.
    @Suite struct NGINXLife {}
}

extension EndToEnd.NGINXLife {
    @Test(arguments: Face.allCases)
    func reloadsKeepSessionsAndTheCap(_ face: Face) throws {
        let control = try DaemonControl()
        var settings = NGINXSettings()
        settings.workers = 2
        let nginx = try NGINX(segment: control.segmentPath, settings)
        let highest = Atomic(0)
        let sampler = BackgroundThread { thread in
            while !thread.isStopped { highest.max((try? control.settledInUse()) ?? .max, ordering: .relaxed) }
        }
        defer { sampler.stop() }
        var held = try nginx.open(5, face)
        #expect(held.count(of: .inspect) == 3)
        for round in 1...4 {
            try nginx.reload()
            #expect(try control.figures().inUse == 3, "reload \(round): live sessions of old workers still count")
            #expect(try nginx.open(face).outcome == .bypass, "reload \(round): no room for a session in a new worker")
            let ended = try #require(held.firstIndex { $0.outcome == .inspect })
            held.remove(at: ended).socket.close()
            try expectEventually("an old session ends") { try control.figures().inUse == 2 }
            held.append(try nginx.open(face))
            #expect(held.last?.outcome == .inspect, "reload \(round): a new worker takes the room that an old one gave back")
        }
        sampler.stop()
        #expect(highest.load(ordering: .relaxed) == 3)
        held.close()
        try expectEventually("old workers exit and nothing is in use") {
            try nginx.oldWorkers().isEmpty && control.figures() == Figures(inUse: 0, bypassed: 0, workers: 2)
        }
    }

    @Test(arguments: Face.allCases)
    func stoppedWorkersGiveBackWhatTheyHold(_ face: Face) throws {
        // Nobody reaps here: what comes back has been given back by the worker itself.
        let path = newSegmentPath()
        try Segment.create(path: path)
        defer { unlink(path) }
        let segment = try Segment.attach(path: path)
        defer { segment.detach() }
        let pool = try segment.pool(0)
        try pool.setCap(3)
        do {
            let nginx = try NGINX(segment: path)
            let clients = try nginx.open(3, face)
            #expect(pool.snapshot().inUse == 3)
            kill(try nginx.master(), SIGTERM)
            expectEventually("nothing is in use") { pool.snapshot().inUse == 0 && pool.snapshot().processes == 1 }
            withExtendedLifetime(clients) {}
        }
    }

    @Test(arguments: Face.allCases)
    func killedWorkersGiveBackAllUnderLoad(_ face: Face) throws {
        let control = try DaemonControl(cap: 20)
        var settings = NGINXSettings()
        settings.workers = 2
        let nginx = try NGINX(segment: control.segmentPath, settings)
        var slowest = Duration.zero
        for _ in 1...5 {
            let held = try nginx.open(20, face)
            #expect(held.count(of: .inspect) == 20)
            let load = Load(nginx, face)
            defer { load.stop() }
            expectEventually("sessions over the limit flow") { load.bypassed >= 20 }
            try nginx.killWorkers()
            let start = ContinuousClock.now
            // The storm goes on and takes of what comes back: 4 sessions at a time at most.
            try expectEventually("what the killed workers held is back") { try control.figures().inUse <= Load.threads }
            expectEventually("the load is inspected") { load.inspected > 0 }
            let elapsed = ContinuousClock.now - start
            slowest = max(slowest, elapsed)
            load.stop()
            try expectEventually("nothing is in use") { try control.figures() == Figures(inUse: 0, bypassed: 0, workers: 2) }
            held.close()
        }
        print("nginx \(face.rawValue): 5 times 20 sessions of killed workers were back after \(slowest) at most")
        #expect(slowest < .seconds(1))
        try nginx.open(20, face).forEach { #expect($0.outcome == .inspect) }
    }

    /// What nginx' own limiter does in the same storm; printed, as it is not ours to promise.
    @Test func sameStormAgainstLimitConn() throws {
        var settings = NGINXSettings()
        settings.http = "limit_conn_zone $server_port zone=all:1m;"
        settings.httpServer = "limit_conn all 3;"
        settings.stream = "limit_conn_zone $server_port zone=all_stream:1m; limit_conn all_stream 3;"
        let nginx = try NGINX(segment: nil, settings)
        let control = try DaemonControl()
        let fpx = try NGINX(segment: control.segmentPath)
        for face in Face.allCases {
            var admitted = "after SIGKILL of the workers with 3 live sessions, and a reload: "
            for (name, proxy) in [("limit_conn", nginx), ("fpx", fpx)] {
                let held = try proxy.open(3, face)
                #expect(held.count(of: .inspect) == 3)
                let before = try proxy.workers()
                try proxy.killWorkers()
                try expectEventually("the master starts a new worker") {
                    try proxy.workers().count == 1 && proxy.workers() != before
                }
                try proxy.reload()
                if name == "fpx" { try expectEventually("all is back") { try control.figures().inUse == 0 } }
                let fresh = try proxy.open(3, face)
                if name == "fpx" { #expect(fresh.count(of: .inspect) == 3) }
                admitted += "\(name) admits \(fresh.count(of: .inspect)) of 3; "
                (held + fresh).close()
            }
            print("nginx \(face.rawValue): \(admitted)")
            try expectEventually("nothing is in use") { try control.figures().inUse == 0 }
        }
    }

    @Test(arguments: Face.allCases, ["open", "closed"])
    func segmentThatComesLateIsFound(_ face: Face, _ fail: String) throws {
        let path = newSegmentPath()
        var settings = NGINXSettings()
        settings.workers = 2
        settings.httpServer += "fpx_fail \(fail);"
        settings.stream += "fpx_fail \(fail);"
        let nginx = try NGINX(segment: path, settings)
        let early = try nginx.open(3, face)
        #expect(early.count(of: fail == "open" ? .bypass : .refused) == 3)

        let control = try DaemonControl(segment: path)
        try expectEventually("workers attach") { try control.figures().workers == 2 }
        let late = try nginx.open(5, face)
        #expect(late.count(of: .inspect) == 3)
        #expect(try control.figures() == Figures(inUse: 3, bypassed: 2, workers: 2))
        // Sessions of before are nobody's: their end changes nothing.
        early.close()
        late.close()
        try expectEventually("nothing is in use") { try control.figures() == Figures(inUse: 0, bypassed: 0, workers: 2) }
        #expect(nginx.log.components(separatedBy: "fpx: \(path): open failed: ENOENT").count - 1 == 2, "\(nginx.log)")
        #expect(nginx.log.components(separatedBy: "fpx: attached to \(path)").count - 1 == 2, "\(nginx.log)")
    }

    @Test(
        arguments: Face.allCases,
        [
            (user: "www-data", events: "accept_mutex on;", listen: ""),
            (user: "root", events: "accept_mutex off;", listen: "reuseport"),
            (user: "www-data", events: "multi_accept on;", listen: "reuseport"),
        ])
    func workersShareTheCap(_ face: Face, _ way: (user: String, events: String, listen: String)) throws {
        let control = try DaemonControl(cap: 20)
        var settings = NGINXSettings()
        settings.workers = 4
        settings.user = way.user
        settings.main = "master_process on;"
        settings.events = way.events
        settings.listen = way.listen
        // A cache brings processes that are no workers: they must not take slots.
        settings.http = "proxy_cache_path /tmp/fpx-test-cache.\(getpid()) keys_zone=cache:1m;"
        defer { try? FileManager.default.removeItem(atPath: "/tmp/fpx-test-cache.\(getpid())") }
        let nginx = try NGINX(segment: control.segmentPath, settings)
        // http and stream of one worker share one attachment: 4 slots, not 8.
        try expectEventually("workers attach") { try control.figures().workers == 4 }
        let clients = try nginx.open(15, face) + nginx.open(15, face == .http ? .stream : .http)
        #expect(clients.count(of: .inspect) == 20)
        #expect(clients.count(of: .bypass) == 10)
        #expect(try control.figures() == Figures(inUse: 20, bypassed: 10, workers: 4))
        clients.close()
        try expectEventually("nothing is in use") { try control.figures() == Figures(inUse: 0, bypassed: 0, workers: 4) }
    }
}

/// Clients that open and end sessions as fast as they can, until they are stopped.
final class Load: Sendable {
    private let inspectedCount = Atomic(0)
    private let bypassedCount = Atomic(0)
    private let running = Mutex<[BackgroundThread]>([])
    /// How many sessions it has at once.
    static let threads = 4

    init(_ nginx: NGINX, _ face: Face) {
        running.withLock { running in
            running = (0..<Load.threads).map { _ in
                BackgroundThread { [self] thread in
                    while !thread.isStopped {
                        // Between a worker's death and the next one's start connections fail; that is no outcome.
                        guard let client = try? nginx.open(face, idle: true) else { continue }
                        switch client.outcome {
                        case .inspect: inspectedCount.add(1, ordering: .relaxed)
                        case .bypass: bypassedCount.add(1, ordering: .relaxed)
                        case .refused: break
                        }
                        client.socket.close()
                    }
                }
            }
        }
    }

    var inspected: Int { inspectedCount.load(ordering: .relaxed) }
    var bypassed: Int { bypassedCount.load(ordering: .relaxed) }

    func stop() { for thread in running.withLock({ $0 }) { thread.stop() } }
}
