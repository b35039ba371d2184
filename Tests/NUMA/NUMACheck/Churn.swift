// Churn: threads that admit and release while CPUs go off line and come back, and the counts that must stay exact.

import Admission
import Glibc
import Synchronization

final class Churn: Sendable {
    private let pools: [Pool]
    private let caps: [Int]
    /// Sessions in use as the threads count them: never more than there are.
    private let inUse = [Count(), Count()]
    private let stop = Atomic(false)
    private let stopped = Atomic(0)
    private let proceed = Atomic(false)
    private let operations = Atomic(0)

    /// An array cannot hold an Atomic itself.
    private final class Count: Sendable {
        let now = Atomic(0)
        let most = Atomic(0)
    }

    /// The first pool always has room, so that its sessions go by the shards; the second is fought for.
    private init(_ segment: Segment, caps: [Int]) throws {
        self.caps = caps
        pools = try caps.indices.map { try segment.pool($0) }
        for (pool, cap) in zip(pools, caps) {
            try pool.setCap(cap)
            pool.policy = .block
        }
    }

    static func check() throws {
        let path = try Check.makeSegment("churn")
        defer { unlink(path) }
        let segment = try Segment.attach(path: path)
        segment.placeShardsOnNodes()
        try Churn(segment, caps: [1000, 40]).run()
    }

    private func run() throws {
        // One thread for each CPU, and two that the kernel moves about.
        let homes = Machine.cpus.map { [$0] } + [Machine.cpus, Machine.cpus]
        let threads = homes.map { home in Thread { self.work(home) } }
        // The last CPU alone, then all CPUs of its node.
        let node = Machine.nodeOfCPU[Check.last] ?? -1
        let all = Machine.cpus.filter { Machine.nodeOfCPU[$0] == node && $0 != 0 }
        for gone in [[Check.last], [Check.last], all, all, [Check.last], all] {
            usleep(300_000)
            for cpu in gone { Check.expect(Machine.setOnline(cpu, false), "CPU \(cpu) goes off line", quiet: true) }
            usleep(100_000)
            let stays = Machine.cpus.filter { !gone.contains($0) }
            let before = fastAdmissions()
            usleep(400_000)
            let busy = grown(on: stays, since: before)
            let between = fastAdmissions()
            let idle = gone.map { (between[$0] ?? 0) - (before[$0] ?? 0) }
            for cpu in gone { Check.expect(Machine.setOnline(cpu, true), "CPU \(cpu) comes back", quiet: true) }
            let back = grown(on: gone, since: between)
            Check.expect(
                idle.allSatisfy { $0 == 0 } && busy.allSatisfy { $0 > 0 } && back.allSatisfy { $0 > 0 },
                "CPUs \(gone) off line: fast admissions there \(idle), on \(stays) \(busy); after they came back \(back)")
        }
        // Exact while the last CPU is off line, with sessions and spare ones still in its shard.
        Check.expect(Machine.setOnline(Check.last, false), "CPU \(Check.last) goes off line")
        stop.store(true, ordering: .releasing)
        while stopped.load(ordering: .acquiring) < threads.count { usleep(1000) }
        print("note    \(operations.load(ordering: .relaxed)) operations by \(threads.count) threads")
        for (index, pool) in pools.enumerated() {
            let held = inUse[index].now.load(ordering: .acquiring)
            let most = inUse[index].most.load(ordering: .acquiring)
            Check.expect(pool.snapshot().inUse, held, "pool \(index): sessions in use, all threads at rest")
            Check.expect(most <= caps[index], "pool \(index): at most \(most) at once under a cap of \(caps[index])")
            Check.expect(pool.conservation()?.holds == true, "pool \(index): free and granted add up to the cap")
            fill(pool, index, room: caps[index] - held)
        }
        proceed.store(true, ordering: .releasing)
        for thread in threads { thread.join() }
        for (index, pool) in pools.enumerated() {
            Check.expect(pool.snapshot().inUse, 0, "pool \(index): sessions in use after the last was released")
        }
        Check.expect(Machine.setOnline(Check.last, true), "CPU \(Check.last) comes back")
        for (index, pool) in pools.enumerated() {
            Machine.on(Check.last) { fill(pool, index, room: caps[index]) }
            Check.expect(pool.snapshot().inUse, 0, "pool \(index): sessions in use at the end")
            Check.expect(pool.conservation()?.holds == true, "pool \(index): free and granted add up to the cap")
        }
    }

    /// Every session that is left is given, and not one more.
    private func fill(_ pool: Pool, _ index: Int, room: Int) {
        var taken = 0
        while taken <= caps[index], pool.admit().detach() == .inspect { taken += 1 }
        Check.expect(taken, room, "pool \(index): sessions given until the first refusal")
        for _ in 0..<taken { pool.release(.inspect) }
    }

    private func fastAdmissions() -> [Int: UInt64] {
        var all: [Int: UInt64] = [:]
        for writer in pools[0].writers() {
            if case .shard(let cpu) = writer.kind { all[cpu] = writer.fastAdmissions }
        }
        return all
    }

    /// How many more there are on each CPU, as soon as there are some on all; the emulator leaves out a CPU for a while now and
    /// then, so that may take some time.
    private func grown(on cpus: [Int], since before: [Int: UInt64]) -> [UInt64] {
        for _ in 0..<300 {
            let now = fastAdmissions()
            let grown = cpus.map { (now[$0] ?? 0) - (before[$0] ?? 0) }
            if grown.allSatisfy({ $0 > 0 }) { return grown }
            usleep(100_000)
        }
        let now = fastAdmissions()
        return cpus.map { (now[$0] ?? 0) - (before[$0] ?? 0) }
    }

    private func work(_ home: [Int]) {
        var held = [0, 0]
        var random = UInt64(home[0] + home.count * 100) &* 0x9e37_79b9_7f4a_7c15 | 1
        var done = 0
        while !stop.load(ordering: .acquiring) {
            // An unplugged CPU's thread was moved elsewhere; it goes home when the CPU is back.
            if done & 1023 == 0 { Machine.pin(home) }
            done += 1
            random ^= random << 13
            random ^= random >> 7
            random ^= random << 17
            let index = Int(random >> 20 & 1)
            if held[index] > 0 && (held[index] == 12 || random >> 24 & 1 == 0) {
                inUse[index].now.subtract(1, ordering: .sequentiallyConsistent)
                pools[index].release(.inspect)
                held[index] -= 1
            } else if pools[index].admit().detach() == .inspect {
                held[index] += 1
                let now = inUse[index].now.add(1, ordering: .sequentiallyConsistent).newValue
                inUse[index].most.max(now, ordering: .relaxed)
            }
        }
        operations.add(done, ordering: .relaxed)
        stopped.add(1, ordering: .acquiringAndReleasing)
        while !proceed.load(ordering: .acquiring) { usleep(1000) }
        for index in held.indices {
            for _ in 0..<held[index] { pools[index].release(.inspect) }
        }
    }
}

/// A thread of the C library with a Swift body.
struct Thread {
    private var thread: pthread_t = 0

    init(_ body: @escaping @Sendable () -> Void) {
        let box = Unmanaged.passRetained(Body(body)).toOpaque()
        let code = pthread_create(
            &thread, nil,
            { box in
                Unmanaged<Body>.fromOpaque(box!).takeRetainedValue().body()
                return nil
            }, box)
        precondition(code == 0)
    }

    func join() { pthread_join(thread, nil) }

    private final class Body: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
}
