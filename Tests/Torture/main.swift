// Torture: processes and threads admit and release at and under the limit while they are killed, stopped, moved and forked and
// the cap changes. Exits with 0 when no law of the counter was broken.

import Admission
import ArgumentParser
import Glibc

struct Torture: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "Torture", abstract: "Kills, stops and moves processes that admit sessions, and checks every law.")

    /// The first argument of a child process, which is this same program.
    static let childMark = "__child"

    @Option(help: "The least time to run, in seconds.")
    var seconds: Double = 60
    @Option(help: "Repeats the schedule of faults of an earlier run; by default a new one.")
    var seed: UInt64?
    @Option(help: "Child processes, 1 to \(Ledger.children).")
    var processes = 3
    @Option(help: "Threads of each child, 1 to \(Limits.lanes).")
    var threads = 2
    @Option(help: "The cap of each round in sessions; 0: from 1 to 20000, changing.")
    var cap = 0
    @Option(help: "The least number of operations.")
    var operations: UInt64 = 100_000_000
    @Option(help: "The least number of kills.")
    var kills = 200
    @Option(help: "The number of the first round: with --seed, repeats a round of an earlier run.")
    var round = 0
    @Flag(help: "Locked fences only, as on machines without membarrier.")
    var locked = false
    @Flag(help: "The totals as one line of JSON.")
    var json = false

    func validate() throws {
        guard (1...Ledger.children).contains(processes) else { throw ValidationError("--processes: 1 to \(Ledger.children)") }
        guard (1...Limits.lanes).contains(threads) else { throw ValidationError("--threads: 1 to \(Limits.lanes)") }
        guard (0...60_000).contains(cap) else { throw ValidationError("--cap: 0 to 60000") }
    }

    func run() throws {
        let seed = seed ?? now() & 0xffff_ffff
        say("torture: seed \(seed), \(processes) processes, \(threads) threads each")
        defer { Files.remove() }
        let plan = Plan(
            seconds: seconds, seed: seed, children: processes, threads: threads, cap: cap, operations: operations,
            kills: kills, locked: locked, firstRound: round)
        let conductor = try Conductor(plan: plan)
        var broken: Violation?
        do {
            try conductor.run()
        } catch let violation as Violation {
            broken = violation
        }
        var totals = conductor.totals
        if let broken { totals.violations[broken.law] = 1 }
        if json { say(totals.json) }
        if let broken {
            say("torture: FAILED \(broken.law.rawValue): \(broken.text) (seed \(seed)); \(totals.text)")
            throw ExitCode(1)
        }
        say("torture: ok, seed \(seed), \(totals.text)")
    }
}

if CommandLine.arguments.count > 1 && CommandLine.arguments[1] == Torture.childMark {
    guard let settings = ChildSettings(Array(CommandLine.arguments.dropFirst(2))) else { exit(2) }
    Child.run(settings)
}
Torture.main()
