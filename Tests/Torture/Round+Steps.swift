// Faults that meet a process in the middle of something: reapers stopped halfway, threads taken through their code one
// instruction at a time.

import Admission
import Glibc

extension Round {
    /// Stops the world while its processes reap one of them, and counts with the reapers stopped halfway.
    func stopReapers(_ child: Int, _ random: inout Random) throws {
        guard !herd.isExhausted, children > 1 else { return try killAndReap(child, &random) }
        ledger.reapStorm.store(1)
        System.sleep(microseconds: random.below(500))
        herd.sendKill(child)
        let pause = random.below(1500)
        let isBuriedFirst = random.chance(oneIn: 2)
        if isBuriedFirst { try bury(child) }
        let end = now() + UInt64(isBuriedFirst ? pause * 100 : pause * 1000)
        while now() < end {}
        for other in 0..<children where other != child { try herd.stop(other) }
        totals.stops += 1
        if !isBuriedFirst { try bury(child) }
        ledger.reapStorm.store(0)
        try audit(probes: true, byLane: random.chance(oneIn: 2))
        if random.chance(oneIn: 2) {
            try reap(herd.current[child])
            try audit(probes: true, byLane: random.chance(oneIn: 2))
        }
        for other in 0..<children where other != child { herd.go(other) }
        try reap(herd.current[child])
        try respawn(child, &random)
    }

    /// Takes some threads through their code instruction by instruction, then lets them go, kills them there, or counts with
    /// everybody stopped there.
    func stepThreads(_ child: Int, _ random: inout Random) throws {
        let stepper = Stepper()
        // Also after a violation: a thread that is traced cannot be buried.
        defer { stepper.letGo() }
        let isOneProcess = random.chance(oneIn: 2)
        for _ in 0..<(1 + random.below(3)) {
            let victim = isOneProcess ? child : random.below(children)
            let thread = Int32(herd.life(victim).generation.line(random.below(threads)).threadID.load())
            _ = stepper.hold(thread)
        }
        defer { totals.steps += stepper.steps }
        for _ in 0..<(1 + random.below(6)) where stepper.count > 0 {
            for _ in 0..<(20 + random.below(60)) {
                // Time enough for others to find the pool empty and to collect.
                let pause = random.chance(oneIn: 6) ? 100 : 0
                // A thread may wait for a lock of the C library that another held thread has.
                do { try stepper.step(random.below(stepper.count)) } catch is Stepper.Stuck {}
                if pause > 0 { System.sleep(microseconds: pause) }
                if random.chance(oneIn: 60) { try stepper.run(random.below(stepper.count), microseconds: 20) }
            }
            let pause = random.below(60)
            for index in 0..<stepper.count { try stepper.run(index, microseconds: pause) }
        }
        switch random.below(4) {
        case 0 where !herd.isExhausted && isOneProcess && stepper.count > 0:
            herd.sendKill(child)
            stepper.bury()
            try bury(child)
            try reap(herd.current[child])
            try respawn(child, &random)
        case 1:
            for child in 0..<children { herd.sendStop(child) }
            stepper.letGo()
            for child in 0..<children { try herd.awaitStop(child) }
            totals.stops += 1
            try audit(probes: true, byLane: random.chance(oneIn: 2))
            startWorld()
        default: stepper.letGo()
        }
    }

    /// Nobody moves but one process, and that one instruction at a time. In the middle of its operations the conductor takes
    /// all that the pool has, lets the operation end, and takes the rest: the sums leave no room for one session more or less.
    func crawl(_ child: Int, _ random: inout Random) throws {
        let stepper = Stepper()
        // Also after a violation: a thread that is traced cannot be buried.
        defer { stepper.letGo() }
        let life = herd.life(child)
        guard life.generation.isReady.load() == 1 else { return }
        let lines = (0..<threads).map { life.generation.line($0) }
        for other in 0..<children where other != child { try herd.stop(other) }
        totals.stops += 1
        defer {
            totals.steps += stepper.steps
            for other in 0..<children where other != child { herd.go(other) }
        }
        // The workers come first: they have the numbers of their lines.
        for thread in lines.map({ Int32($0.threadID.load()) }) + [life.processID] where !stepper.hold(thread) {
            return stepper.letGo()
        }
        try changeCap(to: herd.holdings().certain + 20 + random.below(400))
        do {
            let rounds = isLogged ? 4 : 20 + random.below(40)
            for _ in 0..<rounds where !(isLogged && ledger.isLogFull) {
                try crawlOnce(stepper, lines, &random)
            }
        } catch is Stepper.Stuck {
            // Between operations it may wait for a lock of the C library or of the Swift runtime that a held thread has.
        }
        stepper.letGo()
    }

