// Copies of a unit: one licence file on several hosts, a state folder that was copied, a backup that was put back. And honest
// units, whose answers are lost or that restart, beside them.

import Foundation
import Synchronization
import TestSupport
import Testing

extension EndToEnd {
    @Suite struct FieldClone {}
}

/// What lies between a unit and its authority, and loses answers when it is told to.
private final class Relay: Sendable {
    let port: UInt16
    private let listener: Socket
    private let isLosing = Atomic(false)
    private let connections = Mutex<[Socket]>([])

    init(to authority: UInt16) throws {
        let listener = try Socket.listening()
        self.listener = listener
        port = try listener.port()
        Thread.detachNewThread { [weak self] in
            while let client = listener.accept() {
                guard let self, let server = try? Socket.connected(to: authority) else { return }
                self.connections.withLock { $0 += [client, server] }
                self.pass(from: client, to: server, isAnswer: false)
                self.pass(from: server, to: client, isAnswer: true)
            }
        }
    }

    deinit { listener.close() }

    /// The handshake gets through. What comes after the question does not.
    func loseAnswers(_ isLosing: Bool) { self.isLosing.store(isLosing, ordering: .sequentiallyConsistent) }

    /// Ends all connections: whoever waits for an answer waits no more.
    func cut() {
        connections.withLock { all in
            for socket in all { shutdown(socket.descriptor, Int32(SHUT_RDWR)) }
            all = []
        }
    }

    private func pass(from source: Socket, to target: Socket, isAnswer: Bool) {
        Thread.detachNewThread { [self] in
            // The authority's part of the handshake comes at once, and is more than a page with its certificates.
            var handshake = 0
            var bytes = [UInt8](repeating: 0, count: 65536)
            while true {
                let count = recv(source.descriptor, &bytes, bytes.count, 0)
                if count < 0, errno == EINTR || errno == EAGAIN { continue }
                guard count > 0 else { break }
                if isAnswer, isLosing.load(ordering: .sequentiallyConsistent), handshake > 0 { continue }
                handshake += count
                var sent = 0
                while sent < count {
                    let more = bytes[sent..<count].withUnsafeBytes {
                        send(target.descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                    }
                    if more <= 0 { return }
                    sent += more
                }
            }
            shutdown(target.descriptor, Int32(SHUT_WR))
        }
    }
}

/// What a thread has found.
private final class Said: Sendable { let text = Mutex<String?>(nil) }

extension DaemonControl {
    /// Takes over what lies on the disk of another unit, as a copy of it does.
    fileprivate static func copy(_ original: DaemonControl, but left: [String] = []) -> (_ home: String) throws -> Void {
        { home in
            for name in ["state", "license.lic"] {
                try FileManager.default.copyItem(atPath: original.home + "/" + name, toPath: home + "/" + name)
            }
            for name in left { try FileManager.default.removeItem(atPath: home + "/state/" + name) }
        }
    }

    fileprivate func renew() throws -> String {
        let (status, output) = try ask("set", "renew_license")
        return status == 0 ? "renewed" : output
    }

    fileprivate func shown() throws -> String {
        let text = try fpx("get", "system", "status")
        return text.firstMatch(of: /License: (\S+),/).map { String($0.1) } ?? text
    }

    /// Puts the keys of an authority among the trusted ones.
    fileprivate static func trust(_ authority: AuthorityControl) -> (_ home: String) throws -> Void {
        { home in
            for name in try FileManager.default.contentsOfDirectory(atPath: authority.keys) where name.hasSuffix(".pem") {
                try FileManager.default.copyItem(atPath: authority.keys + "/" + name, toPath: home + "/keys/" + name)
            }
        }
    }
}

extension EndToEnd.FieldClone {
    @Test func oneLicenceFileOnThreeHosts() throws {
        let authority = try AuthorityControl()
        let unit = try DaemonControl(authority: authority)
        #expect(try unit.eventualState("Active") == "Active")
        for host in ["second", "third"] {
            let other = try DaemonControl(cap: nil) { home in
                try DaemonControl.trust(authority)(home)
                try FileManager.default.copyItem(atPath: unit.licenseFile, toPath: home + "/license.lic")
            }
            let found = "\(try other.shown()), \(try other.figures(of: "Max Licensed Session")) sessions"
            #expect(
                Field.row(
                    "licence.2", "one licence file on three hosts: the \(host)", expected: "Other-unit, 0 sessions",
                    found: found),
                "\(other.log)")
            #expect(try other.fpx("get", "system", "status").contains("expected that of key"), "\(other.log)")
        }
        #expect(try unit.renew() == "renewed")
        #expect(try unit.figures(of: "Max Licensed Session") == 1000)
    }

