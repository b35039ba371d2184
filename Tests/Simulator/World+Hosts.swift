// World+Hosts: what daemons do with their effects, what the network does with what they send, and sessions.

import SeatSharing

extension World {
    func start(_ node: Node) {
        guard node.unit == nil, !node.isUsurped else { return }
        node.life += 1
        node.reader = PoolReader(
            cluster: node.configuration.cluster, mode: mode, term: term, sessionsPerSeat: node.sessionsPerSeat,
            mutations: options.mutations)
        node.drains = [:]
        node.unit = Unit(
            node.configuration, entitlement: node.entitlement, incarnation: incarnation(node), former: node.known,
            now: node.clock.reading(real), unixTime: 0, mutations: options.mutations)
        note("\(node.serial) starts")
        deliver(node, node.life, .event(.tick(unixTime: 0)))
        node.remains = nil
        node.missedSince = nil
        tick(node, node.life)
    }

    /// By the wall clock, which may have been set back since the last process began.
    private func incarnation(_ node: Node) -> UInt64 {
        let wall = 1_765_000_000_000 + Int(real / .millisecond) - (chance(0.1) ? 60_000 : 0)
        return Incarnation.new(unixMilliseconds: wall, random: random.next(), after: node.record?.id ?? 0)
    }

    /// What the reader of a node makes of what lies in etcd.
    private func values(_ stored: [Stored], _ node: Node) -> [KeyValue] {
        let now = node.clock.reading(real)
        return stored.map { stored in
            let proof: Result<Proof, SharingError>
            if let licence = stored.value.licence {
                proof = .success(
                    Proof(
                        serial: licence.serial, purchased: licence.purchased, modelMax: licence.modelMax,
                        sessionsPerSeat: licence.sessionsPerSeat,
                        until: licence.end == .max ? .forever : now + (licence.end - real)))
            } else {
                proof = .failure(.unproven(key: stored.key, reason: "found no signature, expected one of a licence's key"))
            }
            return KeyValue(key: stored.key, value: stored.value.bytes, revision: stored.revision, proof: proof)
        }
    }

    private func tick(_ node: Node, _ life: Int) {
        guard node.life == life, node.unit != nil else { return }
        // A wall clock is set now and then; it is for people only.
        deliver(
            node, life,
            .event(.tick(unixTime: chance(0.05) ? Int.random(in: 0...2_000_000_000, using: &random) : 1_765_000_000)))
        at(milliseconds(150...400)) { self.tick(node, life) }
    }

    /// Hands over to a unit; to a stopped one later.
    func deliver(_ node: Node, _ life: Int, _ inbound: Inbound) {
        guard node.life == life, node.unit != nil else { return }
        guard !node.isPaused else {
            if node.inbox.count < 1000 { node.inbox.append((life, inbound)) }
            return
        }
        let now = node.clock.reading(real)
        let event: Event
        switch inbound {
        case .event(let given): event = given
        case .answer(let revision, let values):
            do throws(SharingError) {
                let pool = try node.reader.read(self.values(values, node), revision: revision, now: now)
                checkLedger(pool, node.serial)
                event = .pool(pool)
            } catch {
                return
            }
        }
        guard let effects = node.unit?.step(event, now: now) else { return }
        for effect in effects { perform(effect, node) }
        if case .pool(let pool) = event { sawPool(node, pool) }
        wake(node)
    }

    /// Timers fire when they are due, or later; here never later, so that nothing hides behind slack.
    private func wake(_ node: Node) {
        guard let wake = node.unit?.wake, wake != .forever, !node.clock.isStopped else { return }
        let due = max(real + 1, node.clock.real(wake))
        guard due < node.wakeAt || node.wakeAt <= real else { return }
        node.wakeAt = due
        let life = node.life
        queue.add(due) {
            guard node.life == life, node.wakeAt == self.real else { return }
            node.wakeAt = .max
            self.deliver(node, life, .event(.tick(unixTime: 1_765_000_000)))
        }
    }

    private func sawPool(_ node: Node, _ pool: Pool) {
        if let usurper = node.usurper, usurper.life == node.life, !node.isUsurped,
            pool.row(node.serial)?.incarnation == usurper.incarnation
        {
            node.isUsurped = true
            note("\(node.serial) is usurped")
        }
        if let since = node.missedSince, !node.clock.isStopped, pool.revision > since {
            // An owner that has restarted meanwhile cannot tell; then the loan runs out.
            let lenders = node.unit?.lenders ?? [:]
            if lenders.allSatisfy({ (pool.revisions[$0] ?? 0) > since && pool.row($0)?.incarnation == $1 }) {
                node.missedSince = nil
            }
        }
    }

