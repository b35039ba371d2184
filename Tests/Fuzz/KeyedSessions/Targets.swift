let targets: [String: @Sendable ([UInt8]) -> Void] = ["journal": fuzzJournal]