    /// With the unit's id, but without its key.
    @Test func aQuestionInAnotherUnitsName() throws {
        let authority = try AuthorityControl()
        let unit = try DaemonControl(authority: authority)
        #expect(try unit.eventualState("Active") == "Active")
        let thief = try DaemonControl(authority: authority, prepare: DaemonControl.copy(unit, but: ["unit.key"]))
        let answer = try thief.renew()
        #expect(
            Field.row(
                "licence.2", "a question in another unit's name, with another key", expected: "held, Other-unit",
                found: "\(answer.contains("(held)") ? "held" : answer), \(try thief.shown())"), "\(thief.log)")
        let waiting = try authority.command("hardware", "list")
        #expect(waiting.contains("unit_key "), "\(waiting)")
        #expect(
            Field.row(
                "licence.2", "the unit itself, meanwhile and after", expected: "renewed, Active",
                found: "\(try unit.renew()), \(try unit.shown())"), "\(unit.log)")
        // The person who looks at it does nothing; the unit's next lease takes it off the list.
        #expect(try !authority.command("hardware", "list").contains("unit_key "))
    }

    @Test func twoUnitsOnACopiedStateFolder() throws {
        let authority = try AuthorityControl()
        let unit = try DaemonControl(authority: authority)
        #expect(try unit.eventualState("Active") == "Active")
        let copy = try DaemonControl(authority: authority, prepare: DaemonControl.copy(unit))
        #expect(try copy.eventualState("Active") == "Active")
        var answers: [String] = []
        for _ in 1...2 {
            for each in [unit, copy] {
                let answer = try each.renew()
                answers.append(answer.contains("(cloned)") ? "cloned" : answer)
            }
        }
        #expect(
            Field.row(
                "licence.2", "two units on a copied state folder, two renewals of each",
                expected: "renewed, renewed, cloned, renewed", found: answers.joined(separator: ", ")), "\(unit.log)\(copy.log)"
        )
        func states() throws -> String {
            try [unit, copy].map { "\(try $0.shown()) \(try $0.figures(of: "Max Licensed Session"))" }.joined(separator: ", ")
        }
        #expect(
            Field.row("licence.2", "their states, with sessions", expected: "Cloned 0, Active 1000", found: try states()))
        #expect(try copy.fpx("get", "system", "status").contains("Cloned: another unit"), "\(copy.log)")
        let listed = try authority.command("license", "list")
        let told = try authority.command("ledger", "list").contains("license.cloned")
        #expect(
            Field.row(
                "licence.2", "what the authority shows", expected: "cloned, in the ledger",
                found: "\(listed.contains(" cloned ") ? "cloned" : listed), \(told ? "in" : "not in") the ledger"))
        // Neither a restart nor asking again brings the second seat back.
        for each in [unit, copy] {
            try each.end(by: SIGKILL)
            try each.start()
        }
        for _ in 1...2 { #expect(try unit.renew().contains("(cloned)")) }
        #expect(
            Field.row(
                "licence.2", "after a restart of both", expected: "Cloned 0, Active 1000", found: try states()), "\(unit.log)")
        // A person says that the first one is the unit.
        let id = try #require(authority.licenses().first?.id)
        try authority.command("license", "resolve", id, "--reason", "the other one is a copy")
        _ = try unit.ask("commit")
        #expect(try unit.eventualState("Active") == "Active")
        let late = try copy.renew()
        #expect(
            Field.row(
                "licence.2", "resolved: the unit, then the copy", expected: "Active 1000, Cloned 0, cloned",
                found: "\(try states()), \(late.contains("(cloned)") ? "cloned" : late)"), "\(copy.log)")
        #expect(try authority.command("ledger", "verify").contains("entries"))
    }

    /// Its licence is suspended, and all that tells who it is gets lost.
    @Test func aSuspendedUnitThatForgetsItself() throws {
        let authority = try AuthorityControl()
        let unit = try DaemonControl(authority: authority)
        #expect(try unit.eventualState("Active") == "Active")
        try authority.command(
            "license", "suspend", try #require(authority.licenses().first?.id), "--reason", "an invoice")
        #expect(try unit.renew().contains("(suspended)"))
        try unit.end(by: SIGKILL)
        for name in ["state", "license.lic"] { try FileManager.default.removeItem(atPath: unit.home + "/" + name) }
        try unit.start()
        let answer = try unit.renew()
        #expect(
            Field.row(
                "licence.3", "a suspended unit whose state folder and licence are removed", expected: "held, Absent",
                found: "\(answer.contains("(held)") ? "held" : answer), \(try unit.eventualState("Absent"))"), "\(unit.log)")
        let list = try authority.command("hardware", "list")
        let id = try #require(list.split(separator: "\n").last?.split(separator: " ").first.map(String.init), "\(list)")
        #expect(list.contains("unit_id ") && list.contains("and that one is suspended"))
        try authority.command("hardware", "approve", id)
        #expect(
            Field.row(
                "licence.3", "a person has approved it", expected: "renewed, Active",
                found: "\(try unit.renew()), \(try unit.shown())"), "\(unit.log)")
    }

    @Test func aBackupOfTheStateFolder() throws {
        let authority = try AuthorityControl()
        let unit = try DaemonControl(authority: authority)
        #expect(try unit.eventualState("Active") == "Active")
        func save(_ name: String) throws {
            for file in ["state", "license.lic"] {
                try FileManager.default.copyItem(atPath: unit.home + "/" + file, toPath: unit.folder.path + "/\(name)-\(file)")
            }
        }
        func putBack(_ name: String) throws {
            try unit.end(by: SIGKILL)
            for file in ["state", "license.lic"] {
                try FileManager.default.removeItem(atPath: unit.home + "/" + file)
                try FileManager.default.copyItem(atPath: unit.folder.path + "/\(name)-\(file)", toPath: unit.home + "/" + file)
            }
            try unit.start()
        }
        try save("first")
        #expect(try unit.renew() == "renewed")
        try putBack("first")
        #expect(
            Field.row(
                "licence.2", "a backup of before the last renewal is put back", expected: "renewed", found: try unit.renew()),
            "\(unit.log)")
        for _ in 1...2 { #expect(try unit.renew() == "renewed") }
        try putBack("first")
        let answer = try unit.renew()
        #expect(
            Field.row(
                "licence.2", "a backup of three renewals ago is put back", expected: "cloned, Cloned",
                found: "\(answer.contains("(cloned)") ? "cloned" : answer), \(try unit.shown())"), "\(unit.log)")
        let id = try #require(authority.licenses().first?.id)
        try authority.command("license", "resolve", id, "--reason", "a backup was put back")
        let again = try unit.renew()
        #expect(
            Field.row(
                "licence.2", "the same, resolved", expected: "renewed, Active", found: "\(again), \(try unit.shown())"),
            "\(unit.log)")
    }

    /// Answers are lost within the hour, in which the same question is asked again, and beyond it.
    @Test func lostAnswersMakeNoClone() throws {
        let clock = try ShiftedClock()
        let authority = try AuthorityControl(launcher: clock.launcher)
        let port = try #require(authority.flags[1].split(separator: ":").last.flatMap { UInt16($0) })
        let relay = try Relay(to: port)
        let unit = try DaemonControl(
            launcher: clock.launcher, authority: authority, flags: ["--authority", "https://localhost:\(relay.port)"])
        #expect(try unit.eventualState("Active") == "Active")
        func epoch() throws -> Int { try #require(authority.licenses().first?.epoch) }
        func lose() throws {
            let before = try epoch()
            relay.loseAnswers(true)
            let said = Said()
            Thread.detachNewThread {
                let text = (try? unit.renew()) ?? "an error"
                said.text.withLock { $0 = text }
            }
            let isGranted = try eventually { try epoch() > before }
            relay.cut()
            let isBack = eventually { said.text.withLock { $0 != nil } }
            relay.loseAnswers(false)
            let answer = said.text.withLock { $0 ?? "nothing" }
            #expect(isGranted && isBack && answer != "renewed", "\(answer)\(unit.log)")
        }
        try lose()
        let given = try epoch()
        #expect(
            Field.row(
                "licence.2", "an answer is lost, the question asked again", expected: "renewed, epoch \(given)",
                found: "\(try unit.renew()), epoch \(try epoch())"), "\(unit.log)")
        for count in 1...3 {
            try lose()
            try clock.set(ahead: count * 7200)
        }
        let found = "\(try unit.renew()), \(try unit.shown())"
        #expect(
            Field.row(
                "licence.2", "three answers are lost, two hours between them", expected: "renewed, Active", found: found),
            "\(unit.log)")
        #expect(try !authority.command("license", "list").contains(" cloned "))
    }

    /// A licence of another id that a person puts in place is none of the authority's, and says nothing of its epochs.
    @Test func anotherLicenceInPlaceMakesNoClone() throws {
        let authority = try AuthorityControl()
        let unit = try DaemonControl(authority: authority)
        #expect(try unit.eventualState("Active") == "Active")
        for _ in 1...2 { #expect(try unit.renew() == "renewed") }
        let old = try String(contentsOfFile: unit.licenseFile, encoding: .utf8)
        try unit.sign(cap: 7)
        _ = try unit.fpx("commit")
        let answer = try unit.renew()
        #expect(
            Field.row(
                "licence.2", "another licence is put in place by hand, then a renewal", expected: "not cloned, Active",
                found: "\(answer.contains("cloned") ? "cloned" : "not cloned"), \(try unit.shown())"), "\(answer)\(unit.log)")
        #expect(try unit.figures(of: "Max Licensed Session") == 7)
        try FileManager.default.removeItem(atPath: unit.licenseFile)
        _ = try unit.ask("commit")
        #expect(
            Field.row(
                "licence.2", "and is removed: the authority's comes back", expected: "Active 1000",
                found: "\(try unit.eventualState("Active")) \(try unit.figures(of: "Max Licensed Session"))"), "\(unit.log)")
        // The state folder has lost the copy, and the file is of an old backup.
        try unit.end(by: SIGKILL)
        for name in ["license.lic", "license.lic.previous"] {
            try? FileManager.default.removeItem(atPath: unit.home + "/state/" + name)
        }
        try old.write(toFile: unit.licenseFile, atomically: true, encoding: .utf8)
        try unit.start()
        #expect(
            Field.row(
                "licence.2", "the licence file of an old backup, and no copy", expected: "Active",
                found: try unit.eventualState("Active")), "\(unit.log)")
        #expect(try !authority.command("license", "list").contains(" cloned "))
    }

    @Test(.enabled(if: geteuid() == 0, "needs root, for a network namespace"))
    func aUnitThatHasIPv6AloneIsBoundToIt() throws {
        let place = try NetworkNamespace()
        try place.ip("link", "add", "eth0", "type", "veth", "peer", "name", "far")
        for interface in ["far", "eth0"] { try place.ip("link", "set", interface, "up") }
        func address(_ what: String, _ address: String) throws { try place.ip("addr", what, address, "dev", "eth0", "nodad") }
        try address("add", "2001:db8::7/64")
        let authority = try AuthorityControl(launcher: place.launcher)
        let unit = try DaemonControl(launcher: place.launcher, authority: authority)
        #expect(try unit.eventualState("Active") == "Active", "\(unit.log)")
        try address("add", "2001:db8::8/64")
        #expect(
            Field.row("licence.2", "IPv6 alone: one more address", expected: "renewed", found: try unit.renew()), "\(unit.log)")
        try address("del", "2001:db8::7/64")
        let moved = try unit.renew()
        #expect(
            Field.row(
                "licence.2", "IPv6 alone: the licensed address is gone", expected: "held, named",
                found: moved.contains("(held)") && moved.contains("2001:db8::7 -> 2001:db8::8") ? "held, named" : moved),
            "\(unit.log)")
        try address("del", "2001:db8::8/64")
        #expect(
            Field.row(
                "licence.2", "no address at all, on the authority's own host", expected: "renewed", found: try unit.renew()),
            "\(unit.log)")
        try address("add", "2001:db8::7/64")
        #expect(
            Field.row("licence.2", "IPv6 alone: the address is back", expected: "renewed", found: try unit.renew()),
            "\(unit.log)")
    }
}
