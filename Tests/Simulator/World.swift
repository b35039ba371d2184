// World: hosts, clocks, network and etcd of one seed. The same seed is the same world, event by event.

import SeatSharing
import TestSupport

/// What a world breaks.
struct Violation: Error, Equatable, CustomStringConvertible {
    let seed: UInt64
    let at: Nanoseconds
    let what: String

    var description: String { "seed \(seed), \(at / .millisecond) ms: \(what)" }
}

final class World {
    let seed: UInt64
    let options: Options
    var random: SeededGenerator
    var queue = Queue<() -> Void>()
    var real: Nanoseconds = 0
    var store = Store()
    /// Without a leader etcd answers nobody; what it was asked may take effect when there is one.
    var hasLeader = true
    var nodes: [Node] = []
    var mode = SharingMode.fabric
    var policy = Policy.byTime
    let term: Nanoseconds
    /// Somebody who can write to etcd does what he can. Else disks may be put back to an old state: against both together
    /// nothing helps.
    var isHostile = false
    /// Genuine values of before, by key.
    var past: [String: [Signed]] = [:]
    /// A unit with a licence that gives more than that says.
    var traitor: Traitor?
    /// Whether this world's hypervisor stops guests without their clocks.
    var stopsClocks = false
    private(set) var events = 0
    private(set) var violation: Violation?
    /// A running digest of all that happened: two runs of a seed must agree.
    private(set) var digest: UInt64 = 0xCBF2_9CE4_8422_2325
    private(set) var peakShared = 0

    struct Options {
        var seconds: Nanoseconds = 180
        var mutations: Mutations = []
        /// Nil: by the seed.
        var policy: Policy?
        var mode: SharingMode?
        /// Faults begin only after this; none if negative.
        var faultsFrom: Nanoseconds = 5
        /// How likely a copy of a unit is started, when it comes to that.
        var usurpers = 0.1
        var log: ((String) -> Void)?
    }

    init(seed: UInt64, options: Options = Options()) throws(SharingError) {
        self.seed = seed
        self.options = options
        random = SeededGenerator(seed: seed)
        term = Nanoseconds(Int.random(in: 3...8, using: &random)) * .second
        let policies: [Policy] = [.byTime, .byTime, .byTime, .acknowledgedOnly, .recovery(40 * .second)]
        let modes: [SharingMode] = [.fabric, .fabric, .fabric, .haBefore72, .ha72]
        policy = policies[Int.random(in: 0..<policies.count, using: &random)]
        mode = modes[Int.random(in: 0..<modes.count, using: &random)]
        stopsClocks = Int.random(in: 0..<4, using: &random) == 0
        isHostile = Int.random(in: 0..<2, using: &random) == 0
        if let policy = options.policy { self.policy = policy }
        if let mode = options.mode { self.mode = mode }
        let count = Int.random(in: 2...(mode.isHA ? 3 : 5), using: &random)
        // Of a pool whose seats are not all worth the same.
        let isMixed = options.faultsFrom >= 0 && Int.random(in: 0..<5, using: &random) == 0
        for index in 0..<count {
            let role: Role = mode.isHA ? (index == 0 ? .primary : .secondary) : (index == 0 ? .root : .member)
            let configuration = try UnitConfiguration(
                cluster: "LIC1", serial: "FPX\(index + 1)", mode: mode, role: role, policy: policy,
                preferences: role == .root ? preferences() : nil, term: term,
                reclaimAfter: seed % 2 == 0 ? .forever : 3 * .second)
            let clock = Clock(
                at: 0, reading: Nanoseconds(Int.random(in: 1...1_000_000, using: &random)) * .millisecond, rate: rate())
            nodes.append(
                Node(
                    serial: configuration.serial, clock: clock, configuration: configuration, entitlement: entitlement(clock),
                    sessionsPerSeat: isMixed && index % 2 == 1 ? 25 : 10))
        }
        for node in nodes { at(chance(0.3) ? milliseconds(0...3000) : 0) { self.start(node) } }
        at(0) { self.liveSessions() }
        if options.faultsFrom >= 0 { at(options.faultsFrom * .second) { self.fault() } }
    }

    // MARK: chance

    func chance(_ probability: Double) -> Bool { Double.random(in: 0..<1, using: &random) < probability }
    func milliseconds(_ range: ClosedRange<Int>) -> Nanoseconds {
        Nanoseconds(Int.random(in: range, using: &random)) * .millisecond
    }
    /// Often at the bounds: that is where a margin shows.
    func rate() -> Nanoseconds {
        switch Int.random(in: 0..<4, using: &random) {
        case 0: 990_000
        case 1: 1_010_000
        default: Nanoseconds(Int.random(in: 990_000...1_010_000, using: &random))
        }
    }
    func seats(_ choices: [Int]) -> Seats { Seats { _ in choices[Int.random(in: 0..<choices.count, using: &random)] } }
    func preferences() -> Preferences {
        Preferences(
            global: seats([0, 0, 2, 5]), members: chance(0.5) ? ["FPX2": seats([0, 10, 40])] : [:],
            division: chance(0.5) ? .maxMin : .proportional)
    }
    func entitlement(_ clock: Clock) -> Entitlement {
        // The end of an entitlement is kept by clocks, under any policy: where clocks stop, that would hide what is looked for.
        let ends = chance(0.2) && !(stopsClocks && policy == .acknowledgedOnly)
        return Entitlement(
            purchased: seats([0, 7, 10, 25, 40]), modelMax: seats([20, 100, 500]),
            until: ends ? clock.reading(real) + milliseconds(5000...90_000) : .forever)
    }

