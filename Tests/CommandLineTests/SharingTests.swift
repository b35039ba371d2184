// What the commands of seat sharing print, byte for byte, and what they do where nothing is shared.

import ControlAPI
import Foundation
import SeatSharing
import Testing

@testable import fpx

@Suite struct SharingTests {
    private let whole = """
        dev: FPXMEMB02(0x\(String(Samples.sharing.ledger?.devices[0].id ?? 0, radix: 16))), stale: n, root: n, sharing: y, \
        last ping: 1795000000 proto_version=3
        lic purchased/ used/ allocated/ reserved/guaranteed/ preferred/ model_max/grant?/conserve
        furl 40/ 3/ 34/ 34/ 0/ 0/ 500/ no / no
        fnbi 0/ 0/ 0/ 0/ 0/ 0/ 500/ no / no
        fcas 0/ 0/ 0/ 0/ 0/ 0/ 500/ no / no

        dev: FPXROOT01(0x\(String(Samples.sharing.ledger?.devices[1].id ?? 0, radix: 16))), stale: n, root: y, sharing: y, \
        last ping: 1795000000 proto_version=3
        lic purchased/ used/ allocated/ reserved/guaranteed/ preferred/ model_max/grant?/conserve
        furl 40/ 45/ 46/ 46/ 0/ 0/ 500/ no / no
        fnbi 0/ 0/ 0/ 0/ 0/ 0/ 500/ no / no
        fcas 0/ 0/ 0/ 0/ 0/ 0/ 500/ no / no

        Total:
        lic purchased/ used/ allocated/ conserve
        furl 80/ 48/ 80/ no
        fnbi 0/ 0/ 0/ no
        fcas 0/ 0/ 0/ no
        n_need_grant_seat: 0

        """

    private func daemon(_ report: SharingReport) throws -> TestDaemon {
        try TestDaemon { request, body in request == "GET /v1/sharing" ? .value(report) : Samples.answer(request, body) }
    }

    @Test func theRootPrintsTheWholeLedger() throws {
        let daemon = try daemon(Samples.sharing)
        func run(_ words: String...) throws -> Ended { try Program.run(words, socket: daemon.socket) }
        #expect(try run("diagnose", "test", "application", "csfd", "140") == .done(whole))
        #expect(try run("diag test app csfd 140 | grep '^furl 4'").output.split(separator: "\n").count == 2)
        let aligned = try Text.ledger(Samples.sharing, isAligned: true)
        #expect(aligned.contains("\nfurl         40/        45/        46/        46/"))
        #expect(try run("diag", "test", "app", "csfd", "140", "--align") == .done(aligned))
        #expect(try run("--align", "diag", "test", "app", "csfd", "140") == .done(aligned))
        #expect(try run("diag test app csfd 140 --align") == .done(aligned))
        #expect(try run("--align", "diag test app csfd 140 | grep n_need") == .done("n_need_grant_seat: 0\n"))
        #expect(
            try run("diag", "test", "app", "csfd", "140", "--align", "|", "grep", "n_need") == .done("n_need_grant_seat: 0\n"))
        #expect(
            try run("--align", "show", "license")
                == .failed(2, #"unexpected "--align" after "show license"; expected the end of the command"#))
        #expect(try run("--align") == .failed(2, "--align without a command; expected one before it; see fpx --help"))
        let json = try run("--json", "diag", "test", "app", "csfd", "140")
        #expect(json.output.contains(#""needing_grant":0"#) && json.output.contains(#""type":"furl""#), "\(json)")
    }

