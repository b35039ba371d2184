import ArgumentParser
import AuthorityServer
import Foundation
import Licensing

struct LicenseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "license", abstract: "Lists, shows, suspends, cancels, reinstates and signs licences.",
        subcommands: [List.self, Show.self, Suspend.self, Cancel.self, Reinstate.self, Resolve.self, Sign.self])
}

/// A beginning on the command line: a date is the beginning of that day.
struct StartArgument: ExpressibleByArgument, Sendable {
    var seconds: Int

    init?(argument: String) {
        guard let seconds = Timestamp.parse(argument) else { return nil }
        self.seconds = seconds
    }
}

/// An end on the command line: a date includes its day.
struct EndArgument: ExpressibleByArgument, Sendable {
    static let help = "2027-01-31 (that day included, UTC) or 2027-01-31T12:00:00Z."

    var seconds: Int

    init?(argument: String) {
        guard let seconds = Timestamp.parseEnd(argument) else { return nil }
        self.seconds = seconds
    }
}

extension BusinessType: ExpressibleByArgument {}
extension IssuerType: ExpressibleByArgument {}
extension HardwarePart: ExpressibleByArgument {}

extension LicenseCommand {
    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Shows a licence of the database, or what a licence file says and whether it verifies.",
            discussion: """
                A file: without --trusted the claims are shown as they are, vouched for by nobody. With it, the exit status is \
                1 for a licence that does not verify. Whether it holds at present is shown too; the hardware is a matter of \
                the unit.
                """)

        @OptionGroup var database: DatabaseFile
        @OptionGroup var form: ListForm
        @Argument(help: ArgumentHelp("The id of a licence in the database, or a file.", valueName: "id-or-file"))
        var file: String

        @Option(help: ArgumentHelp("A public key or a folder of them.", valueName: "folder"))
        var trusted: [String] = []

        func run() async throws {
            if UnitID.isOne(file) { try await showRow() } else { try await showFile() }
        }

        private func showRow() async throws {
            let details = try await database.open().license(file)
            if form.json { return try ListForm.printJSON(details) }
            let (license, subscription) = (details.license, details.subscription)
            print(
                """
                licence: \(license.id)
                unit: \(license.unitId)
                customer: \(details.customer)
                subscription: \(license.subscriptionId), \(subscription.plan.rawValue)
                paid until: \(Timestamp.endText(subscription.paidUntil))
                type: \(license.issuerType.rawValue)
                state: \(license.shownState)
                epoch: \(license.epoch)
                lease until: \(Timestamp.endText(license.leaseExpiry))
                hardware: \(license.logicalCpusNumber) x \(license.cpuModel), \(license.totalMemorySize) MB
                address: \(license.address.isEmpty ? "none" : license.address)
                last usage report: \(details.lastUsageReport.map { $0.formatted(.iso8601) } ?? "none")
                """)
            if let at = license.clonedAt {
                print("cloned: since \(Timestamp.text(at)); asked last: \(license.clonedBy)")
            }
            for row in details.hardware where row.state != .first {
                print("hardware \(row.id ?? 0), \(row.state.rawValue) on \(Timestamp.text(row.at)): \(row.reason)")
            }
        }

        private func showFile() async throws {
            guard let bytes = try StoredFile.read(file, limit: LicenseToken.bytesMax) else {
                throw Refusal(
                    reason: "\(file): found neither a licence of this id nor a file of this name; `license list` has the ids")
            }
            let parts: SignedToken.Parts
            do throws(LicensingError) { parts = try LicenseToken.split(bytes) } catch { throw error.inLicenseFile(file) }
            print("header: " + Self.text(parts.header))
            if let claims = try? JSONValue.object(in: parts.payload) {
                print("claims: " + Self.text(claims))
                for (name, isEnd) in Self.times {
                    guard case .integer(let seconds)? = claims[name], Timestamp.range.contains(seconds) else { continue }
                    print("\(name): \(isEnd ? Timestamp.endText(seconds) : Timestamp.text(seconds))")
                }
            }
            if trusted.isEmpty { return print("signature: not checked, no --trusted") }
            let keys = TrustedKeys(paths: trusted)
            for trouble in keys.trouble { Authority.note("warning: \(trouble)") }
            let license: License
            do throws(LicensingError) { license = try await LicenseToken.verify(bytes, with: keys) } catch {
                throw error.inLicenseFile(file)
            }
            print("signature: verifies, by key \(license.keyID)")
            let now = Timestamp.seconds(Date())
            var failure: LicensingError?
            do { try license.checkTime(now: now) } catch { failure = error }
            let status = license.status(now: now, error: failure)
            print("state: \(status.state.rawValue)" + (status.reason.map { ", " + $0 } ?? ""))
        }

        private static let times = [("iat", false), ("nbf", false), ("exp", true), ("paid_until", true)]

        private static func text(_ members: [String: JSONValue]) -> String {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
            return (try? encoder.encode(members)).map { String(decoding: $0, as: UTF8.self) } ?? "not to be shown"
        }
    }
}
