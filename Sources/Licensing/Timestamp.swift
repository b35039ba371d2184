// Times are whole seconds since 1970 in UTC, as tokens carry them; here is how people read and write them.
//
// An end is the first second that is not included. A person who writes a day for it means all of that day: `2027-01-31` is the end of
// that day. What is shown of an end is the last day before it, so that it is read as it was written.

import Foundation

package enum Timestamp {
    /// 9999-12-31T00:00:00Z, the end of what does not end.
    package static let never = 253_402_214_400
    /// What a time may be: up to the last second that is written with four digits of the year.
    package static let range = 0...253_402_300_799
    private static let secondsOfDay = 86_400

    /// Seconds of a date, kept in range: a clock can say anything.
    package static func seconds(_ date: Date) -> Int {
        let seconds = date.timeIntervalSince1970
        guard seconds > 0 else { return range.lowerBound }
        return seconds < Double(range.upperBound) ? Int(seconds) : range.upperBound
    }

    /// `2027-01-31T12:00:00Z`
    package static func text(_ seconds: Int) -> String { date(seconds).formatted(.iso8601) }

    /// `2027-01-31`
    package static func day(_ seconds: Int) -> String { String(text(seconds).prefix(10)) }

    /// The last day before an end: `2027-01-31`.
    package static func lastDay(before end: Int) -> String { day(end >= never ? never : max(range.lowerBound, end - 1)) }

    /// An end as a person writes it: `2027-01-31` for the end of that day, `2027-01-31T12:00:00Z` for a time within one.
    package static func endText(_ end: Int) -> String {
        end % secondsOfDay == 0 ? lastDay(before: end) : text(end)
    }

    /// Reads an end: `2027-01-31` (the end of that day) or `2027-01-31T12:00:00Z`; nil for anything else.
    package static func parseEnd(_ text: String) -> Int? {
        guard let seconds = parse(text) else { return nil }
        return text.count == 10 ? min(seconds + secondsOfDay, never) : seconds
    }

    /// Reads a beginning: `2027-01-31` (the beginning of that day) or `2027-01-31T12:00:00Z`; nil for anything else.
    package static func parse(_ text: String) -> Int? {
        let full = text.count == 10 ? text + "T00:00:00Z" : text
        guard let date = try? Date(full, strategy: .iso8601) else { return nil }
        let seconds = seconds(date)
        // The parser forgives much (blanks, the 31st of February); what it made of the text must read the same.
        return self.text(seconds) == full ? seconds : nil
    }

    package static func date(_ seconds: Int) -> Date { Date(timeIntervalSince1970: Double(seconds)) }
}
