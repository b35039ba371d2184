import Etcd
import Foundation
import Testing
import TestSupport

extension WithEtcd {
    /// Members that want certificates of their clients. `Certificates` has what they show, and whom they trust.
    struct TLSTests {
        let certificates: Certificates

        init() throws { certificates = try Certificates.shared.get() }

        private func start() async throws -> EtcdServer {
            let tls = EtcdServer.TLS(
                certificate: certificates.path("server.pem"), privateKey: certificates.path("server.key"),
                authority: certificates.authority)
            let client = EtcdServer.TLS(
                certificate: certificates.path("client.pem"), privateKey: certificates.path("client.key"),
                authority: certificates.authority)
            return try await EtcdServer.start(tls: tls, client: client, arguments: ["--bcrypt-cost", "4"])
        }

        private func client(
            _ endpoints: String, authority: String? = nil, certificate: String? = nil, key: String? = nil, user: String? = nil,
            passwordFile: String? = nil
        ) throws -> EtcdClient {
            var configuration = try EtcdConfiguration(
                endpoints: endpoints, user: user, passwordFile: passwordFile,
                authorityFile: authority ?? certificates.authority, certificateFile: certificate, privateKeyFile: key)
            configuration.deadline = .seconds(4)
            return EtcdClient(configuration)
        }

        /// A certificate of the authority's.
        private func issue(_ name: String, in folder: borrowing Folder, subject: String, days: Int) throws {
            let (ca, path) = (certificates.authority, folder.path + "/" + name)
            let key = certificates.path("ca.key")
            for arguments in [
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj \(subject) -keyout \(path).key -out \(path).csr",
                "x509 -req -in \(path).csr -CA \(ca) -CAkey \(key) -CAserial \(path).srl -CAcreateserial "
                    + "-days \(days) -out \(path).pem",
            ] {
                let ended = try ChildProcess.run(["openssl"] + arguments.split(separator: " ").map(String.init))
                try #require(ended.status == 0, "openssl \(arguments): \(ended.text)")
            }
        }

        private static let notTaken = "it does not take our certificate, or wants one and none is set"

        private func put(_ etcd: EtcdClient) async -> EtcdError? {
            await failure { () throws(EtcdError) in try await etcd.put("pool/tls", [1]) }
        }

        @Test func certificatesOnBothSides() async throws {
            let server = try await start()
            let good = (certificates.path("client.pem"), certificates.path("client.key"))
            #expect(await put(try client(server.list, certificate: good.0, key: good.1)) == nil)
            // Whom we do not trust, and who does not trust us; neither has taken anything.
            let stranger = await put(
                try client(server.list, authority: certificates.path("stranger-ca.pem"), certificate: good.0, key: good.1))
            #expect(stranger?.name == "certificate", "\(String(describing: stranger))")
            #expect(
                stranger?.description.hasSuffix(
                    ": its certificate does not come from a CA that is trusted here, or is out of date") == true)
            let other = try client(server.list.replacing("127.0.0.1", with: "localhost"), certificate: good.0, key: good.1)
            #expect(await put(other) == nil)
            let none = await put(try client(server.list))
            #expect(none?.name == "certificate", "\(String(describing: none))")
            #expect(none?.description.hasSuffix("found no way to speak TLS with it: \(Self.notTaken)") == true, "\(none!)")
            let foreign = await put(
                try client(
                    server.list, certificate: certificates.path("stranger.pem"), key: certificates.path("stranger.key")))
            #expect(foreign?.name == "certificate", "\(String(describing: foreign))")
            // TLS where there is none, and none where there is.
            let plain = try await Shared.server.value
            let tls = await put(try client(plain.list.replacing("http:", with: "https:"), certificate: good.0, key: good.1))
            #expect(tls?.isOutcomeUnknown == false, "\(String(describing: tls))")
            let noTLS = await put(try client(server.list.replacing("https:", with: "http:")))
            #expect(noTLS != nil, "\(String(describing: noTLS))")
            // A watch over TLS.
            let etcd = try client(server.list, certificate: good.0, key: good.1)
            let revision = try await etcd.put("pool/tls", [2]).revision
            var iterator = etcd.watch("pool/", from: revision).makeAsyncIterator()
            #expect(try await iterator.next()?.revision == revision)
        }

