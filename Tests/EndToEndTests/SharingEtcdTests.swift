import Admission
import Foundation
import TestSupport
import Testing

/// What happens to etcd while units share.
extension EndToEnd.Sharing {
    /// 40 and 20 seats; the second unit has borrowed.
    private func startPair(_ settings: [String: String]) throws -> [SharingUnit] {
        let units = try SharingUnit.start(["FPXA": 40, "FPXB": 20], settings, each: ["FPXA": ["csf-role": "root"]])
        try expectLoan(units)
        return units
    }

    private func expectLoan(_ units: [SharingUnit], sourceLocation: SourceLocation = #_sourceLocation) throws {
        units[1].load.wanted = 40 * Self.perSeat
        let came = eventually(within: 15) { units[1].pool.capNow() >= 40 * Self.perSeat }
        let problems = try units.map { try $0.view().problems }
        #expect(came, "\(problems)", sourceLocation: sourceLocation)
    }

    private func expectOwn(_ units: [SharingUnit], sourceLocation: SourceLocation = #_sourceLocation) {
        units[0].expectCap(40, sourceLocation: sourceLocation)
        units[1].expectCap(20, sourceLocation: sourceLocation)
    }

    private func expectProblem(
        _ unit: SharingUnit, _ text: String, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        var problems: [String] = []
        let came = try eventually {
            problems = try unit.view().problems
            return problems.contains { $0.contains(text) }
        }
        #expect(came, "found \(problems), expected \(text)", sourceLocation: sourceLocation)
    }

    /// Gone, compacted, full, restored from yesterday and wiped: each unit falls to its own seats or stays, and comes back.
    @Test func troublesOfEtcd() async throws {
        let etcd = try await EtcdServer.start(arguments: ["--quota-backend-bytes", "8388608"])
        let units = try startPair(Self.fabric(etcd))
        let watch = CapWatch(units, most: 60 * Self.perSeat)

        try etcd.kill(0)
        expectOwn(units)
        for unit in units {
            try expectEventually("it is told") { try unit.tells("Seat sharing: out of contact with pool acme: ") }
            #expect(try unit.view().mode == "fabric-disconn")
            #expect(try unit.daemon.fpx("get", "system", "csf").contains("connection          : disconnected\n"))
            #expect(try unit.daemon.fpx("diagnose", "wad", "license").contains("fabric-disconn\n"))
        }
        #expect(
            try units[1].daemon.fpx("diagnose", "test", "application", "csfd", "140").contains("device status: disconn yes"))
        // Yesterday's state, for later.
        let (data, yesterday) = (etcd.folder + "/m0", etcd.folder + "/yesterday")
        try FileManager.default.copyItem(atPath: data, toPath: yesterday)
        try etcd.start(0)
        try expectLoan(units)

        let status = try etcd.control(["endpoint", "status", "--write-out", "json"])
        let revision = try #require(status.firstMatch(of: /"revision":(\d+)/)?.1)
        try etcd.control(["compact", String(revision)])
        units[1].load.wanted = 30 * Self.perSeat
        expectEventually("seats go back after a compaction") { units[1].pool.capNow() < 36 * Self.perSeat }
        try expectLoan(units)

