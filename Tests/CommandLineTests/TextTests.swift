// What the commands print, byte for byte.

import ControlAPI
import Foundation
import Testing

@testable import fpx

@Suite struct TextTests {
    @Test func statusHasItsTwoLinesFirst() {
        #expect(
            Text.status(Samples.status()) == """
                Version: fpxd v0.3.0,build0042,261121 (GA)
                License: Active, seat 40, active seat 40, expiry date 2027-01-31
                License days left: 71
                Authority: https://licence.example
                Authority last contact: 2026-11-18T10:06:40Z
                Authority last error: none
                License sharing mode: None
                Segment: /dev/shm/fpx/segment
                Configuration: /etc/fpx/fpxd.yaml
                Process: 4711
                Started: 2026-11-18T11:06:40Z
                Uptime: 2 days,  3 hours,  4 minutes

                """)
    }

    @Test(arguments: [
        (
            Samples.expired,
            "License: Expired, seat 40, active seat 0, expiry date 2026-11-20\nLicense reason: lease ended on 2026-11-20\n"
        ),
        (
            Samples.evaluation,
            "License: Evaluation, seat 4, active seat 4, expiry date 2026-12-21\n"
                + "License note: built-in evaluation, no licence file\n"
        ),
        (Samples.none, "License: Absent, seat 0, active seat 0, expiry date none\nLicense reason: no licence file\n"),
    ])
    func statusSaysWhy(_ license: LicenseSummary, _ lines: String) {
        #expect(Text.status(Samples.status(license)).hasPrefix("Version: fpxd v0.3.0,build0042,261121 (GA)\n" + lines))
    }

    @Test func statusNamesTheAuthoritysFailure() {
        var status = Samples.status()
        status.authority?.lastContact = nil
        status.authority?.lastError = "account-key-file: found no file"
        status.authority?.lastErrorAt = Samples.start
        #expect(
            Text.status(status).contains(
                "\nAuthority last contact: never\nAuthority last error: 2026-11-18T11:06:40Z account-key-file: found no file\n")
        )
        status.authority = nil
        #expect(!Text.status(status).contains("Authority"))
        status.troubles = ["/var/lib/fpx/unit: found\u{1B}[2J junk", "another"]
        #expect(
            Text.status(status).contains(
                "\nTrouble: /var/lib/fpx/unit: found\\u{1b}[2J junk\nTrouble: another\nLicense sharing"))
    }

    @Test func detailIsThreeLines() throws {
        #expect(
            try Text.seatsInDetail(Samples.seats())
                == "Purchased License Seat: 40\nAvailable License Seat: 40\nMax Licensed Session: 1000\n")
    }

    @Test func detailNamesWhatIsNotInOrder() throws {
        let expired = try Text.seatsInDetail(Samples.seats(Samples.expired))
        #expect(expired.hasSuffix("Max Licensed Session: 1000\nLicense state: Expired (lease ended on 2026-11-20)\n"))
        let evaluation = try Text.seatsInDetail(Samples.seats(Samples.evaluation))
        #expect(evaluation.hasSuffix("\nLicense state: Evaluation (built-in evaluation, no licence file)\n"))
        var without = Samples.seats()
        without.types.removeFirst()
        #expect(throws: Text.MissingType(found: ["fnbi", "fcas"])) { try Text.seatsInDetail(without) }
    }

    @Test func seatsHaveABlockForEachType() {
        #expect(
            Text.seats(Samples.seats()) == """
                Lic Sharing mode: None
                Lic type furl:
                  Model Max Seat: 500
                  Active Seat: 40
                  Available Purchased Seat: 40
                  Available Fabric Seat: 0
                  Available HA Seat: 0
                  Max Licensed Session: 1000
                  Current Licensed Sessions: 812
                  Max bypassed Sessions: 17
                Lic type fnbi:
                  Model Max Seat: 500
                  Active Seat: 0
                  Available Purchased Seat: 0
                  Available Fabric Seat: 0
                  Available HA Seat: 0
                  Max Licensed Session: 0
                  Current Licensed Sessions: 0
                  Max bypassed Sessions: 0
                Lic type fcas:
                  Model Max Seat: 500
                  Active Seat: 0
                  Available Purchased Seat: 0
                  Available Fabric Seat: 0
                  Available HA Seat: 0
                  Max Licensed Session: 0
                  Current Licensed Sessions: 0
                  Max bypassed Sessions: 0
                Bypassed now: furl 0, fnbi 0, fcas 0
                License state: Active

                """)
    }

    @Test func licenseIsOneLine() throws {
        #expect(Text.license(Samples.license()) == "Production license for 2000 mbits valid until 2027-01-31\n")
        #expect(
            Text.license(Samples.license(Samples.evaluation, type: "evaluation"))
                == "Evaluation license for 2000 mbits valid until 2026-12-21\n")
        #expect(
            Text.license(Samples.license(Samples.expired))
                == "Production license for 2000 mbits valid until 2026-11-20\n"
                + "License state: Expired (lease ended on 2026-11-20)\n"
        )
        #expect(Text.license(Samples.license(Samples.none)) == "No license: no licence file\n")
        #expect(
            try JSONLine.license(Samples.license())
                == #"{"address_ipv4":"","total_memory_size":7973,"logical_cpus_number":2,"cpu_model":"AMD \"EPYC\" 7/B13","#
                + #""expiration_date":"2027-01-31","licensed_bandwidth":2000,"issuer_type":"automatic","#
                + #""business_type":"production","licensed_bandwidth_unit":"mbits"}"# + "\n")
    }

    @Test func hardwareKeepsItsOrder() throws {
        #expect(
            try JSONLine.hardware(Samples.hardware)
                == #"{"cpu_model":"AMD EPYC 7B13","logical_cpus_number":2,"total_memory_size":7973,"#
                + #""addresses_ipv4":["192.0.2.1"],"hostname":"gw1","unit_id":"3b9dbf2c-7d53-4f0e-9a43-0d5f4a4a2f10"}"# + "\n")
    }

    @Test func performance() {
        #expect(
            Text.performance(Samples.performance) == """
                CPU states: 1% user 2% system 0% nice 96% idle 1% iowait 0% irq 0% softirq
                CPU0 states: 2% user 4% system 0% nice 92% idle 2% iowait 0% irq 0% softirq
                Memory: 8000000k total, 2000000k used (25.0%), 5000000k free (62.5%), 500000k freeable (6.3%)
                Current network usage: 12.3 / 0.4 mbits in 10 seconds
                Average network usage: 1235 / 45679 kbps in 1 minute, 0 / 2 kbps in 10 minutes, 0 / 0 kbps in 30 minutes
                Average sessions: 812 sessions in 1 minute, 700 sessions in 10 minutes, 600 sessions in 30 minutes
                Maximal sessions: 900 sessions in 1 minute, 950 sessions in 10 minutes, 1000 sessions in 30 minutes
                Average session setup rate: 30 sessions per second in last 1 minute, \
                20 sessions per second in last 10 minutes, \
                10 sessions per second in last 30 minutes
                Uptime: 0 days,  3 hours,  0 minutes

                """)
    }

    @Test func absurdFiguresDoNotTrap() {
        var report = Samples.performance
        report.memory = .init(total: 1, used: .max, free: .min, available: .max)
        report.uptimeSeconds = .min
        #expect(Text.performance(report).contains("1k total"))
        report.memory.total = 0
        #expect(Text.performance(report).contains("(0.0%)"))
    }

    @Test func tablesAreAligned() {
        #expect(
            Text.sessions(Samples.sessions) == """
                ID                HOOK     TYPE  VERDICT  CLIENT           PROCESS  STARTED               KEY
                87e0000000000007  haproxy  furl  inspect  192.0.2.7:40112     4801  2026-11-18T11:06:40Z  \
                4801:17:192.0.2.7:40112:1795000000
                87e1000100000003  haproxy  furl  bypass   -                     48  2026-11-18T11:06:40Z  \
                \\u{1b}[2Jevil\\u{a}line
                Total: 3 sessions, the 2 oldest listed

                """)
        #expect(Text.sessions(SessionsReport(total: 0, sessions: [])) == "Total: 0 sessions\n")
        #expect(
            Text.statistics(Samples.statistics) == """
                HOOK     COUNTER   VALUE
                haproxy  admitted    100
                haproxy  released     90

                SLOT  PROCESS  NAME   ALIVE  TYPE  IN_USE  SPARE  BYPASSED  ADMISSIONS  REFUSED
                   0     4795  nginx  yes    furl     802      6         0        9000        0
                 511     4711  fpxd   yes    furl      10     25         0         100        0

                CPU  TYPE  HELD  SPARE  ADMISSIONS
                  0  furl    -3     10          40
                  1  furl    13     15          60

                """)
        #expect(
            Text.events(Samples.events) == """
                2026-11-18T11:06:40Z  info     daemon   fpxd v0.3.0,build0042,261121 (GA) started as process 4711 \
                on segment /dev/shm/fpx/segment, 0 sessions of wire hooks taken over
                2026-11-18T11:06:40Z  warning  license  30 days left

                """)
    }

    @Test func configurationIsSetLines() throws {
        let report = Samples.configuration(["license-overlimit": "block", "log-file": ""])
        let section = try report.section("system global")
        let global = """
            config system global
                set license-overlimit block
                set log-level info
                set session-warning 80
                set usage-report enable
            end

            """
        #expect(Text.section(section) == global)
        #expect(
            Text.configuration(report) == global + """
                config system csf
                    set status disable
                    set role member
                    set group-name ""
                    set preferred-seats 0/0/0
                    set member-preferred-seats ""
                    set division max-min
                end
                config system ha
                    set mode standalone
                    set role secondary
                    set group-name ""
                end
                config system sharing
                    set endpoints ""
                    set user ""
                    set password-file ""
                    set ca ""
                    set certificate ""
                    set private-key ""
                    set reclaim time
                    set reclaim-after 10m
                    set term 30
                end
                config system daemon
                    set segment /dev/shm/fpx/segment
                    set state-folder /var/lib/fpx
                    set run-folder /run/fpx
                    set group fpx
                    set license-file /etc/fpx/license.lic
                    set trusted-keys /etc/fpx/keys
                    set log-file ""
                    # log-file is /var/log/fpxd.log until fpxd is restarted
                    set haproxy-folder /run/fpx
                    set authority ""
                    set account-key-file /etc/fpx/account.key
                    set authority-ca ""
                    set authority-certificate ""
                    set authority-private-key ""
                end

                """)
        #expect(Text.section(section.changed) == "config system global\n    set license-overlimit block\nend\n")
    }

    /// Nothing from outside may move the cursor or make a line of its own.
    @Test func nothingFromOutsideControlsTheTerminal() throws {
        let evil = "a\u{1b}]0;x\u{7}\r\nb\u{85}\u{2028}\u{202e}"
        var summary = Samples.expired
        summary.reason = evil
        summary.state = evil
        var status = Samples.status(summary)
        status.segment = evil
        status.authority?.url = evil
        status.authority?.lastError = evil
        var license = Samples.license(summary)
        license.businessType = evil
        let outputs = [
            Text.status(status), Text.license(license), Text.seats(Samples.seats(summary)),
            try Text.seatsInDetail(Samples.seats(summary)), Text.table([[evil]]),
            Text.renewal(RenewalReport(renewed: false, reason: evil, license: summary)),
            Text.commit(CommitReport(applied: true, license: summary, messages: [evil])),
            Text.section(try Samples.configuration(["session-warning": evil]).section("system global")),
            "\(Failure.refused(message: evil))\n",
        ]
        for output in outputs {
            let controls = output.unicodeScalars.filter { $0 != "\n" && $0.shownDiffers }
            #expect(controls.isEmpty, "\(output.debugDescription)")
            #expect(!output.contains("\nb"))
        }
    }
}

extension Unicode.Scalar {
    fileprivate var shownDiffers: Bool { String(self).shown != String(self) }
}
