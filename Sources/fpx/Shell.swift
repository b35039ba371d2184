// Shell: where lines come from: a terminal, with editing, or a pipe.

import CLineEditor
import ControlAPI
import Foundation

enum Shell {
    /// Lines of ~/.fpx_history.
    static let historyLinesMax = 1000

    /// Prints to standard output, whole or with an error.
    static func write(_ text: String) throws(Failure) {
        let bytes = Array(text.utf8)
        var written = 0
        while written < bytes.count {
            let count = unsafe bytes[written...].withUnsafeBytes {
                unsafe Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count)
            }
            if count >= 0 {
                written += count
            } else if errno == EPIPE {
                throw .readerGone
            } else if errno != EINTR {
                throw .output(reason: message(of: errno))
            }
        }
    }

    static func complain(_ failure: Failure, json: Bool) {
        if failure == .readerGone { return }
        FileHandle.standardError.write(Data((json ? failure.json : "fpx: \(failure)\n").utf8))
    }

    /// Asks the person at the terminal; where nobody is there, or who is there wants JSON, the command says enough.
    static func confirm(_ question: String, json: Bool) throws(Failure) -> Bool {
        guard !json, isatty(STDIN_FILENO) == 1, isatty(STDOUT_FILENO) == 1 else { return true }
        try write("\(question) Do you want to continue? (y/n) ")
        return ["y", "yes"].contains(readLine()?.lowercased())
    }

    /// Commands from a pipe or a file, up to the first that fails.
    static func readLines(_ session: Session) throws(Failure) {
        var number = 0
        var begin = 0
        do {
            while !session.isOver, var line = readLine() {
                number += 1
                // What editors on Windows put at the beginning of a file.
                if number == 1, line.unicodeScalars.first == "\u{FEFF}" { line.unicodeScalars.removeFirst() }
                if session.draft == nil { begin = number }
                try session.execute(try Line.tokens(of: line), write: write)
            }
            // What was not ended is told where it began.
            number = begin
            try session.finish()
        } catch {
            throw error == .readerGone ? error : .line(number, error)
        }
    }

    /// Commands from a terminal, until `exit` or Ctrl-D. An error ends its command and no more.
    static func interact(_ session: Session) throws(Failure) {
        let context = unsafe Unmanaged.passUnretained(session).toOpaque()
        guard let editor = unsafe fpx_line_editor_open("fpx", suggest, context) else {
            throw .terminal(reason: message(of: errno))
        }
        defer { unsafe fpx_line_editor_close(editor) }
        if let home = ProcessInfo.processInfo.environment["HOME"], !home.isEmpty {
            let path = home + "/.fpx_history"
            if unsafe fpx_line_editor_history(editor, path, Int32(historyLinesMax)) != 0 {
                complain(.history(path: path), json: false)
            }
        }
        let host = hostName()
        while !session.isOver {
            let section = session.draft.map { " (\($0.section.path.split(separator: " ").last ?? ""))" } ?? ""
            guard let text = unsafe fpx_line_editor_read(editor, "\(host)\(section) # ") else {
                let isInterrupted = errno == EINTR
                try write("\n")
                if isInterrupted { continue }
                break
            }
            defer { unsafe free(text) }
            do {
                try session.execute(try Line.tokens(of: unsafe String(cString: text)), write: write)
            } catch {
                complain(error, json: session.json)
                switch error {
                case .output, .readerGone: throw error
                default: break
                }
            }
        }
        if session.draft != nil { try session.finish() }
    }

    /// The kernel's name of this host: to ask the resolver could take long.
    private static func hostName() -> String {
        var name = [CChar](repeating: 0, count: 256)
        guard unsafe gethostname(&name, name.count - 1) == 0 else { return "fpx" }
        return string(of: name)
    }

    /// Answers Tab and `?` for the line up to the cursor.
    static func suggestion(for text: String, key: Character, in session: Session) -> (insert: String, print: String) {
        let line = Line(text)
        // Within quotes and in a pattern `?` is a character like any other.
        if line.isOpen || line.tokens.contains(where: \.isPipe) { return (key == "?" ? "?" : "", "") }
        var words = line.tokens.map(\.text)
        let prefix = line.endsInWord ? words.removeLast() : ""
        do {
            let suggestions = try session.suggestions(after: words, prefix: prefix)
            if key != "?" {
                let rest = suggestions.completion
                if !rest.isEmpty { return (rest, "") }
            }
            return ("", suggestions.text)
        } catch {
            return ("", "\(error)\n")
        }
    }

    private static let suggest: fpx_suggest = { context, line, key in
        guard let context = unsafe context, let line = unsafe line else { return unsafe fpx_suggestion() }
        let session = unsafe Unmanaged<Session>.fromOpaque(context).takeUnretainedValue()
        let text = unsafe String(cString: line)
        let answer = suggestion(for: text, key: key == 0x3F ? "?" : "\t", in: session)
        return unsafe fpx_suggestion(
            insert: answer.insert.isEmpty ? nil : strdup(answer.insert),
            print: answer.print.isEmpty ? nil : strdup(answer.print))
    }
}
