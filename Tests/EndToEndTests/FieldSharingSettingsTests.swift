// Sharing that begins, ends and changes while fpxd runs, as operators change it: by `fpx config`, by hand, by SIGHUP.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite(.serialized, .enabled(if: EtcdServer.isInstalled, "etcd is not installed")) struct FieldSharingSettings {}
}

private let perSeat = SharingUnit.sessionsPerSeat

private func row(_ situation: String, expected: String, found: String, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(Field.row("settings.7", situation, expected: expected, found: found), sourceLocation: sourceLocation)
}

extension SharingUnit {
    /// `config system csf` and `config system sharing`, as one changes them.
    fileprivate func join(_ etcd: EtcdServer, group: String = "acme") throws {
        try configure("sharing", "set", "endpoints", etcd.list, "set", "term", "3")
        try configure("csf", "set", "status", "enable", "set", "group-name", group)
    }

    fileprivate var file: String { daemon.home + "/fpxd.yaml" }

    fileprivate func seats(_ count: Int) -> String { "\(serial) enforces \(count) seats" }
    fileprivate var seatsNow: String { seats(pool.capNow() / perSeat) }

    /// What it enforces, once that is as expected or time is over.
    fileprivate func eventualSeats(_ count: Int) -> String {
        _ = eventually(within: 20) { pool.capNow() == count * perSeat }
        return seatsNow
    }

    fileprivate func expectBorrowed(sourceLocation: SourceLocation = #_sourceLocation) throws {
        let came = eventually(within: 20) { pool.capNow() >= 24 * perSeat && load.inspected == 24 * perSeat }
        let problems = try view().problems
        #expect(came, "\(serial): \(problems), \(pool.settings)", sourceLocation: sourceLocation)
    }
}

extension EndToEnd.FieldSharingSettings {
    /// A lender of 40 seats and a borrower of 10 whose sessions fill 24.
    private func startPair(_ settings: [String: String]) throws -> (lender: SharingUnit, borrower: SharingUnit) {
        let units = try SharingUnit.start(["FPXA": 40, "FPXB": 10], settings)
        units[1].load.wanted = 24 * perSeat
        return (units[0], units[1])
    }

