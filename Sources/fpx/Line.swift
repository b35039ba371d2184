// Line: a line of input in words, with its filters split off.

/// One word as it was typed.
struct Token: Equatable {
    var text: String
    /// A word in quotes is never a pipe, a question or a comment.
    var isQuoted = false

    var isPipe: Bool { text == "|" && !isQuoted }
}

/// The words of a line, as far as they have been typed.
struct Line {
    private(set) var tokens: [Token] = []
    /// The text ends within quotes.
    private(set) var isOpen = false
    /// The text ends in a word, which further characters would make longer.
    private(set) var endsInWord = false

    /// The most that is read as one line.
    static let bytesMax = 65536

    /// Blanks separate words. Within "..." and '...' they do not. A backslash takes the next character as it is: outside of quotes any,
    /// within "..." a quotation mark or another backslash, and before anything else it is itself, as in a pattern of grep; within '...'
    /// it always is.
    ///
    /// Read by scalars: an accent after a quotation mark makes one character of both, and the quotation mark would be none.
    init(_ text: String) {
        var word: Token?
        var quote: Unicode.Scalar?
        var isEscaped = false
        func append(_ scalar: Unicode.Scalar?, isQuoted: Bool) {
            if word == nil { word = Token(text: "") }
            if let scalar { word?.text.unicodeScalars.append(scalar) }
            if isQuoted { word?.isQuoted = true }
        }
        func end() {
            if let ended = word { tokens.append(ended) }
            word = nil
        }
        for scalar in text.unicodeScalars {
            if isEscaped {
                if quote != nil, scalar != "\"", scalar != "\\" { append("\\", isQuoted: true) }
                append(scalar, isQuoted: true)
                isEscaped = false
            } else if scalar == "\\", quote != "'" {
                isEscaped = true
            } else if scalar == quote {
                quote = nil
            } else if quote == nil, scalar == "\"" || scalar == "'" {
                quote = scalar
                append(nil, isQuoted: true)
            } else if quote == nil, scalar.properties.isWhitespace {
                end()
            } else if quote == nil, scalar == "|" {
                end()
                tokens.append(Token(text: "|"))
            } else {
                append(scalar, isQuoted: false)
            }
        }
        isOpen = quote != nil || isEscaped
        endsInWord = word != nil || isEscaped
        end()
    }

    /// The tokens of a whole line; none for a blank line and a comment.
    static func tokens(of text: String) throws(Failure) -> [Token] {
        guard text.utf8.count <= bytesMax else { throw .lineTooLong(bytes: text.utf8.count, limit: bytesMax) }
        let line = Line(text)
        if let first = line.tokens.first, !first.isQuoted, first.text.hasPrefix("#") { return [] }
        if line.isOpen { throw .openQuote(line: text) }
        return line.tokens
    }

    /// A value so that it reads back as one word and the same.
    static func quoting(_ value: String) -> String {
        let special = "\"'\\|#?".unicodeScalars
        let plain = !value.isEmpty && !value.unicodeScalars.contains { $0.properties.isWhitespace || special.contains($0) }
        if plain { return value.shown }
        let escaped = value.unicodeScalars.map { $0 == "\"" || $0 == "\\" ? "\\\($0)" : "\($0)" }.joined()
        return "\"\(escaped.shown)\""
    }
}
