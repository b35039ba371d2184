// A licence that is bound to an address, on a host whose addresses come and go.

import Foundation
import TestSupport
import Testing

extension EndToEnd {
    @Suite(.enabled(if: geteuid() == 0, "needs root, for a network namespace")) struct FieldAddress {}
}

/// A host of its own: a network namespace with one interface, up, without an address.
private final class Namespace {
    let name = "fpx-test-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"

    init() throws {
        try ip("netns", "add", name)
        try ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "far")
        for interface in ["lo", "far", "eth0"] { try ip("-n", name, "link", "set", interface, "up") }
    }

    deinit { try? ip("netns", "del", name) }

    func address(_ what: String, _ address: String) throws { try ip("-n", name, "addr", what, address, "dev", "eth0") }
    func interface(_ state: String) throws { try ip("-n", name, "link", "set", "eth0", state) }

    private func ip(_ words: String...) throws {
        let (status, output) = try run("/usr/bin/env", ["ip"] + words)
        if status != 0 { throw EndToEndError.notReady(what: "ip \(words)", log: output) }
    }
}

extension EndToEnd.FieldAddress {
    @Test func theAddressComesAfterTheDaemon() throws {
        let namespace = try Namespace()
        let daemon = try DaemonControl(cap: nil, launcher: ["/usr/bin/env", "ip", "netns", "exec", namespace.name])
        let hardware = daemon.folder.path + "/hw_data.lic"
        try #"{"cpu_model":"","logical_cpus_number":1,"total_memory_size":1,"addresses_ipv4":["198.51.100.7"],"hostname":""}"#
            .write(toFile: hardware, atomically: true, encoding: .utf8)
        try daemon.sign(cap: 9, "--hardware", hardware, "--bind", "address_ipv4")
        func row(_ situation: String, _ expected: String, within seconds: Double = 5) throws {
            let found = try daemon.eventualState(expected, within: seconds)
            #expect(Field.row("address.3", situation, expected: expected, found: found), "\(daemon.log)")
        }
        try row("licence bound to an address that is not there yet", "Hardware-mismatch")
        try namespace.address("add", "198.51.100.7/24")
        try row("the address comes up after fpxd", "Active")

        // A network service that restarts. An fpxd that has just begun has told of no mismatch yet, so that it would tell of each.
        try daemon.end(by: SIGTERM)
        try daemon.start()
        let lost = try daemon.fpx("get", "system", "events").count(of: "Hardware-mismatch")
        try namespace.address("del", "198.51.100.7/24")
        try namespace.interface("down")
        try namespace.interface("up")
        try namespace.address("add", "198.51.100.7/24")
        try namespace.address("add", "198.51.100.8/24")
        let later = try eventually { try daemon.fpx("show", "license_hardware_data").contains("198.51.100.8") }
        let again = try daemon.fpx("get", "system", "events").count(of: "Hardware-mismatch") - lost
        #expect(
            Field.row(
                "address.3", "the network is restarted: the address is away for a moment", expected: "Active all the time",
                found: later && again == 0 ? "Active all the time" : "\(again) times out of force"))

        try namespace.address("del", "198.51.100.7/24")
        try row("the address has moved to another host", "Hardware-mismatch", within: 20)
        try namespace.interface("down")
        try namespace.address("add", "198.51.100.7/24")
        try row("the address is there, its interface is down", "Hardware-mismatch")
        try namespace.interface("up")
        try row("its interface comes up", "Active")
    }
}

extension String {
    fileprivate func count(of part: String) -> Int { components(separatedBy: part).count - 1 }
}
