// The keeper: the one attachment whose sessions outlive its process.
//
// A daemon holds sessions for proxies that do not attach themselves. When it dies those sessions go on, so they must stay
// counted, and its successor must be able to end them. The keeper's slot is therefore never reaped. Who attaches as keeper
// takes over the slot as its predecessor left it, under the same lock that tells living from dead: the handles in use are the
// truth of what it holds, and whatever else the slot's writers and balance contain (a session whose handle was not made yet, a
// release that freed its handle first, spare sessions) goes back.
//
// While no keeper lives, collectors still take the slot's spare sessions, and any process may release its handles. A crash in
// the middle of taking over changes nothing: the next one begins anew.

import CAdmission

extension Segment {
    /// Attaches this process as the segment's keeper, with the sessions of the last one (`handlesInUse`).
    ///
    /// - Parameter file: where the segment's file is, if it does not have its name yet, or not any more: a path under /proc of
    ///   a process that has it open will do.
    /// - Throws: `keeper` while another keeper lives; else as `attach`.
    public static func attachKeeper(path: String, file: String? = nil) throws(SegmentError) -> Segment {
        guard let file else { return try attach(path: path, asKeeper: true) }
        fpx_fork_hold()
        defer { fpx_fork_resume() }
        var descriptor: Int32 = -1
        try check(unsafe fpx_file_open_other(file, &descriptor), "open", file)
        defer { fpx_file_close(descriptor) }
        return try attach(descriptor, path: path, asKeeper: true)
    }

    static func takeKeeperSlot(
        _ descriptor: Int32, _ memory: SegmentMemory, _ path: String
    ) throws(SegmentError) -> Int {
        let slot = Layout.keeperSlot
        if fpx_file_lock_byte(descriptor, lockBase + Int64(slot)) != 0 {
            let holder = memory.process(slot, Layout.processIdentity).load()
            throw .keeper(path: path, processID: Int(truncatingIfNeeded: holder))
        }
        return slot
    }

    /// Makes the slot hold what its handles in use say, and nothing else.
    func takeOver() {
        for engine in engines where engine.balance(slot).account.phase != Account.live {
            engine.enter(incarnation: incarnation)
        }
        Reaper(memory: memory, engines: engines, file: file).finishForeignReleases()
        for engine in engines {
            var attempts = Attempts()
            while engine.giveBackUnnamed(), attempts.areLeft(engine) {}
        }
    }
}

extension PoolEngine {
    /// Counts the handles of this process and gives back the sessions that none of them names. False: there were none.
    ///
    /// Others may release handles meanwhile: the operation that frees an entry takes its session off the balance. It was
    /// published when the entry is found free, and is done when the balance is read (after `begin`). So an entry counted here
    /// may be one too many, never one too few.
    func giveBackUnnamed() -> Bool {
        var named = 0
        var bypassed = 0
        memory.forEachHandle(of: slot) { _, entry in
            let now = entry.load()
            guard Entry.state(now) != Entry.free, Entry.pool(now) == pool else { return }
            if Entry.isBypassed(now) { bypassed += 1 } else { named += 1 }
        }
        resetBypassed(to: bypassed)
        gather(slot: slot) { true }
        _ = begin()
        let unnamed = balance(slot).account.credit - named
        guard unnamed > 0 else { return false }
        if unnamed > Limits.cap { markDamaged() }
        if memory.isDamaged { return false }
        let count = min(unnamed, Limits.cap - Limits.handles)
        var attempts = Attempts()
        while attempts.areLeft(self),
            !transact(
                begin(), free: count, .releaseHandle, target: .balance(slot), amount: Limits.handles - 1 + count)
        {}
        return true
    }

    private func resetBypassed(to count: Int) {
        var sum: UInt64 = 0
        forEachWriter(of: slot) { sum &+= $0.bypassed.load() }
        let excess = sum &- UInt64(count)
        if excess == 0 { return }
        markUsed(lockedShard)
        lockedShard.bypassed.add(0 &- excess)
    }
}
