// CompletionScript: completion of the words of fpx in the operator's shell.
//
// The script asks fpx itself each time, so it knows abbreviations and needs no other copy of the command table.

import ArgumentParser

enum CompletionScript: String, ExpressibleByArgument, CaseIterable {
    case bash, zsh, fish

    var text: String {
        switch self {
        case .bash:
            #"""
            _fpx() {
                local IFS=$'\n'
                COMPREPLY=($(fpx --complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" | cut -f 1))
            }
            complete -o default -F _fpx fpx

            """#
        case .zsh:
            #"""
            #compdef fpx
            _fpx() {
                local -a lines
                lines=("${(@f)$(fpx --complete -- "${(@)words[2,CURRENT-1]}" "$PREFIX")}")
                if [[ -z "$lines[1]" ]]; then
                    _files
                else
                    lines=("${(@)lines//:/\\:}")
                    lines=("${(@)lines/$'\t'/:}")
                    _describe fpx lines
                fi
            }
            if [[ "$funcstack[1]" == _fpx ]]; then _fpx "$@"; else compdef _fpx fpx; fi

            """#
        case .fish:
            #"""
            complete -c fpx -f -a '(fpx --complete -- (commandline -opc)[2..] (commandline -ct))'
            complete -c fpx -l socket -r -F -d 'The control socket of fpxd'

            """#
        }
    }

    private static let options: [(name: String, help: String)] = [
        ("--json", "Print JSON"), ("--socket", "The control socket of fpxd"), ("--timeout", "Seconds to wait"),
        ("--version", "Print the version"), ("--help", "Show help"),
    ]

    /// What may stand in place of the last of `words`: a line each, the word, a tab, its help.
    static func candidates(for words: [String]) -> String {
        var said: [String] = []
        var isValue = false
        for word in words.dropLast() {
            if isValue {
                isValue = false
            } else if word.hasPrefix("--") {
                isValue = word == "--socket" || word == "--timeout"
            } else {
                said.append(word)
            }
        }
        let prefix = words.last ?? ""
        // The value of an option is for the shell to complete: a file, or nothing.
        if isValue { return "" }
        let suggestions = try? Suggestions(after: said, prefix: prefix, mode: .top, section: nil)
        let words = (suggestions?.fitting ?? []).filter { !$0.isPlaceholder }.map { "\($0.word)\t\($0.help)" }
        let fitting = prefix.hasPrefix("-") ? options.filter { $0.name.hasPrefix(prefix) } : []
        return Text.joined(words + fitting.map { "\($0.name)\t\($0.help)" })
    }
}
