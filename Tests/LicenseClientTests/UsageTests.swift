import AuthorityAPI
import ControlAPI
import Foundation
import LicenseClient
import Licensing
import TestSupport
import Testing

@Suite struct UsageTests {
    private let report = UsageReport(
        version: "1.2.3", hooks: ["haproxy"], incomingSpeed: 1, outgoingSpeed: 2, activeClientsIpv4: 3, activeClientsIpv6: 4,
        sessions: 5, admissionsPerSecond: 6, virtualization: "kvm", censusMicroseconds: 7, kernel: "6.1",
        distribution: "debian",
        distributionVersion: "12", cpuFlags: ["fpu"], features: ["rseq"])

    private func client(_ station: Station) throws -> LicenseClient {
        LicenseClient(
            AuthorityConnection(
                url: station.server.url, accountKeyFile: station.folder + "/account",
                authorityFile: try Certificates.shared.get().authority),
            unitID: station.unitID, clock: { Timestamp.date(start) })
    }

    @Test func theReportGoesAsItIsShown() async throws {
        let station = try await Station()
        var forge = Forge(station)
        forge.body = Array("{\"reports\":9}".utf8)
        station.answer(forge)
        let bytes = try LicenseClient.encode(report)
        let receipt = try await client(station).send(usage: bytes, keys: station.keeper.trustedKeys())
        #expect(receipt.reports == 9)
        let question = try #require(station.server.questions.withLock { $0.first })
        #expect(question.line == "POST /v1/usage HTTP/1.1" && question.body == bytes && question.unit == station.unitID)
        // Names as the contract has them, and nothing that is not in it.
        let members = try JSONDecoder().decode([String: JSONValue].self, from: Data(bytes))
        #expect(
            members.count == 15 && members["active_clients_ipv6"] == .integer(4)
                && members["hooks"] == .array([.string("haproxy")]))
        #expect(try ControlJSON.decoder().decode(UsageReport.self, from: Data(bytes)) == report)
    }

    @Test func receiptsAreSealedToo() async throws {
        let station = try await Station()
        var forge = Forge(station)
        forge.body = Array("{\"reports\":9}".utf8)
        forge.isSealed = false
        station.answer(forge)
        let bytes = try LicenseClient.encode(report)
        await #expect(throws: LicenseClientError.unsealed(status: 200)) {
            try await client(station).send(usage: bytes, keys: station.keeper.trustedKeys())
        }
        station.answer(Forge.refusal(station, "rate_limited", status: 429))
        await #expect(throws: LicenseClientError.self) {
            try await client(station).send(usage: bytes, keys: station.keeper.trustedKeys())
        }
    }
}
