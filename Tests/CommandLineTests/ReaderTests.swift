// Words: how lines become words, words become commands, and what is said of those that do not.

import ControlAPI
import TestSupport
import Testing

@testable import fpx

private func read(_ words: [String], mode: Command.Mode = .top) throws(Failure) -> [String] {
    var reader = Reader(mode: mode)
    for word in words { try reader.take(word) }
    return try reader.finish().map { ([$0.command.name] + $0.arguments).joined(separator: " ") }
}

private func read(_ line: String, mode: Command.Mode = .top) throws(Failure) -> [String] {
    try read(line.split(separator: " ").map(String.init), mode: mode)
}

private func failure<Result>(_ body: () throws(Failure) -> Result) -> String {
    do throws(Failure) {
        return "no failure but \(try body())"
    } catch {
        return error.description
    }
}

@Suite struct ReaderTests {
    @Test(arguments: [
        ("diag wad lic det", ["diagnose wad license detail"]), ("d w l", ["diagnose wad license"]),
        ("show license", ["show license"]), ("show license_", ["show license_hardware_data"]),
        ("show full system global", ["show full-configuration system global"]),
        ("show full-configuration sys glo", ["show full-configuration system global"]),
        ("show full", ["show full-configuration"]),
        ("diag wad sess list 5", ["diagnose wad session list 5"]), ("diag wad session list", ["diagnose wad session list"]),
        ("diag wad session clear 87e0000000000007", ["diagnose wad session clear 87e0000000000007"]),
        (
            "conf sys glob set license-overlimit block uns log-level end",
            ["config system global", "set license-overlimit block", "unset log-level", "end"]
        ),
        ("config system global", ["config system global"]), ("", []),
        ("diag test app csfd 1", ["diagnose test application csfd 1"]),
        ("diag test app csfd 140", ["diagnose test application csfd 140"]),
        ("di t a c 14 --al", ["diagnose test application csfd 140 --align"]),
        ("get sys ha stat", ["get system ha status"]), ("get sys csf", ["get system csf"]),
        ("show full sys csf", ["show full-configuration system csf"]), ("show sys sh", ["show system sharing"]),
        (
            "conf sys csf set status enable set group-name lab end",
            ["config system csf", "set status enable", "set group-name lab", "end"]
        ),
    ])
    func abbreviationsAreRead(_ line: String, _ commands: [String]) throws {
        #expect(try read(line) == commands)
    }

