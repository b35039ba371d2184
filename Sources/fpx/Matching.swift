// Matching: which word an abbreviation stands for, and which was meant by one that fits none.

/// The word of `words` that `word` is or begins.
///
/// - Parameter after: what stands before it, for the message.
func match(_ word: String, among words: [String], _ noun: Failure.Noun, after: String) throws(Failure) -> String {
    // A whole word is itself even where it begins another: `license` and `license_hardware_data`.
    if words.contains(word) { return word }
    let candidates = word.isEmpty ? [] : words.filter { $0.hasPrefix(word) }
    if candidates.isEmpty { throw .unknown(noun, found: word, after: after, expected: words) }
    if candidates.count > 1 { throw .ambiguous(noun, found: word, after: after, candidates: candidates) }
    return candidates[0]
}

/// The words that most likely were meant by `found`: those of the least edit distance, if that is small for their length.
func nearest(to found: String, among words: [String]) -> [String] {
    // Nothing that is so much longer than a word can be near it, and the cost is the product of the lengths.
    guard found.utf8.count <= 64 else { return [] }
    let distances = words.map { (word: $0, distance: editDistance(Array(found), Array($0))) }
    guard let least = distances.map(\.distance).min() else { return [] }
    return distances.filter { $0.distance == least && least <= max(1, $0.word.count / 3) }.map(\.word)
}

/// How many characters must be inserted, left out, replaced or swapped with their neighbour (optimal string alignment).
func editDistance(_ from: [Character], _ to: [Character]) -> Int {
    var beforeLast: [Int] = []
    var last = Array(0...to.count)
    for row in 0..<from.count {
        var current = [row + 1]
        for column in 0..<to.count {
            var best = min(
                last[column + 1] + 1, current[column] + 1, last[column] + (from[row] == to[column] ? 0 : 1))
            if row > 0, column > 0, from[row] == to[column - 1], from[row - 1] == to[column] {
                best = min(best, beforeLast[column - 1] + 1)
            }
            current.append(best)
        }
        beforeLast = last
        last = current
    }
    return last[to.count]
}
