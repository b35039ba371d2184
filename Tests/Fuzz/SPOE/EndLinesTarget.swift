// The stream of haproxy's ring: octet-counted messages of END lines.

/// Takes a stream apart that comes in pieces.
private func parse(_ pieces: [[UInt8]]) -> (lines: [[UInt8]], parser: EndLineParser) {
    var parser = EndLineParser()
    let lines = pieces.flatMap { parser.receive($0) }.map(Array.init)
    return (lines, parser)
}

/// The lines before the first place where no message begins.
private func linesBeforeGarbage(_ bytes: [UInt8]) -> [[UInt8]] {
    var parser = EndLineParser()
    var lines: [[UInt8]] = []
    for byte in bytes {
        lines += parser.receive([byte]).map(Array.init)
        if parser.garbage > 0 { break }
    }
    return lines
}

private func checkLine(_ line: [UInt8]) {
    expect(!line.isEmpty && !line.contains(0x0A), "found \(line) for a line")
    guard let end = EndLine(line) else { return }
    let words = line.split(separator: 0x20).map(Array.init)
    expect(words.first == Array("END".utf8) && end.id == words[1], "found the id \(end.id) in \(line)")
    expect((end.verdict != nil) == (words.count == 4), "found the verdict \(end.verdict ?? "none") in \(line)")
}

func fuzzEndLines(_ bytes: [UInt8]) {
    let whole = parse([bytes])
    whole.lines.forEach(checkLine)
    expect(whole.lines.reduce(0) { $0 + $1.count } <= bytes.count, "more came out than went in")
    let cut = parse(pieces(of: bytes))
    cut.lines.forEach(checkLine)
    // Garbage is skipped to the end of its line or of what has come: up to it, a cut makes no difference.
    expect((whole.parser.garbage == 0) == (cut.parser.garbage == 0), "garbage by where the bytes were cut")
    if whole.parser.garbage == 0 {
        expect(cut.lines == whole.lines, "in pieces \(cut.lines), in one \(whole.lines)")
        expect(cut.parser.isWaiting == whole.parser.isWaiting, "waiting by where the bytes were cut")
    } else {
        let before = linesBeforeGarbage(bytes)
        expect(whole.lines.starts(with: before) && cut.lines.starts(with: before), "a line before the garbage was lost")
    }
    // The same bytes as messages, a line each.
    let lines = bytes.split(separator: 0x0A).map(Array.init)
    let messages = lines.flatMap { Array("\($0.count) ".utf8) + $0 }
    let read = parse(pieces(of: messages))
    expect(read.lines == lines && read.parser.garbage == 0 && !read.parser.isWaiting, "found \(read.lines), expected \(lines)")
}
