// Pool: the sessions of one licence type, for any thread.

public import CAdmission

/// What to do with a new session.
public enum Verdict: UInt8, Sendable {
    /// Licensed and counted.
    case inspect = 0
    /// Over the limit: passes uninspected.
    case bypass = 1
    /// Over the limit: refused.
    case block = 2
}

/// Which verdict a new session gets when every licensed session is in use.
public enum OverLimitPolicy: UInt64, Sendable {
    case bypass = 0
    case block = 1
}

/// One session's verdict, and its place in the count until it ends.
///
/// It ends once: by `end()`, by a lane's `release`, or when the value goes out of scope. It may move to any thread.
@safe @frozen
public struct Session: ~Copyable {
    public let verdict: Verdict
    @usableFromInline let engine: PoolEngine

    @inlinable @inline(__always)
    init(_ verdict: Verdict, _ engine: PoolEngine) {
        self.verdict = verdict
        self.engine = engine
    }

    @inlinable
    deinit { engine.release(verdict) }

    /// Ends the session on the shard of the CPU that runs this thread.
    @inlinable @inline(__always)
    public consuming func end() {
        let engine = self.engine
        engine.release(detach())
    }

    /// Takes the session out of Swift's care: it goes on, and whoever keeps the verdict gives it to a `release` of the same
    /// pool, once and unchecked. For proxies that keep their sessions in memory of their own.
    @inlinable @inline(__always)
    public consuming func detach() -> Verdict {
        let verdict = self.verdict
        discard self
        return verdict
    }
}

/// The sessions of one licence type. Any thread may use it at any time.
@safe
public struct Pool: @unchecked Sendable {
    @usableFromInline let engine: PoolEngine

    /// A verdict for a new session, counted on the shard of the CPU that runs this thread.
    ///
    /// Wait-free while the shard has spare sessions: no locked instruction, fence, shared line or call. At a full cap: a few
    /// loads.
    @inlinable @inline(__always)
    public func admit() -> Session { Session(engine.admit(), engine) }

    /// Ends a detached session of this pool.
    @inlinable @inline(__always)
    public func release(_ verdict: Verdict) { engine.release(verdict) }
}

extension PoolEngine {
    @inlinable @inline(__always)
    package func admit() -> Verdict {
        var writer: UnsafeMutablePointer<fpx_writer>?
        let step = unsafe fpx_shard_admit(shards, rseqCPUs, &writer)
        if step == FPX_STEP_DONE { return .inspect }
        return unsafe admitOffFastPath(step == FPX_STEP_CHANGED ? writer : nil)
    }

    @inlinable @inline(__always)
    package func release(_ verdict: Verdict) {
        if verdict == .inspect {
            var writer: UnsafeMutablePointer<fpx_writer>?
            let step = unsafe fpx_shard_release(shards, rseqCPUs, &writer)
            if step == FPX_STEP_DONE { return }
            unsafe releaseOffFastPath(step == FPX_STEP_CHANGED ? writer : nil)
        } else if verdict == .bypass {
            releaseBypassed()
        }
    }

    /// `claimed`: where the fast path has stored a claim and then found the gate changed.
    @usableFromInline @inline(never)
    func admitOffFastPath(_ claimed: UnsafeMutablePointer<fpx_writer>?) -> Verdict {
        let cpu = UInt64(UInt32(bitPattern: fpx_current_cpu()))
        if unsafe claimed == nil, cpu < rseqCPUs {
            let shard = unsafe UnsafeMutableRawPointer(shards + Int(cpu) << Int(FPX_CPU_STRIDE_SHIFT))
            if unsafe blocks(shard.assumingMemoryBound(to: fpx_writer.self)) { return .block }
        }
        return unsafe admitByPool(claimed)
    }

    @inline(never)
    private func admitByPool(_ claimed: UnsafeMutablePointer<fpx_writer>?) -> Verdict {
        admitSlowly(unsafe claimed.map { .changed(unsafe shard($0)) } ?? .closed, by: currentWriter) {
            var writer: UnsafeMutablePointer<fpx_writer>?
            let step = unsafe fpx_shard_admit(shards, rseqCPUs, &writer)
            return unsafe Attempt(step, writer.map { unsafe shard($0) })
        }
    }

    @usableFromInline @inline(never)
    func releaseOffFastPath(_ released: UnsafeMutablePointer<fpx_writer>?) {
        releaseSlowly(unsafe released.map { .changed(unsafe shard($0)) } ?? .closed, by: currentWriter) {
            var writer: UnsafeMutablePointer<fpx_writer>?
            let step = unsafe fpx_shard_release(shards, rseqCPUs, &writer)
            return unsafe Attempt(step, writer.map { unsafe shard($0) })
        }
    }

    package var isAttached: Bool { memory.isAttached }

    package var isCurrent: Bool { memory.isAttached && memory.takesSessions }

    /// The writer for this thread now: its CPU's shard, with locked stores where restartable sequences are not to be had.
    func currentWriter() -> Writer {
        let cpu = Int(fpx_current_cpu())
        if (0..<cpus).contains(cpu), let shard = writer(slot: slot, index: cpu, kind: rseqCPUs > 0 ? .shard : .locked),
            rseqCPUs > 0 || !fpx_rseq_is_registered() || !plain
        {
            return shard
        }
        return lockedShard
    }