    @Test func anotherUnitPrintsItsOwn() throws {
        let member = Samples.sharing(role: .member, viewer: "FPXMEMB02", isDisconnected: true)
        #expect(
            try Text.ledger(member, isAligned: false) == """
                fabric license sharing: y
                device status: disconn yes stale no
                lic purchased/ used/ allocated/ conserve
                furl 40/ 3/ 34/ no
                fnbi 0/ 0/ 0/ no
                fcas 0/ 0/ 0/ no

                """)
    }

    /// Who parses the table must not take a sentence for it.
    @Test func withoutALedgerThereIsNoTable() throws {
        var unread = Samples.sharing
        unread.ledger = nil
        for (report, reason) in [
            (
                SharingReport(mode: "None"),
                "no ledger: found license sharing mode None, expected fabric; see show full system csf"
            ),
            (Samples.cluster, "no ledger: found license sharing mode HA, expected fabric; see show full system csf"),
            (unread, "no row of lab has been read yet; see diagnose test application csfd 1"),
        ] {
            let daemon = try daemon(report)
            for align in [[], ["--align"]] {
                let words = ["diagnose", "test", "application", "csfd", "140"] + align
                #expect(try Program.run(words, socket: daemon.socket) == .failed(1, reason))
            }
            #expect(try Program.run(["diag test app csfd 1"], socket: daemon.socket).status == 0)
        }
    }

    @Test func theState() {
        #expect(
            Text.sharing(Samples.sharing) == """
                License sharing mode: fabric
                Group: lab
                Serial: FPXROOT01
                Role: root
                Entitled: yes
                Connected: yes
                Another process of this unit: no
                Members: 2, stale 0
                Term: 30 s, heartbeat 2000 ms
                Reclaim: time
                Reclaim after: 10m
                Over-use: none while clocks agree
                Sessions: 1105, 25 to a seat
                Endpoint: https://192.0.2.21:2379, in use

                TYPE  OWN  BORROWED  LENT  CAP  USED  DEMAND  USED_TWICE  DEBT
                furl   40         6     0   46    45      45           0     0
                fnbi    0         0     0    0     0       0           0     0
                fcas    0         0     0    0     0       0           0     0

                LENDER     SEATS  ENDS
                FPXMEMB02  6/0/0  in 27 s

                """)
        var lender = Samples.sharing
        lender.lenders = []
        lender.borrowers = [.init(serial: "FPXMEMB02", seats: Seats(2))]
        lender.problems = ["found 2 roots"]
        let text = Text.sharing(lender)
        #expect(text.hasSuffix("\nBORROWER   SEATS  ENDS\nFPXMEMB02  2/2/2  when given back\n"))
        #expect(text.contains(", in use\nProblem: found 2 roots\n"))
        #expect(
            Text.sharing(SharingReport(mode: "None"))
                == "License sharing mode: None\nThis unit shares no seats: neither system csf nor system ha says so.\n")
    }

    @Test func theFabric() {
        #expect(
            Text.fabric(Samples.sharing) == """
                status              : enable
                upstream            : https://192.0.2.21:2379
                group-name          : lab
                group-password      : *
                downstream-access   : disable
                license-sharing     : enable
                configuration-sync  : local
                trusted-list        : FPXMEMB02 FPXROOT01
                role                : root
                serial              : FPXROOT01
                connection          : connected
                entitled            : yes
                members             : 2
                stale-members       : 0
                reclaim             : time
                reclaim-after       : 10m
                seats-own           : 40/0/0
                seats-borrowed      : 6/0/0
                seats-lent          : 0/0/0
                seats-allocated     : 46/0/0
                seats-used          : 45/0/0
                seats-debt          : 0/0/0

                """)
        #expect(
            Text.fabric(Samples.sharing(role: .member, viewer: "FPXMEMB02", isDisconnected: true))
                .contains("\nconnection          : disconnected\n"))
        for report in [SharingReport(mode: "None"), Samples.cluster] {
            #expect(
                Text.fabric(report).split(separator: "\n").map { $0.trimmingCharacters(in: [" "]) } == [
                    "status              : disable", "upstream            :", "group-name          :", "group-password      :",
                    "downstream-access   : disable", "license-sharing     : disable", "configuration-sync  : local",
                    "trusted-list        :",
                ])
        }
    }

    @Test func theSeatsOfAClusterUnderTheVendorsLabels() throws {
        let daemon = try TestDaemon(Samples.answerInHA)
        func run(_ words: String...) throws -> Ended { try Program.run(words, socket: daemon.socket) }
        let text = try run("diagnose", "wad", "license").output
        #expect(
            text.hasPrefix(
                """
                Lic Sharing mode: HA
                Lic type furl:
                  Model Max Seat: 500
                  Active Seat: 40
                  Available Purchased Seat: 40
                  Available Fabric Seat: 0
                  Available HA Seat: 0
                  License Seats Registered:
                    FPXROOT01: 40
                    FPXMEMB02: 40
                  Max Licensed Session: 1000
                  Current Licensed Sessions: 812
                  Max bypassed Sessions: 17
                Lic type fnbi:
                """), "\(text)")
        #expect(text.contains("    FPXMEMB02: 0\n"))
        #expect(try run("--json", "diagnose", "wad", "license").output.contains(#""mode":"HA""#))
    }

    @Test func theCluster() {
        let rest = """
            Mode: HA
            Group Name: pair
            Serial: FPXROOT01
            Role: primary
            Seats: 60 allocated, 33 used
            Number of Members: 2
            Member: FPXROOT01, seats registered 40, seats adjusted 60
            Member: FPXMEMB02, seats registered 40, seats adjusted 20

            """
        #expect(Text.cluster(Samples.cluster) == "HA Health Status: OK\n" + rest)
        var ill = Samples.cluster
        ill.isFenced = true
        ill.isEntitled = false
        ill.isConnected = false
        ill.staleMembers = 1
        ill.problems = ["found 2 primary units"]
        #expect(
            Text.cluster(ill) == """
                HA Health Status:
                    ERROR: another process runs as this unit; it uses no seats
                    ERROR: this unit's licence takes no part
                    ERROR: no contact with the other units
                    WARNING: members that are silent: 1
                    WARNING: found 2 primary units

                """ + rest)
        for report in [SharingReport(mode: "None"), Samples.sharing] { #expect(Text.cluster(report) == "Mode: Standalone\n") }
    }

    @Test func theSeatsOfACluster() throws {
        let lines = """
            License Seats Registered:
            FPXROOT01: 40
            FPXMEMB02: 40

            New license seats adjusted:
            FPXROOT01: 60
            FPXMEMB02: 20

            Available License Seat: 60
            Max Licensed Session: 1500
            Current Licensed Session: 812

            """
        let daemon = try TestDaemon(Samples.answerInHA)
        #expect(try Program.run(["diag wad lic detail"], socket: daemon.socket) == .done(lines))
        #expect(daemon.requests == ["GET /v1/seats", "GET /v1/sharing"])
        let json = try Program.run(["--json", "diag wad lic detail"], socket: daemon.socket)
        #expect(json.status == 0 && json.output.contains(#"{"adjusted":60,"registered":40,"serial":"FPXROOT01"}"#), "\(json)")
        #expect(
            try Text.seatsInHA(Samples.cluster, Samples.expired)
                == lines + "License state: Expired (lease ended on 2026-11-20)\n")
        let early = try TestDaemon { request, body in
            request == "GET /v1/sharing"
                ? .value(SharingReport(mode: "HA", group: "pair")) : Samples.answerInHA(request, body)
        }
        #expect(
            try Program.run(["diag wad lic detail"], socket: early.socket)
                == .failed(1, "no row of pair has been read yet; see diagnose test application csfd 1"))
    }

    /// Of another process anything may come; nothing of it moves the terminal or stops fpx.
    @Test func nothingFromOutsideControlsTheTerminal() throws {
        let evil = "a\u{1b}]0;x\u{7}\r\nb\u{85}\u{2028}\u{202e}"
        var report = Samples.cluster
        report.group = evil
        report.serial = evil
        report.role = evil
        report.policy = evil
        report.overUse = evil
        report.problems = [evil]
        report.endpoints = [.init(url: evil, state: evil)]
        report.lenders = [.init(serial: evil, seats: Seats(.max), endsInSeconds: .min)]
        report.cap = Seats(.max)
        var fabric = report
        fabric.mode = "fabric"
        for output in [Text.sharing(report), Text.fabric(fabric), Text.cluster(report)] {
            let controls = output.unicodeScalars.filter { $0 != "\n" && String($0).shown != String($0) }
            #expect(controls.isEmpty && !output.contains("\nb"), "\(output.debugDescription)")
        }
        #expect(try Text.seatsInHA(report, Samples.summary).contains("Max Licensed Session: 9223372036854775807\n"))
        let json =
            #"{"devices":[{"serial":"a\u001b[2J\n","is_stale":false,"is_root":true,"is_sharing":true,"last_ping":0,"#
            + #""protocol_version":2,"lines":[]}],"totals":[],"viewer":"x","is_disconnected":false,"needing_grant":0}"#
        fabric.ledger = try ControlJSON.decoder().decode(Ledger.self, from: Data(json.utf8))
        #expect(throws: Text.BadSerial(found: "a\u{1b}[2J\n")) { try Text.ledger(fabric, isAligned: false) }
        let daemon = try daemon(fabric)
        let result = try Program.run(["diag test app csfd 140"], socket: daemon.socket)
        #expect(result.status == 3 && result.output.isEmpty)
        #expect(result.error.contains(#"found the unit "a\u{1b}[2J\u{a}", which is no serial"#), "\(result.error)")
    }
}

