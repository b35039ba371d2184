import Foundation
import Testing

extension EndToEnd {
    /// A real authority and a real daemon: what operator and vendor type, and what they read.
    @Suite struct LicenseService {
        private func eventually(_ daemon: DaemonControl, _ state: String) throws {
            var found = ""
            let came = try EndToEndTests.eventually {
                found = try daemon.fpx("get", "system", "status")
                return found.contains("License: \(state),")
            }
            #expect(came, "found \(found), expected \(state)\n\(daemon.log)")
        }

        private func detail(_ daemon: DaemonControl) throws -> String { try daemon.fpx("diagnose", "wad", "license", "detail") }

        private static let licensed = "Purchased License Seat: 40\nAvailable License Seat: 40\nMax Licensed Session: 1000\n"

        @Test func theFirstLicenceComesByItself() throws {
            let authority = try AuthorityControl()
            let daemon = try DaemonControl(authority: authority)
            try eventually(daemon, "Active")
            #expect(try detail(daemon) == Self.licensed)
            let end = try #require(daemon.fpx("show", "license").firstMatch(of: /valid until (\d{4}-\d\d-\d\d)/)?.1)
            #expect(try daemon.fpx("show", "license") == "Production license for 2000 mbits valid until \(end)\n")
            let lines = daemon.log.split(separator: "\n").filter {
                $0.contains("license refresh") || $0.contains("External IP") || $0.contains("We have license")
                    || $0.contains("Correctly received") || $0.contains("We store license")
            }
            #expect(
                lines.prefix(5) == [
                    "[INFO] Start automatic license refresh process", "[INFO] External IP address of this server: 127.0.0.1",
                    "[INFO] We have license for: 14 days", "[INFO] Correctly received and checked license",
                    "[INFO] We store license on disk",
                ])
            _ = try daemon.fpx("set", "renew_license")
            #expect(try authority.licenses().map(\.epoch) == [2])

            // What it holds outlives both.
            authority.stop()
            try daemon.end(by: SIGKILL)
            try daemon.start()
            try eventually(daemon, "Active")
            let (status, output) = try daemon.ask("set", "renew_license")
            #expect(status == 1 && output.contains("out of reach"), "\(output)")
            #expect(try detail(daemon) == Self.licensed)
        }

        @Test func suspendedAndReinstated() throws {
            let authority = try AuthorityControl()
            let daemon = try DaemonControl(authority: authority)
            try eventually(daemon, "Active")
            let id = try #require(authority.licenses().first?.id)
            try authority.command("license", "suspend", id, "--reason", "an invoice")
            let (status, output) = try daemon.ask("set", "renew_license")
            #expect(status == 1 && output.contains("suspended"), "\(output)")
            try eventually(daemon, "Suspended")
            #expect(
                try detail(daemon).hasPrefix("Purchased License Seat: 40\nAvailable License Seat: 0\nMax Licensed Session: 0\n")
            )
            try authority.command("license", "reinstate", id, "--reason", "paid")
            _ = try daemon.ask("commit")
            try eventually(daemon, "Active")
            #expect(try detail(daemon) == Self.licensed)
            #expect(try authority.command("ledger", "verify").contains("entries"))
        }

        /// The file is watched: what is put in place by hand is in force without a word.
        @Test func offline() throws {
            let authority = try AuthorityControl()
            let daemon = try DaemonControl(cap: nil)
            try FileManager.default.copyItem(
                atPath: authority.keys + "/" + (try key(of: authority)),
                toPath: daemon.home + "/keys/" + (try key(of: authority)))
            let hardware = authority.folder.path + "/hw_data.lic"
            try daemon.fpx("show", "license_hardware_data").write(toFile: hardware, atomically: true, encoding: .utf8)
            let issue = "\(try Programs.path("fpx-authority")) offline \(hardware) --subscription 1"
            let (status, output) = try run(
                "/bin/sh", ["-c", "\(issue) --database \(authority.database) >\(daemon.licenseFile)"])
            #expect(status == 0, "\(output)")
            try eventually(daemon, "Offline-active")
            #expect(try detail(daemon) == Self.licensed)
            _ = try daemon.fpx("commit")
            #expect(
                try daemon.fpx("show", "license") == "Production license for 2000 mbits valid until 2099-01-01\n")
            #expect(try daemon.fpx("show", "license", "--json").contains(#""issuer_type":"offline""#))
            // A damaged one in its place changes nothing.
            try "nonsense".write(toFile: daemon.licenseFile, atomically: true, encoding: .utf8)
            let told = try EndToEndTests.eventually {
                try daemon.fpx("get", "system", "events").contains("is refused (Malformed)")
            }
            #expect(told)
            #expect(try detail(daemon) == Self.licensed)
        }

        private func key(of authority: AuthorityControl) throws -> String {
            try #require(try FileManager.default.contentsOfDirectory(atPath: authority.keys).first { $0.hasSuffix(".pem") })
        }

        @Test func usageReport() throws {
            let authority = try AuthorityControl()
            let daemon = try DaemonControl(authority: authority)
            try eventually(daemon, "Active")
            let report = try #require(
                try JSONSerialization.jsonObject(with: Data(daemon.fpx("show", "usage_report").utf8)) as? [String: Any])
            #expect(report["sessions"] as? Int == 0)
            #expect((report["kernel"] as? String)?.isEmpty == false && (report["cpu_flags"] as? [String])?.isEmpty == false)
            #expect(report["distribution"] as? String != nil && (report["census_microseconds"] as? Int ?? -1) >= 0)
            _ = try daemon.fpx("config", "system", "global", "set", "usage-report", "disable", "end")
            #expect(try daemon.fpx("show", "full", "system", "global").contains("    set usage-report disable\n"))
        }
    }
}
