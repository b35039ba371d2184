import Foundation
import SeatSharing
import TestSupport
import Testing

/// Rows that anybody may have written cost no more than their length explains.
@Suite struct FieldCost {
    private static let more: [(name: String, text: @Sendable (Int) -> String)] = [
        (
            "grants",
            {
                "{\"version\":2,\"grants\":["
                    + Array(repeating: "[\"A\",\"0000000000000001\",1,[1,1,1],1]", count: $0 / 36).joined(separator: ",") + "]}"
            }
        ),
        ("one name again and again", { "{" + Array(repeating: "\"a\":1", count: $0 / 6).joined(separator: ",") + "}" }),
    ]

    @Test(arguments: 0..<HostileJSON.families.count + 2)
    func rows(_ index: Int) async throws {
        let (name, text) = (HostileJSON.families + Self.more)[index]
        let growth = await Cost.growth(length: 16 << 10, factor: 8) { length in
            _ = try? Row(key: "pool/A/m/B", value: Array(text(length).utf8), cluster: "A", mode: .fabric)
        }
        #expect(
            Field.row(
                "daemon.8", "a row of a pool with \(name): what 8 times the length costs", expected: "8 times",
                found: growth < 3 ? "8 times" : "\(growth * 8) times"))
    }

    /// One genuine row with as many parts as fit into it.
    @Test func aFullRow() async throws {
        let growth = try await Cost.growth(length: 120, factor: 8) { count in
            var row = row("B", .member, purchased: 40)
            row.grants = (0..<count).map { Grant(borrower: "U\($0)", incarnation: 1, number: 1, seats: Seats(1), keep: 1) }
            row.holdings = (0..<count).map { Holding(lender: "U\($0)", through: 1, seats: .zero) }
            _ = try Row(
                key: Row.key(cluster: row.cluster, serial: row.serial), value: row.encoded, cluster: row.cluster, mode: .fabric)
        }
        #expect(growth < 3)
    }
}
