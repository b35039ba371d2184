// The laws, checked in a stopped world.

import Admission

extension Round {
    func auditInStoppedWorld(probes: Bool, _ random: inout Random) throws {
        let byLane = random.chance(oneIn: 2)
        try stopWorld()
        try audit(probes: probes, byLane: byLane)
        startWorld()
    }

    /// With everybody stopped: the laws, by what the threads say they hold and by what the pool still gives.
    ///
    /// While the cap is lowered sessions in use may exceed it, but not by more than they did: `bound`.
    func audit(probes: Bool, byLane: Bool) throws {
        totals.audits += 1
        let holdings = herd.holdings()
        try checkConservation()
        guard holdings.certain <= max(highestCap, bound) else {
            throw Violation(
                .neverOver, "at least \(holdings.certain) sessions are in use, cap \(highestCap), bound \(bound)")
        }
        bound = min(holdings.possible, max(highestCap, bound))
        highestCap = cap
        guard probes else { return }
        let admitted = admitUntilRefused(byLane: byLane, atMost: cap + 32)
        totals.probes += 1
        guard admitted == 0 || admitted + holdings.certain <= cap else {
            throw Violation(
                .neverOver, "\(admitted) more were admitted with at least \(holdings.certain) sessions in use, cap \(cap)")
        }
        guard admitted + holdings.possible >= cap else {
            throw Violation(
                .neverUnder, "refused after \(admitted) more with at most \(holdings.possible) sessions in use, cap \(cap)")
        }
        try checkConservation()
        release(admitted, byLane: byLane)
        try checkConservation()
    }

    func checkConservation() throws {
        stage(.conservation)
        guard let sum = pool.conservation() else { throw Violation(.conservation, "the pool changes in a stopped world") }
        stage(.none)
        guard sum.holds, sum.cap == cap else { throw Violation(.conservation, "\(sum), expected cap \(cap)") }
        try checkKeepersAudit()
    }

    /// The keeper's audit finds nothing: in a stopped world as in a running one, after whatever has been done to its processes.
    func checkKeepersAudit() throws {
        stage(.conservation)
        settings[poolIndex].cap = cap
        if let damage = segment.audit(settings) { throw Violation(.conservation, "the keeper's audit: \(damage)") }
        stage(.none)
    }
}
