import ArgumentParser
import AuthorityServer
import Licensing

extension LicenseCommand {
    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists licences.")

        @OptionGroup var database: DatabaseFile
        @OptionGroup var form: ListForm
        @Option(help: ArgumentHelp("Only those of a customer.", valueName: "id"))
        var customer: Int64?

        func run() async throws {
            let licenses = try await database.open().licenses(customerID: customer)
            try form.print(licenses, ["LICENCE", "UNIT", "SUBSCRIPTION", "TYPE", "STATE", "EPOCH", "LEASE UNTIL"]) {
                [
                    $0.id, $0.unitId, String($0.subscriptionId), $0.issuerType.rawValue, $0.shownState, String($0.epoch),
                    Timestamp.endText($0.leaseExpiry),
                ]
            }
        }
    }

    /// Which licence, and why.
    struct Change: ParsableArguments {
        @OptionGroup var database: DatabaseFile
        @Argument(help: ArgumentHelp("The licence.", valueName: "id"))
        var id: String
        @Option(help: ArgumentHelp("Why, for the ledger.", valueName: "text"))
        var reason: String

        func validate() throws {
            if !(1...1000).contains(reason.utf8.count) {
                throw ValidationError("--reason: found \(reason.utf8.count) bytes, expected 1 to 1000")
            }
        }

        func report(_ license: LicenseRow) {
            print("licence \(license.id) of unit \(license.unitId) is \(license.shownState)")
        }
    }

    struct Suspend: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Refuses a unit new leases.",
            discussion: "The lease in hand ends as soon as the unit asks for the next one; at the latest when it runs out.")

        @OptionGroup var change: Change

        func run() async throws {
            change.report(try await change.database.open().suspend(change.id, reason: change.reason))
        }
    }

    struct Cancel: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Ends a licence for good.",
            discussion: "Its place in the subscription is free for another unit, so there is no way back.")

        @OptionGroup var change: Change

        func run() async throws {
            change.report(try await change.database.open().cancel(change.id, reason: change.reason))
        }
    }

    struct Reinstate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Makes a suspended licence active again.",
            discussion: "The unit's next renewal, or its `commit`, fetches a lease.")

        @OptionGroup var change: Change

        func run() async throws {
            change.report(try await change.database.open().reinstate(change.id, reason: change.reason))
        }
    }

    struct Resolve: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Says that the next unit which asks with the licence's key is the true one.",
            discussion: """
                For a licence in state cloned: two processes went on with one unit's key and licence. Stop the one that must not run, \
                or remove its state folder; then this, then `fpx commit` on the unit that is to go on.
                """)

        @OptionGroup var change: Change

        func run() async throws {
            change.report(try await change.database.open().resolve(change.id, reason: change.reason))
        }
    }
}

extension LicenseRow {
    /// The state, with what a person has to settle.
    var shownState: String { clonedAt == nil || state != .active ? state.rawValue : "cloned" }
}
