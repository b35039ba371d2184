// Worker: a process that admits, holds and ends sessions on a unit's segment, as a proxy does, and says in shared words how many
// it holds. The conductor says in another how many it would like.

import Admission
import Foundation

/// The words of all workers of a run.
struct WorkerWords: Sendable {
    static let each = 4
    /// Held by a worker that has not begun.
    static let notYet = -1
    let words: SharedWords

    /// Sessions that it would like to hold.
    func wish(_ worker: Int) -> Int { words[worker * Self.each] }
    func setWish(_ worker: Int, _ value: Int) { words[worker * Self.each] = value }
    func held(_ worker: Int) -> Int { words[worker * Self.each + 1] }
    func setHeld(_ worker: Int, _ value: Int) { words[worker * Self.each + 1] = value }
    /// Sessions admitted, and not admitted, by all processes that this worker has been.
    func admitted(_ worker: Int) -> Int { words[worker * Self.each + 2] }
    func refused(_ worker: Int) -> Int { words[worker * Self.each + 3] }
    func add(_ worker: Int, admitted: Int, refused: Int) {
        words[worker * Self.each + 2] += admitted
        words[worker * Self.each + 3] += refused
    }
}

enum Worker {
    static let mark = "__worker"
    /// It looks this often at what it would like, and begins at most so many sessions then: the oracle reckons with it.
    static let pause: UInt32 = 2000
    static let burst = 8
    /// Sessions last about half a second: of so many looks each session is ended at one.
    private static let looksOfSession = 250
    /// Of few sessions as many end as of so many: who waits for the last one need not wait for long.
    private static let least = 25

    static func arguments(segment: String, pool: Int, words: String, count: Int, worker: Int) -> [String] {
        [mark, segment, String(pool), words, String(count), String(worker)]
    }

    /// Never returns.
    static func run(_ arguments: [String]) -> Never {
        guard arguments.count == 5, let index = Int(arguments[1]), let count = Int(arguments[3]), let worker = Int(arguments[4])
        else { fail("found \(arguments), expected SEGMENT POOL WORDS COUNT WORKER") }
        do {
            let segment = try Segment.attach(path: arguments[0])
            let words = WorkerWords(
                words: try SharedWords(path: arguments[2], count: count * WorkerWords.each, creating: false))
            work(pool: try segment.pool(index), words, worker)
        } catch {
            fail("\(error)")
        }
    }

    private static func work(pool: Pool, _ words: WorkerWords, _ worker: Int) -> Never {
        var held = 0
        var due = 0
        while true {
            let wish = words.wish(worker)
            due += max(held, Self.least)
            let ends = min(held, max(due / looksOfSession, min(burst, held - wish)))
            due %= looksOfSession
            for _ in 0..<max(0, ends) { pool.release(.inspect) }
            held -= max(0, ends)
            var admitted = 0
            var refused = 0
            while held < wish, admitted < burst, refused == 0 {
                let session = pool.admit()
                if session.verdict == .inspect {
                    _ = session.detach()
                    held += 1
                    admitted += 1
                } else {
                    session.end()
                    refused += 1
                }
            }
            words.setHeld(worker, held)
            words.add(worker, admitted: admitted, refused: refused)
            usleep(pause)
        }
    }

    private static func fail(_ text: String) -> Never { die("worker: \(text)", 2) }
}
