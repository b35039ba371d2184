// The C face: its functions as Swift sees them, and the library that is shipped as C sees it.

import Admission
import AdmissionC
import CAdmission
import Foundation
import Synchronization
import TestSupport
import Testing

private let numbers = Atomic<Int>(0)

/// A segment in a file of its own, attached through the C face; both go away at the end.
private final class Fixture {
    let path = "/dev/shm/fpx-test.\(getpid()).c\(numbers.add(1, ordering: .relaxed).newValue)"
    let segment: OpaquePointer
    private let admin: Segment

    init(cap: Int = 100, policy: OverLimitPolicy = .bypass) throws {
        try Segment.create(path: path)
        admin = try Segment.attach(path: path)
        try admin.pool(0).setCap(cap)
        try admin.pool(0).policy = policy
        var attached: OpaquePointer?
        try #require(fpx_attach(path, &attached) == ok)
        segment = try #require(attached)
    }

    deinit {
        _ = fpx_detach(segment)
        admin.detach()
        unlink(path)
    }

    func stats(_ pool: UInt32 = 0) throws -> fpx_pool_stats {
        var stats = fpx_pool_stats()
        try #require(fpx_stats(segment, pool, &stats) == ok)
        return stats
    }

    func lane(_ pool: UInt32 = 0) throws -> UnsafeMutablePointer<fpx_lane> {
        var lane: UnsafeMutablePointer<fpx_lane>?
        try #require(fpx_lane_open(segment, pool, &lane) == ok)
        return try #require(lane)
    }
}

private let ok = Int32(FPX_OK)
private var lastError: String { String(cString: fpx_last_error()) }