    private func perform(_ effect: Effect, _ node: Node) {
        switch effect {
        case .setCap(let type, let cap):
            node.drains[type] = nil
            node.engineCap[type] = cap
            node.most[type] = cap
        case .drain(let type, let to, let number):
            node.engineCap[type] = to
            // What is spare goes at once; sessions end when they end.
            let before = node.drains[type]
            node.drains[type] = (to, number)
            if let before, chance(0.3) {
                // The completion of an older shrink comes late.
                let life = node.life
                at(milliseconds(1...300)) {
                    self.deliver(node, life, .event(.drained(type, number: before.number, to: before.to)))
                }
            }
            drain(node, type)
        case .write(let row, let revision):
            note(
                "\(node.serial) writes \(row.sequence): own \(row.own), holds \(row.holdings.map { "\($0.lender) \($0.seats)" }), "
                    + "grants \(row.grants.map { "\($0.borrower) \($0.number) \($0.seats)" })")
            send(node, row, revision)
        case .read:
            let life = node.life
            guard reaches(node) else { return }
            at(delay()) {
                guard self.hasLeader, self.reaches(node) else { return }
                self.answer(
                    node, life, self.chance(0.3) ? self.store.old(Int.random(in: 0...8, using: &self.random)) : self.store.now)
            }
        case .remember(let record):
            let life = node.life
            // What was on its way to the disk when the host died is there or not.
            let isFast = chance(0.5)
            if isFast { node.put(record) }
            // Disks stall.
            at(chance(0.3) ? milliseconds(500...8000) : milliseconds(1...200)) {
                guard node.life == life, node.unit != nil else { return }
                if !isFast { node.put(record) }
                self.deliver(node, life, .event(.remembered(record)))
            }
        case .notice(let notice):
            note("\(node.serial): \(notice)")
            node.notices.append(notice)
        }
    }

    // MARK: network

    private func reaches(_ node: Node) -> Bool { !node.isPartitioned && !chance(0.02) }
    private func delay() -> Nanoseconds { chance(0.05) ? milliseconds(100...4000) : milliseconds(1...20) }

    private func send(_ node: Node, _ row: Row, _ revision: Int) {
        let life = node.life
        let deadline = real + 1_200 * .millisecond
        // The client gives up; the request may still take effect, and the answer may still come.
        queue.add(deadline) { self.deliver(node, life, .event(.written(sequence: row.sequence, .unknown))) }
        guard reaches(node) else { return }
        let value = sign(row, node)
        at(delay()) { self.arrive(node, life, row, value, revision) }
        if chance(0.02) { at(delay()) { self.arrive(node, life, row, value, revision) } }
    }

    func sign(_ row: Row, _ node: Node) -> Signed {
        Signed(
            bytes: row.encoded,
            licence: Licence(
                serial: node.serial, purchased: node.entitlement.purchased, modelMax: node.entitlement.modelMax,
                sessionsPerSeat: node.sessionsPerSeat))
    }

    private func arrive(_ node: Node, _ life: Int, _ row: Row, _ value: Signed, _ revision: Int) {
        guard hasLeader else {
            // Proposed to a leader that is gone: lost, or done later.
            if chance(0.5) { at(milliseconds(500...3000)) { self.arrive(node, life, row, value, revision) } }
            return
        }
        let key = Row.key(cluster: row.cluster, serial: row.serial)
        let accepted = store.put(key, value, ifRevision: revision)
        if accepted {
            remember(key, value)
            announce()
        }
        guard reaches(node) else { return }
        let outcome: WriteOutcome = accepted ? .accepted(revision: store.revision) : .refused
        let state = store.now
        for _ in 0..<(chance(0.03) ? 2 : 1) {
            at(delay()) {
                self.deliver(node, life, .event(.written(sequence: row.sequence, outcome)))
                self.answer(node, life, state)
            }
        }
    }

    private func answer(_ node: Node, _ life: Int, _ state: (revision: Int, values: [Stored])) {
        guard !node.isPartitioned else { return }
        deliver(node, life, .answer(revision: state.revision, values: state.values))
    }

    /// A watch shortens the wait for those whom it reaches.
    func announce() {
        for node in nodes where !node.watchIsPending && node.unit != nil && !node.isPartitioned {
            node.watchIsPending = true
            let life = node.life
            at(delay()) {
                node.watchIsPending = false
                if self.hasLeader, self.reaches(node) { self.answer(node, life, self.store.now) }
            }
        }
    }

    // MARK: sessions

    func liveSessions() {
        for node in nodes {
            if chance(0.1) { node.wish = seats([0, 0, 2, 5, 15, 40, 90]) }
            guard node.unit != nil || node.remains != nil else {
                node.used = .zero
                continue
            }
            let caps = node.cap(real)
            for type in SeatType.allCases {
                let cap = caps[type]
                if node.used[type] < node.wish[type] {
                    node.used[type] = max(node.used[type], min(node.wish[type], cap))
                } else if chance(0.5) {
                    node.used[type] -= (node.used[type] - node.wish[type] + 1) / 2
                }
                drain(node, type)
            }
            let life = node.life
            deliver(node, life, .event(.use(used: node.used, demand: Unit.demand(used: node.used.raised(to: node.wish)))))
        }
        at(milliseconds(300...700)) { self.liveSessions() }
    }

    /// Says how far a shrink has come.
    private func drain(_ node: Node, _ type: SeatType) {
        guard let drain = node.drains[type], node.unit != nil else { return }
        let (life, level) = (node.life, max(drain.to, node.used[type]))
        node.most[type] = min(node.most[type], level)
        if level == drain.to { node.drains[type] = nil }
        at(chance(0.2) ? milliseconds(10...500) : 1) {
            self.deliver(node, life, .event(.drained(type, number: drain.number, to: level)))
        }
    }
}
