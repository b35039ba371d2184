// Session: one operator's row of commands, whether typed, piped or given as arguments.

import ControlAPI
import Foundation

/// Executes lines; remembers the section that is being configured. One thread at a time.
final class Session {
    private let client: ControlClient
    let json: Bool
    /// Asks the person at the terminal whether to go on.
    private let confirm: (_ question: String) throws(Failure) -> Bool
    /// Set between `config` and `end` or `abort`.
    private(set) var draft: Draft?
    /// Whether `exit` has been said.
    private(set) var isOver = false

    init(client: ControlClient, json: Bool, confirm: @escaping (_ question: String) throws(Failure) -> Bool) {
        self.client = client
        self.json = json
        self.confirm = confirm
    }

    private var mode: Command.Mode { draft == nil ? .top : .configuration }

    /// Carries out one line. Nothing is asked of fpxd unless all of the line can be read.
    ///
    /// - Parameter write: takes what is to be printed; also before an error that follows it.
    func execute(_ tokens: [Token], write: (String) throws(Failure) -> Void) throws(Failure) {
        var parts = tokens.split(omittingEmptySubsequences: false, whereSeparator: \.isPipe).map(Array.init)
        let command = parts.removeFirst()
        var filters: [Filter] = []
        for part in parts { filters.append(try Filter(part)) }
        if command.isEmpty, !filters.isEmpty { throw .incomplete(after: "|", expected: ["a command before it"]) }

        var output: Output
        if filters.isEmpty, let last = command.last, !last.isQuoted, last.text.hasSuffix("?") {
            let words = command.dropLast().map(\.text)
            output = Output(text: try suggestions(after: words, prefix: String(last.text.dropLast())).text)
        } else {
            var reader = Reader(mode: mode)
            for token in command { try reader.take(token.text) }
            let invocations = try reader.finish()
            output = Output()
            for invocation in invocations {
                let next = try carryOut(invocation)
                output = Output(text: output.text + next.text, refusal: next.refusal)
            }
        }
        for filter in filters { output.text = try filter.apply(to: output.text) }
        try write(output.text)
        if let refusal = output.refusal { throw .refused(message: refusal) }
    }

    /// What may come after `words` here.
    func suggestions(after words: [String], prefix: String) throws(Failure) -> Suggestions {
        try Suggestions(after: words, prefix: prefix, mode: mode, section: draft?.section)
    }

    /// To be called where the input ends: changes that were neither applied nor given up are an error.
    func finish() throws(Failure) {
        if let draft { throw .openConfiguration(path: draft.section.path) }
    }

    private func carryOut(_ invocation: Invocation) throws(Failure) -> Output {
        let arguments = invocation.arguments
        if let question = invocation.command.question, arguments.isEmpty, try !confirm(question) { return Output() }
        switch invocation.command.action {
        case .ask(let exchange): return try ask(exchange, arguments)
        case .configure:
            let body = try client.send(Request(.get, "/v1/config"))
            let path = invocation.command.words.dropFirst().joined(separator: " ")
            draft = Draft(
                try understand { try ControlJSON.decode(ConfigurationReport.self, from: body).section(path) })
        case .set: try draft?.set(arguments[0], to: arguments[1])
        case .unset: try draft?.unset(arguments[0])
        case .show:
            guard let section = draft?.section else { break }
            return Output(text: json ? try understand { try JSONLine.section(section) } : Text.section(section))
        case .abort: draft = nil
        case .end: return try apply()
        case .help: return Output(text: json ? try understand { try JSONLine.help() } : Text.help())
        case .exit: isOver = true
        }
        return Output()
    }

    private func ask(_ exchange: Exchange, _ arguments: [String]) throws(Failure) -> Output {
        let body = try client.send(exchange.request(arguments))
        if let next = try understand({ try exchange.next(body) }) { return try ask(next, []) }
        return try understand { try exchange.render(body, json) }
    }

    private func apply() throws(Failure) -> Output {
        guard let change = draft, !change.isEmpty else {
            draft = nil
            return json ? try understand { Output(text: oneLine(try client.send(Request(.get, "/v1/config")))) } : Output()
        }
        let request = try understand { Request(.patch, "/v1/config", body: try ControlJSON.encoder().encode(change.change)) }
        // Where fpxd refuses, the changes stay as they are, to be put right or given up.
        let body = try client.send(request)
        draft = nil
        return try understand {
            let report = try ControlJSON.decode(ConfigurationReport.self, from: body)
            return Output(text: json ? oneLine(body) : Text.changed(report))
        }
    }

    private func understand<Result>(_ body: () throws -> Result) throws(Failure) -> Result {
        do { return try body() } catch let failure as Failure { throw failure } catch {
            throw .badAnswer(socket: client.socket, found: Self.found(error), expected: "version 1 of the control API")
        }
    }

    private static func found(_ error: any Error) -> String {
        guard let error = error as? DecodingError else { return "\(error)" }
        func place(_ context: DecodingError.Context) -> String {
            let path = context.codingPath.map { $0.intValue.map(String.init) ?? $0.stringValue }.joined(separator: ".")
            return path.isEmpty ? "the answer" : path
        }
        return switch error {
        case .keyNotFound(let key, let context): "no \(key.stringValue) in \(place(context))"
        case .typeMismatch(let type, let context): "\(place(context)) that is no \(type)"
        case .valueNotFound(let type, let context): "null for \(place(context)), a \(type)"
        case .dataCorrupted(let context): "\(place(context)) that cannot be read: \(context.debugDescription)"
        @unknown default: "\(error)"
        }
    }
}
