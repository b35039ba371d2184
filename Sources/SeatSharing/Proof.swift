// Proof: what vouches for a row, so that nobody who can write to etcd makes seats.
//
// A row comes with its unit's licence, and is signed with the key that the licence names. Licence and signature are checked where there
// are keys and clocks for that (fpxd); here is what follows: the row is of that licence's unit, and gives no more than the licence does.
// What is left to whoever has no key is to put back what was genuine once: rows of a unit are in order, and old ones are no news.

/// A licence that vouches for a row, whose key has signed it.
package struct Proof: Equatable, Sendable {
    /// The only unit that the row may be of.
    package var serial: String
    package var purchased: Seats
    package var modelMax: Seats
    package var sessionsPerSeat: Int
    /// Its end, by the clock of the unit that reads. From then on the row gives nothing.
    package var until: Instant

    /// More than `Seats.limit` of a type is taken for the limit, as in `Entitlement`.
    package init(serial: String, purchased: Seats, modelMax: Seats, sessionsPerSeat: Int, until: Instant) {
        let most = Entitlement(purchased: purchased, modelMax: modelMax, until: until)
        self.serial = serial
        self.purchased = most.purchased
        self.modelMax = most.modelMax
        self.sessionsPerSeat = sessionsPerSeat
        self.until = until
    }
}
