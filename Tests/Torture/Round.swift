// Round: one schedule of faults on one pool.

import Admission
import Glibc

final class Round {
    let number: Int
    let ledger: Ledger
    let segment: Segment
    let pool: Pool
    let poolIndex: Int
    let policy: OverLimitPolicy
    let baseCap: Int
    let herd: Herd
    let isLogged: Bool
    let children: Int
    let threads: Int
    private let seed: UInt64
    var totals = Totals()

    /// The cap in force, the highest since the last audit, and what all sessions in use cannot exceed since then.
    var cap: Int
    var highestCap: Int
    var bound = 0
    var capChanges: [CapChange] = []
    /// What the keeper has set, by pool.
    var settings: [PoolSettings] = []

    /// The conductor's own sessions.
    var lane: Lane
    var log: LogWriter
    let sessions: UnsafeMutablePointer<Session>
    private let sessionPlaces: Int
    private let collectsBefore: UInt64
    private let origin = now()

    init(
        number: Int, seed: UInt64, ledger: Ledger, segment: Segment, pool poolIndex: Int, cap: Int,
        policy: OverLimitPolicy, children: Int, threads: Int, isLogged: Bool
    ) throws {
        self.number = number
        self.seed = seed
        self.ledger = ledger
        self.segment = segment
        self.poolIndex = poolIndex
        self.policy = policy
        self.children = children
        self.threads = threads
        self.isLogged = isLogged
        self.cap = cap
        baseCap = cap
        highestCap = cap
        pool = try segment.pool(poolIndex)
        lane = try segment.openLane(pool: poolIndex)
        log = LogWriter(ledger: ledger, generation: 0, isOn: isLogged)
        sessionPlaces = 2 * cap + 1024
        sessions = .allocate(capacity: sessionPlaces)
        try pool.setCap(cap)
        pool.policy = policy
        settings = try (0..<Limits.pools).map { try segment.pool($0).settings }
        collectsBefore = pool.snapshot().collects
        herd = Herd(ledger: ledger, children: children, threads: threads) { generation in
            ChildSettings(
                segmentPath: segment.path, ledgerPath: Files.ledger, generation: generation, threads: threads,
                children: children, pool: poolIndex, seed: seed &+ UInt64(number) &* 1_000_003, isLogged: isLogged)
        }
    }

    deinit { sessions.deallocate() }

    var description: String { "\(isLogged ? "logged" : "fast"), cap \(baseCap), pool \(poolIndex), \(policy)" }

    // MARK: The schedule

    func run(until isOver: (_ step: Int) -> Bool) throws {
        ledger.bias.store(128)
        ledger.reapStorm.store(0)
        ledger.nap.store(1_000_000)
        for child in 0..<children { try herd.spawn(child, withoutRseq: (child + number) % 4 == 3) }
        for child in 0..<children { try herd.awaitReady(child) }
        var step = 0
        while !isOver(step) {
            ledger.heartbeat.add(1)
            var random = Random(seed, UInt64(number), UInt64(step))
            System.sleep(microseconds: random.below(isLogged ? 900 : 2000))
            for child in 0..<children { try herd.checkAlive(child) }
            try checkKeepersAudit()
            if random.chance(oneIn: 3) { for generation in herd.unreaped { try reap(generation) } }
            setBias(&random)
            try disturb(&random)
            step += 1
        }
        try finish()
    }

    /// Full, nearly empty, and between: the fast rounds are mostly between, where nobody meets the limit.
    private func setBias(_ random: inout Random) {
        let choices: [UInt64] =
            isLogged ? [128, 128, 132, 150, 190, 240, 100, 50] : [128, 128, 128, 128, 128, 131, 126, 160, 230, 90]
        if random.chance(oneIn: 2) { ledger.bias.store(random.pick(choices)) }
    }

