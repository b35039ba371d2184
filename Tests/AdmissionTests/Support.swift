import Foundation
import Synchronization
import Testing

@testable import Admission

/// A segment file of its own. When the value goes, the file is removed and this process is detached from it.
final class TemporarySegment: Sendable {
    let path: String
    private let attachments = Mutex<[Segment]>([])

    init(cpus: Int? = nil, fenceMode: FenceMode = .best) throws {
        path = TemporarySegment.newPath()
        try Segment.create(path: path, cpus: cpus, fenceMode: fenceMode)
    }

    deinit {
        attachments.withLock { for segment in $0 { segment.detach() } }
        unlink(path)
    }

    func attach() throws(SegmentError) -> Segment { kept(try Segment.attach(path: path)) }

    func attachKeeper() throws(SegmentError) -> Segment { kept(try Segment.attachKeeper(path: path)) }

    private func kept(_ segment: Segment) -> Segment {
        attachments.withLock { $0.append(segment) }
        return segment
    }

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
