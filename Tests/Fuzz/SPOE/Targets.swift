let targets: [String: @Sendable ([UInt8]) -> Void] = ["spop": fuzzSPOP, "endlines": fuzzEndLines]
