// Plan: who should use how many seats, and who lends them to whom. A pure function of the pool's rows, the same on every unit
// that reads the same rows, so that nobody needs to lead. It is advice: what may be lent is decided by the owner of a seat
// alone.
//
// HA is the same plan with other wants: the primary wants all; a secondary unit wants half of its own and is guaranteed it
// (before 7.2), or wants nothing (from 7.2 on).

package struct Plan: Sendable {
    /// What one unit is to have.
    package struct Share: Equatable, Sendable {
        package var preferred = Seats.zero
        package var guaranteed = Seats.zero
        /// At most the model's ceiling, at least what it owns of its guarantee. What it asks for in advance does not count.
        package var want = Seats.zero
        package var target = Seats.zero
        /// What it owns and never lends.
        package var floor = Seats.zero
    }

    /// Seats that one unit lends to another.
    package struct Loan: Equatable, Sendable {
        /// The index of the other unit's row.
        package let unit: Int
        package let seats: Seats
    }

    /// As the rows.
    package private(set) var shares: [Share]
    /// What each lends, and to whom.
    package private(set) var lending: [[Loan]]
    /// What each borrows, and from whom.
    package private(set) var borrowing: [[Loan]]
    /// What units that take part have bought and not lent to others, and what they want.
    package private(set) var available = Seats.zero
    package private(set) var wanted = Seats.zero

    /// - Parameters:
    ///   - rows: sorted by serial; ties go to the first.
    ///   - takesPart: of each row, whether its unit is to be counted: it speaks, and is entitled.
    ///   - preferences: the root's.
    ///   - isDecided: false where it is not clear who the primary is; then nothing is lent.
    package init(rows: [Row], takesPart: [Bool], preferences: Preferences, isDecided: Bool) {
        shares = [Share](repeating: Share(), count: rows.count)
        lending = [[Loan]](repeating: [], count: rows.count)
        borrowing = lending
        let units = rows.indices.filter { takesPart[$0] }
        var place = [String: Int](minimumCapacity: units.count)
        for (position, unit) in units.enumerated() { place[rows[unit].serial] = position }
        let standing = units.map { unit in
            rows[unit].grants.compactMap { grant in place[grant.borrower].map { (borrower: $0, seats: grant.seats) } }
        }
        var loans = [[Int: Seats]](repeating: [:], count: units.count)
        for type in SeatType.allCases {
            let part = TypePlan(
                rows: units.map { rows[$0] }, standing: standing.map { $0.map { ($0.borrower, $0.seats[type]) } }, type: type,
                preferences: preferences, isDecided: isDecided)
            for (position, unit) in units.enumerated() {
                shares[unit].preferred[type] = part.preferred[position]
                shares[unit].guaranteed[type] = part.guaranteed[position]
                shares[unit].want[type] = part.wants[position]
                shares[unit].target[type] = part.targets[position]
                shares[unit].floor[type] = part.floors[position]
            }
            available[type] = part.total
            wanted[type] = part.wants.reduce(0, +)
            for loan in part.loans where loan.seats > 0 {
                loans[loan.lender][loan.borrower, default: .zero][type] += loan.seats
            }
        }
        for (position, unit) in units.enumerated() {
            for (borrower, seats) in loans[position].sorted(by: { $0.key < $1.key }) {
                lending[unit].append(Loan(unit: units[borrower], seats: seats))
                borrowing[units[borrower]].append(Loan(unit: unit, seats: seats))
            }
        }
        for unit in rows.indices where !takesPart[unit] {
            shares[unit].want = rows[unit].demand.lowered(to: rows[unit].modelMax)
            shares[unit].target = rows[unit].own.lowered(to: rows[unit].modelMax)
        }
    }
}

extension Row {
    /// Nothing is in use, and nothing has been asked for: `Unit.demand` is one seat in advance.
    fileprivate func isIdle(_ type: SeatType) -> Bool { used[type] == 0 && demand[type] <= 1 }
}

/// The plan for one licence type.
private struct TypePlan {
    struct Loan {
        let lender: Int
        let borrower: Int
        let seats: Int
    }

