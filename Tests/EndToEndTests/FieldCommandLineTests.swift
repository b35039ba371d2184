// What operators type around `fpx`, and whom it names.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldCommandLine {}
}

extension EndToEnd.FieldCommandLine {
    private func row(_ situation: String, _ expected: String, _ found: String) {
        #expect(Field.row("commands.6", situation, expected: expected, found: found))
    }

    /// More than a pipe takes, so that fpx still writes when `head` has gone.
    @Test func aReaderThatStopsEarly() throws {
        let daemon = try DaemonControl(cap: 3)
        let fpx = "\(try Programs.path("fpx")) --socket \(daemon.controlSocket)"
        for (situation, command) in [
            ("fpx ... | head -1", "yes help | head -100 | \(fpx) | head -1 >/dev/null"),
            ("fpx --json ... | head -1", "yes 'get system events' | head -3000 | \(fpx) --json | head -1 >/dev/null"),
            ("fpx ... | true", "yes 'show full' | head -1000 | \(fpx) | true"),
        ] {
            let (status, output) = try run("/bin/bash", ["-c", "\(command); echo status ${PIPESTATUS[2]}"])
            #expect(status == 0)
            row(situation, "status 0, silent", output == "status 0\n" ? "status 0, silent" : output)
        }
        for (situation, command) in [
            ("fpxd --check-config | true", "\(try Programs.path("fpxd")) --home \(daemon.home) --check-config | true"),
            ("fpx --help | true", "\(fpx) --help | true"),
            ("fpx-authority --help | true", "\(try Programs.path("fpx-authority")) --help | true"),
        ] {
            // What this run of the tests is told is no setting.
            let (_, output) = try run("/bin/bash", ["-c", "unset FPX_DIST FPX_FIELD; \(command)"])
            row(situation, "silent", output.isEmpty ? "silent" : output)
        }
        // What cannot be written for another reason is an error all the same.
        let (_, full) = try run("/bin/bash", ["-c", "\(fpx) help >/dev/full; echo status $?"])
        row(
            "fpx ... on a full disk", "status 1, told",
            full == "status 1\nfpx: the output cannot be written: No space left on device\n" ? "status 1, told" : full)
    }

    /// The same lines as grep keeps, however the pattern is quoted.
    @Test(arguments: [
        #"overlimit\|warning"#, #"set \(log-level\|usage-report\)"#, #"warning 8[0-9]\{1\}$"#, #"log-level\s"#, #"\bset\b"#,
        #"a\.b\|\."#, #"over\\limit"#, #"^config"#,
    ])
    func patternsWithinQuotes(_ pattern: String) throws {
        let daemon = try DaemonControl(cap: 3)
        let (_, whole) = try daemon.ask("show", "full", "system", "global")
        try daemon.folder.write(whole, to: "whole")
        let (_, expected) = try run("/bin/bash", ["-c", "grep \"\(pattern)\" \(daemon.folder.path)/whole"])
        func shown(_ text: String) -> String { text.isEmpty ? "nothing" : text.replacing("\n", with: "|") }
        for (situation, line) in [
            ("in double quotes", #"show full system global | grep "\#(pattern)""#),
            ("in single quotes", #"show full system global | grep '\#(pattern.replacing(#"\\"#, with: #"\"#))'"#),
        ] {
            row("grep \(pattern) \(situation)", shown(expected), shown(try daemon.ask(line).output))
        }
    }

    @Test(.enabled(if: geteuid() == 0, "needs root, for a PID namespace"))
    func aWorkerInAnotherPIDNamespace() throws {
        let daemon = try DaemonControl(cap: 3, flags: ["--log-level", "debug"])
        let folder = daemon.folder.path
        try daemon.folder.write(
            """
            #include <fpxadmission.h>
            #include <stdio.h>
            #include <unistd.h>
            int main(int count, char **arguments) {
                fpx_segment *segment;
                if (count != 2 || fpx_attach(arguments[1], &segment) != FPX_OK) return puts(fpx_last_error()), 1;
                printf("process %d, verdict %d\\n", getpid(), fpx_pool_admit(segment, 0));
                fflush(stdout);
                pause();
            }
            """, to: "worker.c")
        let library = try required(distribution + "/lib/libfpxadmission.so", "run `make integrations`")
        let (built, complaint) = try run(
            "/usr/bin/env",
            [
                "cc", "-O1", "-I", distribution + "/include", "\(folder)/worker.c", "-o", "\(folder)/far-worker", library,
                "-Wl,-rpath,\(distribution)/lib",
            ])
        try #require(built == 0, "\(complaint)")
        let worker = try ProxyProcess(
            ["/usr/bin/unshare", "--pid", "--fork", "\(folder)/far-worker", daemon.segmentPath], output: "\(folder)/worker.out")
        try #require(eventually { daemon.folder.read("worker.out").contains("process 1, verdict") })
        let lines = try daemon.fpx("diagnose", "wad", "session", "stats").split(separator: "\n")
            .map { $0.split(separator: " ").map(String.init) }
        let name = lines.first { $0.count > 6 && $0[1] == "1" && $0[4] == "furl" }?[2] ?? "no row of process 1"
        row("a worker that is process 1 of its PID namespace", "far-worker", name)
        let isNamed = eventually { daemon.log.contains("far-worker (1) attached") }
        row("what the log calls it", "far-worker (1) attached", isNamed ? "far-worker (1) attached" : daemon.log)
        withExtendedLifetime(worker) {}
    }
}
