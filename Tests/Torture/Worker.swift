// Worker: one thread of a child. It admits and releases in every way there is, and notes what it certainly holds.

import Admission
import Glibc
import Synchronization

/// What a child process is told when it starts.
struct ChildSettings {
    let segmentPath: String
    let ledgerPath: String
    let generation: Int
    let threads: Int
    let children: Int
    let pool: Int
    let seed: UInt64
    let isLogged: Bool

    var arguments: [String] {
        [segmentPath, ledgerPath] + [generation, threads, children, pool].map(String.init)
            + [String(seed), isLogged ? "1" : "0"]
    }

    init?(_ arguments: [String]) {
        guard arguments.count == 8, let seed = UInt64(arguments[6]) else { return nil }
        let numbers = arguments[2..<6].compactMap { Int($0) }
        guard numbers.count == 4 else { return nil }
        self.init(
            segmentPath: arguments[0], ledgerPath: arguments[1], generation: numbers[0], threads: numbers[1],
            children: numbers[2], pool: numbers[3], seed: seed, isLogged: arguments[7] == "1")
    }

    init(
        segmentPath: String, ledgerPath: String, generation: Int, threads: Int, children: Int, pool: Int, seed: UInt64,
        isLogged: Bool
    ) {
        self.segmentPath = segmentPath
        self.ledgerPath = ledgerPath
        self.generation = generation
        self.threads = threads
        self.children = children
        self.pool = pool
        self.seed = seed
        self.isLogged = isLogged
    }
}

struct Worker: ~Copyable {
    private static let capacity = 1 << 16
    private static let bypassedCapacity = 8

    private let settings: ChildSettings
    private let segment: Segment
    private let pool: Pool
    private let ledger: Ledger
    private let own: Generation
    private let line: ThreadLine
    private var log: LogWriter
    private var random: Random
    private let lane: UnsafeMutablePointer<Lane>
    /// Sessions held: the first `held` places are in use.
    private let sessions: UnsafeMutablePointer<Session>
    private var held = 0
    private let bypassed: UnsafeMutablePointer<Session>
    private var bypassedCount = 0
    /// A licensed session's bytes. All of one pool are alike, so one that was put down by another thread is made from them.
    private let template: UnsafeMutablePointer<Session>
    private var hasTemplate = false
    private var operations: UInt64 = 0
    private var admitted: UInt64 = 0
    private var refused: UInt64 = 0

    init(
        settings: ChildSettings, segment: Segment, pool: Pool, lane: consuming Lane, ledger: Ledger, thread: Int
    ) {
        self.settings = settings
        self.segment = segment
        self.ledger = ledger
        self.pool = pool
        own = ledger.generation(settings.generation)
        line = own.line(thread)
        log = LogWriter(ledger: ledger, generation: settings.generation, isOn: settings.isLogged)
        random = Random(settings.seed, UInt64(settings.generation), UInt64(thread))
        self.lane = .allocate(capacity: 1)
        self.lane.initialize(to: lane)
        sessions = .allocate(capacity: Self.capacity)
        bypassed = .allocate(capacity: Self.bypassedCapacity)
        template = .allocate(capacity: 1)
    }

    /// Works until it is killed.
    mutating func run() {
        line.threadID.store(UInt64(System.threadID()))
        while true {
            guard log.hasRoom(for: 300) else {
                line.isIdle.store(1)
                System.sleep(microseconds: 10_000)
                continue
            }
            act()
            line.operations.store(operations)
            line.admitted.store(admitted)
            line.refused.store(refused)
        }
    }

    private mutating func act() {
        switch random.below(settings.isLogged ? 32 : 64) {
        case 0: putDownForSibling()
        case 1: takeFromSibling()
        case 2, 3: putDownHandle()
        case 4, 5: releaseHandle()
        case 6: releaseSpent()
        case 7: releaseRaced()
        case 8 where random.chance(oneIn: 8): reopenLane()
        case 9 where random.chance(oneIn: 4): segment.reap()
        // Not sched_yield: Linux 6.18 lets a thread that yields often wait for seconds, also when it is to die.
        case 10 where random.chance(oneIn: 4): System.sleep(microseconds: 1)
        default: walk()
        }
    }

    // MARK: One operation

    /// Says what is held and under way, before anything that follows.
    @inline(__always)
    private func note(_ state: UInt64) {
        line.balance.store(UInt64(held) << 16 | state)
        atomicMemoryFence(ordering: .acquiringAndReleasing)
    }

