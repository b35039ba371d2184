// Units that share seats: each a real fpxd with a licence, a segment and a worker of its own.

import Admission
import Foundation
import Synchronization
import TestSupport
import Testing

struct SeatCount: Decodable, Equatable {
    var furl: Int
    var fnbi: Int
    var fcas: Int
}

/// GET /v1/sharing, as far as the tests look at it.
struct SharingView: Decodable {
    struct Partner: Decodable {
        var serial: String
        var seats: SeatCount
        var endsInSeconds: Int?
    }
    struct Endpoint: Decodable {
        var url: String
        var state: String
    }

    var mode: String
    var group: String?
    var isEntitled: Bool
    var isConnected: Bool
    var isFenced: Bool
    var members: Int
    var staleMembers: Int
    var lenders: [Partner]
    var borrowers: [Partner]
    var own: SeatCount
    var borrowed: SeatCount
    var lent: SeatCount
    var cap: SeatCount
    var debt: SeatCount
    var reclaimAfter: String
    var problems: [String]
    var endpoints: [Endpoint]
}

/// A process's sessions: so many at any time. Who is not inspected goes after a second, and another comes.
final class SessionLoad: Sendable {
    private final class Target: Sendable {
        let wanted = Atomic(0)
        let inspected = Atomic(0)
    }

    /// On the thread alone.
    private struct Sessions {
        static let turnsInASecond = 50
        var inspected = 0
        /// By the turn in which they came.
        var bypassed = [Int](repeating: 0, count: turnsInASecond)
        var now = 0

        mutating func turn(_ pool: Pool, wanted: Int) {
            now = (now + 1) % Self.turnsInASecond
            var gone = bypassed[now]
            bypassed[now] = 0
            for turn in bypassed.indices where inspected + bypassed.reduce(0, +) > wanted {
                gone += bypassed[turn]
                bypassed[turn] = 0
            }
            for _ in 0..<gone { pool.release(.bypass) }
            while inspected > wanted {
                pool.release(.inspect)
                inspected -= 1
            }
            for _ in 0..<max(0, wanted - inspected - bypassed.reduce(0, +)) {
                switch pool.admit().detach() {
                case .inspect: inspected += 1
                case .bypass: bypassed[now] += 1
                case .block: return
                }
            }
        }
    }

    private let target: Target
    private let thread: BackgroundThread

    init(_ pool: Pool) {
        let target = Target()
        self.target = target
        thread = BackgroundThread { thread in
            var sessions = Sessions()
            while !thread.isStopped {
                sessions.turn(pool, wanted: target.wanted.load(ordering: .relaxed))
                target.inspected.store(sessions.inspected, ordering: .relaxed)
                usleep(UInt32(1_000_000 / Sessions.turnsInASecond))
            }
            sessions.turn(pool, wanted: 0)
        }
    }

    /// Sessions that there are to be, inspected or not.
    var wanted: Int {
        get { target.wanted.load(ordering: .relaxed) }
        set { target.wanted.store(newValue, ordering: .relaxed) }
    }

    var inspected: Int { target.inspected.load(ordering: .relaxed) }

    func stop() { thread.stop() }
}

/// Nanoseconds of CLOCK_BOOTTIME, by which borrowed seats end.
func bootTime() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

extension Pool {
    /// Sessions that are admitted now at most: for good, and borrowed ones until their end.
    func capNow() -> Int {
        let limits = settings
        return limits.cap + (bootTime() < limits.deadline ? limits.borrowed : 0)
    }
}

/// Adds up what all units enforce, all the time.
final class CapWatch: Sendable {
    private struct Found {
        var samples = 0
        var highest: [Int] = []
    }

    private let found: Reference
    private let thread: BackgroundThread
    private let most: Int

    private final class Reference: Sendable { let value = Mutex(Found()) }

    /// - Parameter most: the sessions that all have bought.
    init(_ units: [SharingUnit], most: Int) {
        self.most = most
        let pools = units.map(\.pool)
        let found = Reference()
        self.found = found
        thread = BackgroundThread { thread in
            while !thread.isStopped {
                if let caps = Self.together(pools) {
                    found.value.withLock {
                        $0.samples += 1
                        if caps.reduce(0, +) > $0.highest.reduce(0, +) { $0.highest = caps }
                    }
                }
                usleep(500)
            }
        }
    }

    /// What all enforce at one moment; nil, where that changed while it was read.
    private static func together(_ pools: [Pool]) -> [Int]? {
        func read() -> [[Int64]] {
            pools.map {
                let limits = $0.settings; return [Int64(limits.cap), Int64(limits.borrowed), limits.deadline]
            }
        }
        let first = read()
        let now = bootTime()
        guard read() == first else { return nil }
        return first.map { Int($0[0] + (now < $0[2] ? $0[1] : 0)) }
    }

    /// Ends, and expects that never more was enforced than bought.
    ///
    /// - Returns: the most.
    @discardableResult
    func stop(sourceLocation: SourceLocation = #_sourceLocation) -> Int {
        thread.stop()
        let found = found.value.withLock { $0 }
        #expect(found.highest.reduce(0, +) <= most, "caps \(found.highest)", sourceLocation: sourceLocation)
        #expect(found.samples > 100, "samples", sourceLocation: sourceLocation)
        return found.highest.reduce(0, +)
    }
}

/// A unit: its fpxd, and a worker that holds sessions of type furl.
final class SharingUnit: Sendable {
    static let sessionsPerSeat = 25

