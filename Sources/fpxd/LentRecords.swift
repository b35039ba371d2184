// LentRecords: how much of each licence may still be lent when the process is gone, a file for each serial.

import Foundation
import Licensing
import SeatSharing

struct LentRecords: Sendable {
    /// A `LentRecord` as it lies on disk.
    private struct Stored: Codable {
        let seats: Seats
        /// Nanoseconds.
        let takeBack: Int64
        let keep: Int64
        /// Where they are lent; nil: nothing is, or it was written when this was not.
        let pool: Pool?
    }

    /// A pool, as far as it is known without asking.
    struct Pool: Codable, Equatable {
        let group: String
        /// `HOST:PORT` of etcd.
        let endpoints: [String]

        /// Members come and go, and TLS does; who has no address in common is taken for another.
        func isSame(as other: Pool) -> Bool {
            group == other.group && !Set(endpoints).isDisjoint(with: other.endpoints)
        }
    }

    /// As much as a configuration may say of endpoints.
    private static let bytesMax = 128 * 1024
    private let folder: String

    init(stateFolder: String) { folder = stateFolder + "/lent" }

    static let nothing = LentRecord(seats: .zero, terms: Terms(takeBack: 0, keep: 0))

    /// Whether there is a record of this licence, a damaged one too.
    func exists(_ serial: String) -> Bool { access(path(serial), F_OK) == 0 }

    /// - Returns: nil, where there is no record, or a damaged one: then all may be lent.
    func read(_ serial: String) -> (record: LentRecord, pool: Pool?)? {
        do {
            guard let bytes = try StoredFile.read(path(serial), limit: Self.bytesMax) else { return nil }
            let stored = try JSONDecoder().decode(Stored.self, from: Data(bytes))
            let seats = stored.seats
            guard seats.covers(.zero), Seats(Seats.limit).covers(seats), stored.takeBack >= 0, stored.keep >= stored.takeBack
            else { return nil }
            return (LentRecord(seats: seats, terms: Terms(takeBack: stored.takeBack, keep: stored.keep)), stored.pool)
        } catch {
            return nil
        }
    }

    /// When it returns the record cannot be lost any more.
    func write(_ record: LentRecord, _ serial: String, in pool: Pool?) throws {
        try StoredFile.makeFolder(folder)
        let stored = Stored(seats: record.seats, takeBack: record.terms.takeBack, keep: record.terms.keep, pool: pool)
        try StoredFile.replace(Array(try JSONEncoder().encode(stored)), at: path(serial), mode: 0o600)
    }

    /// Serials are names of units: they hold no slash, and begin with what is no dot.
    private func path(_ serial: String) -> String { folder + "/unit-" + serial }
}
