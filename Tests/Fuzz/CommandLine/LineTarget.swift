// A line that an operator types, up to the commands it stands for and what `?` and Tab say of it.

import ControlAPI

private let section = Section(
    path: "system global",
    settings: [
        Setting(
            name: "license-overlimit", value: "bypass", defaultValue: "bypass", allowed: ["bypass", "block"], help: "",
            changeable: true),
        Setting(name: "license-file", value: "", defaultValue: "", allowed: nil, help: "", changeable: true),
    ])

private func check(_ failure: Failure) {
    expect(failure.exitStatus == 2, "exit status \(failure.exitStatus) for what was typed: \(failure)")
    expect(isPlain(failure.description), "a failure that moves the terminal: \(failure)")
}

private func attempt(_ body: () throws(Failure) -> Void) { do throws(Failure) { try body() } catch { check(error) } }

/// Commands that are read, typed in full, are the same commands.
private func checkReader(_ words: [String], _ mode: Command.Mode) throws(Failure) {
    func read(_ words: [String]) throws(Failure) -> [[String]] {
        var reader = Reader(mode: mode)
        for word in words { try reader.take(word) }
        return try reader.finish().map { $0.command.words + $0.arguments }
    }
    let commands = try read(words)
    expect(try read(commands.flatMap { $0 }) == commands, "another reading of \(commands)")
}

/// What Tab adds is a beginning of every word that fits.
private func checkSuggestions(_ words: [String], _ mode: Command.Mode) throws(Failure) {
    let suggestions = try Suggestions(after: words.dropLast(), prefix: words.last ?? "", mode: mode, section: section)
    expect(!suggestions.fitting.isEmpty || !words.isEmpty, "nothing to suggest")
    let added = suggestions.completion
    if !added.isEmpty {
        let whole = suggestions.prefix + (added.last == " " ? String(added.dropLast()) : added)
        expect(suggestions.words.allSatisfy { $0.hasPrefix(whole) }, "\(added.debugDescription) for \(suggestions.words)")
    }
    expect(suggestions.text.split(separator: "\n").allSatisfy { isPlain(String($0)) }, "what moves the terminal")
}

private func checkFilter(_ tokens: [Token]) throws(Failure) {
    // The time and the memory that the C library takes for nested repetition are its own matter.
    guard tokens.map(\.text.utf8.count).reduce(0, +) <= 64, !tokens.contains(where: { $0.text.contains("{") }) else { return }
    let text = "alpha\nBeta\n\ngamma 10\n"
    let filter = try Filter(tokens)
    let kept = try filter.apply(to: text)
    let lines = kept.split(separator: "\n", omittingEmptySubsequences: false)
    expect(lines.last?.isEmpty == true && kept.count <= text.count, "found \(kept.debugDescription)")
    expect(try filter.apply(to: kept) == kept, "a filter that keeps less the second time")
}

func fuzzLine(_ bytes: [UInt8]) {
    let text = String(decoding: bytes, as: UTF8.self)
    attempt { () throws(Failure) in
        let tokens = try Line.tokens(of: text)
        let parts = tokens.split(omittingEmptySubsequences: false, whereSeparator: \.isPipe).map(Array.init)
        let words = parts[0].map(\.text)
        for mode in [Command.Mode.top, .configuration] {
            attempt { () throws(Failure) in try checkReader(words, mode) }
            attempt { () throws(Failure) in try checkSuggestions(words, mode) }
        }
        for part in parts.dropFirst() { attempt { () throws(Failure) in try checkFilter(part) } }
    }
    // A value that can be shown as it is reads back as one word and the same.
    if isPlain(text), text.utf8.count <= 1024 {
        let line = "x \(Line.quoting(text))"
        let read = try? Line.tokens(of: line).map(\.text)
        expect(read.map { $0.map { Array($0.utf8) } } == [Array("x".utf8), Array(text.utf8)], "\(line) reads as \(read ?? [])")
    }
}
