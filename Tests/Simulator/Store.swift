// Store: etcd as its clients see it: one revision for each write, compare and swap, and reads that may be old.

import SeatSharing

/// A key of etcd as it was read.
struct Stored {
    let key: String
    let value: Signed
    /// The revision that wrote it last (`mod_revision`).
    let revision: Int
}

/// A row, and what stands for the signature of its unit's key: nobody else can make it, and everybody can put it anywhere.
struct Signed {
    var bytes: [UInt8]
    /// Whose key has signed both; nil: nobody's.
    var licence: Licence?
}

struct Licence {
    var serial: String
    var purchased: Seats
    var modelMax: Seats
    var sessionsPerSeat: Int
    /// In real time.
    var end: Nanoseconds = .max
}

struct Store {
    private(set) var revision = 1
    private(set) var keys: [String: Stored] = [:]
    private(set) var writes = 0
    /// The last few states: a member that lags answers from one of them.
    private var past: [(revision: Int, keys: [String: Stored])] = []

    mutating func put(_ key: String, _ value: Signed) {
        remember()
        revision += 1
        writes += 1
        keys[key] = Stored(key: key, value: value, revision: revision)
    }

    mutating func delete(_ key: String) {
        remember()
        revision += 1
        keys[key] = nil
    }

    /// - Parameter expected: the revision of the key; 0, that it is not there.
    mutating func put(_ key: String, _ value: Signed, ifRevision expected: Int) -> Bool {
        guard keys[key]?.revision ?? 0 == expected else { return false }
        put(key, value)
        return true
    }

    var now: (revision: Int, values: [Stored]) { (revision, Array(keys.values)) }

    func old(_ back: Int) -> (revision: Int, values: [Stored]) {
        guard let state = past.dropLast(min(back, max(0, past.count - 1))).last else { return now }
        return (state.revision, Array(state.keys.values))
    }

    private mutating func remember() {
        past.append((revision, keys))
        if past.count > 16 { past.removeFirst() }
    }
}
