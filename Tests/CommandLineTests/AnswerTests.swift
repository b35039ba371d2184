// Answers that are none: refusals, other programs, silence, too much.

import ControlAPI
import Foundation
import Testing

@testable import fpx

@Suite struct AnswerTests {
    private func run(_ words: [String] = ["show", "license"], _ answer: @escaping TestDaemon.Answer) throws -> (Ended, String) {
        let daemon = try TestDaemon(answer)
        return (try Program.run(["--timeout", "5"] + words, socket: daemon.socket), daemon.socket)
    }

    @Test func refusals() throws {
        let (result, _) = try run { _, _ in .refusal(403, "forbidden", "user 65534 may only read") }
        #expect(result == .failed(1, "user 65534 may only read"))
        let report = CommitReport(
            applied: false, license: Samples.summary,
            messages: ["license.lic: the signature does not verify; the licence of epoch 7 stays"])
        let (commit, _) = try run(["commit"]) { _, _ in .value(report) }
        #expect(
            commit
                == .failed(
                    1, "license.lic: the signature does not verify; the licence of epoch 7 stays",
                    output: "License state: Active\n"))
        let (json, _) = try run(["commit", "--json"]) { _, _ in .value(report) }
        #expect(json.status == 1 && json.output.hasPrefix(#"{"applied":false,"#))
        // What comes from outside does not reach the terminal as it is.
        let (evil, _) = try run { _, _ in .refusal(400, "x", "\u{1b}[2J\nfpx: done") }
        #expect(evil == .failed(1, #"\u{1b}[2J\u{a}fpx: done"#))
    }

    @Test(arguments: [
        ("", "the end of the connection"), ("SSH-2.0-x\r\n", "expected an answer in HTTP/1.1"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{", "stream ended"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", "that is no"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "no summary in the answer"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{\"a", "cannot be read"),
        ("HTTP/1.1 500 No\r\ncontent-length: 4\r\n\r\nboom", "status 500 without a reason"),
        ("HTTP/1.1 302 No\r\ncontent-length: 0\r\n\r\n", "status 302 without a reason"),
    ])
    func notAnAnswer(_ bytes: String, _ found: String) throws {
        for form in [[], ["--json"]] {
            let (result, socket) = try run(["show", "license"] + form) { _, _ in .bytes(bytes) }
            #expect(result.status == 3 && result.output.isEmpty, "\(result)")
            let begin = form.isEmpty ? "fpx: " : #"{"error":{"code":"bad_answer","message":""#
            #expect(result.error.hasPrefix("\(begin)no answer of fpxd at \(socket): found "), "\(result.error)")
            #expect(result.error.contains(found), "\(result.error)")
            #expect(result.error.filter { $0 == "\n" }.count == 1)
        }
    }

    @Test func anotherVersion() throws {
        let (none, _) = try run(["show", "full", "system", "global"]) { _, _ in .value(ConfigurationReport(sections: [])) }
        #expect(none.status == 3 && none.error.contains("no section system global"))
        let (seats, _) = try run(["diag", "wad", "license", "detail"]) { _, _ in
            .value(SeatsReport(mode: "None", license: Samples.summary, types: []))
        }
        #expect(seats.status == 3 && seats.error.contains("seats of no type, not of furl"))
    }

    @Test func silence() throws {
        let daemon = try TestDaemon { _, _ in .silence }
        let result = try Program.run(["--timeout", "1", "commit"], socket: daemon.socket)
        #expect(result == .failed(3, "no answer from \(daemon.socket) within 1 s"))
    }

    @Test func flood() throws {
        let daemon = try TestDaemon { _, _ in .flood }
        let result = try Program.run(["--timeout", "60", "commit"], socket: daemon.socket)
        #expect(result.status == 3)
        #expect(result.error.contains("an answer of more than 67108864 bytes"), "\(result.error)")
    }

    @Test func nobodyThere() throws {
        let folder = try Folder()
        let path = folder.path + "/control.sock"
        let advice = "start fpxd, or see whether it runs: pgrep -LF \(folder.path)/fpxd.pid"
        #expect(
            try Program.run(["commit"], socket: path)
                == .failed(3, "no daemon at \(path): No such file or directory; \(advice)"))
        try Data().write(to: URL(fileURLWithPath: path))
        #expect(
            try Program.run(["commit"], socket: path) == .failed(3, "no daemon at \(path): Connection refused; \(advice)"))
    }

    /// As a user who is no member of the group. Only root can take another user's place.
    @Test(.enabled(if: getuid() == 0)) func notAllowed() throws {
        let daemon = try TestDaemon()
        chmod(daemon.socket, 0o660)
        let arguments = ["--reuid=65534", "--regid=65534", "--clear-groups", Program.path, "commit"]
        #expect(
            try Program.run("/usr/bin/setpriv", arguments, environment: ["FPX_SOCKET": daemon.socket])
                == .failed(
                    3, "no permission to use \(daemon.socket): only root and members of the group fpx may talk to fpxd"))
    }

    /// A full disk is not a success.
    @Test func outputThatCannotBeWritten() throws {
        let daemon = try TestDaemon()
        let result = try Program.run(
            "/bin/sh", ["-c", "exec \"$0\" show license_hardware_data > /dev/full", Program.path],
            environment: ["FPX_SOCKET": daemon.socket])
        #expect(result == .failed(1, "the output cannot be written: No space left on device"))
    }
}
