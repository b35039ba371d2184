let targets: [String: @Sendable ([UInt8]) -> Void] = ["etcd": fuzzAnswers]
