// Completions in the shells themselves.

import Foundation
import Testing

@testable import fpx

@Suite(.serialized) struct CompletionTests {
    private let folder: Folder

    init() throws {
        folder = try Folder()
        for shell in ["bash", "zsh", "fish"] {
            let script = try Program.run(["--generate-completion", shell])
            try #require(script.status == 0 && script.error.isEmpty, "\(script)")
            let name = shell == "zsh" ? "_fpx" : "fpx.\(shell)"
            try Data(script.output.utf8).write(to: URL(fileURLWithPath: folder.path + "/" + name))
        }
    }

    /// Where the program is found, before all else.
    private var path: String { (Program.path as NSString).deletingLastPathComponent + ":/usr/bin:/bin" }

    private func screenIsComplete(_ terminal: Terminal) throws {
        try terminal.wait(last: "$")
        try terminal.type("fpx diag", "Tab")
        try terminal.wait(last: "$ fpx diagnose")
        try terminal.type("wad lic", "Tab")
        try terminal.wait(last: "$ fpx diagnose wad license")
        try terminal.type("d", "Tab")
        try terminal.wait(last: "$ fpx diagnose wad license detail")
        try terminal.type("C-c")
        try terminal.wait(last: "$")
        try terminal.type("fpx --json --socket /x show ", "Tab", "Tab")
        try terminal.wait("all words") { lines in
            ["license", "license_hardware_data", "system", "full-configuration"].allSatisfy { word in
                lines.contains { $0.split(separator: " ").contains { $0 == word } }
            }
        }
    }

    @Test func bash() throws {
        try Data("PS1='$ '\nsource \(folder.path)/fpx.bash\n".utf8).write(to: URL(fileURLWithPath: folder.path + "/rc"))
        try screenIsComplete(
            Terminal(
                ["/bin/bash", "--noprofile", "--rcfile", folder.path + "/rc"], home: folder.path, environment: ["PATH": path]))
    }

    @Test func zsh() throws {
        let settings = """
            PS1='$ '
            fpath=(\(folder.path) $fpath)
            autoload -Uz compinit && compinit -u -d \(folder.path)/dump

            """
        try Data(settings.utf8).write(to: URL(fileURLWithPath: folder.path + "/.zshrc"))
        try screenIsComplete(
            Terminal(["/usr/bin/zsh", "-d", "-i"], home: folder.path, environment: ["PATH": path, "ZDOTDIR": folder.path]))
    }

    @Test func fish() throws {
        func candidates(_ line: String) throws -> [String] {
            let result = try Program.run(
                "/usr/bin/fish", ["--no-config", "-c", "source \(folder.path)/fpx.fish; complete -C '\(line)'"],
                environment: ["PATH": path, "HOME": folder.path])
            #expect(result.error.isEmpty)
            return result.output.split(separator: "\n").map(String.init)
        }
        #expect(try candidates("fpx diag") == ["diagnose\tWhat is behind a verdict"])
        #expect(
            try Set(candidates("fpx --json show ")) == [
                "license\tThe licence in force, in one line",
                "license_hardware_data\tWhat identifies this hardware, for an offline licence",
                "usage_report\tThe usage report that goes to the authority next",
                "system\tSettings that differ from their defaults", "full-configuration\tThe whole configuration",
            ])
        #expect(try candidates("fpx --js").map { $0.prefix { $0 != "\t" } } == ["--json"])
    }
}
