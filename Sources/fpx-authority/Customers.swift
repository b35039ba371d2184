import ArgumentParser
import AuthorityServer
import Foundation
import Licensing

struct CustomerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "customer", abstract: "Adds and lists customers.", subcommands: [Add.self, RotateKey.self, List.self])

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Adds a customer and shows the account key.",
            discussion: """
                The account key goes into the configuration of the customer's units. It is shown this once: only a hash of it \
                is kept. Makes the database where there is none.
                """)

        @OptionGroup var database: DatabaseFile
        @Argument(help: "The customer's name, as licences show it.")
        var name: String

        func run() async throws {
            let (customer, key) = try await database.open(creates: true).addCustomer(name: name)
            print("customer: \(customer.id ?? 0)\naccount key: \(key)")
        }
    }

    struct RotateKey: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Makes a new account key; the old one counts no more.",
            discussion: "Units with the old key renew nothing until they have the new one: their leases run on meanwhile.")

        @OptionGroup var database: DatabaseFile
        @Argument(help: "The customer.")
        var id: Int64

        func run() async throws { print("account key: \(try await database.open().rotateAccountKey(ofCustomer: id))") }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists customers.")

        @OptionGroup var database: DatabaseFile
        @OptionGroup var form: ListForm

        /// A customer without the hash of the account key.
        private struct Shown: Codable {
            var id: Int64
            var name: String
        }

        func run() async throws {
            let customers = try await database.open().customers().map { Shown(id: $0.id ?? 0, name: $0.name) }
            try form.print(customers, ["CUSTOMER", "NAME"]) { [String($0.id), $0.name] }
        }
    }
}

extension Plan: ExpressibleByArgument {}

struct SubscriptionCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "subscription", abstract: "Adds, changes and lists subscriptions.",
        subcommands: [Add.self, Change.self, List.self])

    /// What a unit gets under it; nil: as it is, or as it usually is.
    struct Terms: ParsableArguments {
        @Option(help: ArgumentHelp("How many units it licenses (default: 1).", valueName: "n"))
        var units: Int?
        @Option(help: ArgumentHelp("Seats of type fnbi (default: 0).", valueName: "n"))
        var fnbi: Int?
        @Option(help: ArgumentHelp("Seats of type fcas (default: 0).", valueName: "n"))
        var fcas: Int?
        @Option(
            help: ArgumentHelp(
                "Seats of each type that the unit's model can use at most; 0: as many as are sold (default: 0).", valueName: "n"
            ))
        var modelMax: Int?
        @Option(help: ArgumentHelp("Sessions that a seat is worth (default: 25).", valueName: "n"))
        var sessionsPerSeat: Int?
        @Option(help: ArgumentHelp("Licensed bandwidth (default: 0, not licensed for bandwidth).", valueName: "mbits"))
        var bandwidth: Int?
        @Option(help: "What it is for (default: production).")
        var businessType: BusinessType?

        func apply(to subscription: inout Subscription) {
            if let units { subscription.units = units }
            if let fnbi { subscription.seatsFnbi = fnbi }
            if let fcas { subscription.seatsFcas = fcas }
            if let sessionsPerSeat { subscription.sessionsPerSeat = sessionsPerSeat }
            if let bandwidth { subscription.bandwidth = bandwidth }
            if let businessType { subscription.businessType = businessType }
            if let modelMax {
                (subscription.modelMaxFurl, subscription.modelMaxFnbi, subscription.modelMaxFcas) = (
                    modelMax, modelMax, modelMax
                )
            }
        }
    }

    /// Seats that are sold and that no unit can use are most often a mistake.
    private static func warn(of subscription: Subscription) {
        for type in LicenseType.allCases where subscription.modelMax[type] < subscription.seats[type] {
            Authority.note(
                "warning: units can use \(subscription.modelMax[type]) of the \(subscription.seats[type]) seats of type "
                    + "\(type.rawValue), since --model-max is \(subscription.modelMax[type]); 0: as many as are sold")
        }
    }

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Adds a subscription.", discussion: "Seats and bandwidth are those of each unit under it.")

        @OptionGroup var database: DatabaseFile
        @Option(help: ArgumentHelp("Whose it is.", valueName: "id"))
        var customer: Int64
        @Option(help: "How it is paid; offline licences are for annual ones.")
        var plan: Plan
        @Option(help: ArgumentHelp(EndArgument.help, valueName: "date"))
        var paidUntil: EndArgument
        @Option(help: ArgumentHelp("Seats of type furl.", valueName: "n"))
        var seats: Int
        @OptionGroup var terms: Terms

        func run() async throws {
            let sold = PerType(furl: seats, fnbi: terms.fnbi ?? 0, fcas: terms.fcas ?? 0)
            var subscription = Subscription(customerID: customer, plan: plan, paidUntil: paidUntil.seconds, seats: sold)
            terms.apply(to: &subscription)
            let added = try await database.open().addSubscription(subscription)
            SubscriptionCommand.warn(of: added)
            print("subscription: \(added.id ?? 0)")
        }
    }

    struct Change: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Changes a subscription: what is not named stays.",
            discussion: "Units learn of it with their next renewal.")

        @OptionGroup var database: DatabaseFile
        @Argument(help: "The subscription.")
        var id: Int64
        @Option(help: ArgumentHelp("Monthly or annual.", valueName: "plan"))
        var plan: Plan?
        @Option(help: ArgumentHelp(EndArgument.help, valueName: "date"))
        var paidUntil: EndArgument?
        @Option(help: ArgumentHelp("Seats of type furl.", valueName: "n"))
        var seats: Int?
        @OptionGroup var terms: Terms

        func run() async throws {
            let changed = try await database.open().changeSubscription(id) { [plan, paidUntil, seats, terms] subscription in
                if let plan { subscription.plan = plan }
                if let paidUntil { subscription.paidUntil = paidUntil.seconds }
                if let seats { subscription.seatsFurl = seats }
                terms.apply(to: &subscription)
            }
            if changed.paidUntil <= Timestamp.seconds(Date()) {
                Authority.note("warning: that date has passed: units get no lease under subscription \(id)")
            }
            SubscriptionCommand.warn(of: changed)
            print("subscription \(id) is paid until \(Timestamp.endText(changed.paidUntil))")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists subscriptions.")

        @OptionGroup var database: DatabaseFile
        @OptionGroup var form: ListForm

        func run() async throws {
            let titles = [
                "SUBSCRIPTION", "CUSTOMER", "PLAN", "PAID UNTIL", "UNITS", "FURL", "FNBI", "FCAS", "MODEL MAX", "MBITS", "FOR",
            ]
            try form.print(try await database.open().subscriptions(), titles) {
                [
                    String($0.id ?? 0), String($0.customerId), $0.plan.rawValue, Timestamp.endText($0.paidUntil),
                    String($0.units),
                    String($0.seatsFurl), String($0.seatsFnbi), String($0.seatsFcas), Self.modelMax($0), String($0.bandwidth),
                    $0.businessType.rawValue,
                ]
            }
        }

        /// One number where all types have the same.
        private static func modelMax(_ subscription: Subscription) -> String {
            let numbers = [subscription.modelMaxFurl, subscription.modelMaxFnbi, subscription.modelMaxFcas]
            let texts = numbers.map { $0 == 0 ? "sold" : String($0) }
            return Set(texts).count == 1 ? texts[0] : texts.joined(separator: "/")
        }
    }
}
