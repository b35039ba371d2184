// What operators of units that share seats meet: an etcd that is full, refuses or does not trust, units that are copied, gone,
// idle or set in another way, and how each is told.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite(.serialized, .enabled(if: EtcdServer.isInstalled, "etcd is not installed")) struct FieldSharingOperator {}
}

private let perSeat = SharingUnit.sessionsPerSeat

private func row(
    _ situation: String, expected: String, found: String, point: String = "14",
    sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(Field.row("sharing.\(point)", situation, expected: expected, found: found), sourceLocation: sourceLocation)
}

extension SharingUnit {
    /// What people are shown of it: each command, the API and the events.
    fileprivate func places() throws -> [(name: String, text: String)] {
        [
            ("get system csf", try daemon.fpx("get", "system", "csf")),
            ("csfd 1", try daemon.fpx("diagnose", "test", "application", "csfd", "1")),
            ("/v1/sharing", try view().problems.joined(separator: "\n")),
            ("events", try daemon.fpx("get", "system", "events")),
        ]
    }

    /// Where a sentence is told, once it is told everywhere or time is over.
    fileprivate func told(_ sentence: String) throws -> String {
        var missing: [String] = []
        _ = try eventually(within: 20) {
            missing = try places().filter { !$0.text.contains(sentence) }.map(\.name)
            return missing.isEmpty
        }
        return missing.isEmpty ? "told everywhere" : "not told in \(missing.joined(separator: ", "))"
    }

    /// Words that only programmers know: files of a library's source, types, its own numbers.
    fileprivate func jargon() throws -> String {
        let words = [
            ".cc:", ".swift", "/Sources/", "NIO", "SSL", "Error:", "error:", "Optional(", "handshakeFailed", "1000000/",
        ]
        let found = try places().flatMap { place in words.filter(place.text.contains).map { "\($0) in \(place.name)" } }
        return found.isEmpty ? "plain" : found.joined(separator: ", ")
    }
}

extension EndToEnd.FieldSharingOperator {
    private func startPair(_ settings: [String: String]) throws -> (lender: SharingUnit, borrower: SharingUnit) {
        let units = try SharingUnit.start(["FPXA": 40, "FPXB": 10], settings, each: ["FPXA": ["csf-role": "root"]])
        try expectEventually("both are in the pool") { try units.allSatisfy { try $0.view().members == 2 } }
        return (units[0], units[1])
    }

