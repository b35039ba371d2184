import Foundation
import TestSupport
import Testing

/// What the other tests rely on when they start programs.
@Suite struct ChildProcessTests {
    @Test func wordsEnvironmentFolderAndInput() throws {
        let ended = try ChildProcess.run(
            ["sh", "-c", "cat; echo $0 $A; pwd; echo no >&2; exit 3", "a b"], environment: ["A": "1"], folder: "/proc",
            input: "line\n")
        #expect(ended.output == "line\na b 1\n/proc\n" && ended.error == "no\n" && ended.status == 3, "\(ended)")
    }

    @Test func whatIsMissingIsNamed() {
        #expect { try ChildProcess(["/nowhere"]) } throws: {
            "\($0)" == "/nowhere: posix_spawn: No such file or directory"
        }
        #expect(throws: ChildProcess.Failure.self) { try ChildProcess(["true"], folder: "/nowhere") }
        #expect(throws: ChildProcess.Failure.self) { try ChildProcess(["true"], output: .file("/nowhere/file")) }
    }

    /// More than pipes hold, on both streams.
    @Test func muchOutput() throws {
        let ended = try ChildProcess.run(
            ["sh", "-c", "head -c 3000000 /dev/zero >&2; head -c 2000000 /dev/zero; head -c 1000000 /dev/zero >&2"])
        #expect(ended.output.utf8.count == 2_000_000 && ended.error.utf8.count == 4_000_000 && ended.status == 0)
    }

    /// A program that another one leaves behind holds its output open: nobody waits for it.
    @Test func aProgramLeftBehindIsNotWaitedFor() throws {
        let begin = ContinuousClock.now
        let ended = try ChildProcess.run(["sh", "-c", "sleep 60 & echo $!"])
        #expect(ContinuousClock.now - begin < .seconds(50))
        let left = try #require(pid_t(ended.output.dropLast()))
        #expect(kill(left, SIGKILL) == 0)
    }

    @Test func whoIsLateIsEnded() throws {
        let ended = try ChildProcess.run(["sh", "-c", "echo begun; exec sleep 60"], within: .milliseconds(300))
        #expect(ended.status == -SIGKILL)
        #expect(ended.output == "begun\n" && ended.error == "sh: no end within 0.3 seconds\n", "\(ended)")
        let program = try ChildProcess(["sleep", "60"])
        #expect(program.wait(within: .milliseconds(1)) == nil && program.status == nil)
        program.signal(SIGTERM)
        #expect(program.wait() == -SIGTERM && program.status == -SIGTERM && program.wait(within: .zero) == -SIGTERM)
    }

    /// Threads of the test runner block signals, and it ignores some: what it starts does neither.
    @Test func signalsAreAsTheyAreForEverybody() throws {
        let lines = try ChildProcess.run(["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]).output.split(separator: "\n")
        let sets = lines.compactMap { UInt64($0.suffix(16), radix: 16) }
        // The C library keeps the signals 32 and 33 for itself.
        #expect(sets.count == 2 && sets.allSatisfy { $0 & 0x7fff_ffff == 0 }, "\(lines)")
    }

    @Test func itEndsWithItsValue() throws {
        var program: ChildProcess? = try ChildProcess(["sleep", "60"])
        let id = try #require(program?.processID)
        #expect(kill(id, 0) == 0)
        program = nil
        #expect(kill(id, 0) == -1 && errno == ESRCH)
    }
}