    @Test func onAndOffWhileSessionsRun() async throws {
        let etcd = try await EtcdServer.start()
        let (lender, borrower) = try startPair([:])
        let processes = [lender, borrower].map(\.daemon.processID)
        let watch = CapWatch([lender, borrower], most: 50 * perSeat)
        expectEventually("the borrower is full") { borrower.load.inspected == 10 * perSeat }
        for unit in [lender, borrower] { try unit.join(etcd) }
        try borrower.expectBorrowed()
        row(
            "config system csf set status enable, on two units that run", expected: "borrows",
            found: borrower.pool.capNow() >= 24 * perSeat ? "borrows" : borrower.seatsNow)

        // The borrower leaves: what it had is not its own any more when `end` returns, and no session is cut.
        try borrower.configure("csf", "set", "status", "disable")
        row("the borrower's status is disable", expected: borrower.seats(10), found: borrower.seatsNow)
        #expect(borrower.load.inspected == 24 * perSeat)
        #expect(try borrower.daemon.fpx("get", "system", "csf").hasPrefix("status              : disable\n"))
        row("the lender, a term later", expected: lender.seats(40), found: lender.eventualSeats(40))
        try borrower.configure("csf", "set", "status", "enable")
        try borrower.expectBorrowed()

        // The lender leaves: what it has lent is not its own before a term is over.
        let lent = try lender.view().lent.furl
        #expect(lent >= 14)
        let left = ContinuousClock.now
        try lender.configure("csf", "set", "status", "disable")
        if ContinuousClock.now - left < .seconds(2) { #expect(lender.pool.capNow() <= (40 - lent) * perSeat) }
        #expect(try lender.tells("Seat sharing is off", "Lent before and perhaps not back yet"))
        row("the lender's status is disable", expected: lender.seats(40), found: lender.eventualSeats(40))
        #expect(ContinuousClock.now - left > .seconds(3))
        row("the borrower, by then", expected: borrower.seats(10), found: borrower.eventualSeats(10))
        try lender.configure("csf", "set", "status", "enable")
        try borrower.expectBorrowed()
        #expect([lender, borrower].map(\.daemon.processID) == processes)
        watch.stop()
    }

    /// Each change by one of the ways that there are; the seed of what is chosen is printed.
    @Test func otherGroupsAndOtherEtcdUnderLoad() async throws {
        let etcds = [try await EtcdServer.start(), try await EtcdServer.start()]
        let units = try SharingUnit.start(
            ["FPXA": 40, "FPXB": 10, "FPXC": 20], EndToEnd.Sharing.fabric(etcds[0]), each: ["FPXA": ["csf-role": "root"]])
        let processes = units.map(\.daemon.processID)
        let watch = CapWatch(units, most: 70 * perSeat)
        let seed = testSeed()
        print("changes of pools: seed", seed)
        var random = SeededGenerator(seed: seed)
        func settings(_ unit: SharingUnit, _ etcd: EtcdServer, _ group: String) -> [String: String] {
            var settings = EndToEnd.Sharing.fabric(etcd)
            settings["csf-group-name"] = group
            if unit === units[0] { settings["csf-role"] = "root" }
            return settings
        }
        var wrong: [String] = []
        for turn in 0..<16 {
            let unit = units.randomElement(using: &random)!
            let (etcd, group) = (etcds.randomElement(using: &random)!, ["acme", "other"].randomElement(using: &random)!)
            for unit in units { unit.load.wanted = Int.random(in: 0...45, using: &random) * perSeat }
            switch turn % 4 {
            case 0:
                try unit.configure("sharing", "set", "endpoints", etcd.list)
                try unit.configure("csf", "set", "group-name", group)
            case 1:
                try unit.write(settings(unit, etcd, group))
                _ = try unit.daemon.fpx("commit")
            case 2:
                try unit.write(settings(unit, etcd, group))
                kill(try #require(unit.daemon.processID), SIGHUP)
            default: try unit.write(settings(unit, etcd, group))
            }
            let isThere = try eventually(within: 15) {
                let view = try unit.view()
                return view.group == group && view.isConnected && view.endpoints.map(\.url) == etcd.endpoints
            }
            if !isThere { wrong.append("turn \(turn): \(unit.serial) in \(group) of \(etcd.list): \(try unit.view())") }
        }
        for unit in units {
            try unit.write(settings(unit, etcds[1], "acme"))
            _ = try unit.daemon.fpx("commit")
            unit.load.wanted = unit === units[2] ? 50 * perSeat : 0
        }
        let came = eventually(within: 30) { units[2].load.inspected == 50 * perSeat }
        #expect(came, "\(units[2].pool.settings)")
        #expect(wrong == [])
        #expect(units.map(\.daemon.processID) == processes)
        let most = watch.stop()
        row(
            "three units change group and etcd 16 times under load", expected: "at most 70 seats enforced at any time",
            found: most <= 70 * perSeat ? "at most 70 seats enforced at any time" : "\(most) sessions")
    }

    /// Nothing is stopped for what is refused: neither a loan nor the file changes.
    @Test func whatIsWrongIsRefusedBeforeAnythingStops() async throws {
        let certificates = try Certificates.shared.get()
        let etcd = try await EtcdServer.start()
        let (lender, borrower) = try startPair(EndToEnd.Sharing.fabric(etcd))
        try borrower.expectBorrowed()
        let watch = CapWatch([lender, borrower], most: 50 * perSeat)
        let folder = try TemporaryFolder()
        try folder.write("", to: "empty")
        let tls = ["sharing", "set", "endpoints", "https://127.0.0.1:9"]
        let changes: [(situation: String, words: [String], answer: String)] = [
            (
                "a ca that is not there", tls + ["set", "ca", "/nowhere.pem"],
                "sharing-ca: found /nowhere.pem: No such file or directory, expected a file that can be read"
            ),
            (
                "a certificate and another's key",
                tls + ["set", "certificate", certificates.path("client.pem")]
                    + ["set", "private-key", certificates.path("server.key")],
                "sharing-private-key: found a key in \(certificates.path("server.key")) that does not go with the certificate"
            ),
            (
                "an empty password file",
                ["sharing", "set", "user", "fpx", "set", "password-file", folder.path + "/empty"],
                "sharing-password-file: found 0 bytes that are no password"
            ),
            ("endpoints that are none", ["sharing", "set", "endpoints", "e:2379"], "expected http://HOST:PORT"),
            ("no endpoints", ["sharing", "unset", "endpoints"], "found csf-status enable without sharing-endpoints"),
            ("no group", ["csf", "unset", "group-name"], "found csf-status enable without csf-group-name"),
            ("a fabric and a cluster", ["ha", "set", "mode", "7.2"], "found csf-status enable and ha-mode 7.2"),
        ]
        let before = try String(contentsOfFile: borrower.file, encoding: .utf8)
        func state(_ said: Bool) throws -> String {
            let isSame = try String(contentsOfFile: borrower.file, encoding: .utf8) == before
            let isBorrowed = borrower.pool.capNow() >= 24 * perSeat
            let begins = try borrower.tells("Seat sharing begins") || borrower.tells("Seat sharing is off")
            return "\(said ? "refused with a reason" : "not refused"), \(isSame ? "file as before" : "file changed"), "
                + (isBorrowed && !begins ? "loan as before" : "loan ended")
        }
        let expected = "refused with a reason, file as before, loan as before"
        for change in changes {
            let (status, output) = try borrower.daemon.ask(["config", "system"] + change.words + ["end"])
            let isSaid = status == 1 && output.contains(change.answer)
            if !isSaid { Issue.record("\(change.situation): \(status) \(output)") }
            row("\(change.situation), by fpx config", expected: expected, found: try state(isSaid))
        }
        // By hand: `commit` says it, and so does an event where nobody says `commit`.
        let reason = "sharing-ca: found /nowhere.pem: No such file or directory"
        try (before + "sharing-ca: /nowhere.pem\n").replacing("http://", with: "https://")
            .write(toFile: borrower.file, atomically: true, encoding: .utf8)
        let (status, output) = try borrower.daemon.ask("commit")
        #expect(status == 1 && output.contains("configuration kept: " + reason), "\(output)")
        try expectEventually("the event") { try borrower.tells("has changed and is refused", reason) }
        try before.write(toFile: borrower.file, atomically: true, encoding: .utf8)
        _ = try borrower.daemon.fpx("commit")
        row("a ca that is not there, by hand, and taken back", expected: expected, found: try state(status == 1))
        watch.stop()
    }

    @Test func otherCredentialsAndCertificates() async throws {
        let certificates = try Certificates.shared.get()
        // The cheapest hash: a password is asked for by each connection that is new.
        let etcd = try await EtcdServer.start(arguments: ["--bcrypt-cost", "4"])
        try etcd.enableAuthentication(root: "master", user: "fpx", password: "secret", prefix: "pool/acme/")
        let own = EtcdServer.TLS(
            certificate: certificates.path("server.pem"), privateKey: certificates.path("server.key"),
            authority: certificates.authority)
        let client = EtcdServer.TLS(
            certificate: certificates.path("client.pem"), privateKey: certificates.path("client.key"),
            authority: certificates.authority)
        let secured = try await EtcdServer.start(tls: own, client: client)
        let folder = try TemporaryFolder()
        try folder.write("secret\n", to: "password")
        try folder.write("another\n", to: "wrong")
        let (lender, borrower) = try startPair(EndToEnd.Sharing.fabric(etcd))
        let units = [lender, borrower]
        let watch = CapWatch(units, most: 50 * perSeat)
        func expectProblem(_ text: String) throws {
            try expectEventually("\(text)") { try units.allSatisfy { try $0.view().problems.contains { $0.contains(text) } } }
        }
        func found() throws -> String {
            try borrower.expectBorrowed()
            return borrower.pool.capNow() >= 24 * perSeat ? "borrows" : borrower.seatsNow
        }
        try expectProblem("found no user for an etcd that wants one")
        for unit in units {
            try unit.configure("sharing", "set", "user", "fpx", "set", "password-file", folder.path + "/wrong")
        }
        try expectProblem("user fpx: found no password that etcd takes")
        for unit in units { try unit.configure("sharing", "set", "password-file", folder.path + "/password") }
        row("etcd's user, and the right file of its password", expected: "borrows", found: try found())

        let settings = EndToEnd.Sharing.fabric(secured).merging([
            "sharing-ca": certificates.authority, "sharing-certificate": certificates.path("client.pem"),
            "sharing-private-key": certificates.path("client.key"),
        ]) { $1 }
        for unit in units {
            try unit.write(settings)
            _ = try unit.daemon.fpx("commit")
        }
        row("another etcd, with TLS, by hand and commit", expected: "borrows", found: try found())
        watch.stop()
    }

    @Test func clustersBeginAndChange() async throws {
        let etcd = try await EtcdServer.start()
        let units = try SharingUnit.start(["FPX1": 300, "FPX2": 500], [:])
        let (first, second) = (units[0], units[1])
        let watch = CapWatch(units, most: 800 * perSeat)
        func seats(_ one: Int, _ other: Int) -> String { "\(first.seats(one)), \(second.seats(other))" }
        func found(_ one: Int, _ other: Int) -> String { "\(first.eventualSeats(one)), \(second.eventualSeats(other))" }
        for unit in units {
            try unit.configure("sharing", "set", "endpoints", etcd.list, "set", "term", "3")
            let role = unit === first ? "primary" : "secondary"
            try unit.configure("ha", "set", "mode", "7.2", "set", "group-name", "pair", "set", "role", role)
        }
        row("config system ha set mode 7.2", expected: seats(800, 0), found: found(800, 0))
        try first.configure("ha", "set", "role", "secondary")
        try second.configure("ha", "set", "role", "primary")
        row("the roles change", expected: seats(0, 800), found: found(0, 800))
        for unit in units { try unit.configure("ha", "set", "mode", "pre-7.2") }
        row("config system ha set mode pre-7.2", expected: seats(150, 650), found: found(150, 650))
        for unit in units { try unit.configure("ha", "unset", "mode") }
        row("config system ha unset mode", expected: seats(300, 500), found: found(300, 500))
        watch.stop()
    }

    /// What is lent until it is given back stays lent, wherever the lender goes, though it finds a row of its own there.
    @Test func aLenderThatMovesKnowsWhatItHasLentElsewhere() async throws {
        let etcd = try await EtcdServer.start()
        let (lender, borrower) = try startPair(EndToEnd.Sharing.fabric(etcd))
        try lender.configure("sharing", "set", "reclaim", "ack-only")
        let watch = CapWatch([lender, borrower], most: 50 * perSeat)
        func incarnation() throws -> String {
            try etcd.row(of: "FPXA", in: "pool/other/m/")?.incarnation ?? "none"
        }
        try lender.configure("csf", "set", "group-name", "other")
        try expectEventually("its row") { try incarnation() != "none" }
        let former = try incarnation()
        try lender.configure("csf", "set", "group-name", "acme")
        try borrower.expectBorrowed()
        let lent = try lender.view().lent.furl
        try lender.configure("csf", "set", "group-name", "other")
        try expectEventually("its next row there") { try incarnation() != former }
        #expect(try lender.view().lent.furl >= 14, "it is on record")
        // Longer than a term.
        let start = ContinuousClock.now
        expectEventually("nothing comes back by time") {
            lender.pool.capNow() > (40 - lent) * perSeat || ContinuousClock.now - start > .seconds(4)
        }
        row(
            "a lender by ack-only goes to a pool where it has been", expected: "uses at most what it has not lent",
            found: lender.pool.capNow() <= (40 - lent) * perSeat ? "uses at most what it has not lent" : lender.seatsNow)
        #expect(borrower.load.inspected == 24 * perSeat, "they are in use")
        // Back again it finds who has them, also by one more address of the same etcd.
        try lender.configure("csf", "set", "group-name", "acme")
        try lender.configure("sharing", "set", "endpoints", "http://127.0.0.1:9," + etcd.list)
        borrower.load.wanted = 0
        row("it comes back, and the borrower needs nothing", expected: "has its seats", found: try returned(lender))
        watch.stop()
    }

    private func returned(_ lender: SharingUnit) throws -> String {
        lender.load.wanted = 38 * perSeat
        let came = eventually(within: 20) { lender.load.inspected == 38 * perSeat }
        return came ? "has its seats" : "\(lender.seatsNow): \(try lender.view().problems)"
    }
}
