// Oracle: checks the log of a round, off line, for S1 and S2.
//
// From the times of calls and returns follow two step functions: a session is certainly in use from the return of its admission
// to the call of its release (lower), and possibly from the call of the admission to the return of the release (upper). What a
// process held leaves `lower` when it is about to be killed, and `upper` when it is known to be reaped. The cap, too, is known
// but for the time that a change takes: capMax, capMin.
//
//  S1  Sessions in use only become more while they are fewer than the cap. So with bound = min(upper, max(capMax, bound
//      before)), lower <= bound at every instant; and in each admission there is an instant with lower < capMax.
//  S2  In each refusal there is an instant with upper >= capMin.
//
// Where the order of two events cannot be told, they are taken in the order that accuses nobody.

import Admission

struct Oracle {
    /// The clock is read before the call, but the processor may be ahead of the reading with what follows it.
    private static let slack: UInt64 = 60

    private let lives: [Life]
    private let cap: Int
    private let capChanges: [CapChange]
    private let origin: UInt64
    private var lower = Steps()
    private var upper = Steps()

    init(lives: [Life], cap: Int, capChanges: [CapChange], origin: UInt64) {
        self.lives = lives
        self.cap = cap
        self.capChanges = capChanges
        self.origin = origin - Self.slack
    }

    /// Reads the log of a round that is over. Returns the number of operations.
    mutating func read(_ ledger: Ledger) -> Int {
        var operations = 0
        /// What each generation certainly and possibly holds when it dies.
        var certain = [Int](repeating: 0, count: lives.count)
        var possible = certain
        Self.forEachChunk(ledger) { generation, records in
            operations += records.count
            for record in records {
                let begin = time(record.begin - Self.slack)
                let end = time(record.end)
                let owner = Int(record.owner)
                let isDone = record.result == RecordResult.done.rawValue
                let killed = lives[owner].killed ?? .max
                let reaped = lives[owner].reaped ?? .max
                switch RecordKind(rawValue: record.kind) {
                case .admit:
                    if record.result == RecordResult.refused.rawValue { continue }
                    upper.add(.upperUp, at: begin)
                    possible[owner] += 1
                    if isDone && record.end < killed {
                        lower.add(.lowerUp, at: end)
                        certain[owner] += 1
                    }
                case .release, .racedRelease:
                    if record.begin < killed {
                        lower.add(.lowerDown, at: begin)
                        certain[owner] -= 1
                    }
                    fallthrough
                case .rivalRelease:
                    if isDone && record.end < reaped {
                        upper.add(.upperDown, at: end)
                        possible[owner] -= 1
                    }
                case nil: fatalError("a log record of kind \(record.kind)")
                }
            }
        }
        for (index, life) in lives.enumerated() where life.killed != nil {
            lower.add(.lowerDown, at: time(life.killed!), count: certain[index])
            upper.add(.upperDown, at: time(life.reaped!), count: possible[index])
        }
        var before = cap
        for change in capChanges {
            let count = abs(change.cap - before)
            if change.cap > before {
                lower.add(.capMaxUp, at: time(change.begin), count: count)
                upper.add(.capMinUp, at: time(change.end), count: count)
            } else {
                lower.add(.capMaxDown, at: time(change.end), count: count)
                upper.add(.capMinDown, at: time(change.begin), count: count)
            }
            before = change.cap
        }
        return operations
    }

    /// Throws the first violation.
    mutating func check(_ ledger: Ledger) throws {
        lower.sort()
        upper.sort()
        try checkBound()
        lower.makeTree(initial: cap)  // capMax - lower: the room there may have been
        upper.makeTree(initial: -cap)  // upper - capMin: how full it may have been
        try Self.forEachChunk(ledger) { generation, records in
            var (lowerHint, upperHint) = (0, 0)
            for record in records where record.kind == RecordKind.admit.rawValue {
                let begin = time(record.begin - Self.slack)
                let end = time(record.end)
                if record.result == RecordResult.done.rawValue {
                    // Up to its own place among those certainly in use.
                    let room = lower.highest(from: Event.first(at: begin), to: Event(.lowerUp, at: end), &lowerHint)
                    if room < 1 {
                        throw Violation(
                            .neverOver,
                            "generation \(generation) admitted within [\(begin), \(end)] ns, where sessions in use were "
                                + "never fewer than \(-room) over the cap")
                    }
                } else if record.result == RecordResult.refused.rawValue {
                    let excess = upper.highest(from: Event.first(at: begin), to: Event.first(at: end + 1), &upperHint)
                    if excess < 0 {
                        throw Violation(
                            .neverUnder,
                            "generation \(generation) refused within [\(begin), \(end)] ns, where at least \(-excess) "
                                + "licensed sessions were free all the time")
                    }
                }
            }
        }
    }

