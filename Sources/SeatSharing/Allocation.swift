// Allocation: who gets how many of too few seats. Pure functions of whole numbers, the same on every machine.

package enum Allocation {
    /// Raises everybody from `lower` towards `upper` until `total` is given out, max-min fair by weight.
    ///
    /// The result is clamp(level x weight, lower, upper) at the one level that gives out all of `total`; what whole seats leave
    /// over goes by largest remainder, ties to who comes first. Cost: a sort.
    ///
    /// - Parameters:
    ///   - lower: what each has already; their sum may exceed `total`, then nobody gets more.
    ///   - upper: what each wants at most, at least `lower`.
    ///   - weights: positive.
    /// - Returns: as many numbers, none below `lower` or above `upper`; they add up to `total` unless all wants fit into it.
    package static func fill(from lower: [Int], to upper: [Int], weights: [Int], total: Int) -> [Int] {
        let given = lower.reduce(0, +)
        guard given < total else { return lower }
        guard upper.reduce(0, +) > total else { return upper }

        // The level at which each begins to rise (its lower bound) and stops (its upper one), in order.
        struct Turn {
            let seats: Int
            let weight: Int
            let index: Int
            let begins: Bool
        }
        var turns: [Turn] = []
        for index in lower.indices where lower[index] < upper[index] {
            turns.append(Turn(seats: lower[index], weight: weights[index], index: index, begins: true))
            turns.append(Turn(seats: upper[index], weight: weights[index], index: index, begins: false))
        }
        turns.sort { a, b in
            let (left, right) = (a.seats * b.weight, b.seats * a.weight)
            return left != right ? left < right : (a.index, a.begins ? 0 : 1) < (b.index, b.begins ? 0 : 1)
        }
        var result = lower
        var fixed = given
        var rising = 0
        var isRising = [Bool](repeating: false, count: lower.count)
        for turn in turns {
            // The level is turn.seats / turn.weight: would more than all be given out there?
            if fixed * turn.weight + turn.seats * rising > total * turn.weight { break }
            isRising[turn.index] = turn.begins
            rising += turn.begins ? turn.weight : -turn.weight
            fixed += turn.begins ? -turn.seats : turn.seats
            if !turn.begins { result[turn.index] = turn.seats }
        }
        let between = lower.indices.filter { isRising[$0] }
        let shares = largestRemainder(total - fixed, weights: between.map { weights[$0] })
        for (index, share) in zip(between, shares) { result[index] = share }
        return result
    }

    /// Doorman's PROPORTIONAL_SHARE, before rounding: an equal share for each; what some leave of theirs goes to the others in
    /// proportion to what they want beyond it.
    package static func proportionalShares(wants: [Int], total: Int) -> [Double] {
        guard wants.reduce(0, +) > total else { return wants.map(Double.init) }
        let equal = Double(total) / Double(wants.count)
        let left = wants.reduce(0.0) { $0 + max(0, equal - Double($1)) }
        let need = wants.reduce(0.0) { $0 + max(0, Double($1) - equal) }
        return wants.map { Double($0) <= equal ? Double($0) : equal + (Double($0) - equal) * left / need }
    }

    /// As `fill`, divided as `proportionalShares` does what is beyond `lower`.
    package static func proportional(from lower: [Int], to upper: [Int], total: Int) -> [Int] {
        let given = lower.reduce(0, +)
        guard given < total else { return lower }
        let shares = proportionalShares(wants: zip(upper, lower).map { $0 - $1 }, total: total - given)
        var result = zip(lower, shares).map { $0 + Int($1) }
        let order = shares.indices.sorted { a, b in
            let (left, right) = (shares[a] - shares[a].rounded(.down), shares[b] - shares[b].rounded(.down))
            return left != right ? left > right : a < b
        }
        var rest = total - result.reduce(0, +)
        for index in order where rest > 0 && result[index] < upper[index] {
            result[index] += 1
            rest -= 1
        }
        return result
    }

    /// Gives `total` to `weights` in proportion, in whole numbers: the quotients, then one more to each of the largest
    /// remainders, ties to who comes first.
    package static func largestRemainder(_ total: Int, weights: [Int]) -> [Int] {
        let sum = weights.reduce(0, +)
        guard sum > 0, total > 0 else { return weights.map { _ in 0 } }
        var shares = weights.map { total * $0 / sum }
        let order = weights.indices.sorted { a, b in
            let (left, right) = (total * weights[a] % sum, total * weights[b] % sum)
            return left != right ? left > right : a < b
        }
        for index in order.prefix(total - shares.reduce(0, +)) { shares[index] += 1 }
        return shares
    }
}
