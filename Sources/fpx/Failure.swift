// Failure: everything that fpx can refuse or miss, its sentence and its exit status.

import ControlAPI
import Foundation

/// Why a command was not carried out.
indirect enum Failure: Error, Equatable {
    /// In a line of a pipe or a file, counted from 1.
    case line(Int, Failure)
    // What was typed.
    case options(message: String)
    case unknown(Noun, found: String, after: String, expected: [String])
    case ambiguous(Noun, found: String, after: String, candidates: [String])
    case incomplete(after: String, expected: [String])
    case unexpected(found: String, after: String)
    case badArgument(name: String, found: String, expected: String)
    case openQuote(line: String)
    case openConfiguration(path: String)
    case lineTooLong(bytes: Int, limit: Int)
    case badFilter(found: String, expected: String)
    case badSocketPath(path: String, reason: String)
    // What fpxd said, or did not say.
    /// - `code`: the daemon's word for programs.
    case refused(code: String = "refused", message: String)
    case noDaemon(socket: String, reason: String)
    case noPermission(socket: String)
    case noAnswer(socket: String, seconds: Int)
    case badAnswer(socket: String, found: String, expected: String)
    // What this process could not do.
    case output(reason: String)
    /// Whoever reads the output has enough of it, as `head` has: no reason to complain, and nothing more is done.
    case readerGone
    case terminal(reason: String)
    case history(path: String)

    /// What a word stands for.
    enum Noun: String { case command, setting, value }

    /// 1: fpxd refused, or the result could not be written; 2: what was typed; 3: no answer of fpxd.
    var exitStatus: Int32 {
        switch self {
        case .line(_, let failure): failure.exitStatus
        case .readerGone: 0
        case .options, .unknown, .ambiguous, .incomplete, .unexpected, .badArgument, .openQuote, .openConfiguration,
            .lineTooLong,
            .badFilter, .badSocketPath:
            2
        case .refused, .output, .terminal, .history: 1
        case .noDaemon, .noPermission, .noAnswer, .badAnswer: 3
        }
    }

    /// A word for programs; of a refusal, the daemon's.
    private var code: String {
        switch self {
        case .line(_, let failure): failure.code
        case .refused(let code, _): code
        case .output, .readerGone: "output"
        case .terminal, .history: "terminal"
        case .noDaemon: "no_daemon"
        case .noPermission: "no_permission"
        case .noAnswer: "no_answer"
        case .badAnswer: "bad_answer"
        default: "usage"
        }
    }

    /// One line of JSON, in the form of the daemon's errors; with the line of the script, if it is one.
    var json: String {
        struct Report: Encodable {
            struct Detail: Encodable {
                let code: String
                let message: String
                let line: Int?
            }
            let error: Detail
        }
        var (failure, number) = (self, Int?.none)
        if case .line(let line, let inner) = self { (failure, number) = (inner, line) }
        let report = Report(error: .init(code: failure.code, message: "\(failure)", line: number))
        // Texts and a number: there is nothing that cannot be encoded.
        return ((try? ControlJSON.encoder().encode(report)).map { String(decoding: $0, as: UTF8.self) } ?? "") + "\n"
    }
}

extension Failure: CustomStringConvertible {
    var description: String {
        switch self {
        case .line(let line, let failure): "line \(line): \(failure)"
        case .options(let message): "\(message); see fpx --help"
        case .unknown(let noun, let found, let after, let expected):
            "unknown \(noun.rawValue) \(quoted(found))\(Self.place(after)); \(Self.hint(found, expected))"
        case .ambiguous(let noun, let found, let after, let candidates):
            "ambiguous \(noun.rawValue) \(quoted(found))\(Self.place(after)); it may be \(Self.list(candidates))"
        case .incomplete(let after, let expected):
            "incomplete command \(quoted(after)); expected \(Self.list(expected))"
        case .unexpected(let found, let after):
            "unexpected \(quoted(found))\(Self.place(after)); expected the end of the command"
        case .badArgument(let name, let found, let expected): "\(name) is \(quoted(found)); expected \(expected)"
        case .openQuote(let line): "a quote is not closed in \(quoted(line))"
        case .openConfiguration(let path): "config \(path.shown) without end or abort; nothing was changed"
        case .lineTooLong(let bytes, let limit): "a line of \(bytes) bytes; expected at most \(limit)"
        case .badFilter(let found, let expected): "after \"|\" stands \(quoted(found)); expected \(expected)"
        case .badSocketPath(let path, let reason): "\(quoted(path)) cannot be a socket: \(reason)"
        case .refused(_, let message): message.shown
        case .noDaemon(let socket, let reason):
            "no daemon at \(socket.shown): \(reason); start fpxd, or see whether it runs: pgrep -LF "
                + Self.processFile(besides: socket).shown
        case .noPermission(let socket):
            "no permission to use \(socket.shown): only root and members of the group fpx may talk to fpxd"
        case .noAnswer(let socket, let seconds): "no answer from \(socket.shown) within \(seconds) s"
        case .badAnswer(let socket, let found, let expected):
            "no answer of fpxd at \(socket.shown): found \(found.shown), expected \(expected)"
        case .output(let reason): "the output cannot be written: \(reason)"
        case .readerGone: "nobody reads the output any more"
        case .terminal(let reason): "the terminal cannot be used: \(reason)"
        case .history(let path):
            "\(path.shown) is not a history file of fpx: it is left unchanged, and this session is not saved"
        }
    }

    /// Where fpxd writes its process id: beside its control socket.
    private static func processFile(besides socket: String) -> String {
        let folder = (socket as NSString).deletingLastPathComponent
        return (folder.isEmpty ? "" : folder + "/") + "fpxd.pid"
    }

    private static func place(_ after: String) -> String { after.isEmpty ? "" : " after \(quoted(after))" }

    private static func list(_ words: [String]) -> String {
        words.count < 2
            ? words.joined() : words.dropLast().joined(separator: ", ") + " or " + words[words.count - 1]
    }

    private static func hint(_ found: String, _ expected: [String]) -> String {
        let near = nearest(to: found, among: expected)
        return near.isEmpty
            ? "expected \(list(expected))" : "did you mean \(list(near.map { quoted($0) }))?"
    }
}

/// A text between quotation marks, as messages show what was typed.
func quoted(_ text: String) -> String {
    let limit = 200
    return "\"\(text.count > limit ? text.prefix(limit).shown + "..." : text.shown)\""
}

extension StringProtocol {
    /// As it may stand on a terminal: text from elsewhere may hold what moves the cursor, or a line of its own.
    var shown: String {
        var result = ""
        for scalar in unicodeScalars {
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator:
                result += "\\u{" + String(scalar.value, radix: 16) + "}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}

/// What the system calls an error.
func message(of error: Int32) -> String { unsafe String(cString: strerror(error)) }

/// Text that C wrote, up to its zero.
func string(of characters: [CChar]) -> String {
    String(decoding: characters.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
}
