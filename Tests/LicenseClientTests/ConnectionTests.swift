import AuthorityAPI
import Foundation
import LicenseClient
import Licensing
import TestSupport
import Testing

/// What an operator can set wrongly: each is named, nothing is asked.
@Suite struct ConnectionTests {
    @Test(arguments: [
        "", "http://localhost:1", "localhost", "https://", "https://user@localhost", "https://localhost/?a=b", "https://a b",
    ])
    func urlsThatAreNone(_ url: String) async throws {
        let station = try await Station { $0.url = url }
        await station.expectRefused("authority: found \"\(url)\", expected https://HOST[:PORT]")
    }

    @Test func aPrefixIsKept() async throws {
        let station = try await Station { $0.url += "/prefix/" }
        try await station.renew(epoch: 1)
        #expect(station.server.questions.withLock { $0.first?.line } == "POST /prefix/v1/lease HTTP/1.1")
    }

    @Test func anAddressInPlaceOfAName() async throws {
        let station = try await Station { $0.url = $0.url.replacing("localhost", with: "127.0.0.1") }
        try await station.renew(epoch: 1)
    }

    @Test(arguments: ["", "two words", "zwei\nZeilen", "schl\u{FC}ssel", String(repeating: "k", count: 513)])
    func accountKeysThatAreNone(_ key: String) async throws {
        let station = try await Station()
        try Data(key.utf8).write(to: URL(filePath: station.folder + "/account"))
        await station.expectRefused(
            "account-key-file: found \(key.utf8.count) bytes that are no key in \(station.folder)/account, ")
        try FileManager.default.removeItem(atPath: station.folder + "/account")
        await station.expectRefused("account-key-file: found no file \(station.folder)/account, expected one that is there")
        #expect(station.server.questions.withLock { $0.isEmpty })
    }

    @Test func certificatesThatAreNone() async throws {
        let folder = try Certificates.shared.get().folder
        let gone = try await Station { $0.authorityFile = "/nowhere/ca.pem" }
        await gone.expectRefused("authority-ca: found no file /nowhere/ca.pem, expected one that is there")
        let key = try await Station { $0.authorityFile = folder + "/ca.key" }
        await key.expectRefused("bytes that are no certificate in \(folder)/ca.key, expected PEM")
        let half = try await Station { $0.certificateFile = folder + "/client.pem" }
        await half.expectRefused("authority-private-key: found nothing, expected a file: certificate and key go together")
        let other = try await Station { $0.privateKeyFile = folder + "/client.key" }
        await other.expectRefused("authority-certificate: found nothing, expected a file")
        let swapped = try await Station {
            $0.certificateFile = folder + "/client.pem"
            $0.privateKeyFile = folder + "/client.pem"
        }
        await swapped.expectRefused("bytes that are no private key in \(folder)/client.pem, expected PEM without a passphrase")
    }

    @Test func clientCertificates() async throws {
        let folder = try Certificates.shared.get().folder
        let station = try await Station(clientAuthority: folder + "/ca.pem") {
            $0.certificateFile = folder + "/client.pem"
            $0.privateKeyFile = folder + "/client.key"
        }
        try await station.renew(epoch: 1)
        // Without one, and with one that the authority does not know.
        let bare = try await Station(clientAuthority: folder + "/ca.pem")
        bare.answer(Forge(bare))
        await bare.expectRefused("\(bare.server.url): our certificate is not accepted: set authority-certificate (")
        let stranger = try await Station(clientAuthority: folder + "/ca.pem") {
            $0.certificateFile = folder + "/stranger.pem"
            $0.privateKeyFile = folder + "/stranger.key"
        }
        stranger.answer(Forge(stranger))
        await stranger.expectRefused("\(stranger.server.url): our certificate is not accepted: set authority-certificate (")
        #expect(bare.server.questions.withLock { $0.isEmpty } && stranger.server.questions.withLock { $0.isEmpty })
    }

    @Test func nobodyThere() async throws {
        let station = try await Station()
        let url = station.server.url
        station.server.stop()
        await station.expectRefused("\(url) is out of reach: Connection refused")
        let nowhere = try await Station { $0.url = "https://authority.invalid" }
        await nowhere.expectRefused("https://authority.invalid is out of reach: ")
    }
}