    @Test func anEtcdAtItsQuotaIsToldEverywhere() async throws {
        let etcd = try await EtcdServer.start(arguments: ["--quota-backend-bytes", "4194304"])
        let (lender, borrower) = try startPair(EndToEnd.Sharing.fabric(etcd))
        let block = String(repeating: "x", count: 1_000_000)
        for index in 0..<20 {
            do { try etcd.control(["put", "filler\(index)"], input: block) } catch { break }
        }
        for unit in [lender, borrower] {
            row("etcd at its quota, on \(unit.serial)", expected: "told everywhere", found: try unit.told("at its quota"))
        }
        try etcd.control(["del", "--prefix", "filler"])
        let revision = try #require(
            try etcd.control(["endpoint", "status", "--write-out", "json"]).firstMatch(of: /"revision":(\d+)/)?.1)
        try etcd.control(["compact", String(revision)])
        try etcd.control(["defrag", "--command-timeout", "30s"])
        try etcd.control(["alarm", "disarm"])
        try expectEventually("its end is told") { try lender.tells("etcd answers, and takes what this unit writes") }
        try expectEventually("no trouble is left") { try lender.view().problems.isEmpty }
        #expect(try !lender.daemon.fpx("get", "system", "csf").contains("problem "))
    }

    @Test func aCopyIsToldInOneSentence() async throws {
        let etcd = try await EtcdServer.start()
        let unit = try SharingUnit("FPXA", seats: 40, EndToEnd.Sharing.fabric(etcd))
        try expectEventually("it is in the pool") { try unit.view().members == 1 }
        let copy = try SharingUnit("FPXA", seats: 40, EndToEnd.Sharing.fabric(etcd))
        try expectEventually("one of the two gives up") { try unit.view().isFenced || copy.view().isFenced }
        let fenced = try unit.view().isFenced ? unit : copy
        row(
            "a second fpxd with the same licence", expected: "told everywhere",
            found: try fenced.told("a copy of this unit runs"))
        row("how it is told", expected: "plain", found: try fenced.jargon())
    }

    @Test func whyEtcdIsOutOfReachIsPlain() async throws {
        let certificates = try Certificates.shared.get()
        let server = EtcdServer.TLS(
            certificate: certificates.path("server.pem"), privateKey: certificates.path("server.key"),
            authority: certificates.authority)
        let client = EtcdServer.TLS(
            certificate: certificates.path("client.pem"), privateKey: certificates.path("client.key"),
            authority: certificates.authority)
        let secured = try await EtcdServer.start(tls: server, client: client)
        let open = try await EtcdServer.start(arguments: ["--bcrypt-cost", "4"])
        try open.enableAuthentication(root: "master", user: "fpx", password: "secret", prefix: "pool/other/")
        let folder = try TemporaryFolder()
        try folder.write("secret\n", to: "password")
        try folder.write("another\n", to: "wrong")
        let trusted = ["sharing-ca": certificates.authority]
        let own = [
            "sharing-certificate": certificates.path("client.pem"), "sharing-private-key": certificates.path("client.key"),
        ]
        let foreign = [
            "sharing-certificate": certificates.path("stranger.pem"), "sharing-private-key": certificates.path("stranger.key"),
        ]
        let (tls, plain) = (EndToEnd.Sharing.fabric(secured), EndToEnd.Sharing.fabric(open))
        let unit = try SharingUnit("FPXA", seats: 40, [:])
        for (situation, settings, sentence) in [
            (
                "etcd's certificate is of another CA",
                tls.merging(own) { $1 }.merging(["sharing-ca": certificates.path("stranger-ca.pem")]) { $1 },
                "its certificate does not come from a CA that is trusted here"
            ),
            ("etcd wants a certificate, and none is set", tls.merging(trusted) { $1 }, "none is set"),
            ("etcd does not trust ours", tls.merging(trusted) { $1 }.merging(foreign) { $1 }, "our certificate"),
            (
                "https where etcd speaks http", plain.mapValues { $0.replacing("http:", with: "https:") },
                // etcd resets the connection or closes it.
                "https://127.0.0.1:"
            ),
            ("etcd wants a user, and none is set", plain, "found no user for an etcd that wants one"),
            (
                "the password is wrong",
                plain.merging(["sharing-user": "fpx", "sharing-password-file": folder.path + "/wrong"]) { $1 },
                "found no password that etcd takes"
            ),
            (
                "the user has no right to the pool",
                plain.merging(["sharing-user": "fpx", "sharing-password-file": folder.path + "/password"]) { $1 },
                "found no right to do this"
            ),
        ] {
            try unit.restart(settings, by: SIGTERM)
            row(situation, expected: "told everywhere", found: try unit.told(sentence))
            row(situation + ": how it is told", expected: "plain", found: try unit.jargon())
        }
    }

    /// The same line again and again is one line and a number.
    @Test func floodsAreFolded() async throws {
        let etcd = try await EtcdServer.start()
        let unit = try SharingUnit("FPXA", seats: 40, EndToEnd.Sharing.fabric(etcd))
        func lines(_ words: String) throws -> Int {
            try unit.daemon.fpx("get", "system", "events", "1000").components(separatedBy: words).count - 1
        }
        let contact = "Seat sharing: in contact with pool acme"
        try expectEventually("it is in contact") { try lines(contact) == 1 }
        for _ in 0..<4 {
            etcd.pause(0)
            try expectEventually("out of contact") { try !unit.view().isConnected }
            etcd.resume(0)
            try expectEventually("in contact") { try unit.view().isConnected }
        }
        let count = try lines(contact)
        row("etcd comes and goes within a minute", expected: "1 line", found: "\(count) line\(count == 1 ? "" : "s")")
        // At the end of the minute, or of fpxd, it is told how often.
        try unit.restart(by: SIGTERM)
        let events = try unit.daemon.fpx("get", "system", "events", "1000")
        let times = events.matches(of: /in contact with pool acme, (\d+) times more within a minute/).compactMap { Int($0.1) }
        row(
            "how often, in one line", expected: "2 to 4 times more",
            found: times.count == 1 && (2...4).contains(times[0]) ? "2 to 4 times more" : "\(times): \(events)")
    }

    @Test func whatIsSeldomMeantIsHinted() async throws {
        let etcd = try await EtcdServer.start()
        let (first, second) = try startPair(EndToEnd.Sharing.fabric(etcd))
        #expect(try first.view().problems.isEmpty)
        try second.configure("sharing", "set", "term", "4")
        row(
            "terms of 3 and 4 seconds in one pool", expected: "told everywhere",
            found: try first.told("found a term of 4 s on FPXB, expected 3 s as here"))
        try second.configure("csf", "set", "group-name", "ACME")
        row(
            "groups acme and ACME in one etcd", expected: "told everywhere",
            found: try second.told("a pool \"acme\" is in the same etcd: names that differ in case"))
    }

    @Test func aUnitThatIsGoneIsTakenAwayForGood() async throws {
        let etcd = try await EtcdServer.start()
        let (first, second) = try startPair(EndToEnd.Sharing.fabric(etcd))
        func remove(_ serial: String) throws -> (status: Int32, output: String) {
            try first.daemon.ask("execute", "csf", "remove", serial)
        }
        func key() throws -> String { try etcd.control(["get", "--keys-only", "pool/acme/m/FPXB"]) }
        let speaking = try remove("FPXB")
        row(
            "fpx execute csf remove of a unit that speaks", expected: "1: refused, and the row is there",
            found: "\(speaking.status): \(speaking.output.contains("FPXB has written its row") ? "refused" : speaking.output), "
                + (try key().isEmpty ? "the row is gone" : "and the row is there"))
        #expect(try remove("FPXZ").output.contains("found no row of FPXZ in pool acme, expected one of FPXB"))
        #expect(try remove("FPXA").output.contains("found the serial of this unit, FPXA, expected another's"))
        try second.daemon.end(by: SIGKILL)
        try expectEventually("it is silent") { try first.view().staleMembers == 1 }
        var removed = speaking
        _ = try eventually {
            removed = try remove("FPXB")
            return removed.status == 0
        }
        #expect(removed.output == "Removed: the row of FPXB from pool acme\n")
        try expectEventually("the pool is without it") { try first.view().members == 1 && first.view().staleMembers == 0 }
        row(
            "fpx execute csf remove of a unit that is gone", expected: "no row, told by name",
            found: (try key().isEmpty ? "no row" : "a row") + ", "
                + (try first.tells("The row of FPXB is removed from pool acme by ") ? "told by name" : "not told"))
        // A unit that comes back is a member as before.
        try second.daemon.start()
        try expectEventually("it is back") { try first.view().members == 2 && first.view().staleMembers == 0 }
    }

    /// A unit that has been silent for a month, as its row and this host's clock tell.
    @Test func rowsOfUnitsThatAreLongGoneEnd() async throws {
        let etcd = try await EtcdServer.start()
        let clock = try ShiftedClock()
        let gone = try SharingUnit("FPXC", seats: 10, EndToEnd.Sharing.fabric(etcd))
        try expectEventually("it is in the pool") { try gone.view().members == 1 }
        try gone.daemon.end(by: SIGKILL)
        func remains() throws -> Bool { try !etcd.control(["get", "--keys-only", "pool/acme/m/FPXC"]).isEmpty }
        let unit = try SharingUnit(
            "FPXA", seats: 40, license: ["--days", "90"], EndToEnd.Sharing.fabric(etcd), launcher: clock.launcher)
        try expectEventually("both are in the pool") { try unit.view().members == 2 && unit.view().staleMembers == 1 }
        // It has looked once by now; a start in a month looks again.
        try clock.set(ahead: 29 * 86400)
        try unit.restart(by: SIGTERM)
        try expectEventually("it has looked") { try unit.view().staleMembers == 1 }
        let start = ContinuousClock.now
        expectEventually("twice as long as until the first look") { ContinuousClock.now - start > .seconds(6) }
        row(
            "a unit that is silent for 29 days", expected: "its row is there",
            found: try remains() ? "its row is there" : "removed")
        try clock.set(ahead: 31 * 86400)
        try unit.restart(by: SIGTERM)
        let ended = try eventually { try !remains() }
        row("a unit that is silent for 31 days", expected: "removed", found: ended ? "removed" : "its row is there")
        try expectEventually("it is told") { try unit.tells("The row of FPXC is removed: it has not spoken for 31 days") }
        try expectEventually("the pool is without it") { try unit.view().members == 1 }
    }

    @Test func whatNobodyKnowsIsWhatWasBought() async throws {
        let etcd = try await EtcdServer.start()
        let unit = try SharingUnit("FPXA", seats: 40, EndToEnd.Sharing.fabric(etcd, term: 30))
        try unit.daemon.end(by: SIGTERM)
        try FileManager.default.removeItem(atPath: unit.daemon.home + "/state/lent")
        unlink(unit.daemon.segmentPath + ".lent")
        try unit.daemon.start()
        let text = try unit.daemon.fpx("get", "system", "csf")
        row(
            "the record of what is lent is lost", expected: "40/0/0 seats may be lent",
            found: text.firstMatch(of: /problem +: (.* may be lent)/).map { String($0.1) } ?? text)
        try unit.restart([:], by: SIGTERM)
        row("it shares no longer", expected: "plain", found: try unit.jargon())
    }

    /// An idle unit lends all that it has, and has it again when it is needed.
    @Test func anIdleUnitLendsItsLastSeat() async throws {
        let etcd = try await EtcdServer.start()
        let (idle, busy) = try startPair(EndToEnd.Sharing.fabric(etcd))
        let watch = CapWatch([idle, busy], most: 50 * perSeat)
        busy.load.wanted = 50 * perSeat
        _ = eventually { busy.load.inspected == 50 * perSeat }
        row(
            "the other unit wants all 50 seats", expected: "50 of 50 in use",
            found: "\(busy.load.inspected / perSeat) of 50 in use")
        busy.load.wanted = 20 * perSeat
        idle.load.wanted = 10 * perSeat
        _ = eventually { idle.load.inspected == 10 * perSeat }
        row("then it needs 10 itself", expected: "10 in use", found: "\(idle.load.inspected / perSeat) in use")
        watch.stop()
    }

    /// Sessions that last keep borrowed seats; their owner says for how long.
    @Test func seatsThatLongSessionsKeepComeHome() async throws {
        let etcd = try await EtcdServer.start()
        let (owner, borrower) = try startPair(EndToEnd.Sharing.fabric(etcd))
        let watch = CapWatch([owner, borrower], most: 50 * perSeat)
        #expect(try owner.daemon.fpx("get", "system", "csf").contains("reclaim-after       : 10m\n"))
        borrower.load.wanted = 40 * perSeat
        expectEventually("the borrower has 30 seats") { borrower.load.inspected == 40 * perSeat }
        owner.load.wanted = 40 * perSeat
        let start = ContinuousClock.now
        expectEventually("more than a term goes by") {
            owner.load.inspected == 40 * perSeat || ContinuousClock.now - start > .seconds(5)
        }
        row(
            "the borrower's sessions last, its owner waits for 10 minutes", expected: "the owner has 10 seats",
            found: "the owner has \(owner.load.inspected / perSeat) seats", point: "13")
        try owner.configure("sharing", "set", "reclaim-after", "1s")
        let change = ContinuousClock.now
        _ = eventually { owner.load.inspected == 40 * perSeat }
        print("the owner has its seats after \(Int((ContinuousClock.now - change) / .milliseconds(1))) ms")
        row(
            "it waits for a second", expected: "the owner has 40 seats, the borrower's 40 go on",
            found: "the owner has \(owner.load.inspected / perSeat) seats, the borrower's "
                + "\(borrower.load.inspected / perSeat) go on", point: "13")
        #expect(try owner.view().reclaimAfter == "1s")
        try expectEventually("the debt is shown") {
            try borrower.daemon.fpx("get", "system", "csf").contains("seats-debt          : 30/0/0\n")
        }
        #expect(try borrower.view().debt.furl == 30)
        #expect(try owner.view().debt.furl == 0)
        try expectEventually("it is told") {
            try borrower.tells("Given back though sessions are on them: ", "which FPXA has asked")
        }
        // No session begins before as many have ended.
        borrower.load.wanted = 20 * perSeat
        expectEventually("some end") { borrower.load.inspected == 20 * perSeat }
        borrower.load.wanted = 30 * perSeat
        try expectEventually("the debt is less") { try borrower.view().debt.furl == 10 }
        #expect(borrower.load.inspected == 20 * perSeat)
        borrower.load.wanted = 9 * perSeat
        expectEventually("they end") { borrower.load.inspected == 9 * perSeat }
        borrower.load.wanted = 12 * perSeat
        expectEventually("its own seats are in use") { borrower.load.inspected == 10 * perSeat }
        try expectEventually("nothing is owed") { try borrower.view().debt.furl == 0 }
        #expect(borrower.load.inspected == 10 * perSeat && owner.load.inspected == 40 * perSeat)
        watch.stop()
    }

    private func startCluster(_ etcd: EtcdServer, term: Int) throws -> (former: SharingUnit, new: SharingUnit) {
        let settings = [
            "ha-mode": "7.2", "ha-group-name": "pair", "sharing-endpoints": "\"\(etcd.list)\"", "sharing-term": "\(term)",
        ]
        let units = try SharingUnit.start(
            ["FPX1": 30, "FPX2": 50], settings, each: ["FPX1": ["ha-role": "primary"], "FPX2": ["ha-role": "secondary"]])
        units[0].load.wanted = 80 * perSeat
        expectEventually("all is in use") { units[0].load.inspected == 80 * perSeat }
        return (units[0], units[1])
    }

    @Test func aNewPrimaryUsesItsOwnSeatsAtOnce() async throws {
        let etcd = try await EtcdServer.start()
        let (former, new) = try startCluster(etcd, term: 30)
        let watch = CapWatch([former, new], most: 80 * perSeat)
        let start = ContinuousClock.now
        try former.configure("ha", "set", "role", "secondary")
        try new.configure("ha", "set", "role", "primary")
        new.load.wanted = 60 * perSeat
        // The term is 30 seconds: by time it would take that long.
        _ = eventually(within: 20) { new.load.inspected >= 50 * perSeat }
        print("a new primary has its seats after \(Int((ContinuousClock.now - start) / .milliseconds(1))) ms")
        row(
            "the roles change while the former primary's sessions last",
            expected: "the new one uses 50 seats, 80 go on at the former one",
            found: "the new one uses \(new.load.inspected / perSeat) seats, "
                + "\(former.load.inspected / perSeat) go on at the former one",
            point: "13")
        // What belongs to the former one follows as its sessions end.
        former.load.wanted = 0
        new.load.wanted = 80 * perSeat
        expectEventually("all is in use at the new one") { new.load.inspected == 80 * perSeat }
        watch.stop()
    }

    /// Its workers go on without it, up to the loan's end: nobody can know that they do not.
    @Test func aDeadPrimarysLoansEndByTheTerm() async throws {
        let etcd = try await EtcdServer.start()
        let (former, new) = try startCluster(etcd, term: 6)
        let watch = CapWatch([former, new], most: 80 * perSeat)
        try former.daemon.end(by: SIGKILL)
        let start = ContinuousClock.now
        try new.configure("ha", "set", "role", "primary")
        new.load.wanted = 60 * perSeat
        _ = eventually { new.load.inspected >= 50 * perSeat }
        let time = ContinuousClock.now - start
        print("a new primary has the seats that a dead one had borrowed after \(Int(time / .milliseconds(1))) ms")
        row(
            "the primary's fpxd is killed while its sessions last, the other unit becomes primary",
            expected: "the new one uses 50 seats, 80 go on at the former one",
            found: "the new one uses \(new.load.inspected / perSeat) seats, "
                + "\(former.load.inspected / perSeat) go on at the former one",
            point: "13")
        watch.stop()
    }
}