    private func disturb(_ random: inout Random) throws {
        let child = random.below(children)
        switch random.below(41) {
        case 0, 1: try killAndReap(child, &random)
        case 2: try killAndLeaveToSiblings(child, &random)
        case 3: try killAndLeaveToSuccessor(child, &random)
        case 4: try killTwo(child, &random)
        case 5: try killInfant(child, &random)
        case 6, 7: try killInStoppedWorld(child, &random)
        case 8, 9: try stopAndWatch([child])
        case 10: try stopAndWatch((0..<children).filter { $0 != child })
        case 11, 12, 13: try auditInStoppedWorld(probes: false, &random)
        case 14, 15, 16: try auditInStoppedWorld(probes: true, &random)
        case 17: try lowerCapBelowUse(&random)
        case 18, 19: try changeCap(to: someCap(&random))
        case 20: try changeCapByChild(child, kills: false, &random)
        case 21: try changeCapByChild(child, kills: true, &random)
        case 22, 23, 24: migrate(&random)
        case 25, 26: nap(&random)
        case 27, 28, 29: rattle(&random)
        case 30, 31: try stopReapers(child, &random)
        case 32, 33: try stepThreads(child, &random)
        case 34, 35, 36: try crawl(child, &random)
        case 37, 38: try stepReaper(child, &random)
        case 39:
            let forks = herd.life(child).generation.forkRequest
            forks.store(forks.load() + 1)
        default: break
        }
    }

    /// Everybody is killed, and everything must be back.
    private func finish() throws {
        for child in 0..<children { herd.sendKill(child) }
        for child in 0..<children {
            try herd.bury(child)
            totals.kills += 1
        }
        for child in 0..<children { try reap(herd.current[child]) }
        for generation in herd.unreaped { try reap(generation) }
        // What is granted now are the spare sessions of the conductor's own writers.
        let snapshot = pool.snapshot()
        guard let sum = snapshot.conservation, sum.holds, sum.granted == snapshot.spare, snapshot.inUse == 0,
            snapshot.bypassed == 0, snapshot.cap == cap, segment.processes().count == 1
        else { throw Violation(.comesBack, "all are gone, cap \(cap), but \(snapshot)") }
        let admitted = admitUntilRefused(byLane: true, atMost: cap + 32)
        release(admitted, byLane: false)
        guard admitted == cap else { throw Violation(.comesBack, "all are gone, but \(admitted) were admitted, cap \(cap)") }
        totals.collects = snapshot.collects - collectsBefore
        herd.addFigures(to: &totals)
        if isLogged { try checkLog() }
    }

    func killEverybody() {
        for child in 0..<children where herd.current[child] != 0 && herd.life(child).killed == nil {
            herd.sendKill(child)
            try? herd.bury(child)
        }
    }

    private func checkLog() throws {
        var oracle = Oracle(lives: herd.lives, cap: baseCap, capChanges: capChanges, origin: origin)
        totals.logged = UInt64(oracle.read(ledger))
        try oracle.check(ledger)
    }

    // MARK: The conductor's own operations

    /// Says what comes, for the watchdog.
    func stage(_ stage: Stage) {
        ledger.stage.store(stage.rawValue)
        ledger.heartbeat.add(1)
    }

    /// Admits until it is refused, with `held` sessions held already. Returns how many are held then: the first of `sessions`.
    func admitUntilRefused(byLane: Bool, atMost limit: Int, held: Int = 0) -> Int {
        var count = held
        stage(.admit)
        defer { stage(.none) }
        while count < min(limit, sessionPlaces) {
            precondition(log.hasRoom(for: 1), "the conductor's part of the log is too small")
            log.begin(.admit)
            let session = byLane ? lane.admit() : pool.admit()
            let isLicensed = session.verdict == .inspect
            log.end(isLicensed ? .done : .refused)
            totals.operations += 1
            guard isLicensed else { return count }
            (sessions + count).initialize(to: session)
            count += 1
        }
        return count
    }

    /// Ends the first `count` sessions, some through handles.
    func release(_ count: Int, byLane: Bool) {
        stage(.release)
        defer { stage(.none) }
        for index in 0..<count {
            precondition(log.hasRoom(for: 1), "the conductor's part of the log is too small")
            log.begin(.release)
            let session = (sessions + index).move()
            if index % 7 == 3 {
                if let handle = try? segment.handle(session) { try? segment.release(handle) }
            } else if byLane {
                lane.release(session)
            } else {
                session.end()
            }
            log.end(.done)
            totals.operations += 1
        }
    }
}
