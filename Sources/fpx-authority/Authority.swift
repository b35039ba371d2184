// fpx-authority: makes the keys and the licences that fpx checks.

import ArgumentParser
import Foundation
import Licensing

@main
struct Authority: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fpx-authority",
        abstract: "Makes the keys and the licences that fpx checks.",
        discussion: "Exit status: 0 done, 1 refused (the reason is on stderr), 2 usage.",
        subcommands: [Keys.self, LicenseCommand.self])

    static func main() async {
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand { try await command.run() } else { try command.run() }
        } catch let error as LicensingError {
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