    private func checkBound() throws {
        var (lowerNow, upperNow, capMax, bound) = (0, 0, cap, 0)
        var (i, j) = (0, 0)
        while i < lower.events.count || j < upper.events.count {
            let event: Event
            if j == upper.events.count || i < lower.events.count && lower.events[i] < upper.events[j] {
                event = lower.events[i]
                i += 1
            } else {
                event = upper.events[j]
                j += 1
            }
            switch event.class {
            case .upperUp: upperNow += 1
            case .upperDown: upperNow -= 1
            case .capMaxUp: capMax += 1
            case .capMaxDown: capMax -= 1
            case .lowerDown: lowerNow -= 1
            case .capMinUp, .capMinDown: break
            case .lowerUp:
                lowerNow += 1
                if lowerNow > max(capMax, bound) {
                    throw Violation(
                        .neverOver,
                        "at \(event.time) ns at least \(lowerNow) sessions are in use, cap \(capMax), bound \(bound)")
                }
            }
            bound = min(upperNow, max(capMax, bound))
        }
        if lowerNow > upperNow { throw Violation(.comesBack, "more releases than admissions: a session was released twice") }
    }

    private func time(_ instant: UInt64) -> UInt64 { instant < origin ? 0 : instant - origin }

    private static func forEachChunk<E: Error>(
        _ ledger: Ledger, _ body: (Int, UnsafeBufferPointer<Record>) throws(E) -> Void
    ) throws(E) {
        for index in 0..<min(Int(ledger.chunksTaken.load()), Ledger.chunks) {
            let chunk = ledger.chunk(index)
            let records = UnsafeBufferPointer(start: chunk.records, count: Int(chunk.count.load()))
            try body(Int(chunk.generation.load()), records)
        }
    }
}

/// Something that changes a step function by one: time << 4 | class.
private struct Event: Comparable {
    /// In the order in which events of the same instant are counted: first what loosens a bound, then what tightens it.
    enum Class: UInt64 {
        case upperUp = 0, capMaxUp, lowerDown, capMinDown, lowerUp, upperDown, capMaxDown, capMinUp
    }

    let key: UInt64
    var `class`: Class { Class(rawValue: key & 15)! }
    var time: UInt64 { key >> 4 }

    init(_ class: Class, at time: UInt64) { key = time << 4 | `class`.rawValue }

    static func first(at time: UInt64) -> Event { Event(.upperUp, at: time) }

    static func < (left: Event, right: Event) -> Bool { left.key < right.key }
}

/// A step function, and the highest value it has in any interval.
private struct Steps {
    private(set) var events: [Event] = []
    /// The value after so many events, and over it a tree of maxima: node n has the children 2n and 2n + 1.
    private var tree: [Int32] = []
    private var leaves = 0

    mutating func add(_ class: Event.Class, at time: UInt64, count: Int = 1) {
        for _ in 0..<count { events.append(Event(`class`, at: time)) }
    }

    mutating func sort() { events.sort() }

    mutating func makeTree(initial: Int) {
        leaves = events.count + 1
        tree = [Int32](repeating: .min, count: 2 * leaves)
        var value = Int32(initial)
        tree[leaves] = value
        for (index, event) in events.enumerated() {
            switch event.class {
            case .lowerUp, .capMaxDown, .upperDown, .capMinUp: value -= 1
            case .lowerDown, .capMaxUp, .upperUp, .capMinDown: value += 1
            }
            tree[leaves + index + 1] = value
        }
        for node in stride(from: leaves - 1, to: 0, by: -1) { tree[node] = max(tree[2 * node], tree[2 * node + 1]) }
    }

    /// The highest value from before the event `from` until before the event `to`. `hint`: where the last search ended, for
    /// searches that go forward.
    func highest(from: Event, to: Event, _ hint: inout Int) -> Int {
        let first = position(of: from, hint)
        hint = first
        let last = position(of: to, first)
        var highest = Int32.min
        var (left, right) = (first + leaves, last + leaves + 1)
        while left < right {
            if left & 1 == 1 {
                highest = max(highest, tree[left])
                left += 1
            }
            if right & 1 == 1 {
                right -= 1
                highest = max(highest, tree[right])
            }
            left >>= 1
            right >>= 1
        }
        return Int(highest)
    }

    /// How many events come before `event`, which does not come before event `hint`.
    private func position(of event: Event, _ hint: Int) -> Int {
        var stride = 1
        var low = hint
        while low + stride <= events.count && events[low + stride - 1] < event {
            low += stride
            stride *= 2
        }
        var high = min(events.count, low + stride)
        while low < high {
            let middle = (low + high) / 2
            if events[middle] < event { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