    private func crawlOnce(_ stepper: Stepper, _ lines: [ThreadLine], _ random: inout Random) throws {
        let thread = random.below(threads)
        let depth = random.below(random.chance(oneIn: 4) ? 400 : 24)
        let byLane = random.chance(oneIn: 2)
        let ends = random.below(4)
        let pause = random.below(30)
        func isIdle() -> Bool { lines[thread].balance.load() & 0xffff == ThreadLine.idle }
        var held = 0
        defer { release(held, byLane: byLane) }
        try follow(stepper, thread, atMost: 300) { !isIdle() }
        do {
            try follow(stepper, thread, atMost: depth) { isIdle() }
            held = try squeeze(held: 0, byLane: byLane)
            if ends > 0 {
                try follow(stepper, thread, atMost: 500) { isIdle() }
                held = try squeeze(held: held, byLane: byLane)
            }
        } catch is Stepper.Stuck where !isIdle() {
            throw Violation(.neverWaits, "a thread sleeps in the middle of an operation while others are stopped")
        }
        release(held, byLane: byLane)
        held = 0
        try checkConservation()
        // Out of a restartable sequence, which never ends while it is stepped through, and on to another place.
        try stepper.run(thread, microseconds: pause)
    }

    private func follow(_ stepper: Stepper, _ thread: Int, atMost limit: Int, until condition: () -> Bool) throws {
        var left = limit
        while left > 0 && !condition() {
            try stepper.step(thread)
            left -= 1
        }
    }

    /// Takes what the pool has, on top of what is held, and checks the sums.
    private func squeeze(held: Int, byLane: Bool) throws -> Int {
        let count = admitUntilRefused(byLane: byLane, atMost: cap + 32, held: held)
        let holdings = herd.holdings()
        totals.probes += 1
        guard count == 0 || count + holdings.certain <= cap else {
            throw Violation(.neverOver, "\(count) were admitted with at least \(holdings.certain) in use, cap \(cap) (stepped)")
        }
        guard count + holdings.possible >= cap else {
            throw Violation(
                .neverUnder, "refused after \(count) with at most \(holdings.possible) in use, cap \(cap) (stepped)")
        }
        try checkConservation()
        return count
    }

    /// Stops a reaper at an instruction of its work, and counts; then it dies there, or goes on when the slot has a new holder.
    func stepReaper(_ child: Int, _ random: inout Random) throws {
        guard !herd.isExhausted, children > 1 else { return }
        let reaper = (child + 1 + random.below(children - 1)) % children
        let steps = random.below(5000)
        let dies = random.chance(oneIn: 3)
        let isSucceeded = random.chance(oneIn: 2)
        let byLane = random.chance(oneIn: 2)
        guard herd.life(reaper).generation.isReady.load() == 1 else { return }
        ledger.reapStorm.store(1)
        defer { ledger.reapStorm.store(0) }
        System.sleep(microseconds: 500)
        let stepper = Stepper()
        // Also after a violation: a thread that is traced cannot be buried.
        defer { stepper.letGo() }
        let line = herd.life(reaper).generation.line
        let workers = (0..<threads).map { Int32(line($0).threadID.load()) }
        for thread in [herd.life(reaper).processID] + workers where !stepper.hold(thread) { return stepper.letGo() }
        for other in 0..<children where other != child && other != reaper { try herd.stop(other) }
        totals.stops += 1
        try kill(child)
        ledger.reapStorm.store(0)
        do { try follow(stepper, 0, atMost: steps) { false } } catch is Stepper.Stuck {}
        totals.steps += stepper.steps
        // The signal comes first: who is let go stops at the very instruction where it stands.
        herd.sendStop(reaper)
        stepper.letGo()
        try herd.awaitStop(reaper)
        let dead = herd.current[child]
        try audit(probes: true, byLane: byLane)
        if dies {
            try kill(reaper)
            try reap(herd.current[reaper])
            try reap(dead)
            try audit(probes: true, byLane: byLane)
            try respawn(reaper, &random)
        } else if isSucceeded {
            try respawn(child, &random)
            try herd.awaitReady(child)
            System.sleep(microseconds: 1000)
            try reap(dead)
        }
        for other in 0..<children where other != child && (other != reaper || !dies) { herd.go(other) }
        if dies || !isSucceeded {
            try reap(dead)
            try respawn(child, &random)
        }
    }
}