    // MARK: running

    func at(_ delay: Nanoseconds, _ action: @escaping () -> Void) { queue.add(real + delay, action) }

    /// Runs to the end, or to the first violation.
    func run() -> Violation? {
        while violation == nil, let (time, action) = queue.next(), time <= options.seconds * .second {
            real = time
            action()
            events += 1
            check()
        }
        return violation
    }

    func note(_ what: @autoclosure () -> String) { options.log?("\(real / .millisecond) ms: \(what())") }

    func mix(_ number: Int) { digest = (digest ^ UInt64(truncatingIfNeeded: number)) &* 0x0000_0100_0000_01B3 }

    func fail(_ what: String) {
        if violation == nil { violation = Violation(seed: seed, at: real, what: what) }
    }

    // MARK: the invariant

    private func check() {
        // In sessions: a seat is worth what the licence of its user says.
        var enforced = Seats.zero
        var bought = boughtByTraitor * 10
        for node in nodes {
            let (enforcedHere, boughtHere) = balance(node)
            enforced += enforcedHere * node.sessionsPerSeat
            bought += boughtHere * node.sessionsPerSeat
        }
        if !bought.covers(enforced) {
            let detail = nodes.map { "\($0.serial) \($0.bound(real)) of \($0.entitlement.purchased)" }
            fail("\(enforced) sessions enforced, \(bought) bought (\(detail.joined(separator: ", ")))")
        }
        for type in SeatType.allCases { mix(enforced[type]) }
        mix(Int(real))
    }

    private func balance(_ node: Node) -> (enforced: Seats, bought: Seats) {
        let now = node.clock.reading(real)
        var (enforced, bought) = (node.bound(real), Seats.zero)
        if now < node.entitlement.until {
            bought += node.entitlement.purchased
            // The other process of the same identity, which has learnt from the record how much may be lent.
            if node.isUsurped {
                enforced += (node.entitlement.purchased - (node.record?.seats ?? Seats(Seats.limit))).raised(to: .zero)
            }
        }
        if let withdrawn = node.withdrawn, real < withdrawn.until { bought += withdrawn.seats }
        if policy != .byTime, policy != .acknowledgedOnly {
            bought += node.unit?.usedTwice ?? node.remains?.usedTwice ?? .zero
        }
        // Where loans do not end by time, a restart frees them; a copy that looks like one frees what the first still uses.
        if node.usurper != nil, policy != .byTime {
            bought += node.unit?.borrowed(at: now) ?? node.remains?.borrowed(at: now) ?? .zero
        }
        // Until the owners' rows have told it, a stopped clock keeps loans alive: that is the bound of policies that use time.
        if node.clock.isStopped || node.missedSince != nil, policy != .acknowledgedOnly {
            bought += node.unit?.borrowed(at: now) ?? node.remains?.borrowed(at: now) ?? .zero
        }
        return (enforced, bought)
    }

    /// The ledger's definitions, in every state that any unit reads.
    func checkLedger(_ pool: Pool, _ viewer: String) {
        let ledger = Ledger(pool: pool, viewer: viewer, isDisconnected: false)
        let lines = ledger.devices.flatMap(\.lines)
        if lines.contains(where: { $0.allocated > $0.reserved }) { fail("allocated > reserved") }
        if lines.contains(where: { $0.guaranteed > $0.modelMax || (!mode.isHA && $0.guaranteed > $0.preferred) }) {
            fail("guaranteed > min(preferred, model_max)")
        }
        if ledger.needingGrant != lines.count(where: \.needsGrant) { fail("n_need_grant_seat \(ledger.needingGrant)") }
        for total in ledger.totals {
            let ofType = lines.filter { $0.type == total.type }
            if total.purchased != ofType.reduce(0, { $0 + $1.purchased })
                || total.allocated != ofType.reduce(0, { $0 + $1.allocated })
                || total.used != ofType.reduce(0, { $0 + $1.used }) || total.conserve != (total.allocated > total.purchased)
            {
                fail("totals of \(total.type)")
            }
            let targets = pool.rows.indices.filter { pool.rows[$0].isEntitled && !pool.isStale[$0] }
                .reduce(0) { $0 + pool.plan.shares[$1].target[total.type] }
            if targets > pool.plan.available[total.type] {
                fail("the plan gives \(targets) of \(pool.plan.available[total.type])")
            }
        }
        for row in pool.rows {
            let granted = (pool.grants[row.serial] ?? []).reduce(0) { $0 + $1.grant.seats.furl }
            peakShared = max(peakShared, granted)
        }
    }
}
