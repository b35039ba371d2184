// The keeper's look at its segment: whether the memory is what the algorithm leaves behind, and what becomes of one that is
// not.
//
// Every attached process can write to all of a segment, so a fault in one of them can put any value anywhere. Slow ways give up
// on what makes no progress (BOUNDS in PoolEngine.swift). The rest is found here, by one thread that looks once a second:
//
//  - words that the keeper alone writes are what it has written: header, caps, policies; the loan is that or has been taken
//    away;
//  - each account is one that operations can make: its phase is known, its credit within the cap of any pool;
//  - free + all credit = cap, and as many gates are not tight as the pool word says (of one moment, or not judged);
//  - writers do not have more spare sessions than all credit there is: more would be admitted without anybody's leave.
//
// A damaged segment is replaced: the keeper marks it so, and its processes attach to the next one. What they hold here cannot
// be told exactly any more: `claims` say how much it can be at most.

import CAdmission

/// A word of a segment that is not what it must be.
public struct Damage: Error, Equatable, Sendable, CustomStringConvertible {
    /// Which word: `free sessions of pool 0`.
    public let word: String
    public let found: Int
    public let expected: String

    public var description: String { "found \(word) \(found), expected \(expected)" }
}

/// Which file it is, on this host.
public struct FileNumber: Hashable, Sendable {
    public let device: UInt64
    public let inode: UInt64

    public init(device: UInt64, inode: UInt64) {
        self.device = device
        self.inode = inode
    }
}

/// What the keeper has set a pool to.
public struct PoolSettings: Equatable, Sendable {
    public var cap: Int
    /// Sessions beside the cap, until a deadline in nanoseconds of CLOCK_BOOTTIME.
    public var borrowed: Int
    public var deadline: Int64
    public var policy: OverLimitPolicy

    public init(cap: Int = 0, borrowed: Int = 0, deadline: Int64 = 0, policy: OverLimitPolicy = .bypass) {
        self.cap = cap
        self.borrowed = borrowed
        self.deadline = deadline
        self.policy = policy
    }
}

extension Segment {
    /// Looks for damage. For one thread of the keeper, while no other one sets caps or policies.
    ///
    /// - Parameters:
    ///   - settings: of each pool, by its number; those that are missing have never been set.
    ///   - isReplaced: whether it may be marked as replaced.
    public func audit(_ settings: [PoolSettings], isReplaced: Bool = false) -> Damage? {
        for (word, offset, expected) in [
            ("magic", Layout.headerMagic, Layout.magic), ("version", Layout.headerVersion, Layout.version),
            ("size", Layout.headerSize, UInt64(Layout.size(cpus: cpus))), ("CPUs", Layout.headerCPUs, UInt64(cpus)),
            ("pools", Layout.headerPools, UInt64(Limits.pools)), ("fence mode", Layout.headerFence, fenceMode.rawValue),
            ("mark of replacement", Layout.headerReplaced, 0),
        ] {
            let found = memory.header(offset).load()
            if found != expected, !isReplaced || offset != Layout.headerReplaced {
                return Damage(word: word, found: Int(truncatingIfNeeded: found), expected: "\(expected)")
            }
        }
        let stuck = memory.header(Layout.headerDamage).load()
        if stuck != 0 {
            return Damage(
                word: "mark of pool", found: Int(truncatingIfNeeded: stuck) &- 1,
                expected: "none: an operation on it could not be applied")
        }
        for engine in engines {
            let expected = settings.indices.contains(engine.pool) ? settings[engine.pool] : PoolSettings()
            if let damage = engine.audit(expected) { return damage }
        }
        return nil
    }

    /// Sessions that each process may have at most, by its slot, of a pool whose words are not to be trusted. Nil: its own
    /// words are damaged.
    public func claims(pool: Int) -> [Int: Int?] {
        var claims: [Int: Int?] = [:]
        let engine = engines[pool]
        engine.forEachLiveSlot { slot in
            var sum = engine.balance(slot).account.credit
            var isSound = engine.balanceRange.contains(sum)
            engine.forEachWriter(of: slot) { writer in
                let account = writer.account
                isSound = isSound && PoolEngine.isSound(account)
                sum &+= account.credit
            }
            claims.updateValue(isSound ? max(0, sum) : nil, forKey: slot)
        }
        return claims
    }

