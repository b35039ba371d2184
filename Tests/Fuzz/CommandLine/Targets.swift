let targets: [String: @Sendable ([UInt8]) -> Void] = ["line": fuzzLine, "answer": fuzzAnswer]
