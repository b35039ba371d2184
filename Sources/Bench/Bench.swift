// Bench: what the engine costs against plain counting and against the ways others limit concurrency, in one run.

import ArgumentParser
import Glibc

@main
struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "Bench",
        abstract: "Measures the engine and its rivals in interleaved rounds.",
        discussion: """
            Each round runs a window of some milliseconds of every scenario, in shuffled order. Ratios are taken within rounds. \
            Windows in which a thread lost its CPU are discarded and counted.
            """,
        subcommands: [WorkerProcess.self, Hold.self])

    @Option(defaultAsFlag: "-", help: "Print JSON instead of the table, or write it to a file beside the table.")
    var json: String?

    @Flag(help: "List the scenarios and leave.")
    var list = false

    @Option(help: "Only these scenarios: names, separated by commas.")
    var only: String?

    @Option(help: "Rounds (default: as many as take about 70 s).")
    var rounds: Int?

    @Flag(help: "About 15 s.")
    var quick = false

    @Option(help: "Write a picture of scaling and latency.")
    var svg: String?

    @Option(help: "Cap of the pools that have room.")
    var cap = 30_000

    @Option(help: "Seed of order and walks.")
    var seed: UInt64 = 1

    func validate() throws {
        // What a System V semaphore can count is the least of all.
        if !(100...32_767).contains(cap) { throw ValidationError("--cap: found \(cap), expected 100 to 32767") }
        if let rounds, rounds < 1 { throw ValidationError("--rounds: found \(rounds), expected 1 or more") }
    }

    func run() throws {
        let settings = Settings(cpus: min(allowedCPUs().count, 8), cap: cap)
        if list {
            for scenario in settings.scenarios() {
                print("\(pad(scenario.name, 36)) \(scenario.threads)t x \(scenario.processes)p  \(scenario.about)")
            }
            return
        }
        let report: Report
        do {
            report = try measure(settings)
        } catch is Interrupted {
            throw ExitCode(130)
        }
        if json == "-" {
            print(try report.json())
        } else {
            print(report.table())
            if let json { try write(try report.json() + "\n", to: json) }
        }
        if let svg { try write(picture(of: report), to: svg) }
    }

    private func measure(_ settings: Settings) throws -> Report {
        let host = Host.look()
        let harness = try Harness(
            settings: settings, only: only?.split(separator: ",").map(String.init) ?? [])
        defer { harness.stop() }
        try harness.start()
        try harness.prepareAll()
        let isShown = isatty(2) != 0
        func show(_ text: String) {
            if isShown { tell("\r\(pad(text, 40))") }
        }
        show("calibrating")
        let start = now()
        let (units, roundSeconds) = try harness.calibrate(milliseconds: quick ? 1.5 : 3)
        let budget = (quick ? 13.0 : 68) - Double(now() - start) / 1e9
        let count = rounds ?? max(quick ? 7 : 25, min(1001, Int(budget / roundSeconds)))
        let windows = try harness.measure(units: units, rounds: count, seed: seed) { show("round \($0) of \(count)") }
        let memory = try measureMemory(prefix: harness.prefix, cpus: settings.cpus)
        try harness.finishAll()
        let reap = only == nil ? try measureReap(prefix: harness.prefix, samples: quick ? 7 : 31) : []
        show("")
        if isShown { tell("\r") }
        return Report(
            host: host, harness: harness, windows: windows, rounds: count, seed: seed, reap: reap, memory: memory)
    }
}

func write(_ text: String, to path: String) throws {
    guard let file = fopen(path, "w") else { throw BenchFailure("\(path): open failed: \(describe(errno))") }
    let written = fputs(text, file)
    if fclose(file) != 0 || written < 0 { throw BenchFailure("\(path): write failed: \(describe(errno))") }
}

/// Writes to the standard error, beside whatever the output is.
func tell(_ text: String) { _ = Array(text.utf8).withUnsafeBytes { Glibc.write(2, $0.baseAddress, $0.count) } }

func pad(_ text: String, _ width: Int, right: Bool = false) -> String {
    let space = String(repeating: " ", count: max(0, width - text.count))
    return right ? space + text : text + space
}

/// A worker process of a run.
struct WorkerProcess: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "worker", shouldDisplay: false)

    @Option var prefix: String
    @Option var room: Int  // not `cap`: an option of the program itself would be taken for that
    @Option var cpus: Int
    @Option var first: Int
    @Option var threads: Int

    func run() throws {
        try serveProcess(prefix: prefix, settings: Settings(cpus: cpus, cap: room), first: first, threads: threads)
    }
}

/// A process that holds sessions until it is killed.
struct Hold: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "hold", shouldDisplay: false)

    @Option var path: String
    @Option var sessions: Int

    func run() throws { try holdSessions(path: path, sessions: sessions) }
}
