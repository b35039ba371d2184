// The program as it is run: arguments, pipes, exit statuses, daemons that misbehave.

import ControlAPI
import Foundation
import Testing

@testable import fpx

@Suite struct ProgramTests {
    private let detail = "Purchased License Seat: 40\nAvailable License Seat: 40\nMax Licensed Session: 1000\n"

    @Test func oneShots() throws {
        let daemon = try TestDaemon()
        func run(_ words: String...) throws -> Ended { try Program.run(words, socket: daemon.socket) }
        #expect(try run("diag", "wad", "lic", "det") == .done(detail))
        #expect(try run("diagnose wad license detail") == .done(detail))
        #expect(try run("show", "license") == .done("Production license for 2000 mbits valid until 2027-01-31\n"))
        #expect(try run("show", "license", "--json") == .done(try JSONLine.license(Samples.license())))
        #expect(try run("--json", "show", "license_hardware_data") == .done(try JSONLine.hardware(Samples.hardware)))
        #expect(try run("get", "system", "performance", "status") == .done(Text.performance(Samples.performance)))
        #expect(try run("commit") == .done("set session-warning 90\nLicense state: Active\n"))
        #expect(try run("diagnose", "wad", "session", "list", "2") == .done(Text.sessions(Samples.sessions)))
        #expect(try run("diagnose", "wad", "session", "clear") == .done("Cleared: 3 sessions\n"))
        #expect(try run("diagnose", "wad", "session", "clear", "87e0000000000007") == .done("Cleared: 1 session\n"))
        #expect(try run("get", "system", "events", "2") == .done(Text.events(Samples.events)))
        #expect(try run("show", "full-configuration") == .done(Text.configuration(Samples.configuration())))
        #expect(try run("exit") == .done(""))
    }

