// What a round does to its children.

import Admission
import Glibc

/// The cap was `cap` from some instant between `begin` and `end`.
struct CapChange {
    let begin: UInt64
    let end: UInt64
    let cap: Int
}

extension Round {
    // MARK: Kills

    /// The conductor gives back what a dead generation held, and sees that it is all back.
    func reap(_ generation: Int) throws {
        let life = herd.lives[generation]
        guard life.reaped == nil else { return }
        let start = now()
        let waited = System.waitedForCPU()
        stage(.reap)
        segment.reap()
        // The address space of a killed process may go a moment later than its parent is told, if somebody looks at it.
        while isAttached(life.processID) {
            if now() - start > 1_000_000_000 {
                let found = segment.processes().filter { $0.processID == Int(life.processID) }
                throw Violation(
                    .comesBack, "generation \(generation), process \(life.processID), was not reaped within a second: \(found)")
            }
            System.sleep(microseconds: 50)
            segment.reap()
        }
        // Whoever else has begun it: after a reap of our own nothing is left.
        segment.reap()
        stage(.none)
        herd.markReaped(generation)
        let delay = System.waitedForCPU() - waited
        let took = now() - start
        let effective = took > delay ? took - delay : 0
        totals.longestReap = max(totals.longestReap, effective)
        if effective > 100_000_000 {
            throw Violation(.comesBack, "generation \(generation) was reaped after \(milliseconds(effective)) ms")
        }
    }

    /// Whether a process, living or dead, has anything of the pool. A successor that enters its slot gives back pool by pool.
    private func isAttached(_ process: pid_t) -> Bool {
        segment.processes().contains { $0.processID == Int(process) }
            || pool.writers().contains { $0.processID == Int(process) }
    }

    func respawn(_ child: Int, _ random: inout Random) throws {
        try herd.spawn(child, withoutRseq: random.chance(oneIn: 4))
    }

    func killAndReap(_ child: Int, _ random: inout Random) throws {
        guard !herd.isExhausted else { return }
        try kill(child)
        try reap(herd.current[child])
        try respawn(child, &random)
    }

    func kill(_ child: Int) throws {
        try herd.kill(child)
        totals.kills += 1
    }

    func killAndLeaveToSiblings(_ child: Int, _ random: inout Random) throws {
        guard !herd.isExhausted else { return }
        try kill(child)
        let dead = herd.life(child)
        if children > 1 && (0..<children).contains(where: { $0 != child && herd.life($0).generation.isReady.load() == 1 }) {
            let start = now()
            try waitUntil("siblings reap generation \(dead.generation.index)", seconds: 5, law: .comesBack) {
                !isAttached(dead.processID)
            }
            totals.longestReapBySiblings = max(totals.longestReapBySiblings, now() - start)
        }
        try reap(dead.generation.index)
        try respawn(child, &random)
    }

    /// Its successor takes its slot, and with it what it held.
    func killAndLeaveToSuccessor(_ child: Int, _ random: inout Random) throws {
        guard !herd.isExhausted else { return }
        try kill(child)
        let dead = herd.current[child]
        try respawn(child, &random)
        let pause = random.below(8000)
        if random.chance(oneIn: 2) {
            System.sleep(microseconds: pause)
            try reap(dead)
        }
    }

    /// The second is likely to be at work on what the first has left.
    func killTwo(_ child: Int, _ random: inout Random) throws {
        guard !herd.isExhausted, children > 1 else { return try killAndReap(child, &random) }
        let other = (child + 1 + random.below(children - 1)) % children
        herd.sendKill(child)
        System.sleep(microseconds: random.below(400))
        herd.sendKill(other)
        let left = random.chance(oneIn: 2)
        for victim in [child, other] {
            try bury(victim)
        }
        for victim in [child, other] {
            let dead = herd.current[victim]
            if !left { try reap(dead) }
            try respawn(victim, &random)
        }
    }

    /// Kills a process that is about to attach.
    func killInfant(_ child: Int, _ random: inout Random) throws {
        try killAndReap(child, &random)
        System.sleep(microseconds: random.below(9000))
        try killAndReap(child, &random)
    }

    /// Kills at the instruction where the victim has stopped, and counts before and after with nobody moving: what it held
    /// must be back, once.
    func killInStoppedWorld(_ child: Int, _ random: inout Random) throws {
        guard !herd.isExhausted else { return }
        try stopWorld()
        try audit(probes: false, byLane: true)
        try kill(child)
        let isReapedFirst = random.chance(oneIn: 2)
        if isReapedFirst { try reap(herd.current[child]) }
        try audit(probes: true, byLane: random.chance(oneIn: 2))
        if !isReapedFirst {
            try reap(herd.current[child])
            try audit(probes: true, byLane: random.chance(oneIn: 2))
        }
        for other in 0..<children where other != child { herd.go(other) }
        try respawn(child, &random)
    }

    func bury(_ child: Int) throws {
        try herd.bury(child)
        totals.kills += 1
    }

    // MARK: Stops

