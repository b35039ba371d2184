// The clock witness: the highest time ever seen, on disk, so that setting the clock back lengthens no lease.
//
// It keeps an honest unit honest. Who owns the machine can remove the file, and gains at most what the licence in hand still grants
// after its `iat`, which counts as a witness too because the authority signed it.
//
// A damaged file falls back to the one before it, which is about a minute older, and then to `iat` alone. It never refuses: a disk
// fault would otherwise stop a unit for ever, and who can spoil the file could as well remove it. For the same reason a removed file
// starts anew: this is what a person does after the clock once ran far ahead.

import Foundation

package struct ClockWitness: Equatable, Sendable {
    /// How far the clock may be behind the witness, and behind `nbf`, before it counts: time servers correct by less.
    package static let toleranceSeconds = 300
    /// How far the witness on disk may be behind the one in memory.
    package static let writeIntervalSeconds = 60

    /// The highest time that this unit's clock has shown.
    package var highestSeen: Int
    /// The highest time that an authority has signed.
    package var signedTime: Int

    package init(highestSeen: Int = 0, signedTime: Int = 0) {
        self.highestSeen = highestSeen
        self.signedTime = signedTime
    }

    package var latest: Int { max(highestSeen, signedTime) }

    package func merging(_ other: ClockWitness) -> ClockWitness {
        ClockWitness(highestSeen: max(highestSeen, other.highestSeen), signedTime: max(signedTime, other.signedTime))
    }

    /// Whether a clock that shows `now` was set back.
    package func isRollback(_ now: Int) -> Bool { now < latest - Self.toleranceSeconds }

    /// The file's text. The sum tells a flipped digit, which would else be a time like any other.
    package var bytes: [UInt8] {
        Array("{\"highest_seen\":\(highestSeen),\"signed_time\":\(signedTime),\"sum\":\(highestSeen + signedTime)}\n".utf8)
    }

    package init(bytes: [UInt8], path: String) throws(LicensingError) {
        guard let members = try? JSONValue.object(in: bytes) else {
            throw .damaged(path: path, found: "\(bytes.count) bytes that are no JSON object", expected: "a clock witness")
        }
        do {
            let reader = JSONReader(members)
            self.init(
                highestSeen: try reader.integer("highest_seen", in: Timestamp.range),
                signedTime: try reader.integer("signed_time", in: Timestamp.range))
            _ = try reader.integer("sum", in: (highestSeen + signedTime)...(highestSeen + signedTime))
        } catch {
            throw .damaged(path: path, found: "a clock witness in which \(error)", expected: "an intact one")
        }
    }

    /// Reads the file, or the one before it where the file is damaged.
    /// - Returns: the witness, and what was wrong on the way.
    package static func read(_ path: String) -> (witness: ClockWitness, trouble: LicensingError?) {
        var trouble: LicensingError?
        for path in [path, StoredFile.previous(of: path)] {
            do {
                guard let bytes = try StoredFile.read(path, limit: 4096) else { break }
                return (try ClockWitness(bytes: bytes, path: path), trouble)
            } catch let error {
                trouble = trouble ?? error
            }
        }
        return (ClockWitness(), trouble)
    }
}