    @inline(__always)
    private mutating func admit(byLane: Bool) {
        note(ThreadLine.own)
        log.begin(.admit)
        let session = byLane ? lane.pointee.admit() : pool.admit()
        operations &+= 1
        if session.verdict == .inspect {
            log.end(.done)
            (sessions + held).initialize(to: session)
            held += 1
            admitted &+= 1
            note(ThreadLine.idle)
        } else {
            log.end(.refused)
            note(ThreadLine.idle)
            refused &+= 1
            keepRefused(session, byLane: byLane)
        }
    }

    @inline(__always)
    private mutating func release(byLane: Bool) {
        held -= 1
        note(ThreadLine.own)
        log.begin(.release)
        if byLane { lane.pointee.release((sessions + held).move()) } else { (sessions + held).move().end() }
        log.end(.done)
        operations &+= 1
        note(ThreadLine.idle)
    }

    /// Keeps a session that passes uninspected for a while, then ends it.
    @inline(never)
    private mutating func keepRefused(_ session: consuming Session, byLane: Bool) {
        guard session.verdict == .bypass else { return session.end() }
        if bypassedCount == Self.bypassedCapacity {
            bypassedCount -= 1
            if byLane {
                lane.pointee.release((bypassed + bypassedCount).move())
            } else {
                (bypassed + bypassedCount).move().end()
            }
        }
        (bypassed + bypassedCount).initialize(to: session)
        bypassedCount += 1
    }

    // MARK: Walks

    /// By which of 256 admissions, and releases, the lane is used and not the shards.
    private struct Ways {
        var admits: UInt64
        var releases: UInt64
    }

    private mutating func walk() {
        let steps = settings.isLogged ? 8 + random.below(56) : 64 + random.below(192)
        let clogs = random.chance(oneIn: 6)
        // A thread that always admits on one side and releases on the other makes the credit of both grow without end.
        let ways =
            switch random.below(8) {
            case 0, 1: Ways(admits: 128, releases: 128)
            case 2, 3: Ways(admits: 0, releases: 0)
            case 4: flow
            default: Ways(admits: 256, releases: 256)
            }
        if random.chance(oneIn: 4) { return surge(steps, ways: ways, clogs: clogs) }
        let deviations = [0, 0, 0, 26, -26, 64, -64, 110]
        walk(steps, bias: UInt64(min(250, max(6, Int(ledger.bias.load()) + random.pick(deviations)))), ways: ways, clogs: clogs)
    }

    private var flow: Ways { own.index % 2 == 0 ? Ways(admits: 256, releases: 0) : Ways(admits: 0, releases: 256) }

    /// A random walk: `bias` of 256 steps are admissions.
    private mutating func walk(_ steps: Int, bias: UInt64, ways: Ways, clogs: Bool) {
        var bits: UInt64 = 0
        for step in 0..<steps {
            if step & 3 == 0 { bits = random.next() }
            let admits = bits & 0xff < bias
            let way = bits >> 8 & 0xff
            if clogs { clog(Int(truncatingIfNeeded: bits)) }
            bits >>= 16
            if admits && held < Self.capacity {
                admit(byLane: way < ways.admits)
            } else if held > 0 {
                release(byLane: way < ways.releases)
            }
        }
    }

    /// Up to the limit and back: every gate opens and is collected again.
    private mutating func surge(_ steps: Int, ways: Ways, clogs: Bool) {
        let fullBefore = refused
        for step in 0..<(2 * steps) where held < Self.capacity && refused == fullBefore {
            if clogs { clog(step) }
            admit(byLane: random.next() & 0xff < ways.admits)
        }
        for step in 0..<min(held, steps) {
            if clogs { clog(step) }
            release(byLane: random.next() & 0xff < ways.releases)
        }
    }

    /// Stores to lines that are in no cache of this CPU, so that the store of the operation that follows waits behind them:
    /// what a fence is for is then the rule and not the exception.
    private func clog(_ start: Int) {
        var offset = start
        for _ in 0..<6 {
            ledger.scratch((offset &* 64) & (Ledger.scratchBytes - 64)).store(UInt64(truncatingIfNeeded: offset))
            offset = offset &* 1_103_515_245 &+ 12345
        }
    }

    private mutating func reopenLane() {
        lane.deinitialize(count: 1)
        while true {
            if let again = try? segment.openLane(pool: settings.pool) {
                lane.initialize(to: again)
                return
            }
            own.report(.lane, 0)
        }
    }

