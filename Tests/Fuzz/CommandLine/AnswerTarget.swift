// Answers of the control socket: the first byte chooses the command, and whether it is asked for JSON.

import Foundation

private let exchanges: [Exchange] = CommandTable.commands.compactMap { command in
    if case .ask(let exchange) = command.action { exchange } else { nil }
}

func fuzzAnswer(_ bytes: [UInt8]) {
    checkAnswer(bytes)
    // The same with an escape sequence at the beginning of each text.
    let text = String(decoding: bytes.dropFirst(), as: UTF8.self).split(separator: "\":\"", omittingEmptySubsequences: false)
    checkAnswer(Array(bytes.prefix(1)) + Array(text.joined(separator: "\":\"\\u001b[2J").utf8))
}

private func checkAnswer(_ bytes: [UInt8]) {
    guard let first = bytes.first else { return }
    let exchange = exchanges[Int(first >> 1) % exchanges.count]
    let wantsJSON = first & 1 == 1
    // What cannot be understood is an error that names what was found; Session says it in one line.
    guard let output = try? exchange.render(Data(bytes.dropFirst()), wantsJSON) else { return }
    let text = output.text
    expect(text.isEmpty || text.utf8.last == 0x0A, "no line: \(text.debugDescription)")
    expect(!wantsJSON || text.utf8.filter { $0 == 0x0A }.count == 1, "JSON of several lines: \(text.debugDescription)")
    let lines = text.split(separator: "\n")
    expect(wantsJSON || lines.allSatisfy { isPlain(String($0)) }, "what moves the terminal: \(text.debugDescription)")
}
