import AuthorityAPI
import AuthorityServer
import ControlAPI
import Foundation
import Licensing
import TestSupport
import Testing

/// The authority's side of copies: whose question it is, and which epoch it holds.
@Suite struct FieldCloneTests {
    private let own: String
    private let foreign: String

    init() throws {
        own = try SigningKey(id: UnitKey.id).publicText
        foreign = try SigningKey(id: UnitKey.id).publicText
    }

    private func said(_ reply: Reply) -> String { reply.claims.map { "epoch \($0.epoch)" } ?? reply.error?.code ?? "none" }

    @Test func anotherUnitsQuestionsCannotBeBurnt() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        let id = try #require(try await authority.ask(unit, by: own).claims).licenseID
        // Whoever has the customer's account key, and knows the unit and the key of its next question.
        for (who, key) in [("without a key", nil), ("with a key of its own", foreign)] {
            let next = newID()
            let thief = try await authority.ask(unit, key: next, by: key)
            let honest = try await authority.ask(unit, key: next, holding: (id, 1), by: own)
            #expect(
                Field.row(
                    "licence.8", "an unknown Idempotency-Key of another unit's is used, \(who)",
                    expected: "\(key == nil ? "unauthorized" : "held"), then the unit itself: epoch",
                    found: "\(said(thief)), then the unit itself: \(honest.claims == nil ? said(honest) : "epoch")"))
            #expect(try await authority.ask(unit, key: next, holding: (id, 1), by: own).body == honest.body)
            // Nor read: what the unit was answered is for the unit.
            #expect(try await authority.ask(unit, key: next, holding: (id, 1), by: key).claims == nil)
        }
        _ = try await authority.store.verifyLedger()
    }

    /// A copy that says it holds nothing, in order not to say which epoch, is one all the same.
    @Test func whatACopyMaySay() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        let id = try #require(try await authority.ask(unit, by: own).claims).licenseID
        for epoch in 1...4 { #expect(try await authority.ask(unit, holding: (id, epoch), by: own).claims?.epoch == epoch + 1) }
        for (what, held) in [
            ("nothing", (nil, nil)), ("another licence", (newID(), 4)), ("epoch 0", (id, 0)), ("epoch 3", (id, 3)),
        ] as [(String, (String?, Int?))] {
            let reply = try await authority.ask(unit, holding: held, by: own)
            #expect(Field.row("licence.2", "a copy says that it holds \(what)", expected: "cloned", found: said(reply)))
        }
        let reply = try await authority.ask(unit, holding: (id, 5), by: own)
        #expect(
            Field.row(
                "licence.2", "the unit itself", expected: "epoch 6, told",
                found: "\(said(reply)), \(reply.lease?.clonedAt == authority.now ? "told" : "not told")"))
        let license = try await authority.license(of: unit)
        #expect(license.clonedBy == "unit from 198.51.100.7, epoch 3" && license.clonedAt == authority.now)
        let kinds = try await authority.store.ledger(subject: "license:\(id)").map(\.kind)
        // The same words each hour are one line.
        #expect(kinds.count { $0 == "license.cloned" } == 2)
        _ = try await authority.store.resolve(id, reason: "test")
        #expect(try await authority.ask(unit, holding: (id, 6), by: own).lease?.clonedAt == nil)
        await #expect(
            throws: AuthorityError.state(
                what: "licence \(id)", found: "one that no copy asked for", expected: "a cloned one")
        ) { _ = try await authority.store.resolve(id, reason: "again") }
        _ = try await authority.store.verifyLedger()
    }

    /// Each puts the same old state folder back before it asks, and so looks like a unit that loses every answer.
    @Test func copiesThatPutOneStateFolderBack() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        let id = try #require(try await authority.ask(unit, by: own).claims).licenseID
        let begin = authority.now
        var ends: Set<Int> = []
        var last = ""
        for day in 0..<20 {
            for copy in 0..<3 {
                authority.now = begin + day * 86400 + copy
                let reply = try await authority.ask(unit, holding: (id, 1), by: own)
                if let claims = reply.claims { ends.insert((claims.leaseExpiry - begin + 86399) / 86400) }
                last = said(reply)
            }
        }
        #expect(
            Field.row(
                "licence.2", "three copies put one state folder back before each question, for 20 days",
                expected: "leases until day 14, then cloned",
                found: "leases until day \(ends.sorted().map(String.init).joined(separator: ", ")), then \(last)"))
        _ = try await authority.store.resolve(id, reason: "test")
        #expect(try await authority.ask(unit, holding: (id, 1), by: own).claims != nil)
        _ = try await authority.store.verifyLedger()
    }

    /// An authority that was restored from a backup is behind its units.
    @Test func aRestoredAuthorityAndItsUnits() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        let id = try #require(try await authority.ask(unit, by: own).claims).licenseID
        let backup = authority.folder.path + "/backup.db"
        _ = try await authority.store.backup(to: backup)
        for epoch in 1...3 { _ = try await authority.ask(unit, holding: (id, epoch), by: own) }
        let restored = authority.folder.path + "/restored.db"
        _ = try await AuthorityStore.restore(
            backup, to: restored, keysFolder: authority.folder.path + "/keys", now: authority.now)
        let now = authority.now
        let store = try AuthorityStore(
            path: restored, keysFolder: authority.folder.path + "/keys", clock: { Timestamp.date(now) })
        let ahead = try await authority.ask(unit, of: store, holding: (id, 4), by: own)
        #expect(
            Field.row(
                "licence.2", "a unit that is ahead of a restored authority", expected: "epoch 5, not cloned",
                found: "\(said(ahead)), \(ahead.lease?.clonedAt == nil ? "not cloned" : "cloned")"))
        // The answer to it was lost, and so was the question's name.
        #expect(try await authority.ask(unit, of: store, holding: (id, 4), by: own).claims?.epoch == 6)
        let copy = try await authority.ask(unit, of: store, holding: (id, 2), by: own)
        #expect(Field.row("licence.2", "its copy there", expected: "cloned", found: said(copy)))
    }

    /// Sent, given up, and kept somewhere on the way: another question was answered meanwhile.
    @Test func aQuestionThatComesLate() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        let id = try #require(try await authority.ask(unit, by: own).claims).licenseID
        let sent = authority.now
        for (wait, what) in [(60, "a minute"), (7200, "two hours")] {
            authority.now = sent + wait
            let epoch = try await authority.license(of: unit).epoch
            #expect(try await authority.ask(unit, holding: (id, epoch), by: own).claims?.epoch == epoch + 1)
            let late = try await authority.ask(unit, holding: (id, epoch), by: own, at: sent)
            let next = try await authority.ask(unit, holding: (id, epoch + 1), by: own)
            #expect(
                Field.row(
                    "licence.2", "a question comes \(what) late, after the next one; then the unit",
                    expected: "unauthorized, epoch \(epoch + 2)", found: "\(said(late)), \(said(next))"))
            #expect(late.error?.message.contains("iat: found 2026-11-21T00:00:00Z") == true, "\(late)")
        }
        let early = try await authority.ask(unit, by: own, at: authority.now + 301)
        #expect(
            Field.row("licence.2", "a question of a time that is to come", expected: "unauthorized", found: said(early)))
    }

    /// A suspended unit that has lost its id, by accident or not.
    @Test func aNewUnitOnTheHardwareOfASuspendedOne() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe(units: 5)
        let other = try await authority.store.addCustomer(name: "Other").customer.id!
        try await authority.subscribe(units: 5, customer: other)
        let (old, new, next) = (newID(), newID(), newID())
        let id = try #require(try await authority.ask(old, by: own).claims).licenseID
        // An active one holds nobody up: hosts of one model are many.
        #expect(try await authority.ask(newID(), by: foreign).status == 200)
        _ = try await authority.store.suspend(id, reason: "unpaid")
        for _ in 1...2 {
            let held = try await authority.ask(new, by: foreign)
            #expect(
                Field.row(
                    "licence.3", "a new unit id on the hardware of a suspended unit", expected: "held",
                    found: held.claims == nil ? said(held) : "licensed"))
            #expect(held.error?.message.hasPrefix("unit_id \(old) -> \(new), and that one is suspended: waits") == true)
        }
        let elsewhere = [
            try await authority.ask(newID(), machine.with { $0.totalMemorySize += 1 }, by: foreign),
            try await authority.ask(newID(), customer: other, by: foreign),
        ]
        #expect(
            Field.row(
                "licence.3", "on other hardware, and another customer's", expected: "epoch 1, epoch 1",
                found: elsewhere.map(said).joined(separator: ", ")))
        let waiting = try await authority.store.hardware()
        #expect(waiting.map(\.licenseId) == [id])
        _ = try await authority.store.approveHardware(try #require(waiting.first?.id))
        let approved = try await authority.ask(new, by: foreign)
        #expect(approved.claims.map { $0.licenseID != id && $0.epoch == 1 } == true, "\(approved)")
        // That was for this one alone, and has changed nothing of the old one.
        #expect(try await authority.ask(next, by: foreign).error?.code == "held")
        let license = try await authority.license(of: old)
        #expect(license.unitKey == own && license.state == .suspended)
        _ = try await authority.store.reinstate(id, reason: "paid")
        #expect(try await authority.ask(next, by: foreign).status == 200)
        _ = try await authority.store.verifyLedger()
    }

    @Test func aUnitWithoutAnyAddress() async throws {
        let authority = try await TestAuthority()
        try await authority.subscribe()
        let unit = newID()
        let id = try #require(try await authority.ask(unit, machine.with { $0.addressesIpv4 = ["192.0.2.1"] }, by: own).claims)
            .licenseID
        let none = machine.with { $0.addressesIpv4 = [] }
        let away = try await authority.ask(unit, none, holding: (id, 1), by: own)
        #expect(
            Field.row("licence.2", "a unit tells of no address, from another host", expected: "held", found: said(away)))
        let here = try await authority.ask(unit, none, holding: (id, 1), by: own, from: "127.0.0.1")
        #expect(
            Field.row("licence.2", "the same from the authority's own host", expected: "epoch 2", found: said(here)))
        let six = none.with { $0.addressesIpv6 = ["2001:db8::1"] }
        let moved = try await authority.ask(unit, six, holding: (id, 2), by: own)
        #expect(Field.row("licence.2", "a unit has an IPv6 address in place of its own", expected: "held", found: said(moved)))
    }
}
