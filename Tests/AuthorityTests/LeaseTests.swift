import AuthorityAPI
import AuthorityServer
import ControlAPI
import Foundation
import Licensing
import Testing

@Suite struct LeaseTests {
    @Test func firstContactGivesAFortnight() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        let reply = try await authority.ask(unit)
        let claims = try #require(reply.claims)
        #expect(reply.status == 200 && reply.lease?.externalAddress == "198.51.100.7" && reply.lease?.reissuesLeft == 3)
        #expect(claims.issuedAt == start && claims.notBefore == start && claims.leaseExpiry == start + 14 * day)
        #expect(claims.paidUntil == start + 365 * day && claims.epoch == 1 && claims.customer == "ACME")
        #expect(
            claims.seats == PerType(furl: 40, fnbi: 3, fcas: 2) && claims.modelMax == PerType(furl: 500, fnbi: 1, fcas: 500))
        #expect(claims.sessionsPerSeat == 25 && claims.licensedBandwidth == 2000 && claims.issuerType == .automatic)
        #expect(claims.hardware == HardwareBinding(Hardware(machine), binds: [.cpuModel, .logicalCPUsNumber]))
        let row = try await authority.license(of: unit)
        #expect(row.id == claims.licenseID && row.leaseExpiry == claims.leaseExpiry && row.epoch == 1)
        let keys = try await authority.store.keys()
        #expect(reply.lease?.keys == keys.map { LeaseAnswer.Key(kid: $0.kid, pem: $0.pem) })
    }

    @Test func thirtyRenewalsGainADayEach() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        let id = try #require(try await authority.ask(unit).claims).licenseID
        for renewal in 1...30 {
            authority.now += day
            let claims = try #require(try await authority.ask(unit, holding: (id, renewal)).claims)
            #expect(claims.leaseExpiry == start + (14 + renewal) * day && claims.epoch == renewal + 1 && claims.licenseID == id)
        }
        // Asking more often gains nothing but an epoch.
        let again = try #require(try await authority.ask(unit, holding: (id, 31)).claims)
        #expect(again.leaseExpiry == start + 44 * day && again.epoch == 32)
        #expect(try await authority.store.verifyLedger().entries == 3 + 32)
    }

    @Test func aLeaseNeverPassesWhatIsPaid() async throws {
        let authority = try await TestAuthority()
        let subscription = try await authority.subscribe(plan: .monthly, days: 20)
        let unit = newID()
        let first = try #require(try await authority.ask(unit).claims)
        #expect(first.leaseExpiry == start + 14 * day)
        func end(holding epoch: Int) async throws -> Int? {
            try await authority.ask(unit, holding: (first.licenseID, epoch)).claims?.leaseExpiry
        }
        authority.now += 10 * day
        #expect(try await end(holding: 1) == start + 20 * day)
        authority.now = start + 20 * day - 1
        #expect(try await end(holding: 2) == start + 20 * day)
        authority.now += 1
        let over = try await authority.ask(unit)
        #expect(over.status == 403 && over.error?.code == "paid_until_passed")
        #expect(over.error?.message.contains("paid until 2026-12-10,") == true)
        _ = try await authority.store.changeSubscription(subscription.id!) { $0.paidUntil += 30 * day }
        #expect(try await end(holding: 3) == start + 34 * day)
    }

    @Test func everyUnitNeedsAPlace() async throws {
        let authority = try await TestAuthority()
        let none = try await authority.ask(newID())
        #expect(none.status == 403 && none.error?.code == "no_subscription")
        try await authority.subscribe(days: 30, units: 2)
        let units = [newID(), newID()]
        for unit in units { #expect(try await authority.ask(unit).status == 200) }
        let full = try await authority.ask(newID())
        #expect(full.status == 403 && full.error?.code == "no_subscription" && full.error?.message.contains("2 units") == true)
        // Those that have a place keep it; one that is cancelled frees it, and does not get it back.
        #expect(try await authority.ask(units[0]).status == 200)
        let cancelled = try await authority.license(of: units[1])
        _ = try await authority.store.cancel(cancelled.id, reason: "sold")
        #expect(try await authority.ask(newID()).status == 200)
        #expect(try await authority.ask(units[1]).error?.code == "cancelled")
        authority.now += 30 * day
        #expect(try await authority.ask(newID()).error?.code == "paid_until_passed")
        #expect(try await authority.ask(units[0]).error?.code == "paid_until_passed")
    }

    @Test func aUnitOfAnotherCustomerIsRefused() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe(units: 2)
        let (other, _) = try await authority.store.addCustomer(name: "Globex")
        try await authority.subscribe(units: 2, customer: other.id)
        let unit = newID()
        let license = try #require(try await authority.ask(unit).claims).licenseID
        let refused = try await authority.ask(unit, customer: other.id)
        #expect(refused.status == 403 && refused.error?.code == "no_subscription")
        // A machine that was sold: cancelled here, it is new there.
        _ = try await authority.store.cancel(license, reason: "sold")
        let moved = try await authority.ask(unit, customer: other.id)
        #expect(moved.claims?.customer == "Globex" && moved.claims?.licenseID != license && moved.claims?.epoch == 1)
        #expect(try await authority.ask(unit).error?.code == "no_subscription")
        _ = try await authority.store.verifyLedger()
    }

    @Test func statesAndTheirWays() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        let id = try #require(try await authority.ask(unit).claims).licenseID
        _ = try await authority.store.suspend(id, reason: "unpaid")
        let suspended = try await authority.ask(unit)
        #expect(suspended.status == 403 && suspended.error?.code == "suspended")
        await #expect(throws: AuthorityError.state(what: "licence \(id)", found: "suspended", expected: "active")) {
            try await authority.store.suspend(id, reason: "again")
        }
        _ = try await authority.store.reinstate(id, reason: "paid")
        #expect(try await authority.ask(unit).claims?.epoch == 2)
        _ = try await authority.store.suspend(id, reason: "unpaid")
        _ = try await authority.store.cancel(id, reason: "gone")
        let cancelled = try await authority.ask(unit)
        #expect(cancelled.status == 403 && cancelled.error?.code == "cancelled")
        await #expect(throws: AuthorityError.state(what: "licence \(id)", found: "cancelled", expected: "suspended")) {
            try await authority.store.reinstate(id, reason: "back")
        }
        await #expect(throws: AuthorityError.absent(what: "licence", found: "nothing")) {
            try await authority.store.suspend("nothing", reason: "")
        }
        let kinds = try await authority.store.ledger(subject: "license:\(id)").map(\.kind)
        #expect(
            kinds == [
                "license.issued", "license.suspended", "license.reinstated", "license.renewed", "license.suspended",
                "license.cancelled",
            ])
        _ = try await authority.store.verifyLedger()
    }

    @Test func aQuestionThatComesAgainGainsNothing() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let (unit, key) = (newID(), newID())
        let first = try await authority.ask(unit, key: key)
        authority.now += day
        let again = try await authority.ask(unit, key: key)
        #expect(again.status == 200 && again.body == first.body)
        #expect(try await authority.license(of: unit).epoch == 1)
        let other = try await authority.ask(unit, machine.with { $0.hostname = "renamed" }, key: key)
        #expect(other.status == 422 && other.error?.code == "idempotency_conflict")
        // The conflict has not replaced the answer, and another unit may use the same key.
        #expect(try await authority.ask(unit, key: key).body == first.body)
        #expect(try await authority.ask(newID(), key: key).error?.code == "no_subscription")
        // A refusal is an answer too.
        let license = try await authority.license(of: unit)
        let late = newID()
        _ = try await authority.store.suspend(license.id, reason: "unpaid")
        #expect(try await authority.ask(unit, key: late).error?.code == "suspended")
        _ = try await authority.store.reinstate(license.id, reason: "paid")
        #expect(try await authority.ask(unit, key: late).error?.code == "suspended")
        // Answers are kept for two days.
        authority.now += 2 * day
        #expect(try await authority.ask(unit).claims?.epoch == 2)
        #expect(try await authority.ask(unit, key: key).claims?.epoch == 3)
    }

    @Test func twentyEqualQuestionsAtOnceAreOne() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        for round in 1...5 {
            let key = newID()
            let bodies = try await withThrowingTaskGroup(of: Data.self) { group in
                for _ in 0..<20 { group.addTask { try await authority.ask(unit, key: key).body } }
                return try await group.reduce(into: Set<Data>()) { $0.insert($1) }
            }
            #expect(bodies.count == 1)
            #expect(try await authority.license(of: unit).epoch == round)
        }
        // Different questions at once: each gets an epoch of its own.
        let epochs = try await withThrowingTaskGroup(of: Int?.self) { group in
            for _ in 0..<20 { group.addTask { try await authority.ask(unit).claims?.epoch } }
            return try await group.reduce(into: Set<Int?>()) { $0.insert($1) }
        }
        #expect(epochs == Set(6...25))
        let places = try await withThrowingTaskGroup(of: Int.self) { group in
            try await authority.subscribe(units: 3)
            for _ in 0..<10 { group.addTask { try await authority.ask(newID()).status } }
            return try await group.reduce(into: [:]) { $0[$1, default: 0] += 1 }
        }
        #expect(places == [200: 3, 403: 7])
        _ = try await authority.store.verifyLedger()
    }

    @Test func accountKeys() async throws {
        let authority = try await TestAuthority()
        let id = try #require(authority.customer.id)
        #expect(try await authority.store.customerID(ofAccountKey: authority.accountKey) == id)
        for wrong in [
            "", ".", "\(id).", "\(id)", "x." + authority.accountKey, "\(id + 1)" + authority.accountKey.drop { $0 != "." },
            authority.accountKey + "x", String(authority.accountKey.dropLast()), String(repeating: "1.", count: 200),
        ] {
            #expect(try await authority.store.customerID(ofAccountKey: wrong) == nil, "\(wrong)")
        }
        let new = try await authority.store.rotateAccountKey(ofCustomer: id)
        #expect(try await authority.store.customerID(ofAccountKey: authority.accountKey) == nil)
        #expect(try await authority.store.customerID(ofAccountKey: new) == id)
        await #expect(throws: AuthorityError.state(what: "customer ACME", found: "one of that name", expected: "a new name")) {
            _ = try await authority.store.addCustomer(name: "ACME")
        }
        // The database knows none of them.
        let bytes = try Data(contentsOf: URL(filePath: authority.databasePath))
        #expect(bytes.range(of: Data(new.split(separator: ".")[1].utf8)) == nil)
    }

    @Test func aSubscriptionThatUnitsWouldRefuseIsNotMade() async throws {
        let authority = try await TestAuthority()
        let good = try await authority.subscribe()
        let changes: [@Sendable (inout Subscription) -> Void] = [
            { $0.seatsFurl = -1 }, { $0.units = 0 }, { $0.sessionsPerSeat = 0 },
            { $0.bandwidth = -1 }, { ($0.seatsFurl, $0.modelMaxFurl) = (4_000_000, 4_000_000) }, { $0.paidUntil = 0 },
        ]
        for change in changes {
            await #expect(throws: AuthorityError.self) { _ = try await authority.store.changeSubscription(good.id!, change) }
        }
        #expect(try await authority.store.subscriptions() == [good])
        await #expect(throws: AuthorityError.absent(what: "customer", found: "99")) {
            try await authority.subscribe(customer: 99)
        }
    }

    /// The default is no number: more seats are more that a unit can use, without another word.
    @Test func moreSeatsAreMoreToUse() async throws {
        let authority = try await TestAuthority()
        let customer = try #require(authority.customer.id)
        func add(_ modelMax: PerType<Int>?) async throws -> Int64 {
            let added = try await authority.store.addSubscription(
                Subscription(
                    customerID: customer, plan: .annual, paidUntil: authority.now + 365 * day,
                    seats: PerType(furl: 40, fnbi: 3, fcas: 2), modelMax: modelMax))
            return try #require(added.id)
        }
        let cases: [(PerType<Int>?, [Int])] = [(nil, [60, 3, 2]), (PerType(furl: 50, fnbi: 0, fcas: 1), [50, 3, 1])]
        for (modelMax, usable) in cases {
            let (id, unit) = (try await add(modelMax), newID())
            _ = try await authority.ask(unit)
            _ = try await authority.store.changeSubscription(id) { $0.seatsFurl = 60 }
            let claims = try #require(try await authority.ask(unit).claims)
            #expect(claims.seats == PerType(furl: 60, fnbi: 3, fcas: 2))
            #expect(LicenseType.allCases.map { claims.activeSeats(of: $0) } == usable)
        }
        _ = try await authority.store.verifyLedger()
    }
}
