import Foundation
import Testing

@testable import Admission

/// A segment file of its own, removed when the value goes.
final class TemporarySegment: Sendable {
    let path: String

    init(cpus: Int? = nil, fenceMode: FenceMode = .best) throws {
        path = TemporarySegment.newPath()
        try Segment.create(path: path, cpus: cpus, fenceMode: fenceMode)
    }

    deinit { unlink(path) }

    static func newPath() -> String { "/dev/shm/fpx-test.\(getpid()).\(UInt32.random(in: 0...UInt32.max))" }
}

/// The law that holds at every instant, and the counters' agreement with what the test knows to be in use.
func expectConsistent(
    _ pool: Pool, inUse: Int, sourceLocation: SourceLocation = #_sourceLocation
) {
    let snapshot = pool.snapshot()
    #expect(snapshot.conservation?.holds == true, "\(snapshot)", sourceLocation: sourceLocation)
    #expect(snapshot.inUse == inUse, "\(snapshot)", sourceLocation: sourceLocation)
}

/// A repeatable source of random numbers (SplitMix64). Its seed is in the test's failure text.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
