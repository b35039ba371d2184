// fpx-authority: the server that issues and extends licences, and all that a person does with it.

import ArgumentParser
import AuthorityServer
import Basics
import ControlAPI
import Foundation
import Licensing

@main
struct Authority: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fpx-authority",
        abstract: "Issues licences to units and extends their leases.",
        discussion: """
            One database file holds all that the authority knows; any command may be used while `serve` runs. Exit status: 0 \
            done, 1 refused (the reason is on stderr), 2 usage.
            """,
        version: Version.number,
        subcommands: [
            Serve.self, CustomerCommand.self, SubscriptionCommand.self, LicenseCommand.self, Offline.self, Keys.self,
            HardwareCommand.self, Usage.self, LedgerCommand.self, Backup.self, Restore.self,
        ])

    static func main() async {
        Descriptor.keepMemoryOffDisk()
        do {
            var command = try parseAsRoot(ProgramArguments.words)
            if var command = command as? any AsyncParsableCommand { try await command.run() } else { try command.run() }
        } catch let error as LicensingError {
            fail(error.description)
        } catch let error as AuthorityError {
            fail(error.description)
        } catch let error as Refusal {
            fail(error.reason)
        } catch {
            // Help and version come as errors too, of status 0.
            let code = exitCode(for: error)
            let text = fullMessage(for: error)
            if !text.isEmpty { write(text, to: code.isSuccess ? .standardOutput : .standardError) }
            Foundation.exit(code.isSuccess ? 0 : 2)
        }
    }

    /// Says something on stderr.
    static func note(_ text: String) { write("fpx-authority: " + text, to: .standardError) }

    private static func fail(_ reason: String) -> Never {
        note(reason)
        Foundation.exit(1)
    }

    private static func write(_ text: String, to file: FileHandle) {
        // A reader that has gone away is no reason to fail.
        try? file.write(contentsOf: Data((text + "\n").utf8))
    }
}

/// The command understood what it was asked and says no.
struct Refusal: Error {
    var reason: String
}
