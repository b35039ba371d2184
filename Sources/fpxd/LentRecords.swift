// LentRecords: what of each licence may still be lent when the process is gone, a file for each serial.
//
// A file can be an old one: a backup, a snapshot of the disk. So a copy of what each says lies beside the segment, in memory,
// where it does not outlast this boot, and where no backup puts it back. Who has no copy asks the pool: docs/SHARING.md,
// "Restart".

import Foundation
import Licensing
import SeatSharing

struct LentRecords: Sendable {
    /// A `LentRecord` as it lies on disk.
    private struct Stored: Codable {
        let id: UInt64
        let seats: Seats
        /// Nanoseconds.
        let takeBack: Int64
        let keep: Int64
        let grants: [Grant]?
        /// What a seat was worth.
        let sessionsPerSeat: Int
        /// Where they are lent; nil: nothing is.
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

    /// What was on disk last, by serial: two where it is not known whether the second has reached it.
    private struct Copies: Codable {
        let boot: String
        var records: [String: [Data]]
    }

    /// As much as a configuration may say of endpoints, and a row of grants.
    private static let bytesMax = 512 * 1024
    private let folder: String
    /// Nil: the segment does not lie in memory.
    private let copies: String?
    private let boot: String

    /// - Parameter segment: beside which the copies lie.
    init(stateFolder: String, segment: String) {
        folder = stateFolder + "/lent"
        boot = (try? String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8)) ?? ""
        let isInMemory = Self.isInMemory((segment as NSString).deletingLastPathComponent)
        copies = isInMemory && !boot.isEmpty ? segment + ".lent" : nil
    }

    /// Whether a folder is of a filesystem that is gone with the boot, by proc(5), mountinfo.
    private static func isInMemory(_ folder: String) -> Bool {
        var status = stat()
        guard stat(folder, &status) == 0, let mounts = try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)
        else { return false }
        let (major, minor) = (status.st_dev >> 8 & 0xFFF, status.st_dev & 0xFF | status.st_dev >> 12 & 0xFFF00)
        let device = " \(major):\(minor) "
        return mounts.split(separator: "\n").contains { $0.contains(device) && $0.contains(" - tmpfs ") }
    }

    /// What is known of what may be lent of a licence.
    ///
    /// - Parameters:
    ///   - sessionsPerSeat: of the licence now: seats that were lent at another number are others.
    ///   - pool: where the unit is going to be; nil: it shares nothing.
    ///   - wasShared: that it has shared is known from elsewhere.
    func former(_ serial: String, sessionsPerSeat: Int, in pool: Pool?, wasShared: Bool) -> Former {
        let copied = readCopies()?.records[serial]
        guard let (bytes, stored) = read(serial) else {
            // The copy is no older than what is lost: where it says that nothing is lent, nothing is.
            if let copied, let record = copied.compactMap(Self.decode).last, copied.allSatisfy(Self.lendsNothing) {
                return .known(Self.record(record))
            }
            let isNew = access(path(serial), F_OK) != 0 && copied == nil && !wasShared
            return isNew ? .none : .lost(LentRecord.nothing(id: 0).terms)
        }
        let record = Self.record(stored)
        let isEmpty = record.seats == .zero && record.grants?.isEmpty != false
        guard stored.sessionsPerSeat == sessionsPerSeat || isEmpty else { return .lost(record.terms) }
        if let copied { return copied.contains(bytes) ? .known(record) : .lost(record.terms) }
        if pool == nil, stored.pool == nil, !wasShared { return .known(record) }
        guard let pool, stored.pool?.isSame(as: pool) != false else { return .lost(record.terms) }
        return .doubtful(record)
    }

    /// - Returns: nil, where there is no record, or a damaged one.
    private func read(_ serial: String) -> (bytes: Data, stored: Stored)? {
        do {
            guard let bytes = try StoredFile.read(path(serial), limit: Self.bytesMax) else { return nil }
            return Self.decode(Data(bytes)).map { (Data(bytes), $0) }
        } catch {
            return nil
        }
    }

    private static func decode(_ bytes: Data) -> Stored? {
        guard let stored = try? JSONDecoder().decode(Stored.self, from: bytes) else { return nil }
        let all = [stored.seats] + (stored.grants ?? []).map(\.seats)
        guard all.allSatisfy({ $0.covers(.zero) && Seats(Seats.limit).covers($0) }), stored.takeBack >= 0,
            stored.keep >= stored.takeBack
        else { return nil }
        return stored
    }

    private static func lendsNothing(_ bytes: Data) -> Bool {
        decode(bytes).map { $0.seats == .zero && $0.grants?.isEmpty != false } ?? false
    }

    private static func record(_ stored: Stored) -> LentRecord {
        LentRecord(
            id: stored.id, seats: stored.seats, terms: Terms(takeBack: stored.takeBack, keep: stored.keep),
            grants: stored.grants)
    }

    /// When it returns the record cannot be lost any more.
    ///
    /// - Parameters:
    ///   - sessionsPerSeat: of the licence.
    ///   - pool: where it is lent.
    func write(_ record: LentRecord, _ serial: String, sessionsPerSeat: Int, in pool: Pool?) throws {
        try StoredFile.makeFolder(folder)
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        let bytes = try encoder.encode(
            Stored(
                id: record.id, seats: record.seats, takeBack: record.terms.takeBack, keep: record.terms.keep,
                grants: record.grants, sessionsPerSeat: sessionsPerSeat, pool: pool))
        // A crash in between must not make an old record of either.
        copy(serial, [read(serial)?.bytes, bytes].compactMap { $0 })
        try StoredFile.replace(Array(bytes), at: path(serial), mode: 0o600)
        copy(serial, [bytes])
    }

    /// Whether somebody has removed it. Where the whole state folder is gone it is made anew first.
    func isGone(_ serial: String) -> Bool {
        access(path(serial), F_OK) != 0 && access((folder as NSString).deletingLastPathComponent, F_OK) == 0
    }

    /// What is on disk is the latest: from now on, until the next boot, that is known.
    func confirm(_ serial: String) {
        if let bytes = read(serial)?.bytes { copy(serial, [bytes]) }
    }

    private func readCopies() -> Copies? {
        guard let copies, let bytes = try? StoredFile.read(copies, limit: 16 * Self.bytesMax),
            let found = try? JSONDecoder().decode(Copies.self, from: Data(bytes)), found.boot == boot
        else { return nil }
        return found
    }

    /// Without a copy a restart asks the pool, or waits.
    private func copy(_ serial: String, _ records: [Data]) {
        guard let copies else { return }
        var all = readCopies() ?? Copies(boot: boot, records: [:])
        if all.records[serial] == records { return }
        all.records[serial] = records
        guard let bytes = try? JSONEncoder().encode(all) else { return }
        try? StoredFile.replace(Array(bytes), at: copies, mode: 0o600)
    }

    /// Serials are names of units: they hold no slash, and begin with what is no dot.
    private func path(_ serial: String) -> String { folder + "/unit-" + serial }
}
