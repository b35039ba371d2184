// Station: one unit, with a host, a clock, a licence, a daemon and workers of its own.

import Admission
import Foundation

/// The programs under test.
struct Programs: Sendable {
    let fpxd: String
    let fpx: String
    let authority: String
    /// With the authority's key `chaos`, the clock library, and all that a campaign needs.
    let folder: String
    var library: String { folder + "/clock.so" }
}

final class Station {
    static let sessionsPerSeat = 25
    static let workersOfFurl = 2
    static let workers = 3

    let index: Int
    let serial: String
    let home: String
    let segmentPath: String
    let place: Place
    let clock: UnitClock
    private let programs: Programs
    private let settings: [String: String]
    private let words: WorkerWords
    /// What the wall clock is ahead, in nanoseconds.
    private let wall: SharedWords
    private(set) var daemon: Child?
    private var workers: [Child?]
    /// Seats of each type.
    private(set) var seats: [Int]
    private var epoch = 0

    /// - Parameter folder: of the run.
    init(
        _ plan: Plan, index: Int, programs: Programs, folder: String, memory: String, words: WorkerWords, endpoints: [String],
        network: inout Network
    ) throws(ChaosError) {
        self.index = index
        self.programs = programs
        self.words = words
        serial = "U\(index + 1)"
        home = "\(folder)/\(serial)"
        segmentPath = "\(memory)/\(serial)/segment"
        seats = plan.seats[index]
        clock = plan.clocks[index]
        workers = Array(repeating: nil, count: Self.workers)
        var place = try network.addHost("u\(index + 1)", number: 11 + index)
        place.bootSeconds = clock.bootSeconds
        self.place = place
        settings = plan.settings(of: index, endpoints: endpoints)
        wall = try SharedWords(path: "\(memory)/\(serial).wall", count: 1, creating: true)
        do {
            try FileManager.default.createDirectory(atPath: home + "/keys", withIntermediateDirectories: true)
            try FileManager.default.copyItem(atPath: programs.folder + "/chaos.pem", toPath: home + "/keys/chaos.pem")
        } catch {
            throw .notReady(what: home, log: "\(error)")
        }
        // The key that its licences name, before it makes one itself.
        try must([programs.authority, "keys", "new", "--name", "unit", "--out", home + "/state"])
        try sign(seats)
        // A unit that keeps no record of what it has lent takes all for lent, and where loans do not end by time for ever. A first
        // start without sharing says that there is none.
        try write(plan.isByTime ? settings : settings.filter { !["csf-status", "ha-mode"].contains($0.key) })
        try start()
    }

    /// From its next start on it shares, if it did not.
    func share() throws(ChaosError) {
        try write(settings)
        end(by: SIGTERM)
        try start()
    }

    private func write(_ settings: [String: String]) throws(ChaosError) {
        let lines = settings.sorted { $0.key < $1.key }.map { "\($0): \"\($1)\"\n" }
        do { try lines.joined().write(toFile: home + "/fpxd.yaml", atomically: true, encoding: .utf8) } catch {
            throw .notReady(what: home + "/fpxd.yaml", log: "\(error)")
        }
    }

    var log: String { (try? String(contentsOfFile: home + "/fpxd.out", encoding: .utf8)) ?? "" }

    private var environment: [String: String] { clock.environment(library: programs.library, wall: wall.path) }

    // MARK: The daemon

    /// Starts it if it does not run.
    func start() throws(ChaosError) {
        if let daemon, !daemon.hasEnded() { return }
        daemon = try Child(
            [programs.fpxd, "--home", home, "--config", home + "/fpxd.yaml", "--segment", segmentPath, "--haproxy-folder", ""],
            in: place, environment: environment, output: home + "/fpxd.out")
    }

    func end(by signal: Int32) {
        daemon?.end(by: signal)
        daemon = nil
    }

    /// Its processes go by the clock that the oracle reckons with.
    func checkClock() throws(ChaosError) {
        for process in [daemon] + workers {
            guard let process else { continue }
            if try run(["grep", "-q", programs.library, "/proc/\(process.processID)/maps"]).status != 0 {
                throw .missing(
                    what: "\(programs.library) in process \(process.processID) of \(serial)",
                    expected: "programs that are linked dynamically")
            }
        }
    }

    /// It has ended, and nobody has told it to.
    var hasCrashed: Bool { daemon?.hasEnded() ?? false }

    func ask(_ words: String..., within seconds: Double = 5) throws(ChaosError) -> (status: Int32, output: String) {
        try run([programs.fpx, "--socket", home + "/run/control.sock"] + words, within: seconds)
    }

    var answers: Bool { (try? ask("get", "system", "status").status) == 0 }

    // MARK: The licence

    /// Puts a licence in place; the daemon sees it by itself, or at a commit.
    func sign(_ seats: [Int]) throws(ChaosError) {
        epoch += 1
        self.seats = seats
        try must([
            programs.authority, "license", "sign", "--key", programs.folder + "/chaos.key", "--customer", "chaos", "--seats",
            String(seats[0]), "--fnbi", String(seats[1]), "--fcas", String(seats[2]), "--sessions-per-seat",
            String(Self.sessionsPerSeat), "--model-max", "500", "--id", serial, "--epoch", String(epoch), "--unit-key",
            try publicKey(), "--out", home + "/license.lic",
        ])
    }

    /// The last 32 bytes of what the PEM says (RFC 8410), in base64url.
    private func publicKey() throws(ChaosError) -> String {
        let path = home + "/state/unit.pem"
        let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        let lines = text.split(separator: "\n").filter { !$0.hasPrefix("-----") }
        guard let bytes = Data(base64Encoded: lines.joined()), bytes.count == 44 else {
            throw .missing(what: path, expected: "an Ed25519 public key")
        }
        return bytes.suffix(32).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing(
            "=", with: "")
    }

    /// Sets the wall clock; it may go back.
    func setWall(seconds: Int) { wall[0] = seconds * 1_000_000_000 }

    // MARK: Workers

    private func word(_ worker: Int) -> Int { index * Self.workers + worker }

    func startWorkers(count: Int) throws(ChaosError) {
        for worker in workers.indices where workers[worker]?.hasEnded() ?? true {
            words.setHeld(word(worker), WorkerWords.notYet)
            let arguments = Worker.arguments(
                segment: segmentPath, pool: worker < Self.workersOfFurl ? 0 : 2, words: words.words.path, count: count,
                worker: word(worker))
            workers[worker] = try Child(
                ["/proc/self/exe"] + arguments, in: place, environment: environment, output: home + "/workers.out")
        }
    }

    func killWorker(_ worker: Int) {
        workers[worker]?.end()
        workers[worker] = nil
    }

    /// All workers have begun.
    var isWorking: Bool { workers.indices.allSatisfy { words.held(word($0)) != WorkerWords.notYet } }

    var hasLostWorker: Bool { workers.contains { $0?.hasEnded() ?? false } }

    /// Sessions that a worker would like.
    func wish(_ worker: Int, _ sessions: Int) { words.setWish(word(worker), sessions) }

    func signal(_ number: Int32, workersToo: Bool) {
        daemon?.signal(number)
        if workersToo { for worker in workers { worker?.signal(number) } }
    }

    func end() {
        for worker in workers { worker?.end() }
        end(by: SIGKILL)
    }

    // MARK: For the oracle

    func watched(_ segment: Segment) throws -> Watched {
        Watched(
            serial: serial, pools: try Oracle.types.indices.map { try segment.pool($0) }, clock: clock, workers: Self.workers,
            sessionsPerSeat: Self.sessionsPerSeat, licences: [(seats, .max)])
    }
}
