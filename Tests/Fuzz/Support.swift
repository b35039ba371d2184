// What the fuzz targets share: how a target says that something is wrong, and pieces that follow from the input alone, so that
// an input that was kept gives the same run again.

/// Ends the process, which libFuzzer takes for a finding, unless the condition holds.
func expect(
    _ condition: Bool, _ message: @autoclosure () -> String, file: StaticString = #fileID, line: UInt = #line
) {
    if !condition { fatalError(message(), file: file, line: line) }
}

/// The program's name says which target of its module it runs: a module is built once.
private let target: @Sendable ([UInt8]) -> Void = {
    let name = CommandLine.arguments[0].split(separator: "/").last.map(String.init) ?? ""
    guard let target = targets[name] else { fatalError("found \(name), expected one of \(targets.keys.sorted())") }
    return target
}()

@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    target(Array(UnsafeBufferPointer(start: bytes, count: count)))
    return 0
}

/// The bytes in pieces of 1 to 32, now and then much longer ones.
func pieces(of bytes: [UInt8]) -> [[UInt8]] {
    // FNV-1a: any input has cuts of its own.
    var state = bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    var pieces: [[UInt8]] = []
    var rest = bytes[...]
    while !rest.isEmpty {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let length = state >> 60 == 0 ? Int(state >> 33) % 1024 : Int(state >> 33) % 32
        pieces.append(Array(rest.prefix(length + 1)))
        rest = rest.dropFirst(length + 1)
    }
    return pieces
}

/// Whether a text may stand on a terminal as one line: no character that moves the cursor or hides others.
func isPlain(_ text: String) -> Bool {
    text.unicodeScalars.allSatisfy { scalar in
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator: false
        default: true
        }
    }
}