    @Test(arguments: [
        ("show licence", #"unknown command "licence" after "show"; did you mean "license"?"#),
        ("shwo", #"unknown command "shwo"; did you mean "show"?"#),
        ("get system stauts", #"unknown command "stauts" after "get system"; did you mean "status"?"#),
        (
            "get system xyzzy",
            #"unknown command "xyzzy" after "get system"; expected status, performance, events, csf or ha"#
        ),
        ("show lic", #"ambiguous command "lic" after "show"; it may be license or license_hardware_data"#),
        ("c", #"ambiguous command "c"; it may be config or commit"#),
        ("get system", #"incomplete command "get system"; expected status, performance, events, csf or ha"#),
        ("diag test app csfd 2", #"unknown command "2" after "diagnose test application csfd"; did you mean "1"?"#),
        (
            "diag test app csfd 140 align",
            #"unknown command "align" after "diagnose test application csfd 140"; did you mean "--align"?"#
        ),
        ("get system ha", #"incomplete command "get system ha"; expected status"#),
        ("show system gl x", #"unexpected "x" after "show system global"; expected the end of the command"#),
        ("config system global set license-overlimit", #"incomplete command "set license-overlimit"; expected VALUE"#),
        ("config system global x", #"unknown command "x"; expected set, unset, show, abort or end"#),
        ("commit now", #"unexpected "now" after "commit"; expected the end of the command"#),
        ("diag wad session list 0", #"LIMIT is "0"; expected a number from 1 to 100000"#),
        ("diag wad session list +5", #"LIMIT is "+5"; expected a number from 1 to 100000"#),
        ("diag wad session list 99999999999999999999", #"LIMIT is "99999999999999999999"; expected a number from 1 to 100000"#),
        ("diag wad session clear ../../config", #"ID is "../../config"; expected 16 hexadecimal digits or unknown"#),
    ])
    func mistakesAreNamed(_ line: String, _ message: String) {
        #expect(failure { () throws(Failure) in try read(line) } == message)
    }

    /// Each command is read in full, and by the shortest abbreviations of its words that are not ambiguous.
    @Test func everyCommandIsRead() throws {
        for command in CommandTable.commands {
            let arguments = command.parameters.map { parameter in
                switch parameter.kind {
                case .number: "7"
                case .sessionID: "0123456789abcdef"
                case .serial: "FPXMEMB03"
                case .setting, .value: "x"
                }
            }
            let expected = ([command.name] + arguments).joined(separator: " ")
            #expect(try read(command.words + arguments, mode: command.mode).first == expected)
            let short = command.words.indices.map { index in
                let siblings = CommandTable.commands
                    .filter {
                        $0.mode == command.mode && $0.words.starts(with: command.words[..<index]) && $0.words.count > index
                    }
                    .map { $0.words[index] }
                let word = command.words[index]
                let others = Set(siblings).subtracting([word])
                return (1...word.count).map { String(word.prefix($0)) }
                    .first { prefix in !others.contains { $0.hasPrefix(prefix) } } ?? word
            }
            #expect(try read(short + arguments, mode: command.mode).first == expected, "\(short)")
        }
    }

    @Test func tableIsWhole() {
        for command in CommandTable.commands {
            #expect(!command.help.isEmpty)
            for length in 1..<max(command.words.count, 1) {
                let group = command.words.prefix(length).joined(separator: " ")
                #expect(
                    CommandTable.groups[group] != nil || CommandTable.commands.contains { $0.name == group },
                    "no help for \(group)")
            }
            let goesOn = CommandTable.commands.contains {
                $0.mode == command.mode && $0.words.count > command.words.count && $0.words.starts(with: command.words)
            }
            #expect(!goesOn || command.parameters.isEmpty, "\(command.name): a word or an argument?")
        }
        #expect(Set(CommandTable.commands.map(\.usage)).count == CommandTable.commands.count)
    }

    /// Words at random, near to real ones: an answer or a failure with a message of one line, and no trap.
    @Test(arguments: [UInt64(1), 2, 3, 4])
    func anyWordsAreAnswered(_ seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let words = CommandTable.commands.flatMap(\.words) + ["", "7", "é\u{301}", "\u{0}", String(repeating: "x", count: 300)]
        for _ in 0..<3000 {
            let line = (0..<Int.random(in: 0...6, using: &random)).map { _ in
                var word = words.randomElement(using: &random) ?? ""
                if Bool.random(using: &random) { word = String(word.prefix(Int.random(in: 0...4, using: &random))) }
                return word
            }
            let mode: Command.Mode = Bool.random(using: &random) ? .top : .configuration
            do {
                _ = try read(line, mode: mode)
            } catch {
                #expect(error.exitStatus == 2)
                #expect(!error.description.contains("\n") && !error.description.contains("\u{0}"), "seed \(seed): \(line)")
            }
        }
    }

    @Test func suggestionsFollowTheWords() throws {
        func words(_ line: [String], _ prefix: String = "", _ section: Section? = nil, _ mode: Command.Mode = .top) throws
            -> [String]
        {
            try Suggestions(after: line, prefix: prefix, mode: mode, section: section).fitting.map(\.word)
        }
        #expect(try words(["get", "system"]) == ["status", "performance", "events", "csf", "ha"])
        #expect(try words(["diag", "test", "app", "csfd"]) == ["1", "140"])
        #expect(try words(["diag", "test", "app", "csfd", "140"]) == ["--align", "<Enter>"])
        #expect(try words(["diag", "wad", "lic"]) == ["detail", "<Enter>"])
        #expect(try words(["diag", "wad", "session", "list"]) == ["LIMIT", "<Enter>"])
        #expect(try words(["show"], "lic") == ["license", "license_hardware_data"])
        let section = try Samples.configuration().section("system global")
        #expect(
            try words(["set"], "", section, .configuration)
                == ["license-overlimit", "log-level", "session-warning", "usage-report"])
        let fabric = try Samples.configuration().section("system csf")
        #expect(try words(["set", "sta"], "", fabric, .configuration) == ["enable", "disable"])
        let help = try Suggestions(after: ["set"], prefix: "", mode: .configuration, section: fabric).fitting.map(\.help)
        #expect(help[0] == "Sharing of seats in a fabric" && help[1] == "Whose preferences hold")
        #expect(try words(["set", "license-o"], "", section, .configuration) == ["bypass", "block"])
        #expect(try words(["set", "session-warning"], "", section, .configuration) == ["VALUE"])
        #expect(throws: Failure.self) { try words(["show"], "x") }
        func completion(_ line: [String], _ prefix: String) throws -> String {
            try Suggestions(after: line, prefix: prefix, mode: .top, section: nil).completion
        }
        #expect(try completion(["show"], "li") == "cense")
        #expect(try completion(["show"], "license_") == "hardware_data ")
        #expect(try completion([], "") == "")
        #expect(try completion(["diag", "test", "app", "csfd", "140"], "-") == "-align ")
    }

    /// In the operator's shell, options of fpx and words that look like one stand together.
    @Test func optionsAreCompleted() {
        #expect(CompletionScript.candidates(for: ["--js"]) == "--json\tPrint JSON\n")
        #expect(
            CompletionScript.candidates(for: ["diag", "test", "app", "csfd", "140", "--a"])
                == "--align\tColumns as wide as 10\n")
        #expect(CompletionScript.candidates(for: ["show", "license", "--a"]) == "")
        #expect(
            CompletionScript.candidates(for: ["diag", "test", "app", "csfd", "1"])
                == "1\tState of seat sharing\n140\tThe fabric's ledger of seats\n")
        #expect(CompletionScript.candidates(for: ["--socket", "--j"]) == "")
    }
}

@Suite struct LineTests {
    @Test(arguments: [
        ("a  b\tc", ["a", "b", "c"]), (#"set x "a b" 'c "d"'"#, ["set", "x", "a b", #"c "d""#]),
        (#"a\ b "\"\\""#, ["a b", #""\"#]), ("a|grep b", ["a", "|", "grep", "b"]),
        (#"a "b\|c\.\\d\"" b\|c 'd\|e\\'"#, ["a", #"b\|c\.\d""#, "b|c", #"d\|e\\"#]), (#""" x"#, ["", "x"]), ("", []),
        ("# a remark", []), ("  ", []),
    ])
    func words(_ text: String, _ words: [String]) throws {
        #expect(try Line.tokens(of: text).map(\.text) == words)
    }

    @Test func whatIsQuotedIsNeitherPipeNorQuestion() throws {
        #expect(try Line.tokens(of: #"a "|" \| '?'"#).allSatisfy { !$0.isPipe })
        #expect(try Line.tokens(of: "'#' a").count == 2)
    }

    /// An accent after a quotation mark makes one character of both; the quotation mark is one all the same.
    @Test func anAccentAfterAQuotationMark() throws {
        #expect(try Line.tokens(of: "set x \"\u{308}a b\"").map(\.text) == ["set", "x", "\u{308}a b"])
        for value in ["\u{308}", "a\"\u{308} b", "\\\u{308}"] {
            #expect(try Line.tokens(of: Line.quoting(value)).map(\.text) == [value])
        }
    }

    @Test func mistakes() {
        #expect(failure { () throws(Failure) in try Line.tokens(of: #"set x "a"#) } == #"a quote is not closed in "set x "a""#)
        #expect(
            failure { () throws(Failure) in try Line.tokens(of: String(repeating: "x", count: 65537)) }
                == "a line of 65537 bytes; expected at most 65536")
    }

    /// What `show` prints reads back as it was.
    @Test(arguments: [UInt64(1), 2])
    func quotingReadsBack(_ seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let characters = Array(#"ab "'\|#?$-é"#)
        for _ in 0..<5000 {
            let value = String(
                (0..<Int.random(in: 0...8, using: &random)).map { _ in characters.randomElement(using: &random)! })
            #expect(try Line.tokens(of: "x " + Line.quoting(value)).map(\.text) == ["x", value], "seed \(seed)")
        }
    }

    @Test func editDistances() {
        func distance(_ a: String, _ b: String) -> Int { editDistance(Array(a), Array(b)) }
        #expect(distance("", "") == 0)
        #expect(distance("abc", "") == 3)
        #expect(distance("licence", "license") == 1)
        #expect(distance("stauts", "status") == 1)
        #expect(distance("kitten", "sitting") == 3)
    }
}

@Suite struct FilterTests {
    private func filtered(_ line: String, _ text: String = "alpha\nBeta\n\ngamma 10\n") throws -> String {
        try Filter(Line(line).tokens).apply(to: text)
    }

    @Test func keepsLines() throws {
        #expect(try filtered("grep a") == "alpha\nBeta\ngamma 10\n")
        #expect(try filtered("grep -i b") == "Beta\n")
        #expect(try filtered("grep b") == "")
        #expect(try filtered("grep -v a") == "\n")
        #expect(try filtered("grep -iv B") == "alpha\n\ngamma 10\n")
        #expect(try filtered(#"grep "^gamma [0-9]*$""#) == "gamma 10\n")
        #expect(try filtered("grep '-i'") == "")
        #expect(try filtered("grep x", "") == "")
    }

    @Test(arguments: ["", "grep", "grep a b", "grep -x a", "sort", "grep '[a'"])
    func mistakes(_ line: String) {
        #expect(throws: Failure.self) { try filtered(line) }
    }
}

@Suite struct DraftTests {
    private let section = Samples.configuration(["session-warning": "90"]).sections[0]

    @Test func theLastWordHolds() throws {
        var draft = Draft(section)
        #expect(draft.isEmpty)
        try draft.set("license-o", to: "bl")
        try draft.set("session-warning", to: "70")
        try draft.unset("sess")
        #expect(
            draft.change
                == ConfigurationChange(path: "system global", set: ["license-overlimit": "block"], unset: ["session-warning"])
        )
        #expect(draft.section.settings.map(\.value) == ["block", "info", "80", "enable"])
        try draft.set("session-warning", to: "60")
        #expect(draft.change.unset == [])
        #expect(!draft.isEmpty)
    }

    @Test func mistakes() {
        var draft = Draft(section)
        #expect(
            failure { () throws(Failure) in try draft.set("license-overlimt", to: "block") }
                == #"unknown setting "license-overlimt" after "set"; did you mean "license-overlimit"?"#)
        #expect(
            failure { () throws(Failure) in try draft.set("license-overlimit", to: "maybe") }
                == #"unknown value "maybe" after "set license-overlimit"; expected bypass or block"#)
        #expect(
            failure { () throws(Failure) in try draft.set("license-overlimit", to: "b") }
                == #"ambiguous value "b" after "set license-overlimit"; it may be bypass or block"#)
        #expect(draft.isEmpty)
    }
}