    // MARK: Sessions that change hands

    private mutating func putDownForSibling() {
        guard held > 0 else { return }
        if !hasTemplate {
            UnsafeMutableRawPointer(template).copyMemory(from: sessions, byteCount: MemoryLayout<Session>.size)
            hasTemplate = true
        }
        held -= 1
        note(ThreadLine.own)
        if !own.stash(random.below(Generation.exchange)).compareExchange(0, 1).exchanged { held += 1 }
        note(ThreadLine.idle)
    }

    private mutating func takeFromSibling() {
        guard hasTemplate, held < Self.capacity else { return }
        let first = random.below(Generation.exchange)
        guard let place = (0..<8).map({ (first + $0) % Generation.exchange }).first(where: { own.stash($0).load() == 1 })
        else { return }
        note(ThreadLine.own)
        if own.stash(place).compareExchange(1, 0).exchanged {
            UnsafeMutableRawPointer(sessions + held).copyMemory(from: template, byteCount: MemoryLayout<Session>.size)
            held += 1
        }
        note(ThreadLine.idle)
    }

    /// Gives a session a handle and leaves that to any process; releases it where there is no place.
    private mutating func putDownHandle() {
        if held == 0 { admit(byLane: random.chance(oneIn: 2)) }
        guard held > 0 else { return }
        held -= 1
        note(ThreadLine.own)
        guard let handle = try? segment.handle((sessions + held).move()) else {
            own.report(.handle, 0)
            return note(ThreadLine.idle)
        }
        let place = random.below(Generation.exchange)
        if !own.mailbox(place).compareExchange(0, handle.rawValue).exchanged {
            release(handle.rawValue, of: own, isRaced: false)
        }
        note(ThreadLine.idle)
    }

    /// Takes a handle that somebody has put down and releases it.
    private mutating func releaseHandle() {
        let owner = ledger.generation(Int(ledger.current(random.below(settings.children)).load()))
        let first = random.below(Generation.exchange)
        for step in 0..<16 {
            let place = owner.mailbox((first + step) % Generation.exchange)
            let handle = place.load()
            if handle == 0 { continue }
            note(ThreadLine.foreign(owner.index))
            if place.compareExchange(handle, 0).exchanged {
                release(handle, of: owner, isRaced: random.chance(oneIn: 3))
            }
            return note(ThreadLine.idle)
        }
    }

    /// Releases a handle, and shows it to others for a second release: after the first, or (`isRaced`) before it.
    private mutating func release(_ handle: UInt64, of owner: Generation, isRaced: Bool) {
        log.begin(isRaced ? .racedRelease : .release, owner: owner.index)
        if isRaced { owner.raced(random.below(8)).store(handle) }
        let isDone = tryRelease(handle)
        log.end(isDone ? .done : .nothing)
        if owner.index != own.index { line.foreignReleases.store(line.foreignReleases.load() + 1) }
        if !isDone && !isRaced && owner.isDoomed.load() == 0 { own.report(.lostHandle, owner.index) }
        if !isRaced { owner.spent(random.below(Generation.exchange)).store(handle) }
    }

    /// Releases what somebody else is releasing.
    private mutating func releaseRaced() {
        let owner = ledger.generation(Int(ledger.current(random.below(settings.children)).load()))
        for place in 0..<8 {
            let handle = owner.raced(place).load()
            guard handle != 0, owner.raced(place).compareExchange(handle, 0).exchanged else { continue }
            note(ThreadLine.foreign(owner.index))
            log.begin(.rivalRelease, owner: owner.index)
            log.end(tryRelease(handle) ? .done : .nothing)
            return note(ThreadLine.idle)
        }
    }

    /// Releases what has been released: it must be refused.
    private mutating func releaseSpent() {
        let owner = ledger.generation(Int(ledger.current(random.below(settings.children)).load()))
        let handle = owner.spent(random.below(Generation.exchange)).load()
        guard handle != 0 else { return }
        if tryRelease(handle) { own.report(.doubleRelease, owner.index) }
        line.doubleReleases.store(line.doubleReleases.load() + 1)
    }

    private mutating func tryRelease(_ handle: UInt64) -> Bool {
        operations &+= 1
        do {
            try segment.release(SessionHandle(rawValue: handle))
            return true
        } catch .handle {
            return false
        } catch {
            own.report(.wrongSegmentError, 0)
            return false
        }
    }
}