    /// Sessions that the holder of a slot may have at most, of a pool of a damaged segment: what all writers of the slot say,
    /// for the words that tell which of them are used may be damaged as well. Nil: its own words are.
    public func claim(pool: Int, slot: Int) -> Int? {
        let engine = engines[pool]
        let balance = engine.balance(slot).account
        var sum = balance.credit
        var isSound = [0, Account.live].contains(balance.phase) && engine.balanceRange.contains(sum)
        engine.forEveryWriter(of: slot) { writer in
            let account = writer.account
            isSound = isSound && PoolEngine.isSound(account)
            sum &+= account.credit
        }
        return isSound ? max(0, sum) : nil
    }

    /// Whether a living process holds a slot, which is known from a lock and not from the memory.
    public func holds(slot: Int) -> Bool { (0..<Limits.processes).contains(slot) && (!file.isOpen || file.isLocked(slot)) }

    /// Ends admissions here for good: another segment takes the name. What is in use stays counted until it ends.
    ///
    /// - Parameter isSound: whether the words of the pools can be trusted. If not, they are made to say that nothing is free,
    ///   and add up to nothing from then on.
    public func markReplaced(isSound: Bool) {
        guard isAttached else { return }
        memory.header(Layout.headerReplaced).store(1)
        for engine in engines { if isSound { engine.setCap(0, loan: .none) } else { engine.close() } }
    }

    /// Ends admissions in a segment that is too damaged to be attached to, as far as its size and version tell where its words
    /// are.
    ///
    /// - Parameters:
    ///   - file: where it is, as with `attachKeeper`.
    ///   - path: the name that it had.
    public static func closeDamaged(file: String, path: String) throws(SegmentError) {
        var descriptor: Int32 = -1
        try check(unsafe fpx_file_open_other(file, &descriptor), "open", file)
        defer { fpx_file_close(descriptor) }
        var status = fpx_file_status()
        try check(unsafe fpx_file_stat(descriptor, nil, &status), "fstat", path)
        let size = Int(status.size)
        guard size >= Layout.pageBytes else { return }
        var mapped: UnsafeMutableRawPointer?
        fpx_fork_hold()
        defer { fpx_fork_resume() }
        try check(unsafe fpx_map(descriptor, size, &mapped), "mmap", path)
        guard let base = unsafe mapped else { return }
        defer {
            unsafe fpx_unguard_memory_held(base)
            unsafe fpx_unmap(base, size)
        }
        guard unsafe fpx_guard_memory(base, size), unsafe Word(base, at: Layout.headerVersion).load() == Layout.version
        else {
            return
        }
        // Whoever looks finds that it is over.
        unsafe Word(base, at: Layout.headerReplaced).store(1)
        guard let cpus = (1...Limits.cpus).first(where: { Layout.size(cpus: $0) == size }) else { return }
        for pool in 0..<Limits.pools {
            let engine = PoolEngine(unsafe SegmentMemory(base, cpus: cpus), pool: pool)
            engine.close()
            engine.discard()
        }
    }

    /// The file of this segment, whatever has its name now.
    public var fileNumber: FileNumber { FileNumber(device: file.device, inode: file.inode) }

    /// How the file of this segment stands to the one that has its name now.
    public var place: SegmentPlace { file.place(size: Layout.size(cpus: cpus)) }

    /// Whether others may have lost their memory, and their locks with it, though this process has not touched what is gone.
    public var isCut: Bool { if case .cut = place { true } else { false } }
}

extension Pool {
    /// What the pool is set to now; cap and loan are read one after the other.
    public var settings: PoolSettings {
        let loan = Loan(rawValue: engine.loanWord.load())
        return PoolSettings(
            cap: engine.cap, borrowed: loan.sessions, deadline: Int64(loan.deadline) * 1_000_000, policy: policy)
    }
}

extension PoolEngine {
    /// Credit of one account: at most all sessions of a pool at once beyond what is folded away.
    static let creditRange = -(Limits.cap + foldAt)...(Limits.cap + foldAt)

    /// Credit of a balance: what each of its process' writers may have folded.
    var balanceRange: ClosedRange<Int> {
        let writers = cpus + Layout.extraWriters
        return Self.creditRange.lowerBound * writers...Self.creditRange.upperBound * writers
    }

    static func isSound(_ account: Account) -> Bool {
        [Phase.tight, Phase.loose, Phase.looseLocked, Phase.frozen].contains(account.phase)
            && creditRange.contains(account.credit)
    }

    /// Closes all gates of a pool whose words are damaged, with nothing free that releases could bring back.
    fileprivate func close() {
        loanWord.store(Loan.none.rawValue)
        var attempts = Attempts()
        while attempts.areLeft(self) {
            let word = begin()
            if transact(word, free: -(1 << 22) - word.free, .cap, target: .none, amount: 0) { break }
        }
        // Gates that are open now are frozen, and settled as far as their words allow.
        for _ in 0..<3 where collect(begin()) {}
        markDamaged()
    }

