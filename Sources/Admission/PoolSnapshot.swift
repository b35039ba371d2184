// What a pool looks like from outside.

import CAdmission

/// A pool's figures of about one moment.
public struct PoolSnapshot: Equatable, Sendable {
    /// Licensed sessions that may be in use, those included that are borrowed until a deadline.
    public let cap: Int
    /// Licensed sessions in use.
    public let inUse: Int
    /// In nobody's hands. Negative: a debt after the cap was lowered below use.
    public let free: Int
    /// Held in advance by writers.
    public let spare: Int
    /// Sessions that pass uninspected now, and the most that were seen at once.
    public let bypassed: Int
    public let bypassedPeak: Int
    /// Of the processes attached now: sessions started on fast paths, through the pool (near the limit), and over the limit.
    public let fastAdmissions: UInt64
    public let poolAdmissions: UInt64
    public let refused: UInt64
    /// Processes attached, writers that may hold spare sessions, and how often those were collected.
    public let processes: Int
    public let looseWriters: Int
    public let collects: UInt64
    public let policy: OverLimitPolicy
    /// The law of conservation: free + granted == cap. Nil: the pool changed all the time while it was looked at.
    public let conservation: Conservation?

    /// With sessions that are in use elsewhere and are taken from this pool's cap.
    public func adding(inUse more: Int, cap withheld: Int) -> PoolSnapshot {
        PoolSnapshot(
            cap: cap + withheld, inUse: inUse + more, free: free, spare: spare, bypassed: bypassed, bypassedPeak: bypassedPeak,
            fastAdmissions: fastAdmissions, poolAdmissions: poolAdmissions, refused: refused, processes: processes,
            looseWriters: looseWriters, collects: collects, policy: policy, conservation: conservation)
    }
}

/// What the pool has, what all writers and balances hold, and what they must add up to: the cap without what is borrowed.
public struct Conservation: Equatable, Sendable {
    public let free: Int
    public let granted: Int
    public let cap: Int
    public var holds: Bool { free + granted == cap }
}

/// One writer's figures.
public struct WriterStatistics: Equatable, Sendable {
    public enum Kind: Equatable, Sendable {
        case shard(cpu: Int)
        case lockedShard
        case lane(Int)
    }

    /// Process slot and identity.
    public let slot: Int
    public let processID: Int
    public let kind: Kind
    /// Sessions counted by the writer itself; negative where sessions end on another CPU than they began.
    public let held: Int
    public let spare: Int
    public let fastAdmissions: UInt64
    public let poolAdmissions: UInt64
    public let refused: UInt64
    public let bypassed: Int
    /// Bytes reported.
    public let traffic: Traffic
}

extension PoolEngine {
    /// Free and granted credit of one moment: no operation was published while they were added up. Nil after `attempts` in
    /// vain.
    func conservation(attempts: Int) -> Conservation? {
        for _ in 0..<attempts {
            let word = begin()
            var granted = 0
            memory.forEachSlot { slot in
                granted += balance(slot).account.credit
                forEachWriter(of: slot) { granted += $0.account.credit }
            }
            let cap = self.cap
            if loadPool().high == word.high { return Conservation(free: word.free, granted: granted, cap: cap) }
        }
        return nil
    }

    /// What a word says of how many there are now, signed. Damaged memory says anything: what is beyond reason is cut, so that
    /// whoever adds such numbers up does not overflow.
    static func gauge(_ word: UInt64) -> Int {
        let limit = 1 << 40
        return min(max(Int(Int64(bitPattern: word)), -limit), limit)
    }

    /// What writers and balances say, added up one after the other.
    fileprivate struct Tally {
        var granted = 0
        var spare = 0
        var bypassed: UInt64 = 0
        var fastAdmissions: UInt64 = 0
        var poolAdmissions: UInt64 = 0
        var refused: UInt64 = 0
        var traffic = Traffic()

        var inUse: Int { max(0, granted - spare) }
    }

    fileprivate func tally(_ slot: Int, into tally: inout Tally) {
        tally.granted += balance(slot).account.credit
        forEachWriter(of: slot) { writer in
            let account = writer.account
            tally.granted += account.credit
            if account.phase != Phase.tight { tally.spare += max(0, writer.spare(account)) }
            tally.bypassed &+= writer.bypassed.load()
            tally.fastAdmissions &+= writer.admitted.load()
            tally.poolAdmissions &+= writer.poolAdmissions.load()
            tally.refused &+= writer.refused.load()
            tally.traffic.add(writer.traffic)
        }
    }

    func forEachLiveSlot(_ body: (Int) -> Void) {
        memory.forEachSlot { slot in if balance(slot).account.phase == Account.live { body(slot) } }
    }

    func snapshot(attempts: Int) -> PoolSnapshot {
        let conservation = conservation(attempts: attempts)
        let word = begin()
        var all = Tally()
        var processes = 0
        forEachLiveSlot { slot in
            processes += 1
            tally(slot, into: &all)
        }
        let bypassed = observeBypassed()
        let lent = self.lent
        return PoolSnapshot(
            cap: cap + lent, inUse: all.inUse, free: word.free + lent, spare: all.spare, bypassed: bypassed,
            bypassedPeak: Self.gauge(bypassPeak.load()), fastAdmissions: all.fastAdmissions,
            poolAdmissions: all.poolAdmissions, refused: all.refused, processes: processes,
            looseWriters: word.loose, collects: collects.load(),
            policy: OverLimitPolicy(rawValue: policy.load()) ?? .bypass, conservation: conservation)
    }
}