@Suite struct SharingConfigurationTests {
    @Test func aBlockIsOneChange() throws {
        let daemon = try TestDaemon()
        func run(_ input: String) throws -> Ended { try Program.run([], socket: daemon.socket, input: input) }
        #expect(try run("config system csf\nset status enable\nset group-name lab\nset role root\nend\n") == .done(""))
        #expect(
            daemon.requests.last
                == #"PATCH /v1/config {"path":"system csf","set":{"group-name":"lab","role":"root","status":"enable"}}"#)
        #expect(
            try run("config system ha\nset mode 7\nset member-seats 1\nend\n")
                == .failed(2, #"line 3: unknown setting "member-seats" after "set"; expected mode, role or group-name"#))
        #expect(
            try run("config system csf\nset status enable\nend\n")
                == .failed(
                    1,
                    "line 3: found csf-status enable without csf-group-name, expected the name of the pool, the same on all its units"
                ))
        let json = try Program.run(
            ["--json", "config", "system", "sharing", "set", "term", "60", "end"], socket: daemon.socket)
        #expect(json.status == 0 && json.output.contains(#""name":"term","value":"60""#), "\(json)")
    }

    /// What is shown can be typed in again.
    @Test func whatIsShownCanBeTypedIn() throws {
        let report = Samples.configuration(["status": "enable", "group-name": "my lab", "preferred-seats": "5/5/5"])
        let section = try report.section("system csf")
        let text = """
            config system csf
                set status enable
                set role member
                set group-name "my lab"
                set preferred-seats 5/5/5
                set member-preferred-seats ""
                set division max-min
            end

            """
        #expect(Text.section(section) == text)
        #expect(section.changed.settings.map(\.name) == ["status", "group-name", "preferred-seats"])
        let daemon = try TestDaemon()
        #expect(try Program.run([], socket: daemon.socket, input: text).status == 0)
        #expect(
            daemon.requests.last
                == #"PATCH /v1/config {"path":"system csf","set":{"division":"max-min","group-name":"my lab","#
                + #""member-preferred-seats":"","preferred-seats":"5/5/5","role":"member","status":"enable"}}"#)
    }

    @Test func aDraftShowsWhatWillBe() throws {
        var draft = Draft(try Samples.configuration(["status": "enable"]).section("system csf"))
        try draft.set("status", to: "dis")
        #expect(draft.section.settings[0].value == "disable")
        try draft.set("status", to: "en")
        #expect(draft.section.settings[0].value == "enable" && draft.change.set == ["status": "enable"])
        try draft.unset("status")
        #expect(draft.section.settings[0].value == "disable" && draft.change.unset == ["status"])
    }
}
