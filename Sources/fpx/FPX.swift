// fpx: the operator's command line.

import ArgumentParser
import Basics
import ControlAPI
import Foundation

@main
struct FPX: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fpx", abstract: "Shows and changes what fpxd does.",
        discussion: """
            Exit status: 0 done; 1 fpxd refused, or the output could not be written; 2 usage; 3 no answer of fpxd.

            COMMANDS (fpx help says what each does):
            \(CommandTable.commands.filter { $0.mode == .top }.map { "  \($0.usage)" }.joined(separator: "\n"))
            """,
        version: Version.line.replacing("fpxd", with: "fpx", maxReplacements: 1))

    @Flag(help: "Print JSON, one line for each command.")
    var json = false

    @Option(
        help: ArgumentHelp(
            "The control socket of fpxd. (default: $FPX_SOCKET, \(ControlClient.places.joined(separator: ", ")))",
            valueName: "path"))
    var socket: String?

    @Option(
        help: ArgumentHelp(
            "How long to wait for each answer. (default: \(Request.seconds), \(Request.secondsWithAuthority) where the authority is asked)",
            valueName: "seconds"))
    var timeout: Int?

    @Option(help: ArgumentHelp("Print what makes a shell complete the words of fpx: bash, zsh or fish.", valueName: "shell"))
    var generateCompletion: CompletionScript?

    /// A word of the commands that have it, wherever it stands on the command line.
    @Flag(help: "With diagnose test application csfd 140: columns as wide as 10.")
    var align = false

    @Flag(help: .hidden)
    var complete = false

    @Argument(
        help: ArgumentHelp(
            "A command, as words or as one quoted line; without one, commands are read from standard input.",
            valueName: "command"))
    var words: [String] = []

    mutating func validate() throws {
        if let timeout, !(1...3600).contains(timeout) {
            throw ValidationError("--timeout is \(timeout); expected a number from 1 to 3600")
        }
        if align, words.isEmpty { throw ValidationError("--align without a command; expected one before it") }
        if socket == "" { throw ValidationError("--socket is empty; expected a path") }
    }

    static func main() {
        // A reader that has gone is told by write(2), whatever this process has done before.
        _ = signal(SIGPIPE, SIG_IGN)
        Glibc.exit(status(of: ProgramArguments.words))
    }

    /// Carries out a command line; its exit status.
    private static func status(of arguments: [String]) -> Int32 {
        // What stands behind `|` is grep's, options too.
        let options = arguments.prefix { $0 != "|" }
        do {
            guard var fpx = try parseAsRoot(Array(options)) as? FPX else {
                // Nothing but --help and the like is a command of another type; to run it is to throw what it prints.
                var other = try parseAsRoot(Array(options))
                try other.run()
                return 0
            }
            if let script = fpx.generateCompletion { return printed(script.text) }
            if fpx.complete { return printed(CompletionScript.candidates(for: fpx.words)) }
            return fpx.perform(filters: arguments.dropFirst(options.count))
        } catch {
            guard exitCode(for: error).isSuccess else {
                // Which of the options were meant is not known here.
                return failed(.options(message: message(for: error)), json: options.contains("--json"))
            }
            print(fullMessage(for: error))
            return 0
        }
    }

    private static func printed(_ text: String) -> Int32 {
        do throws(Failure) {
            try Shell.write(text)
            return 0
        } catch {
            return failed(error, json: false)
        }
    }

    private static func failed(_ failure: Failure, json: Bool) -> Int32 {
        Shell.complain(failure, json: json)
        return failure.exitStatus
    }

    private mutating func perform(filters: ArraySlice<String>) -> Int32 {
        let socket = socket ?? ControlClient.defaultSocket(environment: ProcessInfo.processInfo.environment)
        let session = Session(client: ControlClient(socket: socket, timeoutSeconds: timeout), json: json) {
            [json] question throws(Failure) in try Shell.confirm(question, json: json)
        }
        do throws(Failure) {
            if words.isEmpty, filters.isEmpty {
                if isatty(STDIN_FILENO) == 1, isatty(STDOUT_FILENO) == 1 {
                    try Shell.interact(session)
                } else {
                    try Shell.readLines(session)
                }
            } else {
                try session.execute(try Self.tokens(words, align ? ["--align"] : [], filters), write: Shell.write)
                try session.finish()
            }
            return 0
        } catch {
            return Self.failed(error, json: json)
        }
    }

    /// One argument with blanks in it is a line; otherwise each is a word.
    private static func tokens(
        _ words: [String], _ options: [String], _ filters: ArraySlice<String>
    ) throws(Failure) -> [Token] {
        if words.count == 1, filters.isEmpty, words[0].contains(where: \.isWhitespace) {
            let tokens = try Line.tokens(of: words[0])
            let command = tokens.prefix { !$0.isPipe }
            return command + options.map { Token(text: $0) } + tokens.dropFirst(command.count)
        }
        return (words + options + filters).map { Token(text: $0) }
    }
}
