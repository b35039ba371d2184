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
