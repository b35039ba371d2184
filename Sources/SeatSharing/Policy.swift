// Policy: when a loan ends without a word from the borrower, and the bound on over-use that follows.

/// How long a loan lasts, each side by its own clock.
package struct Terms: Equatable, Sendable {
    /// The owner uses a lent seat itself again this long after it granted it. `forever`: only when the borrower has given it
    /// back.
    package var takeBack: Nanoseconds
    /// The borrower uses a lent seat no longer than this (less a margin) after it asked; nor does the owner lend it to anybody
    /// else before. `forever`: the borrower keeps it until it gives it back.
    package var keep: Nanoseconds

    package init(takeBack: Nanoseconds, keep: Nanoseconds) {
        self.takeBack = takeBack
        self.keep = keep
    }

    /// Loans do not end when their owner takes them back: which there are must be known after a restart.
    package var areListed: Bool { keep > takeBack || keep == .forever }

    package func raised(to other: Terms) -> Terms {
        Terms(takeBack: max(takeBack, other.takeBack), keep: max(keep, other.keep))
    }
}

/// What happens to lent seats when the borrower is out of reach.
package enum Policy: Equatable, Sendable {
    /// The loan ends by time on both sides, the borrower's first. Over-use: none while clocks run within `Drift.rate`.
    case byTime
    /// The owner never takes back by time. Over-use: none, whatever clocks do; lent seats stay away while the borrower does.
    case acknowledgedOnly
    /// The owner takes back by time, and the borrower keeps using for so long. Over-use: at most the seats on loan when contact
    /// was lost, because the owner does not lend them again meanwhile, and for no longer than this time.
    case recovery(Nanoseconds)

    /// - Parameter term: how long a loan by time lasts.
    package func terms(_ term: Nanoseconds) -> Terms {
        switch self {
        case .byTime: Terms(takeBack: term, keep: term)
        case .acknowledgedOnly: Terms(takeBack: .forever, keep: .forever)
        case .recovery(let time): Terms(takeBack: term, keep: max(term, time))
        }
    }

    /// The bound of what may be used twice, for people.
    package var overUse: String {
        switch self {
        case .byTime:
            "none while clocks run within \(Drift.percent) % of real time and count suspend; after a pause that a hypervisor "
                + "hides from this host, at most what is borrowed here, until a row of its owner is read or its time is over"
        case .acknowledgedOnly:
            "none, whatever clocks do, but for one end of a licence; lent seats stay away while their borrower is out of reach"
        case .recovery(let time):
            "at most the seats on loan when contact is lost, once, for \(time / .second) seconds"
        }
    }

    /// The settings' word: `time`, `ack-only` or `recovery 14d` (also `h`, `m`, `s`).
    package init(_ text: String) throws(SharingError) {
        switch text {
        case "time": self = .byTime
        case "ack-only": self = .acknowledgedOnly
        default:
            let words = text.split(separator: " ", omittingEmptySubsequences: false)
            guard words.count == 2, words[0] == "recovery", let time = Self.time(words[1]) else {
                throw .policy(
                    found: text, expected: "time, ack-only, or recovery with a time from 1s to 365d, as in recovery 14d")
            }
            self = .recovery(time)
        }
    }

    /// A time from 1s to 365d, as in `10m`; nil for anything else.
    package static func time(_ text: some StringProtocol) -> Nanoseconds? {
        let units: [Character: Nanoseconds] = ["d": 86400, "h": 3600, "m": 60, "s": 1]
        guard let unit = text.last.flatMap({ units[$0] }), text.dropLast().allSatisfy({ $0.isASCII && $0.isNumber }),
            let number = Nanoseconds(text.dropLast()), (1...longest / unit).contains(number)
        else { return nil }
        return number * unit * .second
    }

    private static let longest: Nanoseconds = 365 * 86400
}

/// What is asked of clocks.
package enum Drift {
    /// Clocks run within 1 ± 1 / 100 of real time.
    package static let percent: Nanoseconds = 1
    /// Readings may be this coarse.
    package static let tick: Nanoseconds = 10 * .millisecond

    /// How much earlier than `term` after it asked a borrower stops. With rates within 1 ± r the borrower's slowest clock shows
    /// `term - margin` after (term - margin) / (1 - r), the owner's fastest shows `term` after term / (1 + r); the first comes
    /// no later when margin >= 2 r term / (1 + r).
    package static func margin(_ term: Nanoseconds) -> Nanoseconds {
        term == .forever ? 0 : term / (100 + percent) * 2 * percent + 2 * percent + tick
    }

    /// The most that another's clock shows while one's own shows `elapsed`.
    package static func most(_ elapsed: Nanoseconds) -> Nanoseconds {
        elapsed + elapsed / (100 - percent) * 2 * percent + 2 * percent + tick
    }
}

/// How often members speak, and how long loans by time last. Both grow with the pool, so that etcd's writes a second do not.
package struct Pace: Equatable, Sendable {
    package static let writesPerSecond = 500
    package var heartbeat: Nanoseconds
    package var term: Nanoseconds

    /// - Parameters:
    ///   - term: of a small pool.
    ///   - members: how many members the pool has.
    package init(term: Nanoseconds, members: Int) {
        heartbeat = max(term / 15, Nanoseconds(members) * .second / Nanoseconds(Self.writesPerSecond))
        gap = max(min(term / 150, 50 * .millisecond), Nanoseconds(members) * .second / Nanoseconds(2 * Self.writesPerSecond))
        self.term = max(term, 6 * heartbeat)
    }

    /// A member that has not spoken for so long is stale.
    package var staleAfter: Nanoseconds { term / 2 }
    /// Changes are written no more often than this.
    package let gap: Nanoseconds
}
