// Seats: whole numbers of each licence type, and the clock that they are lent by.

/// A licence type. Each has a pool of seats of its own.
package enum SeatType: String, CaseIterable, Sendable, Codable {
    case furl, fnbi, fcas
}

/// A number of seats of each type.
package struct Seats: Equatable, Sendable, Codable {
    /// The most seats of a type that a row may name. Sums over any number of members that fit in a pool stay far within an
    /// `Int`.
    package static let limit = 1_000_000
    package static let zero = Seats(0)

    package var furl: Int
    package var fnbi: Int
    package var fcas: Int

    package init(furl: Int, fnbi: Int, fcas: Int) {
        self.furl = furl
        self.fnbi = fnbi
        self.fcas = fcas
    }

    /// The same number of each type.
    package init(_ each: Int) { self.init(furl: each, fnbi: each, fcas: each) }

    package init(_ number: (SeatType) -> Int) {
        self.init(furl: number(.furl), fnbi: number(.fnbi), fcas: number(.fcas))
    }

    package subscript(type: SeatType) -> Int {
        get {
            switch type {
            case .furl: furl
            case .fnbi: fnbi
            case .fcas: fcas
            }
        }
        set {
            switch type {
            case .furl: furl = newValue
            case .fnbi: fnbi = newValue
            case .fcas: fcas = newValue
            }
        }
    }

    package static func + (a: Seats, b: Seats) -> Seats {
        Seats(furl: a.furl + b.furl, fnbi: a.fnbi + b.fnbi, fcas: a.fcas + b.fcas)
    }

    package static func - (a: Seats, b: Seats) -> Seats {
        Seats(furl: a.furl - b.furl, fnbi: a.fnbi - b.fnbi, fcas: a.fcas - b.fcas)
    }

    package static func * (a: Seats, factor: Int) -> Seats {
        Seats(furl: a.furl * factor, fnbi: a.fnbi * factor, fcas: a.fcas * factor)
    }

    package static func += (a: inout Seats, b: Seats) { a = a + b }
    package static func -= (a: inout Seats, b: Seats) { a = a - b }

    /// The smaller number of each type.
    package func lowered(to other: Seats) -> Seats {
        Seats(furl: min(furl, other.furl), fnbi: min(fnbi, other.fnbi), fcas: min(fcas, other.fcas))
    }

    /// The larger number of each type.
    package func raised(to other: Seats) -> Seats {
        Seats(furl: max(furl, other.furl), fnbi: max(fnbi, other.fnbi), fcas: max(fcas, other.fcas))
    }

    /// Of each type at least as many as the other.
    package func covers(_ other: Seats) -> Bool { furl >= other.furl && fnbi >= other.fnbi && fcas >= other.fcas }
}

extension Seats: CustomStringConvertible {
    package var description: String { "\(furl)/\(fnbi)/\(fcas)" }

    /// For a sentence: as many as a unit can have stand for all, where nobody knows how many there are.
    package var counted: String { self == Seats(Seats.limit) ? "all seats" : "\(self) seats" }
}

/// A number of nanoseconds.
package typealias Nanoseconds = Int64

extension Nanoseconds {
    package static let millisecond: Nanoseconds = 1_000_000
    package static let second: Nanoseconds = 1_000_000_000
    /// No end by time.
    package static let forever = Nanoseconds.max
}

/// A reading of a unit's CLOCK_BOOTTIME: it counts suspend and is never set. Readings of two units have nothing to do with each
/// other.
package struct Instant: Comparable, Sendable {
    package var nanoseconds: Nanoseconds
    package static let forever = Instant(.forever)

    package init(_ nanoseconds: Nanoseconds) { self.nanoseconds = nanoseconds }

    package static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }

    /// Saturates: what lasts for ever ends never.
    package static func + (a: Instant, b: Nanoseconds) -> Instant {
        let sum = a.nanoseconds.addingReportingOverflow(b)
        return sum.overflow ? (b > 0 ? .forever : Instant(.min)) : Instant(sum.partialValue)
    }

    package static func - (a: Instant, b: Instant) -> Nanoseconds {
        let difference = a.nanoseconds.subtractingReportingOverflow(b.nanoseconds)
        return difference.overflow ? (a > b ? .max : .min) : difference.partialValue
    }
}
