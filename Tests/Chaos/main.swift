// Chaos: units with real daemons share seats over a real etcd, on hosts of their own, while everything goes wrong that can. Exits
// with 0 when at no instant more was enforced than was bought, and every pool was whole again after its faults.

import ArgumentParser
import Foundation

extension FaultKind: ExpressibleByArgument {}
extension Plan.Mode: ExpressibleByArgument {}

struct Chaos: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "Chaos", abstract: "Breaks networks, clocks, disks and processes below units that share seats, and counts."
    )

    @Option(help: "How many runs, of about 25 s each.")
    var runs = 5
    @Option(help: "The first run's seed; the others follow it.")
    var seed: UInt64 = 1
    @Option(help: ArgumentHelp("Where fpxd, fpx and fpx-authority lie (default: beside this program).", valueName: "folder"))
    var programs: String?
    @Option(help: "The fpxd under test, in place of the one there.")
    var fpxd: String?
    @Option(help: "The fpx-authority, in place of the one there.")
    var authority: String?
    @Option(help: "The fpx, in place of the one there.")
    var fpx: String?
    @Option(help: "Only faults of this kind; may be given more than once.")
    var only: [FaultKind] = []
    @Option(help: "In place of what the seed draws.")
    var mode: Plan.Mode?
    @Option(help: "In place of what the seed draws: time or ack-only.")
    var policy: String?
    @Flag(help: "Leaves the folders of the runs.")
    var keep = false
    @Flag(help: "Tells each fault as it happens.")
    var verbose = false
    @Flag(help: "Tests the oracle, and nothing else.")
    var selfTest = false

    func validate() throws {
        if !(1...10_000).contains(runs) { throw ValidationError("--runs: found \(runs), expected 1 to 10000") }
        if let policy, policy != "time", policy != "ack-only" {
            throw ValidationError("--policy: found \(policy), expected time or ack-only")
        }
    }

    func run() throws {
        try Self.checkHost()
        Interrupt.watch()
        let name = "fpx-chaos-\(getpid())"
        let (folder, memory) = ("/var/tmp/\(name)", "/dev/shm/\(name)")
        defer {
            try? FileManager.default.removeItem(atPath: memory)
            if !keep { try? FileManager.default.removeItem(atPath: folder) }
        }
        for path in [folder, memory] {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
        }
        try SelfTest.run(folder: memory)
        if selfTest { return say("chaos: the oracle finds what it must") }
        let programs = try underTest(folder)
        _ = try UnitClock.build(in: folder)
        try must([programs.authority, "keys", "new", "--name", "chaos", "--out", folder])
        try campaign(name, folder, memory, programs)
    }

    /// By their whole paths: they are started from other places.
    private func underTest(_ folder: String) throws(ChaosError) -> Programs {
        let place = programs ?? URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().path
        func program(_ given: String?, _ name: String) throws(ChaosError) -> String {
            let path = URL(filePath: given ?? "\(place)/\(name)").path
            guard access(path, X_OK) == 0 else {
                throw .missing(what: path, expected: "it built: swift build --product \(name)")
            }
            return path
        }
        return Programs(
            fpxd: try program(fpxd, "fpxd"), fpx: try program(fpx, "fpx"), authority: try program(authority, "fpx-authority"),
            folder: folder)
    }

    private func campaign(_ name: String, _ folder: String, _ memory: String, _ programs: Programs) throws {
        let options = Options(isVerbose: verbose, only: only, mode: mode, policy: policy)
        var failed: [UInt64] = []
        var total = Outcome()
        var slowest = 0.0
        for number in 0..<runs {
            let seed = seed &+ UInt64(number)
            let run = try Run(
                seed: seed, name: "\(name)-\(number)", folder: "\(folder)/\(seed)", memory: "\(memory)/\(number)",
                programs: programs, options: options)
            let outcome: Outcome
            do {
                defer { run.end() }
                outcome = try run.go()
            }
            say("run \(number): seed \(seed), \(run.plan.description): \(outcome.text)")
            if !outcome.failures.isEmpty {
                failed.append(seed)
                for line in outcome.trace { say("    " + line) }
                for failure in outcome.failures { say("  FAILED: \(failure)") }
                say("  replay: the same command with --seed \(seed) --runs 1 --verbose --keep")
            }
            total.add(outcome)
            slowest = max(slowest, outcome.wholeAfter ?? 0)
            if !keep { try? FileManager.default.removeItem(atPath: "\(folder)/\(seed)") }
        }
        let result = failed.isEmpty ? "ok" : "FAILED seeds \(failed.map(String.init).joined(separator: ", "))"
        say("chaos: \(result), \(runs) runs, slowest to be whole \(String(format: "%.1f s", slowest)), \(total.text)")
        if !failed.isEmpty { throw ExitCode(1) }
    }

    /// Says what is missing before anything is begun.
    private static func checkHost() throws(ChaosError) {
        guard getuid() == 0 else {
            throw .missing(what: "root, but user \(getuid())", expected: "root: namespaces are made with ip")
        }
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        for (program, package) in [
            ("ip", "iproute2"), ("iptables", "iptables"), ("etcd", "etcd-server"), ("etcdctl", "etcd-client"), ("cc", "gcc"),
            ("curl", "curl"),
        ]
        where !path.split(separator: ":").contains(where: { access("\($0)/\(program)", X_OK) == 0 }) {
            throw .missing(what: program, expected: "it on the PATH (package \(package))")
        }
    }
}

extension Outcome {
    mutating func add(_ other: Outcome) {
        report.samples += other.report.samples
        report.skipped += other.report.skipped
        report.lending += other.report.lending
        report.borrowedMax = max(report.borrowedMax, other.report.borrowedMax)
        report.longestGap = max(report.longestGap, other.report.longestGap)
        admitted += other.admitted
        refused += other.refused
        faults.merge(other.faults, uniquingKeysWith: +)
    }

    var text: String {
        let faults = faults.sorted { $0.key.rawValue < $1.key.rawValue }.map { "\($0.key.rawValue) \($0.value)" }
        let whole = wholeAfter.map { String(format: "whole after %.1f s, ", $0) } ?? ""
        let gap = String(format: "%.0f ms", Double(report.longestGap) / 1e6)
        let lent = report.samples == 0 ? 0 : report.lending * 100 / report.samples
        return whole + "\(report.samples) samples (\(report.skipped) skipped, longest gap \(gap)), "
            + "with loans \(lent) %, of at most \(report.borrowedMax) sessions, \(admitted) admitted, \(refused) refused, "
            + "faults: \(faults.joined(separator: ", "))"
    }
}

let arguments = CommandLine.arguments.dropFirst()
switch arguments.first {
case Place.mark: Place.enter(Array(arguments.dropFirst()))
case Worker.mark: Worker.run(Array(arguments.dropFirst()))
default: Chaos.main()
}
