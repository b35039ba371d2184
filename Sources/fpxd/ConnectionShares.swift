// ConnectionShares: how many connections each of fpxd's sockets takes.
//
// Whoever may connect could otherwise take all descriptors of the process, and what needs one besides (a file of the state
// folder, the process of a worker) would fail.

import Basics

struct ConnectionShares {
    /// For what is no connection.
    private static let reserved = 64
    /// However few descriptors there are.
    private static let least = 4
    private static let wanted = (control: 512, agent: 1024, ring: 256)

    let control: Int
    let agent: Int
    let ring: Int
    /// What people must know; nil: each has what it wants.
    let shortage: String?

    /// - Parameter descriptors: that this process may have.
    init(descriptors: Int = Descriptor.countMax) {
        let wanted = Self.wanted
        let all = wanted.control + wanted.agent + wanted.ring
        func share(_ wanted: Int) -> Int {
            max(Self.least, min(wanted, (descriptors - Self.reserved) * wanted / all))
        }
        control = share(wanted.control)
        agent = share(wanted.agent)
        ring = share(wanted.ring)
        shortage =
            descriptors >= all + Self.reserved
            ? nil
            : "Open files: found a limit of \(descriptors), expected \(all + Self.reserved) or more (LimitNOFILE= of the service, "
                + "ulimit -Hn): control.sock takes \(control) connections at a time in place of \(wanted.control), spoa.sock "
                + "\(agent) in place of \(wanted.agent), ring.sock \(ring) in place of \(wanted.ring)"
    }
}