    private(set) var preferred: [Int] = []
    private(set) var guaranteed: [Int] = []
    private(set) var floors: [Int] = []
    private(set) var wants: [Int] = []
    private(set) var targets: [Int] = []
    private(set) var loans: [Loan] = []
    private(set) var total = 0

    init(rows: [Row], standing: [[(borrower: Int, seats: Int)]], type: SeatType, preferences: Preferences, isDecided: Bool) {
        // What is lent to units that do not take part is not there to be planned with.
        let owned = zip(rows, standing).map { row, grants in
            min(row.purchased[type], row.own[type] + grants.reduce(0) { $0 + $1.seats })
        }
        total = owned.reduce(0, +)
        guarantee(rows, owned, type, preferences)
        floors = zip(guaranteed, owned).map { min($0, $1) }
        guard isDecided else {
            wants = zip(rows, owned).map { min($1, $0.modelMax[type]) }
            targets = wants
            return
        }
        wants = rows.indices.map { index in
            let ceiling = rows[index].modelMax[type]
            return switch (rows[index].mode.isHA, rows[index].role) {
            case (false, _): max(min(rows[index].isIdle(type) ? 0 : rows[index].demand[type], ceiling), floors[index])
            case (true, .primary): min(total, ceiling)
            case (true, _): min(floors[index], ceiling)
            }
        }
        let ones = [Int](repeating: 1, count: rows.count)
        let first = rows.indices.map { min(wants[$0], guaranteed[$0]) }
        let second = rows.indices.map { min(wants[$0], max(guaranteed[$0], preferred[$0])) }
        targets = Allocation.fill(from: ones.map { $0 - 1 }, to: first, weights: ones, total: total)
        targets = Allocation.fill(from: targets, to: second, weights: ones, total: total)
        switch preferences.division {
        case .maxMin:
            let weights = rows.map { max(1, $0.purchased[type]) }
            targets = Allocation.fill(from: targets, to: wants, weights: weights, total: total)
        case .proportional: targets = Allocation.proportional(from: targets, to: wants, total: total)
        }
        // What idle units ask for in advance is there for them when nobody else wants it: the last seat is lent too.
        let ahead = rows.indices.map { index in
            let row = rows[index]
            return !row.mode.isHA && row.isIdle(type)
                ? max(wants[index], min(row.demand[type], row.modelMax[type])) : wants[index]
        }
        targets = Allocation.fill(from: targets, to: ahead, weights: ones, total: total)
        lend(owned, standing)
    }

    private mutating func guarantee(_ rows: [Row], _ owned: [Int], _ type: SeatType, _ preferences: Preferences) {
        preferred = zip(rows, owned).map { row, owned in
            switch (row.mode, row.role) {
            case (.fabric, _): min((preferences.members[row.serial] ?? preferences.global)[type], total)
            // Half of what it has bought stays; of an odd number the larger half.
            case (.haBefore72, .primary), (.ha72, _): 0
            case (.haBefore72, _): owned - owned / 2
            }
        }
        guaranteed = zip(rows, preferred).map { min($0.modelMax[type], $1) }
        if guaranteed.reduce(0, +) > total {
            guaranteed = Allocation.largestRemainder(total, weights: guaranteed)
        }
    }

    /// From those who own more than their target to those who own less: first what is lent already, so that nothing moves
    /// without need.
    private mutating func lend(_ owned: [Int], _ standing: [[(borrower: Int, seats: Int)]]) {
        var surplus = zip(owned, targets).map { max(0, $0 - $1) }
        var deficit = zip(owned, targets).map { max(0, $1 - $0) }
        func move(_ lender: Int, _ borrower: Int, _ most: Int) -> Loan {
            let seats = min(most, surplus[lender], deficit[borrower])
            surplus[lender] -= seats
            deficit[borrower] -= seats
            return Loan(lender: lender, borrower: borrower, seats: seats)
        }
        for (lender, grants) in standing.enumerated() {
            for grant in grants where grant.borrower != lender { loans.append(move(lender, grant.borrower, grant.seats)) }
        }
        var borrower = 0
        for lender in owned.indices {
            while surplus[lender] > 0 {
                while borrower < owned.count, deficit[borrower] == 0 { borrower += 1 }
                guard borrower < owned.count else { return }
                loans.append(move(lender, borrower, .max))
            }
        }
    }
}
