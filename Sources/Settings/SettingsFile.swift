// SettingsFile: the YAML file. It is the operator's: a change touches the lines that it must, comments and order stay.

import Basics
import Foundation
import Licensing
import Yams

/// The text of a configuration file and what it says.
public struct SettingsFile: Equatable, Sendable {
    public static let bytesMax = 64 * 1024

    public let path: String
    public private(set) var values: [String: String] = [:]
    /// Without a byte order mark.
    private(set) var text = ""
    private var hasMark = false
    /// Where each setting stands, lines from 1.
    private var lines: [String: Int] = [:]

    /// An empty file.
    public init(path: String) { self.path = path }

    /// The line of a setting, counted from 1; nil: it does not stand in the file.
    public func line(of name: String) -> Int? { lines[name] }

    /// Whether there is no text in it at all.
    public var isEmpty: Bool { text.isEmpty }

    /// Reads a file. One that is not there is empty.
    public static func read(_ path: String) throws(SettingsError) -> SettingsFile {
        let bytes: [UInt8]
        do {
            guard let found = try StoredFile.read(path, limit: bytesMax) else { return SettingsFile(path: path) }
            bytes = found
        } catch {
            switch error {
            case .tooLarge:
                throw .file(path: path, reason: "found more than \(bytesMax) bytes, expected a configuration file")
            case .damaged(_, let found, _): throw .file(path: path, reason: "found \(found), expected a configuration file")
            case .system(_, _, let code):
                throw .file(path: path, reason: "cannot be read: \(String(cString: strerror(code)))")
            default: throw .file(path: path, reason: "\(error)")
            }
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw .file(path: path, reason: "found bytes that are not UTF-8")
        }
        return try SettingsFile(path: path, text: text)
    }

    public init(path: String, text whole: String) throws(SettingsError) {
        self.path = path
        hasMark = whole.unicodeScalars.first == "\u{FEFF}"
        let text = hasMark ? String(whole.unicodeScalars.dropFirst()) : whole
        self.text = text
        try Self.checkStructure(of: text, path: path)
        let root: Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch {
            throw Self.describe(error, in: text, path: path)
        }
        guard let root, root.null == nil || root.mapping != nil else { return }
        guard let mapping = root.mapping else {
            throw .line(path: path, line: root.mark?.line ?? 1, message: "expected lines of the form NAME: VALUE")
        }
        for (key, value) in mapping {
            let line = key.mark?.line ?? 1
            let name = key.scalar?.string ?? ""
            guard let setting = Setting.named(name) else {
                throw .line(path: path, line: line, message: Self.unknown(name))
            }
            guard let found = value.scalar?.string else {
                throw .line(
                    path: path, line: line, message: "\(name): found a list or mapping, expected \(setting.expectation)")
            }
            guard setting.accepts(found) else {
                throw .line(
                    path: path, line: line, message: "\(name): found \"\(found)\", expected \(setting.expectation)")
            }
            values[name] = found
            lines[name] = line
        }
    }

    /// Lists, mappings, and references to them, may lie in one another in YAML, and what that costs to read grows without end.
    /// A file of settings has none, so a few signs of them outside of remarks are enough.
    private static let structureMax = 64

