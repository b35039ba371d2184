// A process that works for months, as a proxy's worker does and the test runner nearly does, must not gather descriptors; and
// one that has thousands of them must be able to start a program.

import AdmissionC
import CAdmission
import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Admission

@Suite struct FieldDescriptorTests {
    @Test func attachmentsGiveTheirDescriptorsBack() throws {
        let kept = try Descriptors.kept { for _ in 0..<10 { try attachWorkAndLeave() } }
        #expect(
            Field.row(
                "descriptors.13a", "attach, lanes, handles, keeper, a death and its reaping, ten times over",
                expected: "0 more open", found: "\(kept) more open"))
    }

    @Test func mappingsGoWithTheirAttachments() throws {
        let path = try attachWorkAndLeave()
        // What is detached leaves its address space behind, but no page of the file.
        let maps = try String(contentsOfFile: "/proc/self/maps", encoding: .utf8).split(separator: "\n")
        let mapped = maps.count { $0.contains(path) }
        #expect(
            Field.row(
                "descriptors.13b", "the memory of a segment that was left and removed", expected: "0 mappings",
                found: "\(mapped) mappings"))
    }

    @Test func theCFaceGivesItsDescriptorsBack() throws {
        let file = try TemporarySegment()
        let kept = try Descriptors.kept {
            for _ in 0..<10 {
                var segment: OpaquePointer?
                var lane: UnsafeMutablePointer<fpx_lane>?
                try #require(fpx_attach(file.path, &segment) == Int32(FPX_OK))
                try #require(fpx_lane_open(segment, 0, &lane) == Int32(FPX_OK))
                try #require(fpx_pool_release(segment, 0, fpx_pool_admit(segment, 0)) == Int32(FPX_OK))
                try #require(fpx_lane_close(lane) == Int32(FPX_OK))
                try #require(fpx_detach(segment) == Int32(FPX_OK))
            }
        }
        #expect(
            Field.row(
                "descriptors.13c", "fpx_attach, a lane, a session and fpx_detach, ten times over", expected: "0 more open",
                found: "\(kept) more open"))
    }

    @Test func programsGiveTheirDescriptorsBack() throws {
        let kept = try Descriptors.kept {
            for _ in 0..<10 {
                try #require(try ChildProcess.run(["cat"], input: "x").output == "x")
                let program = try ChildProcess(["cat"], input: .pipe, output: .pipe, error: .pipe)
                program.signal(SIGTERM)
                try #require(program.wait() == -SIGTERM)
            }
        }
        #expect(
            Field.row(
                "descriptors.13d", "programs run to their end and ended by a signal, ten times over", expected: "0 more open",
                found: "\(kept) more open"))
    }

    /// Each from a thread of its own, as tests are: where a thread's heap ends, nothing readable follows.
    @Test(arguments: [1_400, 5_000])
    func programsStartWithThousandsOfDescriptorsOpen(number: Int) throws {
        let found = Mutex<Set<String>>([])
        try Descriptors.with(number) {
            for round in 0..<100 {
                let ended = DispatchSemaphore(value: 0)
                Thread.detachNewThread {
                    // Moves what is allocated next to another place before the end.
                    let space = malloc(512 * round + 16)
                    defer { free(space) }
                    let descriptors = (try? ChildProcess.run(["ls", "/proc/self/fd"]))?.output ?? "no answer"
                    _ = found.withLock { $0.insert(descriptors.split(separator: "\n").joined(separator: " ")) }
                    ended.signal()
                }
                ended.wait()
            }
        }
        // The fourth is the folder that `ls` reads.
        #expect(
            Field.row(
                "descriptors.13e", "100 programs are started while \(number) descriptors are open", expected: "0 1 2 3",
                found: found.withLock { $0.sorted().joined(separator: "; ") }))
    }

    /// The path of the segment.
    @discardableResult
    private func attachWorkAndLeave() throws -> String {
        let file = try TemporarySegment()
        let (segment, keeper, victim) = (try file.attach(), try file.attachKeeper(), try file.attach())
        let pool = try segment.pool(0)
        try pool.setCap(100)
        let lane = try segment.openLane(pool: 0)
        lane.release(lane.admit())
        let handle = try #require(try keeper.handle(try keeper.pool(0).admit()))
        try segment.release(handle)
        _ = try #require(try victim.handle(try victim.pool(0).admit()))
        victim.abandon()
        try #require(segment.reap() == 1)
        expectConsistent(pool, inUse: 0)
        return file.path
    }
}
