import Foundation
import TestSupport
import Testing

@testable import Admission

/// Random operations by one thread over several attachments, against the plain model: a number in use and a cap. With nothing
/// in progress beside it, every verdict must be exactly the model's.
@Suite struct ModelTests {
    @Test(arguments: 0..<60)
    func randomOperationsAgreeWithTheModel(seed: Int) throws {
        var random = SeededGenerator(seed: UInt64(seed))
        let mode: FenceMode = seed % 3 == 2 ? .locked : .best
        let file = try TemporarySegment(fenceMode: mode)
        let observer = try file.attach()
        let pool = try observer.pool(0)
        pool.policy = .block
        var cap = Int.random(in: 0...300, using: &random)
        try pool.setCap(cap)
        var members = try (0..<3).map { _ in try Member(file.path) }
        var inUse: Int { members.reduce(0) { $0 + $1.held } }
        for step in 0..<4000 {
            let who = Int.random(in: 0..<members.count, using: &random)
            switch Int.random(in: 0..<1000, using: &random) {
            case ..<(400 + seed % 5 * 40):
                let free = inUse < cap
                let admitted = try members[who].admit(&random)
                #expect(admitted == free, "seed \(seed) step \(step): in use \(inUse) of \(cap)")
                if admitted != free { return }
            case ..<980:
                try members[who].release(&random, by: members[Int.random(in: 0..<members.count, using: &random)])
            case ..<988:
                cap = Int.random(in: 0...300, using: &random)
                try pool.setCap(cap)
            case ..<994:
                members[who].segment.abandon()
                members.remove(at: who)
                if Bool.random(using: &random) { #expect(observer.reap() == 1) }
                members.append(try Member(file.path))  // takes the dead one's slot and reaps it
            default:
                let conservation = pool.conservation()
                #expect(conservation?.holds == true, "seed \(seed) step \(step): \(String(describing: conservation))")
                let snapshot = pool.snapshot()
                #expect(snapshot.inUse == inUse, "seed \(seed) step \(step): \(snapshot)")
            }
        }
        for member in members { member.segment.detach() }
        #expect(pool.snapshot().free == cap)
        observer.detach()
    }

    /// One attachment with its ways to admit and what it holds.
    private final class Member {
        let segment: Segment
        private let pool: Pool
        private let lanes: LanePair
        private var sessions = Sessions()
        private var handles: [SessionHandle] = []

        init(_ path: String) throws {
            segment = try Segment.attach(path: path)
            pool = try segment.pool(0)
            lanes = LanePair(try segment.openLane(pool: 0), try segment.openLane(pool: 0))
        }

        var held: Int { sessions.count + handles.count }

        func admit(_ random: inout SeededGenerator) throws -> Bool {
            let way = Int.random(in: 0..<4, using: &random)
            let session =
                switch way {
                case 0: lanes.one.admit()
                case 1: lanes.two.admit()
                default: pool.admit()
                }
            guard session.verdict == .inspect else { return false }
            if way == 3 {
                handles.append(try #require(try segment.handle(session)))
            } else {
                sessions.push(session)
            }
            return true
        }

        func release(_ random: inout SeededGenerator, by other: Member) throws {
            if !handles.isEmpty, Bool.random(using: &random) {
                let handle = handles.remove(at: Int.random(in: 0..<handles.count, using: &random))
                try other.segment.release(handle)
                #expect(throws: SegmentError.self) { try self.segment.release(handle) }
            } else if sessions.count > 0 {
                switch Int.random(in: 0..<3, using: &random) {
                case 0: sessions.end(1) { lanes.one.release($0) }
                case 1: sessions.end(1) { lanes.two.release($0) }
                default: sessions.end(1) { $0.end() }
                }
            }
        }
    }

    private struct LanePair: ~Copyable {
        let one: Lane
        let two: Lane
        init(_ one: consuming Lane, _ two: consuming Lane) {
            self.one = one
            self.two = two
        }
    }
}
