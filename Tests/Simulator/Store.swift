// Store: etcd as its clients see it: one revision for each write, compare and swap, and reads that may be old.

import SeatSharing

struct Store {
    private(set) var revision = 1
    private(set) var keys: [String: KeyValue] = [:]
    private(set) var writes = 0
    /// The last few states: a member that lags answers from one of them.
    private var past: [(revision: Int, keys: [String: KeyValue])] = []

    mutating func put(_ key: String, _ value: [UInt8]) {
        remember()
        revision += 1
        writes += 1
        keys[key] = KeyValue(key: key, value: value, revision: revision)
    }

    mutating func delete(_ key: String) {
        remember()
        revision += 1
        keys[key] = nil
    }

    /// - Parameter expected: the revision of the key; 0, that it is not there.
    mutating func put(_ key: String, _ value: [UInt8], ifRevision expected: Int) -> Bool {
        guard keys[key]?.revision ?? 0 == expected else { return false }
        put(key, value)
        return true
    }

    var now: (revision: Int, values: [KeyValue]) { (revision, Array(keys.values)) }

    func old(_ back: Int) -> (revision: Int, values: [KeyValue]) {
        guard let state = past.dropLast(min(back, max(0, past.count - 1))).last else { return now }
        return (state.revision, Array(state.keys.values))
    }

    private mutating func remember() {
        past.append((revision, keys))
        if past.count > 16 { past.removeFirst() }
    }
}