    /// Who signs the licences of all units: each believes what the others' licences say.
    private static let vendor = Result {
        let folder = try TemporaryFolder()
        let (status, output) = try run(
            try Programs.path("fpx-authority"), ["keys", "new", "--name", "vendor", "--out", folder.path])
        if status != 0 { throw EndToEndError.notReady(what: "fpx-authority keys new", log: output) }
        return folder
    }
    static func vendorKey() throws -> String { try vendor.get().path + "/vendor.key" }

    let serial: String
    let daemon: DaemonControl
    let pool: Pool
    let load: SessionLoad
    private let segment: Segment
    private let epoch = Atomic(0)
    private let unitKey = Mutex<String?>(nil)

    /// Starts it once without sharing, as a unit that is new begins, and then with it.
    ///
    /// - Parameters:
    ///   - seats: bought; nil: the unit has no licence of its own.
    ///   - license: more words for `license sign`.
    ///   - original: a unit whose key it has, as where a whole host was copied.
    ///   - launcher: a command that starts fpxd.
    init(
        _ serial: String, seats: Int?, license: [String] = [], copyOf original: SharingUnit? = nil,
        _ settings: [String: String], launcher: [String] = []
    ) throws {
        self.serial = serial
        daemon = try DaemonControl(cap: nil, launcher: launcher)
        try FileManager.default.copyItem(
            atPath: try Self.vendor.get().path + "/vendor.pem", toPath: daemon.home + "/keys/vendor.pem")
        segment = try daemon.attach()
        pool = try segment.pool(0)
        load = SessionLoad(pool)
        if let original {
            try daemon.end(by: SIGTERM)
            try Data(contentsOf: URL(filePath: original.keyFile)).write(to: URL(filePath: keyFile))
            try daemon.start()
        }
        if let seats {
            try sign(seats: seats, license)
            _ = try daemon.ask(["commit"])
        }
        try restart(settings, by: SIGTERM)
    }

    deinit {
        load.stop()
    }

    /// Several, one after the other.
    ///
    /// - Parameter settings: of each unit, over those of all.
    static func start(
        _ seats: KeyValuePairs<String, Int>, _ settings: [String: String], each: [String: [String: String]] = [:]
    ) throws -> [SharingUnit] {
        try seats.map { serial, seats in
            try SharingUnit(serial, seats: seats, settings.merging(each[serial] ?? [:]) { $1 })
        }
    }

    // MARK: Licence and settings

    /// The private key of the unit.
    var keyFile: String { daemon.home + "/state/unit.key" }

    /// Its public half, as a licence names it.
    func publicKey() throws -> String {
        if let known = unitKey.withLock({ $0 }) { return known }
        let text = try daemon.fpx("show", "license_hardware_data")
        let key = String(try #require(text.firstMatch(of: /"unit_key" ?: ?"([^"]+)"/)?.1, "\(text)"))
        unitKey.withLock { $0 = key }
        return key
    }

    /// A licence of this unit that names no key.
    func plainLicense(seats: Int) throws -> String {
        let file = daemon.folder.path + "/plain.lic"
        try daemon.authority(
            "license", "sign", "--key", try Self.vendorKey(), "--customer", "test", "--seats", "\(seats)", "--model-max",
            "1000",
            "--id", serial, "--epoch", "1000", "--out", file)
        return try String(contentsOfFile: file, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// Puts a licence in place that names the unit's key.
    func sign(seats: Int, _ more: [String] = []) throws {
        let number = epoch.add(1, ordering: .relaxed).newValue
        try daemon.authority(
            [
                "license", "sign", "--key", try Self.vendorKey(), "--customer", "test", "--seats", "\(seats)",
                "--model-max", "1000", "--id", serial, "--epoch", "\(number)", "--unit-key", try publicKey(), "--out",
                daemon.licenseFile,
            ] + more)
    }

    /// Ends fpxd by a signal and starts it, with other settings where some are given.
    func restart(_ settings: [String: String]? = nil, by signal: Int32) throws {
        if let settings { try write(settings) }
        try daemon.end(by: signal)
        try daemon.start()
    }

    /// A hand edit.
    func write(_ settings: [String: String]) throws {
        let lines = settings.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)\n" }
        try lines.joined().write(toFile: daemon.home + "/fpxd.yaml", atomically: true, encoding: .utf8)
    }

    /// `config system WORDS end`
    func configure(_ words: String...) throws {
        let (status, output) = try daemon.ask(["config", "system"] + words + ["end"])
        #expect(status == 0, "\(words): \(output)")
    }

    // MARK: What it says

    func view() throws -> SharingView {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(
            SharingView.self, from: Data(try daemon.fpx("--json", "diagnose", "test", "application", "csfd", "1").utf8))
    }

    func tells(_ words: String...) throws -> Bool {
        let events = try daemon.fpx("get", "system", "events")
        return words.allSatisfy(events.contains)
    }

    /// Waits until it enforces so many seats.
    @discardableResult
    func expectCap(
        _ seats: Int, within seconds: Double = 20, sourceLocation: SourceLocation = #_sourceLocation
    ) -> Duration {
        let start = ContinuousClock.now
        let came = eventually(within: seconds) { pool.capNow() == seats * Self.sessionsPerSeat }
        #expect(
            came, "\(serial): found \(pool.settings), expected \(seats) seats; \(daemon.log.suffix(1500))",
            sourceLocation: sourceLocation)
        return ContinuousClock.now - start
    }
}