    fileprivate func audit(_ expected: PoolSettings) -> Damage? {
        func damage(_ word: String, _ found: Int, _ expected: String) -> Damage {
            Damage(word: "\(word) of pool \(pool)", found: found, expected: expected)
        }
        let account = capAccount.account
        let cap = account.credit
        if cap != expected.cap { return damage("cap", cap, "\(expected.cap)") }
        if account.phase != 0 || account.bound != 0 { return damage("bound of the cap", Int(account.bound), "0, in phase 0") }
        let policy = self.policy.load()
        if policy != expected.policy.rawValue {
            return damage("policy", Int(truncatingIfNeeded: policy), "\(expected.policy.rawValue)")
        }
        let loan = Loan(rawValue: loanWord.load())
        let ordered = Loan(sessions: expected.borrowed, deadline: UInt64(max(0, expected.deadline)) / 1_000_000)
        if loan != ordered, loan != .none { return damage("borrowed sessions", loan.sessions, "\(ordered.sessions) or none") }
        let word = loadPool()
        if word.knownOperation == nil { return damage("operation", Int(word.high & 15), "0 to 13") }
        if word.free > cap { return damage("free sessions", word.free, "at most \(cap)") }
        return auditAccounts(damage) ?? auditSums(damage)
    }

    private func auditAccounts(_ damage: (String, Int, String) -> Damage) -> Damage? {
        var found: Damage?
        memory.forEachSlot { slot in
            let balance = balance(slot).account
            if balance.phase != 0, balance.phase != Account.live {
                found = damage("phase of process slot \(slot)", Int(balance.phase), "0 or \(Account.live)")
            }
            if !balanceRange.contains(balance.credit) {
                found = damage("credit of process slot \(slot)", balance.credit, "within \(balanceRange)")
            }
            forEachWriter(of: slot) { writer in
                let account = writer.account
                if !Self.isSound(account) {
                    found = damage(
                        "phase \(account.phase) and credit of writer \(writer.target.index), process slot \(slot)",
                        account.credit, "phase 0, 1, 2 or 4, and credit within \(Self.creditRange)")
                }
            }
        }
        return found
    }

    /// What must add up of one moment. In a pool that never stands still long enough this is left to the next audit.
    private func auditSums(_ damage: (String, Int, String) -> Damage) -> Damage? {
        for _ in 0..<Self.auditAttempts {
            let word = begin()
            let sums = Sums(self)
            let cap = self.cap
            guard loadPool().high == word.high else { continue }
            if word.free + sums.granted != cap {
                return damage("free and granted sessions", word.free + sums.granted, "the cap, \(cap)")
            }
            if word.loose != sums.loose { return damage("number of open gates", word.loose, "\(sums.loose)") }
            if sums.most > Limits.cap { return damage("spare sessions of a writer", sums.most, "at most \(Limits.cap)") }
            let surplus = Int(Int32(bitPattern: sums.spare)) - sums.granted
            return surplus > 0 ? damage("spare sessions beyond all that were granted", surplus, "0 or fewer") : nil
        }
        return nil
    }

    /// What balances and writers have.
    private struct Sums {
        /// All credit.
        var granted = 0
        /// Gates that are not tight.
        var loose = 0
        /// Spare sessions behind them, modulo 2^32, and the most that one of them has.
        ///
        /// Writers count on meanwhile, and a session may begin on one and end on another: all releases are read before all
        /// admissions, so that no session is taken for a spare one that is none.
        var spare: UInt32 = 0
        var most = 0

        init(_ engine: PoolEngine) {
            engine.memory.forEachSlot { slot in
                engine.forEachWriter(of: slot) { writer in
                    if writer.gate.load() & 7 != Phase.tight { spare &+= UInt32(truncatingIfNeeded: writer.released.load()) }
                }
            }
            engine.memory.forEachSlot { slot in
                granted &+= engine.balance(slot).account.credit
                engine.forEachWriter(of: slot) { writer in
                    let account = writer.account
                    granted &+= account.credit
                    if account.phase == Phase.tight { return }
                    loose += 1
                    most = max(most, writer.spare(account))
                    spare &+= account.bound &- UInt32(truncatingIfNeeded: writer.admitted.load())
                }
            }
        }
    }

    private static let auditAttempts = 200
}
