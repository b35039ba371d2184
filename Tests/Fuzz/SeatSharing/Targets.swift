let targets: [String: @Sendable ([UInt8]) -> Void] = ["row": fuzzRows]
