// The shell on a real terminal: tmux gives it one, types, and reads the screen.

import ControlAPI
import Foundation
import Testing

@testable import fpx

/// A program on a terminal of 100 columns.
final class Terminal {
    private let server: String
    private let folder: Folder

    /// - Parameter home: the home of whatever runs there.
    init(_ command: [String], home: String, environment: [String: String] = [:]) throws {
        folder = try Folder()
        server = folder.path + "/tmux"
        let variables = environment.merging(["HOME": home]) { $1 }.map { "\($0)=\($1)" }.sorted()
        let words =
            ["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "40", "/usr/bin/env"] + variables
            + ["/bin/sh", "-c", #""$@"; echo "exit status $?"; exec cat"#, "sh"] + command
        try tmux(words)
    }

    deinit { _ = try? tmux(["kill-server"]) }

    @discardableResult
    private func tmux(_ words: [String]) throws -> String {
        let result = try Program.run("/usr/bin/tmux", ["-S", server] + words)
        struct Refused: Error { let result: Ended }
        guard result.status == 0 else { throw Refused(result: result) }
        return result.output
    }

    /// `Enter`, `Tab`, `C-c` are keys; anything else is text.
    func type(_ keys: String...) throws {
        for key in keys {
            let isName = ["Enter", "Tab", "Up", "Left", "C-c", "C-d", "C-a", "C-r"].contains(key)
            try tmux(["send-keys"] + (isName ? [key] : ["-l", key]))
        }
    }

    /// The lines of the screen, without blanks at their ends.
    func screen() throws -> [String] {
        var lines = try tmux(["capture-pane", "-p"]).components(separatedBy: "\n").map { line in
            String(line.reversed().drop { $0 == " " }.reversed())
        }
        while lines.last == "" { lines.removeLast() }
        return lines
    }

    /// Waits until the screen is as `condition` wants it.
    @discardableResult
    func wait(_ what: String, sourceLocation: SourceLocation = #_sourceLocation, _ condition: ([String]) -> Bool) throws
        -> [String]
    {
        // Far more than it takes: this bounds a test that fails.
        let end = ContinuousClock.now + .seconds(20)
        var lines: [String] = []
        while ContinuousClock.now < end {
            lines = try screen()
            if condition(lines) { return lines }
            usleep(20_000)
        }
        Issue.record("never seen: \(what), but\n\(lines.joined(separator: "\n"))", sourceLocation: sourceLocation)
        return lines
    }

    func wait(last line: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
        try wait("\(line) as last line", sourceLocation: sourceLocation) { $0.last == line }
    }

    /// The shell around the program says so: tmux may lose the exit of what it started.
    func waitForEnd(status: Int, sourceLocation: SourceLocation = #_sourceLocation) throws {
        try wait(last: "exit status \(status)", sourceLocation: sourceLocation)
    }
}

@Suite(.serialized) struct ShellTests {
    private let host: String = {
        var name = [CChar](repeating: 0, count: 256)
        gethostname(&name, 255)
        return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }()
    private let daemon: TestDaemon
    private let home: Folder

    init() throws {
        daemon = try TestDaemon()
        home = try Folder()
    }

    private func shell() throws -> Terminal {
        let terminal = try Terminal([Program.path], home: home.path, environment: ["FPX_SOCKET": daemon.socket])
        try terminal.wait(last: "\(host) #")
        return terminal
    }

    @Test func commandsAndErrors() throws {
        let terminal = try shell()
        try terminal.type("diag wad lic det", "Enter")
        try terminal.wait("three lines") {
            $0 == [
                "\(host) # diag wad lic det", "Purchased License Seat: 40", "Available License Seat: 40",
                "Max Licensed Session: 1000",
                "\(host) #",
            ]
        }
        try terminal.type("show licence", "Enter")
        try terminal.wait("the hint, and the shell goes on") {
            $0.suffix(2) == [#"fpx: unknown command "licence" after "show"; did you mean "license"?"#, "\(host) #"]
        }
        try terminal.type("show full system global | grep license", "Enter")
        try terminal.wait("one line") { $0.suffix(2) == ["    set license-overlimit bypass", "\(host) #"] }
        try terminal.type("exit", "Enter")
        try terminal.waitForEnd(status: 0)
    }

    @Test func questionShowsWhatMayComeNext() throws {
        let terminal = try shell()
        try terminal.type("show lic?")
        // The line is drawn again below the help, without the question mark, and nothing was executed.
        try terminal.wait("help") {
            $0 == [
                "\(host) # show lic", "license                The licence in force, in one line",
                "license_hardware_data  What identifies this hardware, for an offline licence", "\(host) # show lic",
            ]
        }
        try terminal.type("ense", "Enter")
        try terminal.wait("the answer") {
            $0.suffix(3) == [
                "\(host) # show license", "Production license for 2000 mbits valid until 2027-01-31", "\(host) #",
            ]
        }
        #expect(daemon.requests == ["GET /v1/license"])
        // In quotes and in patterns it is a character.
        try terminal.type("show license | grep 2?")
        try terminal.wait(last: "\(host) # show license | grep 2?")
        try terminal.type("C-c", "x?")
        try terminal.wait("a hint") {
            $0.contains { $0.hasPrefix(#"unknown command "x"; expected get,"#) } && $0.last == "\(host) # x"
        }
    }

    @Test func tabCompletes() throws {
        let terminal = try shell()
        try terminal.type("diag", "Tab")
        try terminal.wait(last: "\(host) # diagnose")
        try terminal.type("w", "Tab", "l", "Tab", "d", "Tab", "Enter")
        try terminal.wait("the answer") {
            $0.first == "\(host) # diagnose wad license detail" && $0.dropFirst(3).first == "Max Licensed Session: 1000"
        }
        try terminal.type("show li", "Tab")
        try terminal.wait(last: "\(host) # show license")
        try terminal.type("Tab")
        try terminal.wait("both") {
            $0.contains { $0.hasPrefix("license_hardware_data  What") } && $0.last == "\(host) # show license"
        }
    }

    @Test func controlCClearsAndControlDEnds() throws {
        let terminal = try shell()
        try terminal.type("commit", "C-c")
        try terminal.wait("a new line") { $0.count >= 2 && $0.last == "\(host) #" }
        try terminal.type("show license", "Enter")
        try terminal.wait("the answer") { $0.suffix(2).first == "Production license for 2000 mbits valid until 2027-01-31" }
        #expect(daemon.requests == ["GET /v1/license"])
        try terminal.type("C-d")
        try terminal.waitForEnd(status: 0)
    }

    @Test func configuration() throws {
        let terminal = try shell()
        try terminal.type("config system global", "Enter")
        try terminal.wait(last: "\(host) (global) #")
        try terminal.type("set ?")
        try terminal.wait("names") {
            $0.contains("license-overlimit  Verdict of a session over the limit") && $0.last == "\(host) (global) # set"
        }
        try terminal.type("license-o", "Tab", "bl", "Tab", "Enter")
        try terminal.wait("the line") {
            $0.suffix(2) == ["\(host) (global) # set license-overlimit block", "\(host) (global) #"]
        }
        try terminal.type("set session-warning 'a b'", "Enter", "end", "Enter")
        try terminal.wait("a refusal, and the changes are kept") {
            $0.suffix(2) == [
                #"fpx: session-warning: found "a b", expected a number from 0 to 100 (percent)"#, "\(host) (global) #",
            ]
        }
        try terminal.type("unset session-warning", "Enter", "show", "Enter")
        try terminal.wait("the changes") { $0.contains("    set license-overlimit block") }
        try terminal.type("end", "Enter")
        try terminal.wait(last: "\(host) #")
        #expect(
            daemon.requests.last
                == #"PATCH /v1/config {"path":"system global","set":{"license-overlimit":"block"},"unset":["session-warning"]}"#
        )
        try terminal.type("config system global", "Enter")
        try terminal.wait(last: "\(host) (global) #")
        try terminal.type("set session-warning 90", "Enter")
        try terminal.wait("a prompt again") {
            $0.suffix(2) == ["\(host) (global) # set session-warning 90", "\(host) (global) #"]
        }
        try terminal.type("C-d")
        try terminal.waitForEnd(status: 2)
        #expect(daemon.requests.last == "GET /v1/config")
    }

    @Test func historyLasts() throws {
        let file = home.path + "/.fpx_history"
        do {
            let terminal = try shell()
            try terminal.type("show license", "Enter")
            try terminal.wait("the answer") { $0.count == 3 && $0.last == "\(host) #" }
            // It is there before the shell ends, and for nobody else.
            let mode = try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int
            #expect(mode == 0o600)
            try terminal.type("C-d")
            try terminal.waitForEnd(status: 0)
        }
        do {
            let terminal = try shell()
            try terminal.type("Up")
            try terminal.wait(last: "\(host) # show license")
        }
        // It is bounded.
        let lines = (0..<1500).map { "show license \($0)\n" }.joined()
        try Data(("_HiStOrY_V2_\n" + lines.replacing(" ", with: "\\040")).utf8).write(to: URL(fileURLWithPath: file))
        do {
            let terminal = try shell()
            try terminal.type("help | grep zzz", "Enter")
            try terminal.wait("a prompt again") { $0 == ["\(host) # help | grep zzz", "\(host) #"] }
        }
        let kept = try String(contentsOfFile: file, encoding: .utf8).split(separator: "\n")
        #expect(kept.count == Shell.historyLinesMax + 1)
        #expect(kept.last == "help\\040|\\040grep\\040zzz")
    }

    /// At a terminal all sessions are cleared only when the person there says so; one that is named is.
    @Test func whatEndsAllAsks() throws {
        let question = "All sessions of the wire hooks go on uncounted. Do you want to continue? (y/n)"
        let terminal = try shell()
        try terminal.type("diag wad sess clear", "Enter")
        try terminal.wait(last: question)
        try terminal.type("n", "Enter")
        try terminal.wait(last: "\(host) #")
        #expect(daemon.requests.isEmpty)
        try terminal.type("diag wad sess clear 87e0000000000007", "Enter")
        try terminal.wait("one is cleared") { $0.suffix(2) == ["Cleared: 1 session", "\(host) #"] }
        try terminal.type("diag wad sess clear", "Enter")
        try terminal.wait(last: question)
        try terminal.type("y", "Enter")
        try terminal.wait("all are cleared") { $0.suffix(2) == ["Cleared: 3 sessions", "\(host) #"] }
        #expect(daemon.requests == ["DELETE /v1/sessions/87e0000000000007", "DELETE /v1/sessions"])
        // Not in the shell.
        let once = try Terminal(
            [Program.path, "diagnose", "wad", "session", "clear"], home: home.path, environment: ["FPX_SOCKET": daemon.socket])
        try once.wait(last: question)
        try once.type("Enter")
        try once.waitForEnd(status: 0)
        #expect(daemon.requests.count == 2)
    }

    /// What is no history of ours is not overwritten.
    @Test func foreignHistoryIsLeftAlone() throws {
        let file = home.path + "/.fpx_history"
        try Data("something else\n".utf8).write(to: URL(fileURLWithPath: file))
        let terminal = try shell()
        try terminal.type("show license", "Enter")
        let lines = try terminal.wait("the answer") { $0.contains("Production license for 2000 mbits valid until 2027-01-31") }
        #expect(lines[0].hasPrefix("fpx: \(file) is not a history file of fpx:"), "\(lines)")
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "something else\n")
    }
}