    @Test func filters() throws {
        let daemon = try TestDaemon()
        func run(_ words: String...) throws -> Ended { try Program.run(words, socket: daemon.socket) }
        let line = "    set license-overlimit bypass\n"
        #expect(try run("show full system global | grep license") == .done(line))
        #expect(try run("show", "full", "system", "global", "|", "grep", "-i", "LICENSE") == .done(line))
        #expect(try run("show full system global | grep set | grep -v log | grep -v session | grep -v usage") == .done(line))
        // The whole configuration has other settings of that name.
        #expect(
            try run("show full | grep license")
                == .done(line + "    set license-file /etc/fpx/license.lic\n"))
        #expect(try run("show full system global | grep xyz") == .done(""))
        #expect(try run("show", "|", "grep").status == 2)
        #expect(try run("| grep a").status == 2)
        #expect(try run("show license | sort") == .failed(2, #"after "|" stands "sort"; expected grep [-i] [-v] PATTERN"#))
    }

    /// Each command of the table, with --json, is one line that is JSON.
    @Test func everyCommandSpeaksJSON() throws {
        let daemon = try TestDaemon()
        let file = FileManager.default.temporaryDirectory.path + "/key-\(UUID().uuidString).pem"
        try "a key".write(toFile: file, atomically: true, encoding: .utf8)
        defer { try? FileManager.default.removeItem(atPath: file) }
        for command in CommandTable.commands where command.mode == .top {
            // What must be said: any word will do, but for a file.
            let arguments = command.parameters.filter { !$0.isOptional }.map { $0.name == "FILE" ? file : "FPXMEMB03" }
            let result = try Program.run(command.words + arguments + ["--json"], socket: daemon.socket)
            switch command.action {
            case .ask, .help:
                #expect(result.status == 0 && result.error.isEmpty, "\(command.name): \(result)")
                #expect(result.output.filter { $0 == "\n" }.count == 1 && result.output.hasSuffix("\n"))
                #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: Data(result.output.utf8)) }
            case .configure: #expect(result.status == 2)
            default: #expect(result == .done(""))
            }
        }
        // An answer that is spread over lines comes out as one.
        let spread = try TestDaemon { _, _ in .answer(200, Data("{\n  \"cleared\" : 2\n}\n".utf8)) }
        #expect(
            try Program.run(["--json", "diag", "wad", "session", "clear"], socket: spread.socket)
                == .done("{  \"cleared\" : 2}\n"))
    }

    @Test func configuration() throws {
        let daemon = try TestDaemon()
        let patch = #"PATCH /v1/config {"path":"system global","set":{"license-overlimit":"block"}}"#
        let words = ["config", "system", "global", "set", "license-overlimit", "block", "end"]
        #expect(try Program.run(words, socket: daemon.socket) == .done(""))
        #expect(daemon.requests == ["GET /v1/config", patch])
        let input = "# a remark\nconfig system global\n\nset license-overlimit block\nend\nshow license\n"
        #expect(
            try Program.run([], socket: daemon.socket, input: input)
                == .done("Production license for 2000 mbits valid until 2027-01-31\n"))
        #expect(daemon.requests.dropFirst(2) == ["GET /v1/config", patch, "GET /v1/license"])
        // Nothing to change, nothing sent.
        #expect(try Program.run(["config system global end"], socket: daemon.socket) == .done(""))
        #expect(try Program.run(["config system global set session-warning 90 abort"], socket: daemon.socket) == .done(""))
        #expect(daemon.requests.filter { $0.hasPrefix("PATCH") }.count == 2)
        #expect(
            try Program.run(["config system global unset session-warning show abort"], socket: daemon.socket)
                == .done(Text.section(Samples.configuration().sections[0])))
        #expect(
            try Program.run(["show", "system", "global"], socket: daemon.socket) == .done("config system global\nend\n"))
    }

    @Test func configurationThatFails() throws {
        let daemon = try TestDaemon()
        func run(_ input: String) throws -> Ended { try Program.run([], socket: daemon.socket, input: input) }
        let refused = #"session-warning: found "a b", expected a number from 0 to 100 (percent)"#
        #expect(
            try run("config system global\nset session-warning \"a b\"\nend\nshow license\n")
                == .failed(1, "line 3: " + refused))
        #expect(
            try run("\nconfig system global\nset license-overlimit block\n")
                == .failed(2, "line 2: config system global without end or abort; nothing was changed"))
        #expect(
            try Program.run(["config", "system", "global", "set", "session-warning", "90"], socket: daemon.socket)
                == .failed(2, "config system global without end or abort; nothing was changed"))
        // A typing error in the middle: what stands before it is not applied.
        #expect(try run("config system global\nset license-overlimit block\nset session-warnign 90\nend\n").status == 2)
        #expect(daemon.requests.filter { $0.hasPrefix("PATCH") && $0.contains("block") }.isEmpty)
        // Words of one line are all read before any is carried out.
        let count = daemon.requests.count
        #expect(try Program.run(["config system global set license-overlimit block edn"], socket: daemon.socket).status == 2)
        #expect(daemon.requests.count == count)
    }

    /// The licence in force is printed all the same; exit status 1 and the reason are for scripts.
    @Test func aRenewalThatFails() throws {
        let refusing = try TestDaemon { request, body in
            guard request == "POST /v1/license/renew" else { return Samples.answer(request, body) }
            return .value(
                RenewalReport(renewed: false, reason: "the authority refuses (held): a person looks", license: Samples.summary))
        }
        #expect(
            try Program.run(["set", "renew_license"], socket: refusing.socket)
                == .failed(
                    1, "the authority refuses (held): a person looks", output: "License state: Active\nLicense days left: 71\n")
        )
        let daemon = try TestDaemon()
        #expect(
            try Program.run(["set", "renew_license"], socket: daemon.socket)
                == .done("License state: Active\nLicense days left: 71\n"))
        #expect(daemon.requests == ["POST /v1/license/renew"])
    }

    @Test func scriptsStopAtTheFirstError() throws {
        let daemon = try TestDaemon()
        let result = try Program.run([], socket: daemon.socket, input: "show license\nshow licence\ncommit\n")
        #expect(
            result
                == .failed(
                    2, #"line 2: unknown command "licence" after "show"; did you mean "license"?"#,
                    output: "Production license for 2000 mbits valid until 2027-01-31\n"))
        #expect(daemon.requests == ["GET /v1/license"])
        #expect(try Program.run([], socket: daemon.socket, input: "exit\ncommit\n") == .done(""))
        #expect(
            try Program.run([], socket: daemon.socket, input: "show lic?")
                == .done(
                    """
                    license                The licence in force, in one line
                    license_hardware_data  What identifies this hardware, for an offline licence

                    """))
    }

    /// With --json whatever goes wrong is a line of JSON as well, whoever says it.
    @Test func errorsInJSON() throws {
        let daemon = try TestDaemon { request, body in
            request == "POST /v1/commit" ? .refusal(503, "unavailable", "no \"disk\"") : Samples.answer(request, body)
        }
        func failure(_ words: [String], socket: String? = nil, input: String = "") throws -> String {
            let ended = try Program.run(words, socket: socket ?? daemon.socket, input: input)
            // Keys are sorted, so that there is one text for one error.
            return "\(ended.status) \(ended.error)"
        }
        let unknown = #"unknown command \"licence\" after \"show\"; did you mean \"license\"?"#
        #expect(
            try failure(["--json", "commit"]) == #"1 {"error":{"code":"unavailable","message":"no \"disk\""}}"# + "\n")
        #expect(
            try failure(["show", "licence", "--json"]) == #"2 {"error":{"code":"usage","message":"\#(unknown)"}}"# + "\n")
        #expect(
            try failure(["--json"], input: "show license\n\nshow licence\n")
                == #"2 {"error":{"code":"usage","line":3,"message":"\#(unknown)"}}"# + "\n")
        #expect(try failure(["--json", "--jsn"]).hasPrefix(#"2 {"error":{"code":"usage","message":""#))
        #expect(try failure(["--json", "commit"], socket: "/nonexistent").hasPrefix(#"3 {"error":{"code":"no_daemon","#))
        // The configuration is printed by `end`, whether or not it has changed.
        let whole = try Program.run(["--json", "show", "full-configuration"], socket: daemon.socket)
        #expect(whole.status == 0 && whole.output.count > 2)
        #expect(try Program.run(["--json", "config system global end"], socket: daemon.socket) == whole)
    }

    @Test func usage() throws {
        #expect(
            try Program.run(["show", "licence"])
                == .failed(2, #"unknown command "licence" after "show"; did you mean "license"?"#))
        #expect(try Program.run(["--jsn", "commit"]).status == 2)
        #expect(
            try Program.run(["--timeout", "0", "commit"])
                == .failed(2, "--timeout is 0; expected a number from 1 to 3600; see fpx --help"))
        #expect(try Program.run(["--timeout", "x", "commit"]).status == 2)
        #expect(try Program.run([""]).status == 2)
        #expect(try Program.run(["commit"], socket: "/tmp/" + String(repeating: "x", count: 200)).status == 2)
        #expect(try Program.run(["--socket", "", "commit"]).status == 2)
        let help = try Program.run(["--help"])
        #expect(help.status == 0 && help.error.isEmpty)
        for command in CommandTable.commands where command.mode == .top {
            #expect(help.output.contains("  \(command.usage)\n"), "\(command.usage)")
        }
        #expect(try Program.run(["show", "license", "--help"]).status == 0)
        #expect(try Program.run(["help"]) == .done(Text.help()))
        let version = try Program.run(["--version"])
        #expect(version == .done(version.output) && version.output.contains("."))
    }

    @Test func placesOfTheSocket() throws {
        let folder = try Folder()
        #expect(ControlClient.defaultSocket(environment: ["FPX_SOCKET": "/x"]) == "/x")
        try FileManager.default.createDirectory(atPath: folder.path + "/.fpx/run", withIntermediateDirectories: true)
        let daemon = try TestDaemon()
        // The running system may have a daemon of its own; then that is the one.
        let isInstalled = FileManager.default.fileExists(atPath: ControlClient.places[0])
        if !isInstalled {
            #expect(
                try Program.run(["commit"], folder: folder.path)
                    == .failed(
                        3,
                        "no daemon at /run/fpx/control.sock: No such file or directory; start fpxd, or see whether it runs: "
                            + "pgrep -LF /run/fpx/fpxd.pid"))
            try FileManager.default.createSymbolicLink(
                atPath: folder.path + "/.fpx/run/control.sock", withDestinationPath: daemon.socket)
            #expect(try Program.run(["show", "license"], folder: folder.path).status == 0)
        }
        #expect(try Program.run(["--socket", daemon.socket, "show", "license"], socket: "/nowhere").status == 0)
    }
}
