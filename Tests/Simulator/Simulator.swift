// Simulator: seat sharing under faults, by seed. `make simulate SEEDS=10000`; one seed replays with `--seed N --log`.

import ArgumentParser
import SeatSharing

@main
struct Simulator: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "Simulator", abstract: "Seat sharing with virtual clocks, network and etcd, and faults by seed.")

    @Option(help: "How many seeds.") var seeds: UInt64 = 1000
    @Option(help: "The first seed.") var seed: UInt64 = 1
    @Option(help: "Virtual seconds of each.") var seconds: Int64 = 180
    @Option(help: "Leaves out a rule, by its name: the run must find that.") var mutation: String?
    @Option(help: "How likely a copy of a unit is started, when it comes to that.") var usurpers = 0.1
    @Option(help: "Instead: a pool of so many members, without faults, measured.") var members: Int?
    @Flag(help: "Prints what happens; for one seed.") var log = false

    func validate() throws {
        guard seeds > 0, seconds > 0, seed.addingReportingOverflow(seeds).overflow == false else {
            throw ValidationError("found \(seeds) seeds of \(seconds) s from \(seed), expected positive numbers")
        }
        guard (0...1).contains(usurpers) else { throw ValidationError("found usurpers \(usurpers), expected 0 to 1") }
        if let members, !(2...20_000).contains(members) {
            throw ValidationError("found \(members) members, expected 2 to 20000")
        }
        if let mutation, !Mutations.all.contains(where: { $0.name == mutation }) {
            throw ValidationError(
                "found mutation \(mutation), expected one of \(Mutations.all.map(\.name).joined(separator: ", "))")
        }
    }

    func run() throws {
        if let members { return try Scale(members: members).report() }
        var options = World.Options(seconds: seconds, usurpers: usurpers)
        if log { options.log = { print($0) } }
        if let mutation { options.mutations = Mutations.all.first { $0.name == mutation }?.mutation ?? [] }
        let clock = ContinuousClock()
        let begun = clock.now
        var (events, writes, shared) = (0, 0, 0)
        for seed in seed..<seed + (log ? 1 : seeds) {
            let world = try World(seed: seed, options: options)
            if let violation = world.run() {
                print("VIOLATION \(violation)\nreplay: --seed \(seed) --seconds \(seconds) --log")
                throw ExitCode(1)
            }
            events += world.events
            writes += world.store.writes
            shared += world.peakShared > 0 ? 1 : 0
        }
        let spent = (clock.now - begun) / .seconds(1)
        print(
            "\(log ? 1 : seeds) seeds from \(seed): \(events) events, \(writes) writes, seats lent in \(shared) worlds, no violation;"
                + " \(Int(Double(events) / spent)) events/s")
    }
}
