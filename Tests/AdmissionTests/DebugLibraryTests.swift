// What the debug library notices, and what it leaves alone.

import Foundation
import TestSupport
import Testing

@testable import Admission

extension ShippedLibraryTests {
    /// Each case: sessions that are in order, and then, with a second argument, one release too many.
    private static let program = """
        #include <fpxadmission.h>
        #include <stdio.h>
        #include <string.h>
        int main(int count, char **arguments) {
            fpx_segment *segment;
            fpx_lane *lane, *other;
            fpx_session session;
            fpx_verdict verdict, over;
            if (count < 2 || fpx_attach(arguments[1], &segment) != FPX_OK || fpx_lane_open(segment, FPX_POOL_FURL, &lane) != FPX_OK
                || fpx_lane_open(segment, FPX_POOL_FURL, &other) != FPX_OK) return puts(fpx_last_error()), 1;
            const char *surplus = count > 2 ? arguments[2] : "";
            for (int round = 0; round < 1000; round++) {
                fpx_verdict verdicts[3] = {fpx_lane_admit(lane), fpx_pool_admit(segment, FPX_POOL_FURL), fpx_lane_admit(other)};
                fpx_lane_release(other, verdicts[0]);
                fpx_lane_release(lane, verdicts[1]);
                if (fpx_pool_release(segment, FPX_POOL_FURL, verdicts[2]) != FPX_OK) return 1;
            }
            for (int i = 0; i < 5; i++) verdict = fpx_lane_admit(lane);
            over = fpx_lane_admit(lane);
            if (verdict != FPX_INSPECT || over != FPX_BYPASS) return puts("the cap of 5 is not kept"), 1;
            fpx_lane_release(lane, over);
            if (!strcmp(surplus, "bypassed")) fpx_lane_release(lane, over);
            for (int i = 0; i < 5; i++) fpx_lane_release(other, verdict);
            if (fpx_admit(segment, FPX_POOL_FURL, &session, &verdict) != FPX_OK || fpx_release(segment, session) != FPX_OK) return 1;
            puts("in order");
            fflush(stdout);
            if (!strcmp(surplus, "lane")) fpx_lane_release(lane, verdict);
            if (!strcmp(surplus, "pool")) fpx_pool_release(segment, FPX_POOL_FURL, verdict);
            puts("done");
            return 0;
        }
        """

    @Test(arguments: ["lane", "pool", "bypassed"])
    func aReleaseTooMany(_ surplus: String) throws {
        let (library, debug) = (try ShippedLibrary.shared.get(), try ShippedLibrary.debug.get())
        let source = "\(library.folder)/surplus-\(surplus).c"
        try Data(Self.program.utf8).write(to: URL(fileURLWithPath: source))
        // Compiled once, for the ordinary library.
        let program = try library.compile(source, library.flags("--cflags", "--libs"))
        let path = try segment(cap: 5)
        defer { unlink(path) }
        for environment in [library.environment, debug.environment] {
            let ended = try Run([program, path], environment: environment)
            #expect(ended.status == 0 && ended.output == "in order\ndone\n", "\(ended)")
        }
        let caught = try Run([program, path, surplus], environment: debug.environment)
        let function = surplus == "pool" ? "fpx_pool_release" : "fpx_lane_release"
        let verdict = surplus == "bypassed" ? "FPX_BYPASS" : "FPX_INSPECT"
        #expect(caught.status == -SIGABRT && !caught.output.contains("done"), "\(caught)")
        #expect(
            caught.output.contains(
                "\(function): found a release of \(verdict) too many: this process has no such session in use in pool 0"),
            "\(caught)")
        // The ordinary library does not notice.
        #expect(try Run([program, path, surplus], environment: library.environment).status == 0)
    }

    /// Threads that admit and release on one another's lanes are never accused.
    @Test func theExampleIsInOrder() throws {
        let (library, debug) = (try ShippedLibrary.shared.get(), try ShippedLibrary.debug.get())
        let program = try library.compile("\(library.sources)/example.c", library.flags("--cflags", "--libs"))
        for (cap, threads) in [(10_000, 8), (10, 8), (1, 16)] {
            let path = try segment(cap: cap)
            defer { unlink(path) }
            let ended = try Run([program, path, "\(threads)"], environment: debug.environment)
            #expect(ended.status == 0 && ended.output.hasSuffix("ok\n"), "\(ended)")
        }
    }

    @Test func theVersionIsTheHeaders() throws {
        let library = try ShippedLibrary.shared.get()
        let header = try String(contentsOfFile: library.folder + "/include/fpxadmission.h", encoding: .utf8)
        let version = ["MAJOR", "MINOR", "PATCH"].map { part in
            header.split(separator: "\n").first { $0.hasPrefix("#define FPX_VERSION_\(part) ") }?.split(separator: " ").last
                ?? ""
        }.joined(separator: ".")
        #expect(try library.flags("--modversion") == [version])
        #expect(FileManager.default.fileExists(atPath: "\(library.folder)/lib/libfpxadmission.so.\(version)"))
    }
}