        let block = String(repeating: "x", count: 1_000_000)
        for index in 0..<20 {
            do { try etcd.control(["put", "filler\(index)"], input: block) } catch { break }
        }
        try expectProblem(units[0], "etcd raises the alarm NOSPACE")
        expectOwn(units)
        try etcd.control(["del", "--prefix", "filler"])
        let full = try #require(
            try etcd.control(["endpoint", "status", "--write-out", "json"]).firstMatch(of: /"revision":(\d+)/)?.1)
        try etcd.control(["compact", String(full)])
        try etcd.control(["defrag", "--command-timeout", "30s"])
        try etcd.control(["alarm", "disarm"])
        try expectLoan(units)

        for restored in [true, false] {
            try etcd.kill(0)
            try FileManager.default.removeItem(atPath: data)
            if restored { try FileManager.default.copyItem(atPath: yesterday, toPath: data) }
            try etcd.start(0)
            try expectEventually("\(restored ? "restored" : "wiped")") {
                try units.allSatisfy { try $0.tells("etcd has forgotten (") && $0.view().members == 2 }
            }
            try expectLoan(units)
        }
        watch.stop()
    }

    @Test func rightsThatAreTakenAway() async throws {
        // The cheapest hash: a password is asked for by each connection that is new.
        let etcd = try await EtcdServer.start(arguments: ["--bcrypt-cost", "4"])
        let folder = try TemporaryFolder()
        try folder.write("secret\n", to: "password")
        try etcd.enableAuthentication(root: "master", user: "fpx", password: "secret", prefix: "pool/acme/")
        let units = try startPair(
            Self.fabric(etcd).merging(["sharing-user": "fpx", "sharing-password-file": folder.path + "/password"]) { $1 })
        let watch = CapWatch(units, most: 60 * Self.perSeat)
        let right = ["pool/acme/", "--prefix=true"]
        try etcd.control(["role", "revoke-permission", "fpx"] + right, user: "root:master")
        for unit in units { try expectProblem(unit, "user fpx: found no right to do this") }
        expectOwn(units)
        try etcd.control(
            ["role", "grant-permission", "fpx", "readwrite"] + right, user: "root:master")
        try expectLoan(units)
        // A new password, in etcd and then on disk: what was lent may end meanwhile, and comes again.
        try etcd.control(["user", "passwd", "fpx", "--interactive=false"], user: "root:master", input: "new\n")
        try folder.write("new\n", to: "password")
        try expectEventually("the new one is taken") {
            try units.allSatisfy { try $0.view().endpoints.allSatisfy { $0.state == "answers" } }
        }
        try expectLoan(units)
        watch.stop()
    }

    @Test func certificatesThatEnd() async throws {
        let certificates = try Certificates.shared.get()
        let tls = EtcdServer.TLS(
            certificate: certificates.path("server.pem"), privateKey: certificates.path("server.key"),
            authority: certificates.authority)
        let client = EtcdServer.TLS(
            certificate: certificates.path("client.pem"), privateKey: certificates.path("client.key"),
            authority: certificates.authority)
        let etcd = try await EtcdServer.start(tls: tls, client: client)
        let folder = try TemporaryFolder()
        func install(_ certificate: String) throws {
            try FileManager.default.removeItem(atPath: folder.path + "/unit.pem")
            try FileManager.default.copyItem(atPath: certificate, toPath: folder.path + "/unit.pem")
        }
        let authority = ["-CA", certificates.authority, "-CAkey", certificates.path("ca.key"), "-set_serial", "4711"]
        func issue(_ name: String, days: String) throws -> String {
            let key = folder.path + "/unit.key"
            let made = try run(
                "/usr/bin/openssl", ["req", "-new", "-key", key, "-subj", "/", "-out", folder.path + "/unit.csr"])
            try #require(made.status == 0, "\(made.output)")
            let file = "\(folder.path)/\(name).pem"
            let signed = try run(
                "/usr/bin/openssl",
                ["x509", "-req", "-in", folder.path + "/unit.csr", "-days", days, "-out", file] + authority)
            try #require(signed.status == 0, "\(signed.output)")
            return file
        }
        try FileManager.default.copyItem(atPath: certificates.path("client.key"), toPath: folder.path + "/unit.key")
        let (good, renewed) = (try issue("good", days: "2"), try issue("renewed", days: "3"))
        let expired = try issue("expired", days: "-1")
        try FileManager.default.copyItem(atPath: good, toPath: folder.path + "/unit.pem")
        let units = try startPair(
            Self.fabric(etcd).merging([
                "sharing-ca": certificates.authority, "sharing-certificate": folder.path + "/unit.pem",
                "sharing-private-key": folder.path + "/unit.key",
            ]) { $1 })
        let watch = CapWatch(units, most: 60 * Self.perSeat)
        let before = units.map { $0.daemon.processID }
        try install(expired)
        for unit in units { try expectProblem(unit, "our certificate in \(folder.path)/unit.pem has expired at ") }
        expectOwn(units)
        try install(renewed)
        try expectLoan(units)
        #expect(units.map { $0.daemon.processID } == before, "without a restart")
        #expect(try units.flatMap { try $0.view().problems } == [])
        watch.stop()
    }
}
