// Picture: the report as an SVG for a page. Bars on a logarithmic scale, and the latencies of single operations. Its colours follow
// the reader's scheme, light or dark; its font is the reader's own.

import Foundation

private struct Canvas {
    private(set) var elements: [String] = []

    mutating func text(
        _ text: String, _ x: Double, _ y: Double, _ style: String = "label", anchor: String = "start"
    ) {
        let safe = text.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
        elements.append(
            "<text class=\"\(style)\" x=\"\(Self.round(x))\" y=\"\(Self.round(y))\" text-anchor=\"\(anchor)\">\(safe)</text>")
    }

    mutating func bar(_ x: Double, _ y: Double, _ width: Double, _ height: Double, _ style: String, title: String) {
        elements.append(
            "<rect class=\"\(style)\" x=\"\(Self.round(x))\" y=\"\(Self.round(y))\" width=\"\(Self.round(max(1, width)))\" "
                + "height=\"\(Self.round(height))\" rx=\"1.5\"><title>\(title)</title></rect>")
    }

    mutating func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ style: String) {
        elements.append(
            "<line class=\"\(style)\" x1=\"\(Self.round(x1))\" y1=\"\(Self.round(y1))\" x2=\"\(Self.round(x2))\" "
                + "y2=\"\(Self.round(y2))\"/>")
    }

    mutating func dot(_ x: Double, _ y: Double, _ style: String, title: String) {
        elements.append(
            "<circle class=\"\(style)\" cx=\"\(Self.round(x))\" cy=\"\(Self.round(y))\" r=\"4\"><title>\(title)</title></circle>"
        )
    }

    private static func round(_ value: Double) -> String { String(format: "%.1f", value) }
}

/// Where a value lies on a logarithmic axis.
private struct Scale {
    let least: Double
    let most: Double
    let left: Double
    let width: Double

    func x(_ value: Double) -> Double {
        left + width * log10(min(max(value, least), most) / least) / log10(most / least)
    }

    var ticks: [Double] { [1, 10, 100, 1000, 10_000, 100_000].filter { $0 >= least && $0 <= most } }
}

private let style = """
    <style>
    text { font-family: system-ui, sans-serif; fill: #24292f; }
    .title { font-size: 15px; font-weight: 600; }
    .label { font-size: 12px; }
    .own { font-size: 12px; font-weight: 700; }
    .small { font-size: 11px; fill: #57606a; }
    .grid { stroke: #d0d7de; stroke-width: 1; }
    .one { fill: #0969da; } .threads { fill: #bc4c00; } .processes { fill: #8250df; }
    .median { fill: #0969da; } .tail { fill: #bc4c00; } .far { fill: #8250df; }
    .span { stroke: #8c959f; stroke-width: 2; }
    @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9198a1; } .grid { stroke: #3d444d; } .span { stroke: #656c76; }
    .one, .median { fill: #4493f8; } .threads, .tail { fill: #f0883e; } .processes, .far { fill: #ab7df8; }
    }
    </style>
    """

func picture(of report: Report) -> String {
    var canvas = Canvas()
    let bottom = drawBars(report, on: &canvas)
    let height = drawLatencies(report, on: &canvas, top: bottom + 34)
    return """
        <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 \(Int(height))" width="860" height="\(Int(height))" \
        role="img" aria-label="Nanoseconds of an admit and release, and latencies of single operations">
        \(style)
        \(canvas.elements.joined(separator: "\n"))
        </svg>

        """
}

private func legend(_ entries: [(String, String)], _ y: Double, on canvas: inout Canvas) {
    var x = 180.0
    for (style, text) in entries {
        canvas.bar(x, y - 9, 10, 10, style, title: text)
        canvas.text(text, x + 15, y, "small")
        x += 30 + Double(text.count) * 6.5
    }
}

private func grid(_ scale: Scale, _ top: Double, _ bottom: Double, on canvas: inout Canvas) {
    for tick in scale.ticks {
        canvas.line(scale.x(tick), top, scale.x(tick), bottom, "grid")
        let text = tick < 1000 ? "\(Int(tick)) ns" : "\(Int(tick / 1000)) µs"
        canvas.text(text, scale.x(tick), bottom + 15, "small", anchor: "middle")
    }
}

/// The pairs, from the cheapest. Returns where the drawing ends.
private func drawBars(_ report: Report, on canvas: inout Canvas) -> Double {
    let own: Set<String> = ["lane", "shard", "handle", "c_lane"]
    let others = rivals.map { String(cString: $0.name) }
    func median(_ name: String, _ threads: Int, _ processes: Int) -> Double? {
        report.results.first { $0.scenario == name && $0.threads == threads && $0.processes == processes }?.nanoseconds.median
    }
    let names = (others + own).filter { median($0, 1, 1) != nil }.sorted { median($0, 1, 1)! < median($1, 1, 1)! }
    let series = [("one", "1 thread", 1, 1), ("threads", "2 threads", 2, 1), ("processes", "2 processes", 1, 2)]
    let scale = Scale(least: 0.1, most: 3000, left: 180, width: 620)
    canvas.text("One admit and release, as each worker sees it (logarithmic)", 16, 26, "title")
    legend(series.map { ($0.0, $0.1) }, 47, on: &canvas)
    let top = 62.0, rowHeight = 38.0
    let bottom = top + rowHeight * Double(names.count)
    grid(scale, top, bottom, on: &canvas)
    for (row, name) in names.enumerated() {
        let y = top + rowHeight * Double(row) + 4
        canvas.text(name, 170, y + 19, own.contains(name) ? "own" : "label", anchor: "end")
        for (index, entry) in series.enumerated() {
            guard let value = median(name, entry.2, entry.3) else { continue }
            let x = scale.x(value)
            canvas.bar(scale.left, y + Double(index) * 10, x - scale.left, 8.5, entry.0, title: "\(name), \(entry.1)")
            canvas.text(Report.number(value), x + 5, y + Double(index) * 10 + 8, "small")
        }
    }
    return bottom + 22
}

/// p50, p99 and p99.9 of single admits. Returns the height of the whole picture.
private func drawLatencies(_ report: Report, on canvas: inout Canvas, top: Double) -> Double {
    let admits = report.latencies.filter { $0.operation == "admit" && $0.count > 0 }
    guard let first = admits.first else { return top }
    let scale = Scale(least: 5, most: 100_000, left: 180, width: 620)
    canvas.text("Single admits, \(first.threads) threads at once (clock's own cost taken off)", 16, top, "title")
    legend([("median", "median"), ("tail", "p99"), ("far", "p99.9")], top + 21, on: &canvas)
    let start = top + 36, rowHeight = 22.0
    let bottom = start + rowHeight * Double(admits.count)
    grid(scale, start, bottom, on: &canvas)
    for (row, latency) in admits.enumerated() {
        let y = start + rowHeight * Double(row) + 11
        let name = latency.scenario.replacingOccurrences(of: "_latency", with: "")
            .replacingOccurrences(of: "_limit_100", with: ", at cap 100")
        canvas.text(name, 170, y + 4, latency.scenario.hasPrefix("shared") ? "label" : "own", anchor: "end")
        canvas.line(scale.x(Double(latency.p50)), y, scale.x(Double(latency.p999)), y, "span")
        for (style, text, value) in [
            ("far", "p99.9", latency.p999), ("tail", "p99", latency.p99), ("median", "median", latency.p50),
        ] {
            canvas.dot(scale.x(Double(value)), y, style, title: "\(name) \(text): \(value) ns")
        }
    }
    return bottom + 26
}
