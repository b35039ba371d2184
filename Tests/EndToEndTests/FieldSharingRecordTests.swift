// What a lender remembers is lost or old: backups, snapshots of the disk, another time namespace.

import Foundation
import TestSupport
import Testing

private let perSeat = SharingUnit.sessionsPerSeat

extension EndToEnd {
    @Suite(.serialized, .enabled(if: EtcdServer.isInstalled, "etcd is not installed")) struct FieldSharingRecord {}
}

extension SharingUnit {
    /// On disk, and its copy in memory, which a boot does away with.
    fileprivate var recordFile: String { daemon.home + "/state/lent/unit-" + serial }
    fileprivate var copyFile: String { daemon.segmentPath + ".lent" }
}

extension EndToEnd.FieldSharingRecord {
    private static let waits = "waits until all that may be lent is over"

    /// 40 seats, of which 14 or more are lent, and the record of before.
    private func startPair(_ settings: [String: String]) throws -> (lender: SharingUnit, borrower: SharingUnit, old: Data) {
        let units = try SharingUnit.start(["FPXA": 40, "FPXB": 10], settings)
        let old = try Data(contentsOf: URL(filePath: units[0].recordFile))
        units[1].load.wanted = 24 * perSeat
        expectEventually("it has borrowed") { units[1].load.inspected == 24 * perSeat }
        // Its own sessions want all that it has: what it may use it does.
        units[0].load.wanted = 40 * perSeat
        return (units[0], units[1], old)
    }

    private func found(_ unit: SharingUnit, _ sentence: String) throws -> String {
        try unit.tells(sentence) ? Self.waits : "uses \(unit.pool.capNow() / perSeat) seats"
    }

