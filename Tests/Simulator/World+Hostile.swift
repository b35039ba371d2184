// World+Hostile: who can write to etcd, and wants more seats than are bought.

import SeatSharing

extension World {
    /// A unit with a genuine licence and key, whose program was changed: its row gives more, or for longer, than the licence does.
    struct Traitor {
        static let serial = "FPX7"
        let licence: Licence
        /// What its row says that it has bought, and what it grants to its one accomplice.
        let purchased: Seats
        let granted: Seats
        let accomplice: String
        let incarnation: UInt64
        var sequence = 0
    }

    /// Keeps some of what each unit has written, of all its processes.
    func remember(_ key: String, _ value: Signed) {
        guard isHostile else { return }
        if past[key, default: []].count >= 100 { past[key]?.remove(at: Int.random(in: 0..<100, using: &random)) }
        past[key, default: []].append(value)
    }

    /// What the traitor gives by its licence, while that lasts; clocks of those who read differ a little.
    var boughtByTraitor: Seats {
        guard let traitor, traitor.licence.end != .max, real < traitor.licence.end + .second else { return .zero }
        return traitor.granted
    }

    func forge() {
        switch Int.random(in: 0..<8, using: &random) {
        case 0, 1: invent()
        case 2: tamper()
        case 3: mix()
        case 4: betray()
        default: replay()
        }
        announce()
    }

    private var anyNode: Node { nodes[Int.random(in: 0..<nodes.count, using: &random)] }

    /// The row that a unit has in etcd.
    private func row(of node: Node) -> Row? {
        let key = Row.key(cluster: "LIC1", serial: node.serial)
        return store.keys[key].flatMap { try? Row(key: key, value: $0.value.bytes, cluster: "LIC1", mode: mode) }
    }

    private func invented(_ serial: String, for node: Node, _ incarnation: UInt64, purchased: Seats, granted: Seats) -> Row? {
        guard var row = row(of: node) else { return nil }
        let grant = Grant(
            borrower: node.serial, incarnation: row.incarnation, number: row.sequence, seats: granted,
            keep: 31_536_000 * .second)
        (row.serial, row.role, row.preferences) = (serial, mode.isHA ? .secondary : .member, nil)
        (row.incarnation, row.isEntitled, row.modelMax, row.demand) = (incarnation, true, Seats(500), .zero)
        (row.purchased, row.own, row.grants, row.holdings) = (purchased, .zero, [grant], [])
        return row
    }

    /// A member that nobody has bought, or of whom he has no key, lends for a year.
    private func invent() {
        let node = anyNode
        guard let row = invented("FPX9", for: node, random.next() | 1, purchased: Seats(50), granted: Seats(50)) else { return }
        note("FPX9 is invented and lends to \(node.serial)")
        store.put(Row.key(cluster: "LIC1", serial: row.serial), Signed(bytes: row.encoded))
    }

    /// A genuine row in which he changes what it grants or holds.
    private func tamper() {
        let (lender, borrower) = (anyNode, anyNode)
        guard var row = row(of: lender), let other = self.row(of: borrower) else { return }
        row.sequence += 1
        row.grants = [
            Grant(
                borrower: borrower.serial, incarnation: other.incarnation, number: other.sequence, seats: row.purchased,
                keep: .forever)
        ]
        row.holdings = row.holdings.map { Holding(lender: $0.lender, through: $0.through + 100, seats: .zero) }
        note("\(lender.serial)'s row is changed")
        store.put(Row.key(cluster: "LIC1", serial: lender.serial), Signed(bytes: row.encoded))
    }

    /// Genuine rows of other units and other pools.
    private func mix() {
        guard let value = past[Row.key(cluster: "LIC1", serial: anyNode.serial)]?.randomElement(using: &random) else { return }
        let key = Row.key(cluster: "LIC1", serial: chance(0.5) ? anyNode.serial : "FPX9")
        if chance(0.5) { return store.put(key, value) }
        // The same unit was in another pool.
        let text = String(decoding: value.bytes, as: UTF8.self).replacing("LIC1", with: "LIC2")
        store.put(key, Signed(bytes: Array(text.utf8), licence: value.licence))
    }

    /// What a unit has written before, in its own place, or after it has gone.
    private func replay() {
        let node = anyNode
        let key = Row.key(cluster: "LIC1", serial: node.serial)
        guard let value = past[key]?.randomElement(using: &random) else { return }
        note("an old row of \(node.serial) is put back")
        store.put(key, value)
        // Again and again, so that the genuine one is seldom seen.
        if chance(0.3) {
            for turn in 1...8 {
                at(Nanoseconds(turn) * 200 * .millisecond) {
                    self.store.put(key, value)
                    self.announce()
                }
            }
        }
    }

    /// The one traitor of this world begins.
    private func betray() {
        guard traitor == nil else { return }
        var licence = Licence(serial: Traitor.serial, purchased: Seats(20), modelMax: Seats(500), sessionsPerSeat: 10)
        var (purchased, granted) = (Seats(20), Seats(20))
        switch Int.random(in: 0..<5, using: &random) {
        case 0: (purchased, granted) = (Seats(50), Seats(50))
        case 1: granted = Seats(50)
        case 2: licence.end = real - 2 * .second
        case 3: licence.end = real + milliseconds(2000...20_000)
        default: licence.sessionsPerSeat = 1
        }
        traitor = Traitor(
            licence: licence, purchased: purchased, granted: granted, accomplice: anyNode.serial, incarnation: random.next() | 1
        )
        note("\(Traitor.serial) has a licence, and gives \(granted) to \(traitor?.accomplice ?? "")")
        lie()
    }

    private func lie() {
        guard let traitor, let node = nodes.first(where: { $0.serial == traitor.accomplice }) else { return }
        self.traitor?.sequence += 1
        if var row = invented(
            Traitor.serial, for: node, traitor.incarnation, purchased: traitor.purchased, granted: traitor.granted)
        {
            row.sequence = traitor.sequence + 1
            store.put(Row.key(cluster: "LIC1", serial: Traitor.serial), Signed(bytes: row.encoded, licence: traitor.licence))
            announce()
        }
        at(milliseconds(200...600)) { self.lie() }
    }
}