    private static func checkStructure(of text: String, path: String) throws(SettingsError) {
        var signs = 0
        for (index, line) in lines(of: text).enumerated() {
            let indent = line.utf8.prefix { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") }.count
            let content = line.utf8.dropFirst(indent)
            if content.first == UInt8(ascii: "#") { continue }
            signs += content.count { "[{&*".utf8.contains($0) }
            signs += zip(content, content.dropFirst()).count { "-?".utf8.contains($0) && " \t".utf8.contains($1) }
            guard signs <= structureMax, indent <= structureMax else {
                throw .line(
                    path: path, line: index + 1,
                    message: "found lists, mappings or references in one another, expected lines of the form NAME: VALUE")
            }
        }
    }

    /// The longest text that is worth a thought of what was meant.
    private static let nameBytesMax = 64

    /// A sentence on a name that nobody knows, with the one that was perhaps meant.
    static func unknown(_ name: String) -> String {
        let names = Setting.all.map(\.name)
        if name.utf8.count > nameBytesMax {
            return "found a name of \(name.utf8.count) bytes, expected one of \(names.joined(separator: ", "))"
        }
        let near = names.min { distance(name, $0) < distance(name, $1) }
        let hint = near.flatMap { distance(name, $0) <= 3 ? "; did you mean \"\($0)\"?" : nil } ?? ""
        return "found unknown setting \"\(name)\", expected one of \(names.joined(separator: ", "))\(hint)"
    }

    /// Edit distance (Levenshtein).
    static func distance(_ a: String, _ b: String) -> Int {
        let b = Array(b)
        var row = Array(0...b.count)
        for (i, letter) in a.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for j in b.indices {
                let change = diagonal + (letter == b[j] ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = min(change, row[j] + 1, row[j + 1] + 1)
            }
        }
        return row[b.count]
    }

    private static func describe(_ error: any Error, in text: String, path: String) -> SettingsError {
        switch error as? YamlError {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            .line(path: path, line: mark.line, message: "not YAML: \(problem)")
        case .duplicatedKeysInMapping(let duplicates, let context):
            duplicate(duplicates.first ?? "", in: text, path: path, start: context.mark.line)
        default: .file(path: path, reason: "not YAML: \(error)")
        }
    }

    /// - Parameter start: where the settings begin, for a file that has several on one line.
    private static func duplicate(_ name: String, in text: String, path: String, start: Int) -> SettingsError {
        let found = lines(of: text).enumerated().filter { key(of: $1) == name }.map { $0.offset + 1 }
        guard let last = found.last, found.count > 1 else {
            return .line(path: path, line: start, message: "found setting \"\(name)\" more than once, expected it once")
        }
        let places = found.dropLast().map(String.init).joined(separator: ", ") + " and \(last)"
        return .line(
            path: path, line: found[1], message: "found setting \"\(name)\" in lines \(places), expected it in one of them")
    }

    /// The name before the colon, without quotes.
    private static func key(of line: String) -> String {
        guard let colon = line.firstIndex(of: ":") else { return "" }
        return line[..<colon].trimmingCharacters(in: [" ", "\t", "\"", "'"])
    }

    /// The lines of a text with their ends, counted as YAML does: Windows' two characters are one end.
    private static func lines(of text: String) -> [String] {
        var lines: [String] = []
        var rest = text[...]
        while !rest.isEmpty {
            let end = rest.firstIndex(where: \.isNewline).map(rest.index(after:)) ?? rest.endIndex
            lines.append(String(rest[..<end]))
            rest = rest[end...]
        }
        return lines
    }

    private static func end(of line: String?) -> String { line?.last.map { $0.isNewline ? String($0) : "" } ?? "" }

    /// The file with some settings changed (nil: taken out).
    public func changing(_ changes: [String: String?]) throws(SettingsError) -> SettingsFile {
        var all = Self.lines(of: text)
        // The operator's line ends stay, and what is added has the same.
        let firstEnd = Self.end(of: all.first)
        let lineEnd = firstEnd.isEmpty ? "\n" : firstEnd
        var removed: Set<Int> = []
        var added: [String] = []
        var expected = values
        for (name, value) in changes.sorted(by: { $0.key < $1.key }) {
            expected[name] = value
            let line = lines[name].map { $0 - 1 }
            if let line, !all.indices.contains(line) { throw notInPlace }
            if let line, let value {
                let end = Self.end(of: all[line])
                let comment = Self.comment(of: String(all[line].dropLast(end.count)))
                all[line] = "\(name): \(Self.quoted(value))\(comment)\(end)"
            } else if let line {
                removed.insert(line)
            } else if let value {
                added.append("\(name): \(Self.quoted(value))\(lineEnd)")
            }
        }
        var kept = all.indices.filter { !removed.contains($0) }.map { all[$0] }
        if !added.isEmpty, let last = kept.last, Self.end(of: last).isEmpty { kept[kept.count - 1] += lineEnd }
        // A setting that spans lines, or shares one, cannot be edited like this.
        guard var changed = try? SettingsFile(path: path, text: (kept + added).joined()), changed.values == expected else {
            throw notInPlace
        }
        changed.hasMark = hasMark
        return changed
    }

    private var notInPlace: SettingsError {
        .file(path: path, reason: "cannot be changed in place: write each setting on a line of its own")
    }

    private static func quoted(_ value: String) -> String {
        let plain = !value.isEmpty && value.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "/._-".contains($0)) }
        if plain { return value }
        return "\"" + value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"") + "\""
    }

    /// What follows `#` behind a blank or a tab, outside of quotes.
    private static func comment(of line: String) -> String {
        var quote: Character?
        var previous: Character = " "
        for index in line.indices {
            let letter = line[index]
            if let open = quote {
                if letter == open { quote = nil }
            } else if letter == "\"" || letter == "'" {
                quote = letter
            } else if letter == "#", previous == " " || previous == "\t" {
                return " " + line[index...]
            }
            previous = letter
        }
        return ""
    }

    /// Writes it under its name, complete or not at all. A link stays one, and the file that it leads to keeps its owner and mode.
    ///
    /// - Returns: nil; or why it had to be written in place, and what that costs.
    @discardableResult
    public func write() throws(SettingsError) -> String? {
        do {
            let bytes = (hasMark ? TextFile.byteOrderMark : []) + Array(text.utf8)
            guard let reason = try StoredFile.rewrite(bytes, at: path, mode: 0o640) else { return nil }
            return "\(path) was written in place, since \(reason): a crash in the middle of that can leave it cut short"
        } catch {
            throw .file(path: path, reason: "cannot be written: \(error)")
        }
    }
}