    @Test(arguments: [false, true]) func anOldStateFolder(isBooted: Bool) async throws {
        let etcd = try await EtcdServer.start()
        let (lender, borrower, old) = try startPair(EndToEnd.Sharing.fabric(etcd))
        let watch = CapWatch([lender, borrower], most: 50 * perSeat)
        let put = ContinuousClock.now
        try lender.daemon.end(by: SIGKILL)
        try old.write(to: URL(filePath: lender.recordFile))
        if isBooted { try FileManager.default.removeItem(atPath: lender.copyFile) }
        try lender.daemon.start()
        // At a boot its row in the pool shows that the disk is an old one; without one a process of the same boot has left it.
        try expectEventually("its seats come back") { try lender.tells("What was lent before this start is back, or known") }
        #expect(ContinuousClock.now - put > .seconds(3))
        #expect(
            Field.row(
                "sharing.11", "an old state folder is put back\(isBooted ? ", and the host is booted" : "")",
                expected: "at most 50 seats enforced",
                found: watch.stop() <= 50 * perSeat ? "at most 50 seats enforced" : "more"))
        lender.load.wanted = 0
        expectEventually("it lends again") { borrower.load.inspected == 24 * perSeat }
    }

    /// What is on disk is the latest, as its own row in the pool shows: nobody waits for a term of 30 seconds.
    @Test func aBootOfAnHonestHost() async throws {
        let etcd = try await EtcdServer.start()
        let (lender, borrower, _) = try startPair(EndToEnd.Sharing.fabric(etcd, term: 30))
        let watch = CapWatch([lender, borrower], most: 50 * perSeat)
        try lender.daemon.end(by: SIGTERM)
        try FileManager.default.removeItem(atPath: lender.copyFile)
        let booted = ContinuousClock.now
        try lender.daemon.start()
        let came = eventually(within: 20) { lender.pool.capNow() >= 10 * perSeat }
        #expect(
            Field.row(
                "sharing.11", "a host is booted, with its latest state folder",
                expected: "uses at once what it cannot have lent",
                found: came ? "uses at once what it cannot have lent" : "uses \(lender.pool.capNow() / perSeat) seats"))
        #expect(ContinuousClock.now - booted < .seconds(25))
        watch.stop()
    }

    /// Somebody removes the state folder while fpxd runs, and later it is killed.
    @Test func aRecordThatIsRemovedMeanwhile() async throws {
        let etcd = try await EtcdServer.start()
        let (lender, borrower, _) = try startPair(EndToEnd.Sharing.fabric(etcd, term: 30))
        let watch = CapWatch([lender, borrower], most: 50 * perSeat)
        let state = lender.daemon.home + "/state"
        try #require(rename(state, state + ".away") == 0)
        try FileManager.default.removeItem(atPath: state + ".away")
        expectEventually("the record is there again") { access(lender.recordFile, F_OK) == 0 }
        try expectEventually("it is told") { try lender.tells("The record of what is lent was removed") }
        try lender.daemon.end(by: SIGKILL)
        let killed = ContinuousClock.now
        try lender.daemon.start()
        let came = eventually(within: 20) { lender.pool.capNow() >= 10 * perSeat }
        #expect(
            Field.row(
                "sharing.11", "a lender's state folder is removed while fpxd runs, which is killed then",
                expected: "uses at once what it cannot have lent",
                found: came ? "uses at once what it cannot have lent" : "uses \(lender.pool.capNow() / perSeat) seats"))
        #expect(ContinuousClock.now - killed < .seconds(25))
        watch.stop()
    }

    @Test func aLostRecordAndThenNoSharing() async throws {
        let etcd = try await EtcdServer.start()
        let (lender, borrower, _) = try startPair(EndToEnd.Sharing.fabric(etcd))
        let watch = CapWatch([lender, borrower], most: 50 * perSeat)
        try lender.daemon.end(by: SIGKILL)
        for file in [lender.recordFile, lender.copyFile] { try FileManager.default.removeItem(atPath: file) }
        try lender.write(["sharing-term": "3"])
        try lender.daemon.start()
        #expect(
            Field.row(
                "sharing.11", "the record is lost, and the lender starts without sharing", expected: Self.waits,
                found: try found(lender, "Lent before and perhaps not back yet: all seats")))
        lender.expectCap(40)
        watch.stop()
    }

    /// nginx in another time namespace: its clock is far ahead, or behind, and borrowed seats would end too soon or never.
    @Test func anotherTimeNamespace() async throws {
        let etcd = try await EtcdServer.start()
        let units = try SharingUnit.start(["FPXA": 40, "FPXB": 10], EndToEnd.Sharing.fabric(etcd))
        let (lender, borrower) = (units[0], units[1])
        borrower.load.wanted = 24 * perSeat
        expectEventually("it has borrowed") { borrower.load.inspected == 24 * perSeat }
        let folder = try TemporaryFolder()
        let module = try required(distribution + "/lib/nginx/ngx_http_fpx_module.so", "run `make integrations`")
        try folder.write(
            """
            load_module \(module);
            daemon off; user root; pid \(folder.path)/nginx.pid; error_log \(folder.path)/error.log; worker_processes 1; events {}
            http {
                access_log off;
                fpx_segment \(borrower.daemon.segmentPath);
                server { listen 127.0.0.1:\(try Socket.freePort()); fpx on; return 204; }
            }

            """, to: "nginx.conf")
        var nginx: ProxyProcess? = try ProxyProcess(
            ["unshare", "--time", "--boottime", "-1", "--fork", NGINX.program, "-c", folder.path + "/nginx.conf"],
            output: folder.path + "/nginx.out")
        let sentence = "in another time namespace than fpxd"
        let isSaid = try eventually {
            try borrower.tells(sentence) && borrower.view().problems.contains { $0.contains(sentence) }
                && borrower.daemon.fpx("get", "system", "csf").contains(sentence)
        }
        _ = eventually(within: 20) { borrower.pool.settings.borrowed == 0 }
        #expect(
            Field.row(
                "sharing.12", "nginx runs in another time namespace than its fpxd",
                expected: "no borrowed seats, and it is said",
                found:
                    "\(borrower.pool.settings.borrowed == 0 ? "no" : "\(borrower.pool.settings.borrowed / perSeat)") borrowed seats, "
                    + "\(isSaid ? "and it is said" : "not said: \(nginx == nil ? "" : folder.read("nginx.out") + folder.read("error.log"))")"
            ))
        // Sessions are never cut: as they end, seats go back.
        borrower.load.wanted = 5 * perSeat
        try expectEventually("what it cannot use goes back") { try lender.view().lent == SeatCount(furl: 0, fnbi: 0, fcas: 0) }
        nginx = nil
        borrower.load.wanted = 24 * perSeat
        expectEventually("it borrows again") { borrower.pool.capNow() >= 24 * perSeat }
        #expect(try borrower.tells("All processes go by the clock of fpxd"))
    }
}