/// Expects a failure whose text says all of `texts`.
private func expect(
    _ result: Int32, _ code: Int, _ texts: String..., sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(result == Int32(code), sourceLocation: sourceLocation)
    let text = lastError
    for part in texts { #expect(text.contains(part), "\(text)", sourceLocation: sourceLocation) }
}

@Suite struct CFaceTests {
    // MARK: Wrong arguments

    @Test func nullArguments() throws {
        let fixture = try Fixture()
        let segment = fixture.segment
        let argument = FPX_E_ARGUMENT
        var out: OpaquePointer?
        var lane: UnsafeMutablePointer<fpx_lane>?
        var session: fpx_session = 7
        var verdict = FPX_INSPECT
        var stats = fpx_pool_stats()
        expect(fpx_attach(nil, &out), argument, "fpx_attach", "null", "`path`")
        expect(fpx_attach(fixture.path, nil), argument, "fpx_attach", "`segment`")
        expect(fpx_detach(nil), argument, "fpx_detach", "`segment`")
        #expect(!fpx_is_attached(nil))
        expect(fpx_lane_open(nil, 0, &lane), argument, "fpx_lane_open", "`segment`")
        expect(fpx_lane_open(segment, 0, nil), argument, "fpx_lane_open", "`lane`")
        expect(fpx_lane_close(nil), argument, "fpx_lane_close", "`lane`")
        #expect(fpx_lane_admit_slow(nil, false) == FPX_BLOCK)
        fpx_lane_release_slow(nil, true)
        fpx_lane_release_bypassed(nil)
        #expect(lastError.contains("fpx_lane_release_bypassed"))
        #expect(fpx_pool_admit(nil, 0) == FPX_BLOCK)
        #expect(lastError.contains("fpx_pool_admit"))
        expect(fpx_pool_release(nil, 0, FPX_INSPECT), argument, "fpx_pool_release", "`segment`")
        expect(fpx_admit(nil, 0, &session, &verdict), argument, "fpx_admit", "`segment`")
        #expect(session == 0 && verdict == FPX_BLOCK)
        expect(fpx_admit(segment, 0, nil, &verdict), argument, "fpx_admit", "`session`")
        expect(fpx_admit(segment, 0, &session, nil), argument, "fpx_admit", "`verdict`")
        expect(fpx_release(nil, 1), argument, "fpx_release", "`segment`")
        expect(fpx_report_bytes(nil, 0, 1, 1), argument, "fpx_report_bytes", "`segment`")
        expect(fpx_stats(nil, 0, &stats), argument, "fpx_stats", "`segment`")
        expect(fpx_stats(segment, 0, nil), argument, "fpx_stats", "`stats`")
        expect(fpx_reap(nil), argument, "fpx_reap", "`segment`")
        #expect(try fixture.stats().in_use == 0)
    }

    @Test(arguments: [16, 17, 1 << 31, UInt32.max]) func wrongPool(_ pool: UInt32) throws {
        let fixture = try Fixture()
        let text = "pool: found \(pool), expected 0 to 15"
        var lane: UnsafeMutablePointer<fpx_lane>?
        var session: fpx_session = 7
        var verdict = FPX_INSPECT
        var stats = fpx_pool_stats()
        expect(fpx_lane_open(fixture.segment, pool, &lane), FPX_E_ARGUMENT, text)
        #expect(lane == nil)
        #expect(fpx_pool_admit(fixture.segment, pool) == FPX_BLOCK)
        #expect(lastError == text)
        expect(fpx_pool_release(fixture.segment, pool, FPX_INSPECT), FPX_E_ARGUMENT, text)
        expect(fpx_admit(fixture.segment, pool, &session, &verdict), FPX_E_ARGUMENT, text)
        #expect(session == 0 && verdict == FPX_BLOCK)
        expect(fpx_stats(fixture.segment, pool, &stats), FPX_E_ARGUMENT, text)
    }

    @Test func wrongVerdict() throws {
        let fixture = try Fixture()
        expect(
            fpx_pool_release(fixture.segment, 0, fpx_verdict(3)), FPX_E_ARGUMENT, "verdict: found 3, expected 0 to 2")
        #expect(fpx_pool_release(fixture.segment, 0, FPX_BLOCK) == ok)
        #expect(try fixture.stats().in_use == 0)
    }

    // MARK: Files that are no segment

    @Test func missingFile() {
        var segment: OpaquePointer? = OpaquePointer(bitPattern: 8)
        let path = "/dev/shm/fpx-test.\(getpid()).none"
        expect(fpx_attach(path, &segment), FPX_E_SYSTEM, path, "open", "ENOENT")
        #expect(segment == nil)
        expect(fpx_attach("/dev/shm", &segment), FPX_E_SYSTEM, "EISDIR")
        let bytes: [CChar] = [0x2f, -1, -2, 0]
        expect(fpx_attach(bytes, &segment), FPX_E_ARGUMENT, "`path`", "UTF-8")
    }

    @Test func truncatedFile() throws {
        let fixture = try Fixture()
        let copy = fixture.path + ".cut"
        defer { unlink(copy) }
        try Segment.create(path: copy)
        let size = Segment.byteCount(cpus: Int(fpx_configured_cpus()))
        var segment: OpaquePointer?
        for cut in [size - 4096, size - 1, 4096, 1, 0] {
            try #require(truncate(copy, cut) == 0)
            expect(fpx_attach(copy, &segment), FPX_E_FORMAT, copy, "size", "found", "expected")
            #expect(segment == nil)
        }
    }

    @Test func foreignFile() throws {
        let path = "/dev/shm/fpx-test.\(getpid()).foreign"
        defer { unlink(path) }
        try Data("#!/bin/sh\n".utf8).write(to: URL(fileURLWithPath: path))
        var segment: OpaquePointer?
        expect(fpx_attach(path, &segment), FPX_E_FORMAT, path, "size")
        try #require(truncate(path, Segment.byteCount(cpus: 2)) == 0)
        expect(fpx_attach(path, &segment), FPX_E_FORMAT, path, "magic")
        #expect(segment == nil)
    }

    // MARK: Sessions

    @Test func verdictsAndFigures() throws {
        let fixture = try Fixture(cap: 3)
        let segment = fixture.segment
        for _ in 0..<3 { #expect(fpx_pool_admit(segment, 0) == FPX_INSPECT) }
        for _ in 0..<2 { #expect(fpx_pool_admit(segment, 0) == FPX_BYPASS) }
        var stats = try fixture.stats()
        #expect(stats.cap == 3 && stats.in_use == 3 && stats.free_sessions == 0)
        #expect(stats.bypassed == 2 && stats.bypassed_peak >= 2 && stats.refused == 2)
        #expect(stats.processes == 2 && stats.over_limit == FPX_BYPASS)
        for _ in 0..<2 { #expect(fpx_pool_release(segment, 0, FPX_BYPASS) == ok) }
        for _ in 0..<3 { #expect(fpx_pool_release(segment, 0, FPX_INSPECT) == ok) }
        stats = try fixture.stats()
        #expect(stats.in_use == 0 && stats.bypassed == 0 && stats.free_sessions <= 3)
        // Pool 1 has no cap: everything is over its limit.
        #expect(fpx_pool_admit(segment, 1) == FPX_BYPASS)
        #expect(fpx_pool_release(segment, 1, FPX_BYPASS) == ok)
        #expect(fpx_reap(segment) == ok)
    }

    @Test func bytes() throws {
        let fixture = try Fixture()
        let (segment, limit) = (fixture.segment, UInt64(Limits.report))
        let observer = try Segment.attach(path: fixture.path)
        defer { observer.detach() }
        #expect(limit == 1 << 50)  // FPX_REPORT_MAX, which is too complex a macro for Swift
        #expect(fpx_report_bytes(segment, 2, 10, 20) == ok)
        #expect(fpx_report_bytes(segment, 2, 0, limit) == ok)
        #expect(fpx_report_bytes(segment, 2, 0, 0) == ok)
        let expected = "expected 0 to \(limit)"
        expect(fpx_report_bytes(segment, 2, limit + 1, 5), FPX_E_ARGUMENT, "bytes in: found \(limit + 1), \(expected)")
        expect(fpx_report_bytes(segment, 2, 5, .max), FPX_E_ARGUMENT, "bytes out: found \(Int.max), \(expected)")
        #expect(try observer.pool(2).traffic() == Traffic(bytesIn: 10, bytesOut: 20 + limit))
        #expect(try observer.pool(0).traffic() == Traffic())
    }

    @Test func blockingPolicy() throws {
        let fixture = try Fixture(cap: 1, policy: .block)
        var session: fpx_session = 0
        var verdict = FPX_BYPASS
        #expect(fpx_admit(fixture.segment, 0, &session, &verdict) == ok)
        #expect(verdict == FPX_INSPECT && session != 0)
        var second: fpx_session = 7
        #expect(fpx_admit(fixture.segment, 0, &second, &verdict) == ok)
        #expect(verdict == FPX_BLOCK && second == 0)
        #expect(fpx_pool_admit(fixture.segment, 0) == FPX_BLOCK)
        #expect(try fixture.stats().over_limit == FPX_BLOCK)
        #expect(fpx_release(fixture.segment, session) == ok)
        #expect(try fixture.stats().in_use == 0)
    }

    @Test func lanes() throws {
        let fixture = try Fixture(cap: 50)
        let lane = try fixture.lane()
        var verdicts: [fpx_verdict] = []
        for _ in 0..<60 { verdicts.append(fpx_lane_admit(lane)) }
        #expect(verdicts.count { $0 == FPX_INSPECT } == 50 && verdicts.count { $0 == FPX_BYPASS } == 10)
        #expect(try fixture.stats().in_use == 50)
        for verdict in verdicts { fpx_lane_release(lane, verdict) }
        let stats = try fixture.stats()
        #expect(stats.in_use == 0 && stats.bypassed == 0)
        #expect(fpx_lane_close(lane) == ok)
    }

    @Test func closedLane() throws {
        let fixture = try Fixture()
        let lane = try fixture.lane()
        #expect(fpx_lane_admit(lane) == FPX_INSPECT)
        #expect(fpx_lane_close(lane) == ok)
        expect(fpx_lane_close(lane), FPX_E_ARGUMENT, "fpx_lane_close", "closed lane")
        #expect(fpx_lane_admit(lane) == FPX_BLOCK)
        #expect(lastError.contains("fpx_lane_admit: found a closed lane"))
        for verdict in [FPX_INSPECT, FPX_BYPASS, FPX_BLOCK] { fpx_lane_release(lane, verdict) }
        #expect(lastError.contains("fpx_lane_release"))
        #expect(try fixture.stats().in_use == 1, "the session outlives its lane")
        #expect(fpx_pool_release(fixture.segment, 0, FPX_INSPECT) == ok)
        #expect(try fixture.stats().in_use == 0)
    }

    @Test func laneLimit() throws {
        let fixture = try Fixture()
        var lanes = try (0..<16).map { _ in try fixture.lane(3) }
        #expect(Set(lanes).count == 16)
        var lane: UnsafeMutablePointer<fpx_lane>?
        expect(fpx_lane_open(fixture.segment, 3, &lane), FPX_E_LIMIT, "all 16 lanes of this process in pool 3")
        #expect(lane == nil)
        let other = try fixture.lane(4)
        #expect(fpx_lane_close(lanes.removeLast()) == ok)
        lanes.append(try fixture.lane(3))
        for lane in lanes + [other] { #expect(fpx_lane_close(lane) == ok) }
    }

    // MARK: Handles

    @Test func doubleRelease() throws {
        let fixture = try Fixture()
        var session: fpx_session = 0
        var verdict = FPX_BLOCK
        #expect(fpx_admit(fixture.segment, 0, &session, &verdict) == ok && verdict == FPX_INSPECT)
        #expect(try fixture.stats().in_use == 1)
        #expect(fpx_release(fixture.segment, session) == ok)
        expect(fpx_release(fixture.segment, session), FPX_E_HANDLE, "\(session)", "not in use")
        #expect(try fixture.stats().in_use == 0)
        expect(fpx_release(fixture.segment, 0), FPX_E_HANDLE, "handle 0")
        for bit in 0..<64 { expect(fpx_release(fixture.segment, 1 << bit), FPX_E_HANDLE) }
    }

    @Test func foreignHandles() throws {
        let fixture = try Fixture()
        let other = try Fixture()
        var session: fpx_session = 0
        var verdict = FPX_BLOCK
        #expect(fpx_admit(fixture.segment, 0, &session, &verdict) == ok)
        // Of another pool, another entry, another generation, another slot, and in another segment.
        for changed in [1 << 49, 5 << 49, 1 << 32, 1, 1 << 53] as [UInt64] {
            expect(fpx_release(fixture.segment, session ^ changed), FPX_E_HANDLE, "not in use")
        }
        expect(fpx_release(other.segment, session), FPX_E_HANDLE, "not in use")
        #expect(try fixture.stats().in_use == 1)
        #expect(try other.stats().in_use == 0)
        #expect(fpx_release(fixture.segment, session) == ok)
        #expect(try fixture.stats().in_use == 0)
    }

    @Test func handleLimit() throws {
        let fixture = try Fixture(cap: 70_000)
        var verdict = FPX_BLOCK
        var sessions = [fpx_session](repeating: 0, count: Limits.handles)
        for index in sessions.indices {
            try #require(fpx_admit(fixture.segment, 0, &sessions[index], &verdict) == ok)
        }
        #expect(Set(sessions).count == Limits.handles)
        var session: fpx_session = 7
        expect(fpx_admit(fixture.segment, 0, &session, &verdict), FPX_E_LIMIT, "65536 session handles")
        #expect(session == 0 && verdict == FPX_BLOCK)
        #expect(try fixture.stats().in_use == 65_536)
        for session in sessions { try #require(fpx_release(fixture.segment, session) == ok) }
        #expect(try fixture.stats().in_use == 0)
    }

    // MARK: Detached

    @Test func detachThenUse() throws {
        let fixture = try Fixture()
        let observer = try Segment.attach(path: fixture.path)
        defer { observer.detach() }
        defer { observer.detach() }
        let segment = fixture.segment
        let lane = try fixture.lane()
        var session: fpx_session = 0
        var verdict = FPX_BLOCK
        #expect(fpx_admit(segment, 0, &session, &verdict) == ok)
        #expect(fpx_lane_admit(lane) == FPX_INSPECT && fpx_pool_admit(segment, 0) == FPX_INSPECT)
        #expect(try observer.pool(0).snapshot().inUse == 3)
        #expect(fpx_is_attached(segment))
        #expect(fpx_detach(segment) == ok)
        #expect(try observer.pool(0).snapshot().inUse == 0)

        #expect(!fpx_is_attached(segment))
        let detached = FPX_E_DETACHED
        expect(fpx_detach(segment), detached, "not attached")
        #expect(fpx_pool_admit(segment, 0) == FPX_BYPASS)
        #expect(lastError.contains("not attached"))
        for verdict in [FPX_INSPECT, FPX_BYPASS, FPX_BLOCK] { expect(fpx_pool_release(segment, 0, verdict), detached) }
        #expect(fpx_lane_admit(lane) == FPX_BYPASS)
        for verdict in [FPX_INSPECT, FPX_BYPASS, FPX_BLOCK] { fpx_lane_release(lane, verdict) }
        expect(fpx_release(segment, session), detached)
        expect(fpx_admit(segment, 0, &session, &verdict), detached)
        #expect(session == 0 && verdict == FPX_BLOCK)
        expect(fpx_report_bytes(segment, 0, 1, 1), detached)
        var stats = fpx_pool_stats()
        expect(fpx_stats(segment, 0, &stats), detached)
        expect(fpx_reap(segment), detached)
        var second: UnsafeMutablePointer<fpx_lane>?
        expect(fpx_lane_open(segment, 0, &second), detached)
        #expect(second == nil)
        expect(fpx_lane_close(lane), detached)
        expect(fpx_lane_close(lane), FPX_E_ARGUMENT, "closed lane")
        let conservation = try #require(try observer.pool(0).conservation())
        #expect(conservation.holds && conservation.free + conservation.granted == 100)
    }

    @Test func detachedOnce() async throws {
        let fixture = try Fixture()
        let address = UInt(bitPattern: fixture.segment)
        let results = await withTaskGroup(of: Int32.self) { group in
            for _ in 0..<8 { group.addTask { fpx_detach(OpaquePointer(bitPattern: address)) } }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(results.count { $0 == ok } == 1 && results.count { $0 == Int32(FPX_E_DETACHED) } == 7)
    }

    @Test func lastErrorIsOfTheThread() throws {
        expect(fpx_detach(nil), FPX_E_ARGUMENT, "fpx_detach")
        let before = lastError
        let other = Mutex("")
        let done = DispatchSemaphore(value: 0)
        Thread {
            other.withLock { $0 = lastError }
            _ = fpx_reap(nil)
            done.signal()
        }.start()
        done.wait()
        #expect(other.withLock { $0 } == "no error")
        #expect(lastError == before)
    }
}

// MARK: - The library that is shipped

/// What a program printed and how it ended.
struct Run {
    let status: Int32
    let output: String

    init(_ arguments: [String], environment: [String: String] = [:]) throws {
        let ended = try ChildProcess.run(
            arguments, environment: ProcessInfo.processInfo.environment.merging(environment) { $1 })
        (status, output) = (ended.status, ended.text)
    }
}

/// libfpxadmission.so as build-library.sh makes it, in a folder of its own, once for all tests.
struct ShippedLibrary {
    static let shared = Result { try ShippedLibrary(debug: false) }
    /// As `make library DEBUG=1` makes it.
    static let debug = Result { try ShippedLibrary(debug: true) }

    let folder: String
    let sources: String

    private init(debug: Bool) throws {
        sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appending(path: "../../Integrations/c").path
        let all = FileManager.default.temporaryDirectory.appending(path: "fpx-cface.\(getpid())")
        folder = all.appending(path: debug ? "debug" : "release").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let build = try Run(["\(sources)/build-library.sh", folder], environment: ["DEBUG": debug ? "1" : "0"])
        try #require(build.status == 0, "\(build.output)")
        atexit {
            let folder = FileManager.default.temporaryDirectory.appending(path: "fpx-cface.\(getpid())")
            try? FileManager.default.removeItem(at: folder)
        }
    }

    var environment: [String: String] {
        ["PKG_CONFIG_PATH": "\(folder)/lib/pkgconfig", "LD_LIBRARY_PATH": "\(folder)/lib"]
    }

    func flags(_ what: String...) throws -> [String] {
        let flags = try Run(["pkg-config"] + what + ["fpxadmission"], environment: environment)
        try #require(flags.status == 0, "\(flags.output)")
        return flags.output.split(whereSeparator: \.isWhitespace).map(String.init)
    }

    /// Compiles a C program; where it lies.
    func compile(_ source: String, _ options: [String]) throws -> String {
        let program = "\(folder)/\(URL(fileURLWithPath: source).deletingPathExtension().lastPathComponent)"
        let compile = try Run(
            ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", source, "-o", program] + options)
        try #require(compile.status == 0, "\(compile.output)")
        return program
    }
}

@Suite(.serialized) struct ShippedLibraryTests {
    func segment(cap: Int) throws -> String {
        let path = "/dev/shm/fpx-test.\(getpid()).so\(numbers.add(1, ordering: .relaxed).newValue)"
        try Segment.create(path: path)
        let admin = try Segment.attach(path: path)
        defer { admin.detach() }
        try admin.pool(0).setCap(cap)
        return path
    }

    @Test(arguments: [(cap: 10_000, threads: 2), (10_000, 8), (10, 2), (10, 8), (1, 16)])
    func example(cap: Int, threads: Int) throws {
        let library = try ShippedLibrary.shared.get()
        let program = try library.compile(
            "\(library.sources)/example.c", library.flags("--cflags", "--libs"))
        let path = try segment(cap: cap)
        defer { unlink(path) }
        let run = try Run([program, path, "\(threads)"], environment: library.environment)
        #expect(run.status == 0 && run.output.hasSuffix("ok\n"), "\(run.output)")
        let observer = try Segment.attach(path: path)
        defer { observer.detach() }
        let conservation = try #require(try observer.pool(0).conservation())
        #expect(conservation.holds && conservation.granted == 0 && conservation.free == cap)
    }

    @Test func headerIsCPlusPlus() throws {
        let library = try ShippedLibrary.shared.get()
        for standard in ["c++11", "c++20"] {
            let check = try Run(
                ["g++", "-fsyntax-only", "-std=\(standard)", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-x", "c++"]
                    + library.flags("--cflags") + ["\(library.folder)/include/fpxadmission.h"])
            #expect(check.status == 0, "\(check.output)")
        }
    }

    @Test func openedAtRunTimeAfterFork() throws {
        let library = try ShippedLibrary.shared.get()
        let source = "\(library.folder)/open.c"
        try Data(openAtRunTime.utf8).write(to: URL(fileURLWithPath: source))
        let program = try library.compile(source, library.flags("--cflags") + ["-ldl"])
        let path = try segment(cap: 100)
        defer { unlink(path) }
        let run = try Run([program, "\(library.folder)/lib/libfpxadmission.so.1", path])
        #expect(run.status == 0, "\(run.output)")
        let observer = try Segment.attach(path: path)
        defer { observer.detach() }
        observer.reap()
        #expect(try observer.pool(0).snapshot().inUse == 0)
    }
}

/// Opens the library in a forked child, then in the parent, then in a child of the attached parent. Each finds every function,
/// starts no thread, and counts; closing the library does not pull it from under an attachment.
private let openAtRunTime = """
    #include <dirent.h>
    #include <dlfcn.h>
    #include <fpxadmission.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <sys/wait.h>
    #include <unistd.h>

    #define EXPECT(condition) \\
        do { if (!(condition)) { fprintf(stderr, "line %d: expected %s\\n", __LINE__, #condition); _exit(1); } } while (0)
    #define FIND(name) __typeof__(&name) p_##name = (__typeof__(&name))dlsym(library, #name); EXPECT(p_##name != NULL)

    static const char *file, *path;

    static int threads(void) {
        int count = 0;
        DIR *tasks = opendir("/proc/self/task");
        for (struct dirent *task; (task = readdir(tasks)) != NULL;) count += task->d_name[0] != '.';
        closedir(tasks);
        return count;
    }

    static void child_of(fpx_segment *inherited, bool (*is_attached)(const fpx_segment *));

    static void use(bool fork_again) {
        void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
        if (!library) { fprintf(stderr, "%s\\n", dlerror()); _exit(1); }
        FIND(fpx_attach); FIND(fpx_detach); FIND(fpx_is_attached); FIND(fpx_lane_open); FIND(fpx_lane_close);
        FIND(fpx_lane_admit_slow); FIND(fpx_lane_release_slow); FIND(fpx_lane_release_bypassed); FIND(fpx_pool_admit);
        FIND(fpx_pool_release); FIND(fpx_admit); FIND(fpx_release); FIND(fpx_report_bytes); FIND(fpx_stats);
        FIND(fpx_reap); FIND(fpx_last_error);
        EXPECT(dlsym(library, "fpx_set_last_error") == NULL && dlsym(library, "swift_retain") == NULL);

        fpx_segment *segment;
        fpx_session session;
        fpx_verdict verdict;
        fpx_pool_stats stats;
        EXPECT(p_fpx_attach(path, &segment) == FPX_OK);
        EXPECT(p_fpx_pool_admit(segment, 0) == FPX_INSPECT);
        EXPECT(p_fpx_admit(segment, 0, &session, &verdict) == FPX_OK && verdict == FPX_INSPECT);
        EXPECT(p_fpx_stats(segment, 0, &stats) == FPX_OK && stats.in_use == 2 && stats.processes == 1);
        EXPECT(threads() == 1);
        EXPECT(dlclose(library) == 0);
        EXPECT(p_fpx_release(segment, session) == FPX_OK);
        if (fork_again) {
            child_of(segment, p_fpx_is_attached);
            EXPECT(p_fpx_is_attached(segment));
            EXPECT(p_fpx_reap(segment) == FPX_OK);
        }
        EXPECT(p_fpx_pool_release(segment, 0, FPX_INSPECT) == FPX_OK);
        EXPECT(p_fpx_stats(segment, 0, &stats) == FPX_OK && stats.in_use == 0 && stats.processes == 1);
        EXPECT(p_fpx_detach(segment) == FPX_OK);
    }

    static void wait_for(pid_t child) {
        int status;
        EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }

    /* A child of an attached parent: it is not attached, opens the library by itself, attaches, and dies with a session. */
    static void child_of(fpx_segment *inherited, bool (*is_attached)(const fpx_segment *)) {
        pid_t child = fork();
        if (child == 0) {
            EXPECT(!is_attached(inherited));
            void *library = dlopen(file, RTLD_NOW);
            EXPECT(library != NULL);
            FIND(fpx_attach); FIND(fpx_pool_admit); FIND(fpx_stats);
            fpx_segment *segment;
            fpx_pool_stats stats;
            EXPECT(p_fpx_attach(path, &segment) == FPX_OK);
            EXPECT(p_fpx_pool_admit(segment, 0) == FPX_INSPECT);
            EXPECT(p_fpx_stats(segment, 0, &stats) == FPX_OK && stats.in_use == 2 && stats.processes == 2);
            _exit(0);
        }
        wait_for(child);
    }

    int main(int count, char **arguments) {
        if (count != 3) return 2;
        file = arguments[1];
        path = arguments[2];
        pid_t child = fork();
        if (child == 0) {
            use(false);
            _exit(0);
        }
        wait_for(child);
        use(true);
        return 0;
    }

    """
