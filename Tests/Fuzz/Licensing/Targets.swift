let targets: [String: @Sendable ([UInt8]) -> Void] = [
    "token": fuzzToken, "claims": fuzzClaims, "machine": fuzzMachine, "file": fuzzFile,
]
