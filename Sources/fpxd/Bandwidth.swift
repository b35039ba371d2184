// Bandwidth: how fast the bytes go that hooks report, and whether the licence covers it.

import Admission
import ControlAPI

extension PerformanceReport.Speed {
    /// Licences and people count in mbits: 10^6 bits a second.
    static let bitsPerMbit = 1_000_000

    /// What was carried in so many seconds.
    init(_ traffic: Traffic, seconds: Double) {
        func bits(_ bytes: UInt64) -> Int { Int(min(Double(bytes) * 8 / seconds, 9e18).rounded()) }
        self.init(bitsIn: bits(traffic.bytesIn), bitsOut: bits(traffic.bytesOut))
    }

    /// A licence covers each direction for itself.
    var highest: Int { max(bitsIn, bitsOut) }

    /// `12.3 mbits in, 0.4 mbits out`
    var sentence: String {
        func mbits(_ bits: Int) -> String {
            let tenths = Int((Double(bits) * 10 / Double(Self.bitsPerMbit)).rounded())
            return "\(tenths / 10).\(tenths % 10) mbits"
        }
        return "\(mbits(bitsIn)) in, \(mbits(bitsOut)) out"
    }
}

/// Decides when people are told that the speed has passed the licensed bandwidth, and when that it is below again.
struct BandwidthWatch {
    enum News: Equatable { case over, below }

    /// A speed that goes up and down around the limit is told of once a minute.
    static let remindedEvery: Duration = .seconds(60)

    private var isOver = false
    private var toldAt: ContinuousClock.Instant?

    /// - Parameter licensed: mbits; 0: nothing is metered against the licence.
    mutating func judge(
        _ speed: PerformanceReport.Speed, licensed: Int, now: ContinuousClock.Instant = .now
    ) -> News? {
        guard licensed > 0 else {
            isOver = false
            return nil
        }
        let (bits, isEndless) = licensed.multipliedReportingOverflow(by: PerformanceReport.Speed.bitsPerMbit)
        let limit = isEndless ? Int.max : bits
        if isOver {
            // Below by a twentieth, or the next second would be over again.
            guard speed.highest < limit - limit / 20 else { return nil }
            isOver = false
            return .below
        }
        guard speed.highest > limit, toldAt.map({ now - $0 >= Self.remindedEvery }) ?? true else { return nil }
        isOver = true
        toldAt = now
        return .over
    }
}
