import Foundation
import TestSupport
import Testing

extension EndToEnd {
    /// fpxd as a service of systemd, by the unit that is installed.
    @Suite struct FieldService {
        private static let unit = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../Integrations/systemd/fpxd.service").standardized.path

        private static let hasSystemd = access("/usr/bin/systemd-analyze", X_OK) == 0

        @Test(.enabled(if: hasSystemd, "needs systemd")) func theUnitIsUnderstood() throws {
            let folder = try TemporaryFolder()
            let text = try String(contentsOfFile: Self.unit, encoding: .utf8)
                .replacing("ExecStart=/usr/local/bin/fpxd\n", with: "ExecStart=/bin/true\n")
            try folder.write(text, to: "fpxd.service")
            let (status, output) = try run("/usr/bin/systemd-analyze", ["verify", "--man=no", folder.path + "/fpxd.service"])
            #expect(status == 0 && !output.contains("fpxd.service:"), "\(output)")
        }

        /// With a limit systemd gives a service up after five quick ends. The setting counts in its own section only.
        @Test func noLimitOfStarts() throws {
            let text = try String(contentsOfFile: Self.unit, encoding: .utf8)
            let section = try #require(text.split(separator: "[Unit]\n").last?.split(separator: "\n[").first)
            let lines = section.split(separator: "\n").filter { $0.hasPrefix("StartLimitIntervalSec=") }
            #expect(
                Field.row(
                    "daemon.10", "five quick ends of fpxd under systemd", expected: "StartLimitIntervalSec=0",
                    found: lines.joined(separator: " ")))
        }
    }
}
