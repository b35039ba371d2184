// World+Faults: what goes wrong. All of it comes right again, so that a world lives through many of them.

import SeatSharing

extension World {
    func fault() {
        let node = nodes[Int.random(in: 0..<nodes.count, using: &random)]
        switch Int.random(in: 0..<20, using: &random) {
        case 0...4: partition(node)
        case 5: leaderLoss()
        case 6...8: pause(node)
        case 9...11: crash(node)
        case 12, 13: node.clock.setRate(rate(), at: real)
        case 14: if stopsClocks { stopClock(node) }
        case 15: reconfigure(node)
        case 16: relicense(node)
        case 17: vandalize(node)
        case 18: if chance(options.usurpers) { usurp(node) }
        default: failOver(node)
        }
        if isHostile, chance(0.5) { forge() }
        at(milliseconds(200...6000)) { self.fault() }
    }

    private func partition(_ node: Node) {
        guard !node.isPartitioned else { return }
        note("\(node.serial) is cut off")
        node.isPartitioned = true
        if chance(options.usurpers / 4) { at(milliseconds(100...1000)) { self.usurp(node) } }
        at(milliseconds(100...25_000)) {
            node.isPartitioned = false
            self.note("\(node.serial) is back")
        }
    }

    private func leaderLoss() {
        hasLeader = false
        at(milliseconds(500...9000)) { self.hasLeader = true }
    }

    /// SIGSTOP of the daemon, or a suspended machine: the clock goes on, what arrives waits. Workers go on within the
    /// deadlines.
    private func pause(_ node: Node) {
        guard !node.isPaused, !node.clock.isStopped else { return }
        note("\(node.serial) pauses")
        node.isPaused = true
        at(milliseconds(100...20_000)) {
            guard !node.clock.isStopped else { return }
            self.resume(node)
        }
    }

    private func resume(_ node: Node) {
        note("\(node.serial) resumes")
        node.isPaused = false
        let inbox = node.inbox
        node.inbox = []
        for (life, inbound) in inbox { deliver(node, life, inbound) }
    }

    /// A hypervisor's pause: the guest stops, and its clock as well.
    private func stopClock(_ node: Node) {
        guard !node.isPaused, !node.clock.isStopped else { return }
        note("\(node.serial)'s clock stops")
        node.isPaused = true
        node.clock.stop(at: real)
        node.missedSince = .max
        at(2 * term + milliseconds(1000...20_000)) {
            node.clock.go(at: self.real)
            node.missedSince = self.store.revision
            self.resume(node)
        }
    }

    private func crash(_ node: Node) {
        guard let unit = node.unit, !node.clock.isStopped, !node.isUsurped else { return }
        let isHost = chance(0.4)
        note("\(node.serial) \(isHost ? "host" : "daemon") crashes")
        node.unit = nil
        node.life += 1
        node.inbox = []
        node.isPaused = false
        node.wakeAt = .max
        if isHost {
            node.missedSince = nil
            let left = node.entitlement.until == .forever ? nil : node.entitlement.until - node.clock.reading(real)
            node.remains = nil
            node.used = .zero
            node.engineCap = .zero
            node.most = .zero
            node.clock = Clock(at: real, reading: milliseconds(1...20_000), rate: rate())
            if let left { node.entitlement.until = node.clock.reading(real) + left }
            node.copy = nil
            if chance(0.1) { node.record = nil }
            // A backup, or a snapshot of the disk.
            if !isHostile, chance(0.3), let old = node.former.randomElement(using: &random) { node.record = old }
        } else {
            node.remains = unit
            if !isHostile, chance(0.1), let old = node.former.randomElement(using: &random) { node.record = old }
        }
        at(milliseconds(10...8000)) { self.start(node) }
    }

    private func reconfigure(_ node: Node) {
        if node.configuration.role == .root { node.configuration.preferences = preferences() }
        let configuration = node.configuration
        deliver(node, node.life, .event(.configure(configuration)))
    }

    /// A daemon that does not run learns it when it does.
    private func relicense(_ node: Node) {
        guard node.unit != nil, !node.isPaused else { return }
        let before = node.entitlement
        let now = node.clock.reading(real)
        node.entitlement = entitlement(node.clock)
        if chance(0.5) { node.entitlement.purchased = before.purchased.raised(to: node.entitlement.purchased) }
        note("\(node.serial) has \(node.entitlement)")
        // Without notice: what was lent of it runs out.
        let lost = now < before.until ? (before.purchased - node.entitlement.purchased).raised(to: .zero) : .zero
        let sooner = node.entitlement.until < before.until && now < before.until ? before.purchased : .zero
        let taken = lost.raised(to: sooner)
        if taken != .zero {
            let long: Nanoseconds = policy == .byTime ? term + term / 20 + .second : .max / 2
            node.withdrawn = ((node.withdrawn?.seats ?? .zero) + taken, real + long)
        }
        deliver(node, node.life, .event(.entitle(node.entitlement)))
    }

    /// What anybody who can write to etcd may do to others' keys.
    private func vandalize(_ node: Node) {
        let key = Row.key(cluster: "LIC1", serial: node.serial)
        guard let value = store.keys[key]?.value else { return }
        let text = String(decoding: value.bytes, as: UTF8.self)
        func put(_ key: String, _ bytes: [UInt8]) { store.put(key, Signed(bytes: bytes)) }
        switch Int.random(in: 0..<7, using: &random) {
        case 0: store.put("pool/LIC1/m/", value)
        case 1: store.put("pool/LIC1/m/FPX9", value)
        case 2: put(key, Array(value.bytes.prefix(Int.random(in: 0...value.bytes.count, using: &random))))
        case 3: put("pool/LIC1/m/FPX8", Array(text.replacing("\"version\":3", with: "\"version\":2").utf8))
        case 4: put("pool/LIC1/m/FPX7", Array(text.replacing("LIC1", with: "LIC2").utf8))
        case 5: put("pool/LIC1/m/FPX6/x", [0xFF, 0])
        default: store.delete(key)
        }
        announce()
    }

    /// A copy of the unit is started elsewhere and takes the row over.
    private func usurp(_ node: Node) {
        let key = Row.key(cluster: "LIC1", serial: node.serial)
        guard nodes.allSatisfy({ $0.usurper == nil }), let unit = node.unit, unit.isEstablished, let value = store.keys[key],
            var row = try? Row(key: key, value: value.value.bytes, cluster: "LIC1", mode: mode),
            row.incarnation == unit.incarnation
        else { return }
        row.incarnation = Incarnation.new(unixMilliseconds: 0, random: random.next(), after: row.incarnation)
        row.sequence = 1
        // It carries what it finds, as any process does.
        if policy == .byTime { row.grants = [] }
        row.holdings = []
        store.put(key, sign(row, node))
        node.usurper = (row.incarnation, node.life)
        announce()
    }

    private func failOver(_ node: Node) {
        guard mode.isHA, node.configuration.role == .secondary else { return }
        note("fail-over to \(node.serial)")
        for other in nodes { change(other, to: other === node ? .primary : .secondary) }
    }

    private func change(_ node: Node, to role: Role) {
        node.configuration.role = role
        deliver(node, node.life, .event(.configure(node.configuration)))
    }
}
