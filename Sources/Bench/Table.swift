// Table: the report for people. Ratios first.

import Foundation

extension Report {
    func table() -> String {
        var lines: [String] = []
        lines += hostLines()
        lines += ratioLines()
        lines += resultLines()
        lines += latencyLines()
        return lines.joined(separator: "\n")
    }

    static func number(_ value: Double) -> String {
        if !value.isFinite { return "-" }
        if value >= 9_999_500 { return String(format: "%.1fM", value / 1_000_000) }
        if value >= 99_950 { return String(format: "%.0fk", value / 1000) }
        return String(format: value < 9.995 ? "%.2f" : value < 99.95 ? "%.1f" : "%.0f", value)
    }

    private func hostLines() -> [String] {
        var lines = [
            "\(host.cpu), \(host.cpus) CPUs, \(host.virtualization); \(host.kernel), \(host.libc); \(host.compiler)",
            "rseq \(host.restartableSequences ? "registered" : "not registered"), membarrier "
                + (host.membarrier ? "available" : "refused")
                + ", governor \(host.governor), clock \(host.clockSource), load average \(host.loadAverage)",
            "\(rounds) rounds, seed \(seed); workers pinned, one to a CPU; times of single operations less the clock's own "
                + "\(host.timerNanoseconds) ns",
        ]
        if !host.optimized { lines.append("DEBUG BUILD: these figures mean nothing. Use swift build -c release.") }
        return lines + [""]
    }

    private func ratioLines() -> [String] {
        if ratios.isEmpty { return [] }
        var lines = [row("RATIO (median within rounds)", "value", "must", "aim", "")]
        for ratio in ratios {
            let target = ratio.targetText
            lines.append(row(ratio.about, Self.number(ratio.value), target.must, target.aim, ratio.verdict))
        }
        func megabytes(_ bytes: Int) -> String { String(format: "%.1f MiB", Double(bytes) / 1_048_576) }
        lines.append(
            row(
                "memory of a writer", "\(memory.writer) B", "<= 256 B", "",
                memory.writer <= 256 ? "met" : "NOT MET"))
        let large = memory.segment64Processes128CPUs
        lines.append(
            row(
                "taken by 64 processes x 128 CPUs", megabytes(large), "<= 64 MiB", "",
                large <= 64 << 20 ? "met" : "NOT MET"))
        lines.append(row("segment of this host", megabytes(memory.segmentHere), "", "", ""))
        lines.append(row("  of it in memory, one pool in use", "\(memory.used / 1024) KiB", "", "", ""))
        return lines + [
            "",
            "floor: ++ and -- of a thread-local word, one instruction each with its address in it. memory: the same through a",
            "pointer in a register, which CPUs with memory renaming turn into register operations, so that it is cheaper than a",
            "thread-local. Both are shown; the targets are against floor.", "",
        ]
    }

    private func row(_ about: String, _ value: String, _ must: String, _ aim: String, _ verdict: String) -> String {
        "\(pad(about, 46)) \(pad(value, 10, right: true))  \(pad(must, 10)) \(pad(aim, 10)) \(verdict)"
    }

    /// One line for each scenario, one column for each number of threads and processes.
    private func resultLines() -> [String] {
        var shapes: [String] = []
        var names: [String] = []
        func shape(_ result: Result) -> String { "\(result.threads)t x \(result.processes)p" }
        for result in results {
            if !shapes.contains(shape(result)) { shapes.append(shape(result)) }
            if !names.contains(result.scenario) { names.append(result.scenario) }
        }
        if names.isEmpty { return [] }
        let width = 21
        var lines = [
            "NANOSECONDS as one worker sees them: median (p10-p90)",
            pad("", 34) + shapes.map { pad($0, width, right: true) }.joined() + "  disturbed  unit",
        ]
        var anyBest = false
        for name in names {
            let own = results.filter { $0.scenario == name }
            let cells = shapes.map { wanted -> String in
                guard let result = own.first(where: { shape($0) == wanted }) else { return pad("", width) }
                let spread = result.nanoseconds
                anyBest = anyBest || result.keptBestQuarter
                let text =
                    "\(Self.number(spread.median)) (\(Self.number(spread.p10))-\(Self.number(spread.p90)))"
                    + (result.keptBestQuarter ? "*" : " ")
                return pad(text, width, right: true)
            }
            let windows = own.reduce(0) { $0 + $1.windows }
            let disturbed = own.reduce(0) { $0 + $1.disturbed }
            lines.append(
                pad(name, 34) + cells.joined() + pad("\(disturbed)/\(windows)", 11, right: true) + "  \(own[0].unit)")
        }
        if anyBest { lines.append("* over 80 % of the windows were disturbed: the best quarter of all is shown") }
        return lines + [""]
    }

    private func latencyLines() -> [String] {
        if latencies.isEmpty { return [] }
        var lines = [
            "LATENCY of single operations in ns, \(latencies[0].threads) threads",
            pad("", 40) + ["p50", "p99", "p99.9", "max", "count"].map { pad($0, 11, right: true) }.joined(),
        ]
        for latency in latencies {
            lines.append(
                pad("\(latency.scenario) \(latency.operation)", 40)
                    + [latency.p50, latency.p99, latency.p999, latency.max, latency.count]
                    .map { pad("\($0)", 11, right: true) }.joined())
        }
        return lines + [""]
    }
}