        @Test func renewedCertificateNeedsNoRestart() async throws {
            let server = try await start()
            let folder = try Folder()
            try issue("old", in: folder, subject: "/CN=unit", days: -1)
            try issue("new", in: folder, subject: "/CN=unit", days: 1)
            let (certificate, key) = (folder.path + "/unit.pem", folder.path + "/unit.key")
            func install(_ name: String, _ kind: String) throws {
                let text = try String(contentsOfFile: folder.path + "/\(name).\(kind)", encoding: .utf8)
                _ = try folder.write("unit.\(kind)", text)
            }
            try install("old", "pem")
            try install("old", "key")
            let etcd = try client(server.list, certificate: certificate, key: key)
            let expired = await put(etcd)
            #expect(expired?.name == "certificate", "\(String(describing: expired))")
            #expect(expired?.description.contains("our certificate in \(certificate) has expired at 20") == true)
            // Half of a renewal.
            try install("new", "pem")
            #expect(await put(etcd)?.name == "certificate")
            #expect(try client(server.list, certificate: certificate, key: key).configuration.deadline == .seconds(4))
            let half = await failure { () throws(EtcdError) in try etcd.configuration.checkFiles() }
            #expect(half?.description.hasPrefix("sharing-private-key: found a key") == true, "\(String(describing: half))")
            try install("new", "key")
            #expect(await put(etcd) == nil)
            // What works goes on while a bad file lies there, and that is told.
            _ = try folder.write("unit.pem", "no certificate")
            #expect(await put(etcd) == nil)
            #expect(etcd.endpoints[0].state.contains("sharing-certificate: found 14 bytes"), "\(etcd.endpoints)")
            try install("new", "pem")
            #expect(await put(etcd) == nil)
            #expect(etcd.endpoints[0].state == "answers")
        }

        @Test func userAndCertificateTogether() async throws {
            let server = try await start()
            let folder = try Folder()
            try issue("unnamed", in: folder, subject: "/O=fpx", days: 1)
            let password = try folder.write("password", "secret")
            try server.enableAuthentication(root: "root", user: "unit", password: "secret", prefix: "pool/")
            let unnamed = try client(
                server.list, certificate: folder.path + "/unnamed.pem", key: folder.path + "/unnamed.key", user: "unit",
                passwordFile: password)
            #expect(await put(unnamed) == nil)
            let named = try client(
                server.list, certificate: certificates.path("client.pem"), key: certificates.path("client.key"), user: "unit",
                passwordFile: password)
            let refused = await put(named)
            #expect(
                refused?.description.contains("takes no client certificate with a CN") == true, "\(String(describing: refused))"
            )
            let nobody = try client(
                server.list, certificate: folder.path + "/unnamed.pem", key: folder.path + "/unnamed.key")
            let unknown = await put(nobody)
            #expect(unknown?.description.hasPrefix("user (none): found no right") == true, "\(String(describing: unknown))")
        }

        @Test func filesThatAreNone() async throws {
            let folder = try Folder()
            let text = try folder.write("text", "text")
            let good = (certificates.path("client.pem"), certificates.path("client.key"))
            for (name, etcd) in [
                ("sharing-ca", try client("https://127.0.0.1:1", authority: text)),
                ("sharing-ca", try client("https://127.0.0.1:1", authority: "/nowhere/ca.pem")),
                ("sharing-certificate", try client("https://127.0.0.1:1", certificate: text, key: good.1)),
                ("sharing-private-key", try client("https://127.0.0.1:1", certificate: good.0, key: text)),
                (
                    "sharing-private-key",
                    try client("https://127.0.0.1:1", certificate: good.0, key: certificates.path("server.key"))
                ),
            ] {
                let error = await put(etcd)
                #expect(error?.description.hasPrefix("\(name): found ") == true, "\(String(describing: error))")
                let checked = await failure { () throws(EtcdError) in try etcd.configuration.checkFiles() }
                #expect(checked == error)
            }
        }
    }
}