    func stopWorld() throws {
        for child in 0..<children { herd.sendStop(child) }
        for child in 0..<children { try herd.awaitStop(child) }
        totals.stops += 1
    }

    func startWorld() { for child in 0..<children { herd.go(child) } }

    /// Stops some children at whatever they are doing; the others and the conductor must go on, in everything.
    func stopAndWatch(_ victims: [Int]) throws {
        for victim in victims { try herd.stop(victim) }
        totals.stops += 1
        let others = (0..<children).filter { !victims.contains($0) && herd.life($0).generation.isReady.load() == 1 }
        let before = herd.progress(of: others)
        let byLane = totals.stops % 2 == 0
        release(admitUntilRefused(byLane: byLane, atMost: 100), byLane: byLane)
        stage(.reap)
        segment.reap()
        stage(.snapshot)
        _ = pool.snapshot()
        stage(.none)
        try waitUntil("children \(others) go on while \(victims) are stopped", seconds: 20, law: .neverWaits) {
            for other in others { try herd.checkAlive(other) }
            return zip(before, herd.progress(of: others)).allSatisfy { $0 == .max || $0 != $1 }
        }
        for victim in victims { herd.go(victim) }
    }

    /// Holds threads up inside a signal handler, wherever they are, while the other threads of the process go on.
    func nap(_ random: inout Random) {
        ledger.nap.store(UInt64(10_000 + random.below(3_000_000)))
        for _ in 0..<(1 + random.below(4)) { signalSomeThread(&random) }
    }

    /// Interrupts threads again and again, so that each instruction has its turn of being the last for a while.
    func rattle(_ random: inout Random) {
        for _ in 0..<random.below(300) {
            if random.chance(oneIn: 8) { ledger.nap.store(random.pick([0, 1000, 20_000, 200_000])) }
            signalSomeThread(&random)
        }
    }

    private func signalSomeThread(_ random: inout Random) {
        let life = herd.life(random.below(children))
        let thread = Int32(life.generation.line(random.below(threads)).threadID.load())
        if thread != 0 && System.signalThread(life.processID, thread, SIGUSR1) == 0 { totals.naps += 1 }
    }

    /// Moves threads from CPU to CPU: restartable sequences are aborted and sessions end on other shards.
    func migrate(_ random: inout Random) {
        let cpus = System.allowedCPUs
        for _ in 0..<(1 + random.below(24)) {
            let life = herd.life(random.below(children))
            let thread = Int32(life.generation.line(random.below(threads)).threadID.load())
            let cpu = cpus[random.below(cpus.count)]
            let isFree = random.chance(oneIn: 4)
            let pause = random.below(60)
            if thread != 0 && System.pin(thread: thread, to: isFree ? cpus : [cpu]) { totals.migrations += 1 }
            if pause > 30 { System.sleep(microseconds: pause) }
        }
    }

    // MARK: Caps

    func someCap(_ random: inout Random) -> Int {
        random.chance(oneIn: 10) ? random.below(3) : max(1, baseCap / 2 + random.below(baseCap + 1))
    }

    func changeCap(to cap: Int) throws {
        let begin = now()
        stage(.setCap)
        try pool.setCap(cap)
        stage(.none)
        noteCap(cap, from: begin)
    }

    private func noteCap(_ cap: Int, from begin: UInt64) {
        capChanges.append(CapChange(begin: begin, end: now(), cap: cap))
        self.cap = cap
        highestCap = max(highestCap, cap)
        totals.capChanges += 1
    }

    /// A child changes the cap, and may be killed while it does: then the cap is the old one or the new one.
    func changeCapByChild(_ child: Int, kills: Bool, _ random: inout Random) throws {
        let new = someCap(&random)
        let pause = random.below(900)
        guard !herd.isExhausted, herd.life(child).generation.isReady.load() == 1 else { return }
        let generation = herd.life(child).generation
        let begin = now()
        let request = ((generation.capRequest.load() >> 32) + 1) << 32 | UInt64(new)
        generation.capRequest.store(request)
        if !kills {
            try waitUntil("child \(child) has set the cap", seconds: 20, law: .neverWaits) {
                try herd.checkAlive(child)
                return generation.capDone.load() == request
            }
            return noteCap(new, from: begin)
        }
        System.sleep(microseconds: pause)
        try kill(child)
        try reap(generation.index)
        let found = pool.cap
        if found == new && new != cap { noteCap(new, from: begin) }
        guard found == cap else {
            throw Violation(.comesBack, "cap \(found) after a change from \(cap) to \(new) was killed")
        }
        try respawn(child, &random)
    }

    /// With everybody stopped the cap goes below use: nobody may be admitted.
    func lowerCapBelowUse(_ random: inout Random) throws {
        let part = random.below(3)
        try stopWorld()
        let use = herd.holdings().certain
        try changeCap(to: max(0, use - part * use / 4))
        try audit(probes: true, byLane: random.chance(oneIn: 2))
        startWorld()
        System.sleep(microseconds: random.below(3000))
        if random.chance(oneIn: 2) { try auditInStoppedWorld(probes: true, &random) }
        try changeCap(to: someCap(&random))
    }
}
