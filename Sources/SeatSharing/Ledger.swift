// Ledger: the table of who may use what, from the pool as one unit has read it.

/// The fabric's seats.
package struct Ledger: Equatable, Sendable, Codable {
    /// One licence type of one device, in seats.
    package struct Line: Equatable, Sendable, Codable {
        package let type: SeatType
        package let purchased: Int
        package let used: Int
        /// What it may use now. Never more than `reserved`: what its owners do not charge for it any more has ended, whatever
        /// an old row of the device says.
        package let allocated: Int
        /// What its owners charge for it: its own seats that are not lent, and what others have granted to it.
        package let reserved: Int
        package let guaranteed: Int
        package let preferred: Int
        package let modelMax: Int
        /// It asked for more than it has.
        package let needsGrant: Bool
        /// It uses more than the pool can spare it.
        package let conserve: Bool
    }

    package struct Device: Equatable, Sendable, Codable {
        package let serial: String
        package let isStale: Bool
        package let isRoot: Bool
        package let isSharing: Bool
        /// Seconds since 1970, by the device's clock.
        package let lastPing: Int
        package let protocolVersion: Int
        package let lines: [Line]

        /// A short number for people: FNV-1a of the serial.
        package var id: UInt32 { serial.utf8.reduce(0x811C_9DC5) { ($0 ^ UInt32($1)) &* 0x0100_0193 } }
    }

    package struct Total: Equatable, Sendable, Codable {
        package let type: SeatType
        package let purchased: Int
        package let used: Int
        package let allocated: Int
        package let conserve: Bool

        init(type: SeatType, purchased: Int, used: Int, allocated: Int) {
            self.type = type
            self.purchased = purchased
            self.used = used
            self.allocated = allocated
            conserve = allocated > purchased
        }
    }

    /// The unit that prints it.
    package let viewer: String
    package let isDisconnected: Bool
    package let devices: [Device]
    package let totals: [Total]
    /// How many lines need a grant.
    package let needingGrant: Int

    /// - Parameters:
    ///   - viewer: the serial of the unit that prints it.
    ///   - isDisconnected: its view of the pool is old.
    package init(pool: Pool, viewer: String, isDisconnected: Bool) {
        self.viewer = viewer
        self.isDisconnected = isDisconnected
        devices = pool.rows.indices.map { index in
            let row = pool.rows[index]
            let share = pool.plan.shares[index]
            let reserved = row.own + (pool.grants[row.serial] ?? []).reduce(.zero) { $0 + $1.grant.seats }
            let lines = SeatType.allCases.map { type in
                let allocated = min(row.allocated[type], reserved[type])
                let isShort = pool.plan.wanted[type] > pool.plan.available[type]
                return Line(
                    type: type, purchased: row.purchased[type], used: row.used[type], allocated: allocated,
                    reserved: reserved[type], guaranteed: share.guaranteed[type], preferred: share.preferred[type],
                    modelMax: row.modelMax[type], needsGrant: min(row.demand[type], row.modelMax[type]) > allocated,
                    conserve: isShort && max(allocated, row.used[type]) > share.target[type])
            }
            return Device(
                serial: row.serial, isStale: pool.isStale[index], isRoot: row.role == .root,
                isSharing: row.isEntitled && !pool.isStale[index], lastPing: row.ping, protocolVersion: Row.version,
                lines: lines)
        }
        let lines = devices.flatMap(\.lines)
        totals = SeatType.allCases.map { type in
            let ofType = lines.filter { $0.type == type }
            return Total(
                type: type, purchased: ofType.reduce(0) { $0 + $1.purchased }, used: ofType.reduce(0) { $0 + $1.used },
                allocated: ofType.reduce(0) { $0 + $1.allocated })
        }
        needingGrant = lines.count { $0.needsGrant }
    }
}

/// What an HA cluster shows: seats as registered and as adjusted, the primary first.
package struct HASeats: Equatable, Sendable, Codable {
    package struct Unit: Equatable, Sendable, Codable {
        package let serial: String
        package let registered: Int
        package let adjusted: Int
    }

    package let units: [Unit]
    /// Registered seats of all types, of each unit.
    package let registered: [Seats]

    package init(pool: Pool, type: SeatType = .furl) {
        let order = pool.rows.indices.sorted { a, b in
            (pool.rows[a].role == .primary ? 0 : 1, a) < (pool.rows[b].role == .primary ? 0 : 1, b)
        }
        units = order.map {
            Unit(
                serial: pool.rows[$0].serial, registered: pool.rows[$0].purchased[type],
                adjusted: pool.plan.shares[$0].target[type])
        }
        registered = order.map { pool.rows[$0].purchased }
    }
}
