// JournalWatch: what people are told of the sessions of wire hooks and of their journal.

import KeyedSessions
import Logging
import Synchronization

/// Looks whether the journal is in order, and has it written anew if not; and whether there is room for more sessions.
final class JournalWatch: Sendable {
    private let sessions: KeyedSessions
    private let path: String
    private let fault = Mutex<String?>(nil)
    private let room = Mutex(RoomWatch())
    private let shortage = Mutex<String?>(nil)

    init(sessions: KeyedSessions, path: String) {
        self.sessions = sessions
        self.path = path
    }

    /// Why the journal is to be written anew and cannot be.
    var trouble: String? { fault.withLock { $0 } }

    /// Why new sessions find no room, as long as they find none.
    var roomTrouble: String? { shortage.withLock { $0 } }

    /// Each second, by the thread that looks at the segment.
    func look(note: HostSegment.Note) {
        guard let found = sessions.journalFault() else { return fault.withLock { $0 = nil } }
        do {
            let count = try sessions.renewJournal()
            fault.withLock { $0 = nil }
            let kept = count == 1 ? "1 session of wire hooks is" : "\(count) sessions of wire hooks are"
            note(.critical, "\(path): \(found); it is written anew, and \(kept) still counted and followed")
        } catch {
            let text =
                "\(path): \(found); no new one can be written, so a restart would not follow sessions of wire hooks: \(error)"
            let isNews = fault.withLock { fault in
                defer { fault = text }
                return fault != text
            }
            if isNews { note(.critical, text) }
        }
    }

    /// Each second, by one thread.
    ///
    /// - Parameter verdict: of the over-limit policy.
    func lookForRoom(verdict: String, note: HostSegment.Note) {
        let hasRoom = sessions.hasRoom
        let refused = Hook.allCases.reduce(0) { $0 + sessions.count(.exhausted, of: $1) }
        switch room.withLock({ $0.judge(hasRoom: hasRoom, refused: refused) }) {
        case .short:
            let why =
                hasRoom
                ? "\(sessions.list(limit: 0).total) of at most \(KeyedSessions.limit) are in use, or the journal cannot be written"
                : "no memory is left where \(path) lies"
            let text = "No room for new sessions of wire hooks: \(why); they get the verdict \(verdict), uncounted"
            shortage.withLock { $0 = text }
            note(.error, text)
        case .enough(let refused):
            shortage.withLock { $0 = nil }
            note(.info, "Room for new sessions of wire hooks again; \(refused) found none")
        case nil: break
        }
    }
}

extension TakenOver {
    /// What people must know of it.
    func news(journal path: String) -> [(Logger.Level, String)] {
        var news: [(Logger.Level, String)] = []
        if let fault {
            let place = movedTo.map { "moved to \($0), and " } ?? ""
            news.append((.critical, "\(path): \(fault); " + (noJournal == nil ? "\(place)written anew" : "not written anew")))
        }
        if let noJournal {
            news.append((.critical, "\(path): found no way to write it, so no new session is kept: \(noJournal)"))
        }
        if hasMoved, total > 0 {
            news.append((.warning, "The segment is a new one: \(total) sessions of wire hooks of before are counted in it"))
        }
        if unknown > 0 {
            news.append(
                (
                    newlyUnknown > 0 ? .critical : .warning,
                    "\(unknown) sessions of wire hooks stay counted though the journal does not tell whose they are: nothing ends "
                        + "them but `fpx diagnose wad session clear unknown`; do it when the proxies of before have ended"
                ))
        }
        return news
    }
}

/// Decides when people are told that new sessions of wire hooks find no room, and when that they do again.
struct RoomWatch {
    enum News: Equatable {
        case short
        /// How many found none.
        case enough(refused: Int)
    }

    /// There is room again when nobody was without it for so long.
    static let calm: Duration = .seconds(5)

    private var isShort = false
    private var latest = ContinuousClock.now
    private var refused = 0
    private var refusedBefore = 0

    /// - Parameter refused: sessions that found no room since the start.
    mutating func judge(hasRoom: Bool, refused: Int, now: ContinuousClock.Instant = .now) -> News? {
        defer { self.refused = refused }
        if !hasRoom || refused > self.refused {
            latest = now
            if isShort { return nil }
            isShort = true
            refusedBefore = self.refused
            return .short
        }
        guard isShort, now - latest >= Self.calm else { return nil }
        isShort = false
        return .enough(refused: refused - refusedBefore)
    }
}
