// Command: what one entry of the command table is.

import ControlAPI
import Foundation
import SeatSharing

/// One command: what is typed, what it does.
struct Command: Sendable {
    /// Where it may be typed.
    enum Mode: Sendable { case top, configuration }

    enum Action: Sendable {
        /// One request to fpxd and the text of its answer.
        case ask(Exchange)
        /// Enters the configuration of the section that the words after the first name.
        case configure
        case set, unset, show, abort, end
        case help
        case exit
    }

    let mode: Mode
    let words: [String]
    let parameters: [Parameter]
    let help: String
    /// What a person is asked first, where the command is given without an argument; nil: nothing.
    let question: String?
    let action: Action

    init(
        _ words: String, _ parameters: Parameter..., mode: Mode = .top, help: String, question: String? = nil, _ action: Action
    ) {
        self.mode = mode
        self.words = words.split(separator: " ").map(String.init)
        self.parameters = parameters
        self.help = help
        self.question = question
        self.action = action
    }

    var name: String { words.joined(separator: " ") }

    /// `diagnose wad session list [LIMIT]`
    var usage: String {
        (words + parameters.map { $0.isOptional ? "[\($0.name)]" : $0.name }).joined(separator: " ")
    }
}

/// A word of a command that the operator chooses.
struct Parameter: Sendable {
    enum Kind: Sendable {
        case number(ClosedRange<Int>)
        /// As `diagnose wad session list` prints them, or `unknown`.
        case sessionID
        /// As `diagnose test application csfd 140` prints them.
        case serial
        /// The section that is being configured knows which there are.
        case setting
        case value
    }

    let name: String
    let help: String
    let kind: Kind
    var isOptional = true

    func check(_ word: String) throws(Failure) {
        switch kind {
        case .number(let range):
            // Int(_:) also reads "+5".
            guard let number = Int(word), word.utf8.first != UInt8(ascii: "+"), range.contains(number) else {
                throw .badArgument(
                    name: name, found: word, expected: "a number from \(range.lowerBound) to \(range.upperBound)")
            }
        case .sessionID:
            guard word == "unknown" || word.utf8.count == 16 && word.allSatisfy({ $0.isASCII && $0.isHexDigit }) else {
                throw .badArgument(name: name, found: word, expected: "16 hexadecimal digits or unknown")
            }
        case .serial:
            guard Row.isName(word) else {
                throw .badArgument(
                    name: name, found: word, expected: "1 to 64 letters, digits, dots, dashes and underscores")
            }
        case .setting, .value: break
        }
    }
}

/// A command with its arguments.
struct Invocation: Sendable {
    let command: Command
    let arguments: [String]
}

/// What a command prints, and why it failed all the same.
struct Output: Equatable {
    /// Lines, each with its end.
    var text = ""
    var refusal: String?
}

/// A request to fpxd and what is made of its answer.
struct Exchange: Sendable {
    let request: @Sendable (_ arguments: [String]) throws(Failure) -> Request
    let render: @Sendable (_ body: Data, _ json: Bool) throws -> Output
    /// What is asked instead when the answer says that another question has more to tell; its answer is printed.
    let next: @Sendable (_ body: Data) throws -> Exchange?

    /// - Parameters:
    ///   - query: name of the query item that carries the argument; nil: the argument is the last component of the path.
    ///   - seconds: how long the answer may take.
    ///   - as: what the answer is.
    ///   - body: what is sent, made of the arguments; nil: nothing.
    ///   - json: the line for `--json`; nil: the body as it came.
    ///   - refusal: why an answer means that the command failed.
    ///   - next: another question, whose answer is printed instead; nil: none.
    init<Answer: Decodable & Sendable>(
        _ path: String, method: Request.Method = .get, query: String? = nil,
        seconds: Int = Request.seconds, as: Answer.Type,
        body: (@Sendable (_ arguments: [String]) throws(Failure) -> any Encodable)? = nil,
        json: (@Sendable (Answer) throws -> String)? = nil,
        refusal: @escaping @Sendable (Answer) -> String? = { _ in nil },
        next: (@Sendable (Answer) -> Exchange?)? = nil,
        text: @escaping @Sendable (Answer) throws -> String
    ) {
        request = { arguments throws(Failure) in
            if let body {
                let value = try body(arguments)
                // Texts and numbers: writing them cannot fail.
                return Request(method, path, body: try? ControlJSON.encoder().encode(value), seconds: seconds)
            }
            guard let argument = arguments.first else { return Request(method, path, seconds: seconds) }
            return Request(
                method, query.map { "\(path)?\($0)=\(argument)" } ?? "\(path)/\(argument)", seconds: seconds)
        }
        self.next = { body in
            guard let next else { return nil }
            return next(try ControlJSON.decode(Answer.self, from: body))
        }
        render = { body, wantsJSON in
            // Also where the body is passed on as it is: only what has been understood is shown as the daemon's answer.
            let answer = try ControlJSON.decode(Answer.self, from: body)
            let refusal = refusal(answer)
            guard wantsJSON else { return Output(text: try text(answer), refusal: refusal) }
            return Output(text: try json?(answer) ?? oneLine(body), refusal: refusal)
        }
    }
}

/// JSON in one line: between its tokens line ends say nothing, and within a string they cannot stand.
func oneLine(_ body: Data) -> String {
    String(decoding: body, as: UTF8.self).filter { !$0.isNewline } + "\n"
}
