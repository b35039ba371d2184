// SelfTest: an oracle that cannot fail proves nothing. Before each campaign it must find what is put before it by hand.

import Admission
import Foundation

enum SelfTest {
    /// Two units that have bought 4 and 6 seats, by hand.
    static func run(folder: String) throws {
        let base = boottime()
        var segments: [Segment] = []
        defer {
            for segment in segments {
                segment.detach()
                unlink(segment.path)
            }
        }
        for number in 0..<2 {
            let path = "\(folder)/self-test.\(number)"
            try Segment.create(path: path)
            segments.append(try Segment.attach(path: path))
        }
        let clocks = [UnitClock(bootSeconds: 0, rate: 0, base: base), UnitClock(bootSeconds: 1000, rate: 8000, base: base)]
        func oracle() throws -> Oracle {
            Oracle(
                try zip(segments, clocks).enumerated().map { index, pair in
                    Watched(
                        serial: "U\(index)", pools: try (0..<3).map { try pair.0.pool($0) }, clock: pair.1, workers: 1,
                        sessionsPerSeat: 25, licences: [(index == 0 ? [4, 0, 0] : [6, 0, 0], .max)])
                })
        }
        let pools = try segments.map { try $0.pool(0) }
        func expect(_ isBroken: Bool, _ what: String, _ oracle: Oracle) throws {
            // On a busy machine not every look counts.
            let before = oracle.report.samples
            for _ in 0..<10_000 where oracle.report.samples == before { oracle.look() }
            let report = oracle.report
            if report.samples == before || (report.violation != nil) != isBroken {
                throw ChaosError.notReady(
                    what: "self-test: \(isBroken ? "a violation" : "none") where \(what)",
                    log: "\(report.samples) samples; \(report.violation?.text ?? "none")")
            }
        }
        try pools[0].setCap(100)
        try pools[1].setCap(150)
        try expect(false, "all is as bought", try oracle())
        try pools[1].setCap(151)
        try expect(true, "one session more is enforced", try oracle())
        // The second unit's clock is ahead: what has ended there has not ended by the host's.
        let soon = clocks[1].reading(at: boottime()) + 30 * second
        try pools[1].setCap(150, borrowed: 25, until: soon)
        try expect(true, "a seat is borrowed and not lent", try oracle())
        try pools[1].setCap(150, borrowed: 25, until: soon - 60 * second)
        try expect(false, "a loan has ended", try oracle())
        try pools[0].setCap(75)
        try pools[1].setCap(150, borrowed: 25, until: soon)
        try expect(false, "a seat is lent", try oracle())

        let reducing = try oracle()
        reducing.allow(1, seats: [5, 0, 0])
        try expect(false, "a smaller licence is not in force yet", reducing)
        reducing.disallow(1, until: boottime())
        try expect(true, "it is", reducing)

        // A seat in use is given away: the first unit has 100 sessions, says that it gives one seat, and the second one takes it.
        try pools[0].setCap(100)
        try pools[1].setCap(150)
        let giving = try oracle()
        let sessions = (0..<100).map { _ in pools[0].admit().detach() }
        try expect(false, "a unit is full", giving)
        try pools[0].setCap(75)
        try expect(false, "a seat in use is taken away", giving)
        try pools[1].setCap(175)
        try expect(true, "it is given away", giving)
        for session in sessions { pools[0].release(session) }

        var growth = Growth()
        func grow(_ enforced: Int, _ taken: Int, steady: Bool = true) -> Bool {
            growth.check(enforced: enforced, taken: taken, isSteady: steady, workers: 1, admissible: 8) != nil
        }
        // The cap falls below use; use falls; it may not grow again, however slowly, until there is room.
        let good = [grow(100, 90, steady: false), grow(50, 95, steady: false), grow(50, 80), grow(50, 81), grow(50, 70)]
        guard !good.contains(true), grow(50, 73), !grow(80, 75, steady: false) else {
            throw ChaosError.notReady(what: "self-test: growth beyond what is enforced", log: "\(good)")
        }
    }
}
