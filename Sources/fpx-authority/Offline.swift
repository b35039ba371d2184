import ArgumentParser
import AuthorityServer
import Foundation
import Licensing

struct Offline: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Issues a licence for a unit without a connection, on stdout.",
        discussion: """
            On the unit: fpx show license_hardware_data > hw_data.lic. Here: fpx-authority offline hw_data.lic --subscription \
            ID > license.lic. The file goes to the unit, into its place, then: fpx commit. It holds until the annual \
            subscription's paid until, and is bound to the unit, CPU model, CPU count and memory: a copy of it on another unit \
            is refused. Asked again for the same unit, it gives the next epoch.
            """)

    @OptionGroup var files: DatabaseFile
    @Argument(help: ArgumentHelp("The unit's hardware data.", valueName: "file"))
    var file: String
    @Option(help: ArgumentHelp("An annual subscription.", valueName: "id"))
    var subscription: Int64
    @Option(help: ArgumentHelp("The unit (default: as the file says, else made from all its data).", valueName: "uuid"))
    var unit: String?

    func run() async throws {
        var machine = try Hardware(dataFile: file)
        let known = unit ?? (machine.unitID.isEmpty ? nil : machine.unitID)
        if machine.unitID.isEmpty { machine.unitID = unit ?? "" }
        let (token, license) = try await files.open().issueOffline(machine, subscription: subscription, unitID: known)
        if machine.unitID.isEmpty, machine.unitKey.isEmpty {
            Authority.note(
                "warning: \(file) names no unit_id: this licence runs on any unit with the same CPU and memory; "
                    + "--unit UUID binds it")
        }
        try FileHandle.standardOutput.write(contentsOf: Data(token.utf8))
        Authority.note("licence \(license.id), epoch \(license.epoch), until \(Timestamp.endText(license.leaseExpiry))")
    }
}