extension Pool {
    /// The pool's figures. `inUse` is exact while nothing runs; under load it is of about now.
    public func snapshot() -> PoolSnapshot { engine.snapshot(attempts: 100) }

    /// Adds up what everybody holds. Nil: the pool changed all the time while it was looked at, `attempts` times.
    public func conservation(attempts: Int = 1000) -> Conservation? {
        engine.conservation(attempts: attempts)
    }

    /// Each writer that living processes have used.
    public func writers() -> [WriterStatistics] {
        var all: [WriterStatistics] = []
        let engine = self.engine
        engine.forEachLiveSlot { slot in
            let process = Int(truncatingIfNeeded: engine.memory.process(slot, Layout.processIdentity).load())
            engine.forEachWriter(of: slot) { writer in
                let index = writer.target.index
                let kind: WriterStatistics.Kind =
                    index < PoolEngine.lockedIndex
                    ? .shard(cpu: index)
                    : index == PoolEngine.lockedIndex ? .lockedShard : .lane(index - PoolEngine.firstLaneIndex)
                let account = writer.account
                let releases = writer.released.load()
                let admissions = writer.admitted.load()
                all.append(
                    WriterStatistics(
                        slot: slot, processID: process, kind: kind, held: PoolEngine.gauge(admissions &- releases),
                        spare: account.phase == Phase.tight
                            ? 0 : max(0, account.spare(admitted: admissions, released: releases)),
                        fastAdmissions: admissions, poolAdmissions: writer.poolAdmissions.load(),
                        refused: writer.refused.load(),
                        bypassed: PoolEngine.gauge(writer.bypassed.load()), traffic: writer.traffic))
            }
        }
        return all
    }
}

/// What one process has of a pool.
public struct Holding: Equatable, Sendable {
    public let slot: Int
    public let processID: Int
    /// Licensed sessions in use.
    public let inUse: Int
    /// Held in advance by its writers.
    public let spare: Int
    public let bypassed: Int
    /// Licensed sessions ever started, and admissions over the limit.
    public let admissions: UInt64
    public let refused: UInt64
    /// Bytes reported.
    public let traffic: Traffic
}

extension Pool {
    /// What each process has: exact while nothing runs, under load of about now.
    public func holdings() -> [Holding] {
        var all: [Holding] = []
        engine.forEachLiveSlot { slot in
            var one = PoolEngine.Tally()
            engine.tally(slot, into: &one)
            all.append(
                Holding(
                    slot: slot,
                    processID: Int(truncatingIfNeeded: engine.memory.process(slot, Layout.processIdentity).load()),
                    inUse: one.inUse, spare: one.spare, bypassed: max(0, PoolEngine.gauge(one.bypassed)),
                    admissions: one.fastAdmissions &+ one.poolAdmissions, refused: one.refused, traffic: one.traffic))
        }
        return all
    }
}

/// A process that is attached, or that died and has not been reaped.
public struct AttachedProcess: Equatable, Sendable {
    public let slot: Int
    public let processID: Int
    /// Clock ticks since boot (field 22 of /proc/PID/stat).
    public let startTime: UInt64
    public let isAlive: Bool
    /// Its name when it attached, at most 15 bytes.
    public let name: String
    /// The errno with which the kernel has refused membarrier after the process had attached; 0: it has not. Such a process
    /// gets the verdict for what is over the limit while the last free sessions are spare with others, until the keeper
    /// collects them.
    public let fenceError: Int32
}

extension Segment {
    /// Processes that hold a slot.
    public func processes() -> [AttachedProcess] {
        var all: [AttachedProcess] = []
        engines[0].forEachLiveSlot { all.append(process(slot: $0)) }
        return all
    }

    /// Who holds a slot, or did so last, as the words of the slot say.
    public func process(slot: Int) -> AttachedProcess {
        func word(_ offset: Int) -> UInt64 { memory.process(slot, offset).load() }
        return AttachedProcess(
            slot: slot, processID: Int(truncatingIfNeeded: word(Layout.processIdentity)),
            startTime: word(Layout.processStart),
            isAlive: slot == self.slot || !file.isOpen || file.isLocked(slot),
            name: Self.name(word(Layout.processName), word(Layout.processName + 8)),
            fenceError: Int32(truncatingIfNeeded: word(Layout.processFenceError)))
    }

    /// A name from its two words; what no terminal should get is left out.
    private static func name(_ first: UInt64, _ second: UInt64) -> String {
        var bytes: [UInt8] = []
        for word in [first, second] {
            for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(8 * shift))) }
        }
        return String(decoding: bytes.prefix { $0 != 0 }.map { 32...126 ~= $0 ? $0 : 63 }, as: UTF8.self)
    }
}
