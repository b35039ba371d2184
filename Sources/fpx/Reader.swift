// Reader: which commands a row of words is, and which words may come next.

/// Takes words one by one and knows at each point what has been said and what may follow.
struct Reader {
    private(set) var mode: Command.Mode
    /// Commands that are complete, in their order: `config system global set NAME VALUE end` is three.
    private(set) var invocations: [Invocation] = []
    /// The words of the command that is being read, in full.
    private var path: [String] = []
    private var arguments: [String] = []
    /// Those that begin with `path`.
    private var candidates: [Command] = []

    init(mode: Command.Mode) {
        self.mode = mode
        begin()
    }

    private mutating func begin() {
        path = []
        arguments = []
        candidates = CommandTable.commands.filter { $0.mode == mode }
    }

    /// The command that `path` spells, whether or not others go on from here.
    private var named: Command? { candidates.first { $0.words.count == path.count } }
    private var nextParameter: Parameter? {
        guard let named, arguments.count < named.parameters.count else { return nil }
        return named.parameters[arguments.count]
    }
    private var isComplete: Bool { named != nil && nextParameter?.isOptional ?? true }

    /// Words that may follow, each once, in the order of the table.
    private var nextWords: [String] {
        var words: [String] = []
        for command in candidates where command.words.count > path.count && !words.contains(command.words[path.count]) {
            words.append(command.words[path.count])
        }
        return words
    }

    private var said: String { (path + arguments).joined(separator: " ") }

    mutating func take(_ word: String) throws(Failure) {
        let words = nextWords
        if !words.isEmpty {
            let next = try match(word, among: words, .command, after: said)
            let depth = path.count
            candidates = candidates.filter { $0.words.count > depth && $0.words[depth] == next }
            path.append(next)
        } else if let parameter = nextParameter {
            try parameter.check(word)
            arguments.append(word)
        } else {
            throw .unexpected(found: word, after: said)
        }
        // Of what leads into the configuration and of what stands in it, more than one may stand in a row.
        guard let named, nextWords.isEmpty, nextParameter == nil else { return }
        if case .configure = named.action { close(named) } else if mode == .configuration { close(named) }
    }

    private mutating func close(_ command: Command) {
        invocations.append(Invocation(command: command, arguments: arguments))
        switch command.action {
        case .configure: mode = .configuration
        case .abort, .end: mode = .top
        default: break
        }
        begin()
    }

    /// The commands, when no more words come.
    mutating func finish() throws(Failure) -> [Invocation] {
        if !path.isEmpty {
            guard isComplete, let named else { throw .incomplete(after: said, expected: nextWords + missing) }
            close(named)
        }
        return invocations
    }

    private var missing: [String] { nextParameter.map { [$0.name] } ?? [] }

    /// What may come next.
    ///
    /// - Parameter section: the section being configured, if it is known: it has the names of settings and their values.
    func suggestions(in section: Section?) -> [Suggestion] {
        var result = nextWords.map { Suggestion(word: $0, help: help(of: $0), isPlaceholder: false) }
        if let parameter = nextParameter {
            result +=
                choices(of: parameter, in: section)
                ?? [Suggestion(word: parameter.name, help: parameter.help, isPlaceholder: true)]
        }
        if isComplete || path.isEmpty && !invocations.isEmpty {
            result.append(Suggestion(word: "<Enter>", help: "Execute", isPlaceholder: true))
        }
        return result
    }

    private func help(of word: String) -> String {
        let next = path + [word]
        // A group may itself be a command: `diagnose wad license`.
        let command = candidates.first { $0.words == next }
        return command?.help ?? CommandTable.groups[next.joined(separator: " ")] ?? ""
    }

    private func choices(of parameter: Parameter, in section: Section?) -> [Suggestion]? {
        guard let section else { return nil }
        switch parameter.kind {
        case .setting:
            return section.settings.map {
                Suggestion(word: $0.name, help: $0.help, isPlaceholder: false)
            }
        case .value:
            guard let name = arguments.first, let setting = try? section.setting(name, after: "set") else { return nil }
            guard let allowed = setting.allowed else {
                return [Suggestion(word: parameter.name, help: setting.help, isPlaceholder: true)]
            }
            return allowed.map {
                Suggestion(word: $0, help: $0 == setting.defaultValue ? "The default" : "", isPlaceholder: false)
            }
        case .number, .sessionID, .serial: return nil
        }
    }
}

/// A word that may come next.
struct Suggestion: Equatable {
    let word: String
    let help: String
    /// Stands for what is to be typed; cannot be typed itself.
    let isPlaceholder: Bool
}

/// What `?` and Tab say.
struct Suggestions {
    /// Words that fit what has been typed of the last one.
    let fitting: [Suggestion]
    let prefix: String

    /// - Parameters:
    ///   - words: complete words.
    ///   - prefix: what has been typed of the next one.
    init(after words: [String], prefix: String, mode: Command.Mode, section: Section?) throws(Failure) {
        var reader = Reader(mode: mode)
        for word in words { try reader.take(word) }
        let all = reader.suggestions(in: section)
        self.prefix = prefix
        fitting = prefix.isEmpty ? all : all.filter { $0.isPlaceholder ? $0.word != "<Enter>" : $0.word.hasPrefix(prefix) }
        // Why nothing fits is what the word itself would be told.
        if fitting.isEmpty { try reader.take(prefix) }
    }

    /// A table, a line each.
    var text: String {
        Text.table(fitting.map { [$0.word, $0.help] })
    }

    var words: [String] { fitting.filter { !$0.isPlaceholder }.map(\.word) }

    /// What can be added to the prefix without a choice, with a blank after a whole word.
    var completion: String {
        guard let first = words.first else { return "" }
        if words.count == 1 { return String(first.dropFirst(prefix.count)) + " " }
        var common = first
        for word in words { common = String(zip(common, word).prefix { $0 == $1 }.map(\.0)) }
        return String(common.dropFirst(prefix.count))
    }
}