    /// For threads on CPUs without a shard, or that are not registered for restartable sequences while others are.
    var lockedShard: Writer {
        guard let writer = writer(slot: slot, index: Self.lockedIndex, kind: .locked) else { preconditionFailure() }
        return writer
    }

    private func shard(_ memory: UnsafeMutablePointer<fpx_writer>) -> Writer {
        let distance = unsafe UnsafeMutableRawPointer(memory) - (base + Layout.shards)
        let target = Target(slot: slot, index: distance >> Int(FPX_CPU_STRIDE_SHIFT))
        return unsafe Writer(memory: memory, target: target, kind: .shard)
    }
}

// MARK: - Over the limit

extension PoolEngine {
    /// What a flood of refusals meets: at a full cap, under the policy `block`, a few loads and a count on the writer's own
    /// line.
    @inline(__always)
    func blocks(_ memory: UnsafeMutablePointer<fpx_writer>) -> Bool {
        guard isFull, policy.load() == OverLimitPolicy.block.rawValue, unsafe Word(memory, at: Layout.writerPair).load() != 0
        else { return false }
        let refused = unsafe Word(memory, at: Layout.writerRefused)
        refused.store(refused.load() &+ 1)
        return true
    }

    /// The verdict for a session that no licensed one is left for.
    func overLimit(_ writer: Writer) -> Verdict {
        markUsed(writer)
        writer.refused.store(writer.refused.load() &+ 1)
        if policy.load() == OverLimitPolicy.block.rawValue { return .block }
        bypass(writer)
        return .bypass
    }

    private func bypass(_ writer: Writer) {
        let gauge: UInt64
        if writer.kind == .lane {
            gauge = writer.bypassed.load() &+ 1
            writer.bypassed.store(gauge)
        } else {
            gauge = writer.bypassed.add(1) &+ 1
        }
        // The peak is looked at each time that a writer's own gauge has grown by another 16 (and at each snapshot).
        if Int64(bitPattern: gauge) > Int64(bitPattern: writer.bypassedPeak.load()) {
            writer.bypassedPeak.store(gauge &+ 15)
            observeBypassed()
        }
    }

    @usableFromInline @inline(never)
    func releaseBypassed() {
        let writer = currentWriter()
        markUsed(writer)
        writer.bypassed.add(UInt64.max)
    }

    /// Sessions that pass uninspected now, over all living processes; raises the peak.
    @discardableResult
    func observeBypassed() -> Int {
        var sum: UInt64 = 0
        memory.forEachSlot { slot in
            guard balance(slot).account.phase == Account.live else { return }
            forEachWriter(of: slot) { sum &+= $0.bypassed.load() }
        }
        let gauge = max(0, Self.gauge(sum))
        bypassPeak.raise(to: UInt64(gauge))
        return gauge
    }
}

// MARK: - Settings

extension Segment {
    /// A pool by its number, 0 to 15.
    public func pool(_ index: Int) throws(SegmentError) -> Pool {
        guard (0..<Limits.pools).contains(index) else {
            throw .range(what: "pool", found: index, allowed: 0...(Limits.pools - 1))
        }
        return Pool(engine: engines[index])
    }
}

extension Pool {
    /// How many licensed sessions may be in use now: those for good, and those until a deadline that is not past.
    public var cap: Int { engine.enforcedCap }

    /// Changes the cap at once. Sessions in progress go on; a cap below use admits nobody until use has fallen under it.
    /// For one thread of the keeper at a time.
    ///
    /// - Parameters:
    ///   - cap: sessions that may be in use for good, 0 to `Limits.cap`.
    ///   - borrowed: sessions that may be in use besides until a deadline, 0 to `Limits.cap` less `cap`. They end in time
    ///     whatever becomes of the caller: who admits looks at the clock after it has counted its session.
    ///   - deadline: nanoseconds of CLOCK_BOOTTIME, in the time namespace of all processes that admit; cut to milliseconds.
    public func setCap(_ cap: Int, borrowed: Int = 0, until deadline: Int64 = 0) throws(SegmentError) {
        guard (0...Limits.cap).contains(cap) else {
            throw .range(what: "cap", found: cap, allowed: 0...Limits.cap)
        }
        guard (0...Limits.cap - cap).contains(borrowed) else {
            throw .range(what: "borrowed", found: borrowed, allowed: 0...(Limits.cap - cap))
        }
        guard engine.isAttached else { throw .detached }
        engine.setCap(cap, loan: Loan(sessions: borrowed, deadline: UInt64(max(0, deadline)) / 1_000_000))
    }

    /// Licensed sessions that are in use, or spare with a writer, of which nobody knows how many are: never fewer than are in
    /// use.
    public var taken: Int { engine.taken }

    /// The verdict of new sessions when no licensed one is left; a change holds for the next session.
    public var policy: OverLimitPolicy {
        get { OverLimitPolicy(rawValue: engine.policy.load()) ?? .bypass }
        nonmutating set { engine.policy.store(newValue.rawValue) }
    }
}
