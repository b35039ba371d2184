// A session is ended only on positive evidence about its own socket: each way in which another's end, or a list in which it was
// never, could be taken for it. Live sessions are counted, whatever the network between client and proxy looks like.

import Admission
import Foundation
import Synchronization
import TestSupport
import Testing

extension EndToEnd {
    @Suite(.enabled(if: geteuid() == 0, "needs CAP_NET_ADMIN and network namespaces")) struct FieldSocketTests {}
}

/// fpxd, and haproxy that asks it.
private struct Site {
    let control: DaemonControl
    let haproxy: HAProxy
    let cap: Int

    /// - Parameters:
    ///   - daemon: a command that starts fpxd somewhere else.
    ///   - place: where haproxy and its servers run.
    init(
        cap: Int = 5, withRing: Bool = true, daemon: [String] = [], place: NetworkNamespace? = nil,
        edit: (inout HAProxy.Configuration) throws -> Void = { _ in }
    ) throws {
        self.cap = cap
        control = try DaemonControl(cap: cap, launcher: daemon)
        haproxy = try HAProxy(agent: control.runFolder, withRing: withRing, place: place, edit: edit)
    }

    var port: UInt16 { haproxy.streamPort }

    /// A session of a client at the given port, or any, in a network namespace.
    func open(at address: String = "127.0.0.1", from own: UInt16? = nil, in place: NetworkNamespace? = nil) throws -> Client {
        let socket = try NetworkNamespace.inside(place) { try Socket.connected(to: port, at: address, from: own) }
        return try Client(.stream, over: socket)
    }

    /// How many of the clients are inspected, and the least and most sessions that are counted while it lasts.
    private func watched(_ clients: [Client], for time: Duration) throws -> String {
        let end = ContinuousClock.now + time
        var counts: Set<Int> = []
        repeat {
            counts.insert(try control.settledInUse())
            usleep(10_000)
        } while ContinuousClock.now < end
        let (least, most) = (counts.min() ?? 0, counts.max() ?? 0)
        return "\(clients.count(of: .inspect)) live, \(least == most ? "\(most)" : "\(least) to \(most)") counted"
    }

    /// What is found once the count is what it is to be, and stays so for `time`.
    func found(_ clients: [Client], for time: Duration = .milliseconds(300)) throws -> String {
        let live = clients.count(of: .inspect)
        _ = try eventually(within: 5) { try control.settledInUse() == live }
        return try watched(clients, for: time)
    }

    /// Longer than it takes to miss a session's socket in a list, twice.
    static let longer: Duration = .milliseconds(2500)

    /// Clients until the licence has no room left.
    func filled(_ clients: [Client]) throws -> [Client] {
        _ = try found(clients)
        return try clients + (0..<cap).map { _ in try open() }
    }

    /// Ports of clients that are to connect more than once, each another.
    static func ports(_ count: Int) throws -> [UInt16] {
        var ports: Set<UInt16> = []
        while ports.count < count { ports.insert(try Socket.freePort()) }
        return Array(ports)
    }

    func unbound() throws -> Int { try control.counters()["unbound"] ?? 0 }

    func signal(_ signal: Int32) throws { kill(try #require(control.processID), signal) }
}

// MARK: - Ports that are used again

extension EndToEnd.FieldSocketTests {
    @Test(arguments: [true, false]) func aClientResetsAndConnectsAgain(withRing: Bool) throws {
        let site = try Site(cap: 3, withRing: withRing)
        let ports = try Site.ports(50)
        let clients = try ports.map { own in
            try site.open(from: own).socket.reset()
            return try site.open(from: own)
        }
        #expect(
            Field.row(
                "sockets.1a", "50 clients reset and connect again from the same port, \(withRing ? "with" : "without") a ring",
                expected: "3 live, 3 counted", found: try site.found(site.filled(clients))))
    }

    @Test func fpxdStandsStillWhileClientsReset() throws {
        let site = try Site(cap: 100)
        var clients: [Client] = []
        for _ in 0..<4 {
            let ports = try Site.ports(50)
            let first = try ports.map { try site.open(from: $0) }
            try site.signal(SIGSTOP)
            for client in first { client.socket.reset() }
            let again = try ports.map { try Socket.connected(to: site.port, from: $0) }
            try site.signal(SIGCONT)
            clients += try again.map { try Client(.stream, over: $0) }
        }
        #expect(
            Field.row(
                "sockets.1a", "fpxd stands still while 200 clients reset and connect again", expected: "100 live, 100 counted",
                found: try site.found(site.filled(clients))))
    }

    @Test func aPortIsUsedAgainAfterSeconds() throws {
        let site = try Site(withRing: false)
        let own = try Socket.freePort()
        try site.open(from: own).socket.close()
        #expect(try site.found([]) == "0 live, 0 counted")
        // The kernel gives a port in TIME_WAIT away again after a second.
        var client: Client?
        #expect(eventually { (try? site.open(from: own)).map { client = $0 } != nil })
        #expect(
            Field.row(
                "sockets.1a", "a port is used again after seconds", expected: "1 live, 1 counted",
                found: try site.found([try #require(client)], for: Site.longer)))
    }

    @Test func aPortIsUsedAgainWhileFpxdIsAway() throws {
        let site = try Site(withRing: false)
        let ports = try Site.ports(4)
        let clients = try ports.map { try site.open(from: $0) }
        try site.control.end(by: SIGKILL)
        for client in clients.prefix(2) { client.socket.reset() }
        // Nobody was asked about these.
        let others = try ports.prefix(2).map { try site.open(from: $0) }
        #expect(others.count(of: .bypass) == 2)
        try site.control.start()
        #expect(
            Field.row(
                "sockets.1a", "a port is used again while fpxd is away", expected: "2 live, 2 counted",
                found: try site.found(Array(clients.dropFirst(2)))))
    }
}

// MARK: - Network namespaces

extension EndToEnd.FieldSocketTests {
    /// Five sessions every two seconds, held.
    private func threeTimesFive(_ site: Site, in place: NetworkNamespace? = nil) throws -> String {
        var clients: [Client] = []
        for _ in 0..<3 {
            clients += try (0..<5).map { _ in try site.open(in: place) }
            _ = try site.found(clients, for: .seconds(2))
        }
        let found = try site.found(clients)
        #expect(try site.unbound() == 15)
        clients.close()
        #expect(try site.found([]) == "0 live, 0 counted", "the ring ends them")
        return found
    }

    @Test func fpxdInNamespacesOfItsOwn() throws {
        let site = try Site(daemon: ["/usr/bin/unshare", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"])
        #expect(
            Field.row(
                "sockets.1b", "fpxd in process and network namespaces of its own", expected: "5 live, 5 counted",
                found: try threeTimesFive(site)))
    }

    @Test func haproxyInANetworkOfItsOwn() throws {
        let place = try NetworkNamespace()
        let site = try Site(place: place)
        #expect(
            Field.row(
                "sockets.1b", "haproxy in a network namespace of its own", expected: "5 live, 5 counted",
                found: try threeTimesFive(site, in: place)))
    }

    @Test func aBindInANamespace() throws {
        let place = try NetworkNamespace()
        let site = try Site { configuration in
            let bind = "bind 127.0.0.1:\(configuration.streamPort)"
            try configuration.replace(bind, "\(bind) namespace \(place.name)")
        }
        #expect(
            Field.row(
                "sockets.1b", "bind ... namespace X, clients in it", expected: "5 live, 5 counted",
                found: try threeTimesFive(site, in: place)))
    }

    /// A process namespace alone hides haproxy's process, not its sockets.
    @Test func fpxdInAProcessNamespaceOfItsOwn() throws {
        let site = try Site(
            withRing: false, daemon: ["/usr/bin/unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])
        let clients = try (0..<6).map { _ in try site.open() }
        #expect(try site.unbound() == 0)
        clients.prefix(2).forEach { $0.socket.reset() }
        #expect(
            Field.row(
                "sockets.1b", "fpxd in a process namespace of its own, no ring", expected: "3 live, 3 counted",
                found: try site.found(Array(clients.dropFirst(2)), for: Site.longer)))
    }
}

extension EndToEnd.FieldSocketTests {
    /// fpxd goes on in another place than it began in: what it cannot see from there has not ended.
    @Test(arguments: [["--pid", "--mount-proc"], ["--net"], ["--time", "--boottime", "86400"]])
    func fpxdIsStartedElsewhere(namespaces: [String]) throws {
        let folder = try TemporaryFolder()
        let flag = folder.path + "/elsewhere"
        let elsewhere = (["/usr/bin/unshare", "--fork", "--kill-child"] + namespaces).joined(separator: " ")
        let site = try Site(daemon: ["/bin/sh", "-c", "[ -e \(flag) ] || exec \"$@\"; exec \(elsewhere) \"$@\"", "sh"])
        let clients = try (0..<5).map { _ in try site.open() }
        try site.control.end(by: SIGKILL)
        try folder.write("", to: "elsewhere")
        try site.control.start()
        try site.haproxy.awaitAgent()
        #expect(
            Field.row(
                "sockets.1b", "fpxd is started again by unshare \(namespaces[0])", expected: "5 live, 5 counted",
                found: try site.found(clients + [try site.open()], for: Site.longer)))
        clients.close()
        #expect(try site.found([]) == "0 live, 0 counted", "the ring ends them")
    }
}

// MARK: - Addresses that are not the socket's

extension EndToEnd.FieldSocketTests {
    /// Sessions that are bound to nothing are counted until the ring ends them.
    private func translated(
        _ point: String, _ situation: String, _ site: Site, expected: Int = 3, open: () throws -> Client
    ) throws {
        let before = try site.unbound()
        let clients = try (0..<3).map { _ in try open() }
        #expect(
            Field.row(
                point, situation, expected: "3 live, 3 counted", found: try site.found(clients, for: Site.longer)))
        #expect(try site.unbound() - before == expected)
        clients.close()
        #expect(try site.found([]) == "0 live, 0 counted")
    }

    @Test(arguments: [
        "set-src str(192.0.2.9)", "set-src-port int(4711)", "set-dst str(192.0.2.9)", "set-dst-port int(4711)",
    ])
    func anAddressIsSet(_ action: String) throws {
        let site = try Site { configuration in
            try configuration.replace(
                "    tcp-request content reject", "    tcp-request connection \(action)\n    tcp-request content reject")
        }
        try translated("sockets.1c", "tcp-request connection \(action)", site) { try site.open() }
    }

    /// Behind a load balancer, and one whose own connection to the client is on this host and ends before.
    @Test func aProxyLineTellsTheAddresses() throws {
        let site = try Site { configuration in
            let bind = "bind 127.0.0.1:\(configuration.streamPort)"
            try configuration.replace(bind, "\(bind) accept-proxy")
        }
        func open(_ line: String) throws -> Client {
            let socket = try Socket.connected(to: site.port)
            try socket.send("PROXY TCP4 \(line)\r\n")
            return try Client(.stream, over: socket)
        }
        try translated("sockets.1c", "accept-proxy", site) { try open("192.0.2.7 192.0.2.8 4711 443") }
        let balancer = try Socket.listening()
        let front = try Socket.connected(to: try balancer.port())
        let accepted = try #require(balancer.accept())
        var clients: [Client] = []
        try translated("sockets.1c", "accept-proxy, the connection that the PROXY line names ends", site) {
            clients.append(try open("127.0.0.1 127.0.0.1 \(try front.port()) \(try balancer.port())"))
            if clients.count == 3 {
                front.reset()
                accepted.close()
            }
            return clients[clients.count - 1]
        }
    }

    @Test func anIPv6BindWithIPv4Clients() throws {
        let site = try Site(withRing: false) { configuration in
            try configuration.replace(
                "bind 127.0.0.1:\(configuration.streamPort)", "bind :::\(configuration.streamPort) v4v6")
        }
        let clients = try (0..<6).map { _ in try site.open() }
        #expect(try site.unbound() == 0)
        clients.prefix(2).forEach { $0.socket.reset() }
        #expect(
            Field.row(
                "sockets.1c", "bind :::PORT v4v6, IPv4 clients, no ring", expected: "3 live, 3 counted",
                found: try site.found(Array(clients.dropFirst(2)), for: Site.longer)))
    }

    @Test func serversSeeTheClientsAddress() throws {
        let site = try Site(withRing: false) { configuration in
            try configuration.replace("server inspector", "source 0.0.0.0 usesrc clientip\n    server inspector")
        }
        let clients = try (0..<6).map { _ in try site.open() }
        clients.prefix(2).forEach { $0.socket.reset() }
        #expect(
            Field.row(
                "sockets.1c", "source 0.0.0.0 usesrc clientip, no ring", expected: "3 live, 3 counted",
                found: try site.found(Array(clients.dropFirst(2)), for: Site.longer)))
    }

    /// fpxd and haproxy on a router between its clients and the servers that these mean.
    private func router(_ rules: [[String]], bind: String = "") throws -> (Site, clients: NetworkNamespace) {
        let router = try NetworkNamespace()
        let clients = try NetworkNamespace()
        try router.ip("link", "add", "c0", "type", "veth", "peer", "name", "r0", "netns", clients.name)
        for (place, device, address) in [(router, "c0", "10.9.0.1/24"), (clients, "r0", "10.9.0.2/24")] {
            try place.ip("address", "add", address, "dev", device)
            try place.ip("link", "set", device, "up")
        }
        try clients.ip("route", "add", "default", "via", "10.9.0.1")
        try router.ip("rule", "add", "fwmark", "1", "lookup", "100")
        try router.ip("route", "add", "local", "default", "dev", "lo", "table", "100")
        let site = try Site(daemon: router.launcher, place: router) { configuration in
            let port = configuration.streamPort
            try configuration.replace("bind 127.0.0.1:\(port)", "bind 0.0.0.0:\(port)\(bind)")
        }
        for rule in rules {
            try router.run(
                ["/usr/sbin/iptables", "-w"] + rule.map { $0.replacing("PORT", with: "\(site.port)") })
        }
        return (site, clients)
    }

    @Test func clientsThatAreRedirected() throws {
        let (site, place) = try router([
            ["-t", "nat", "-A", "PREROUTING", "-d", "198.51.100.7", "-p", "tcp", "-j", "REDIRECT", "--to-ports", "PORT"]
        ])
        try translated("sockets.1c", "iptables REDIRECT on haproxy's host", site) {
            let socket = try place.inside { try Socket.connected(to: 80, at: "198.51.100.7") }
            return try Client(.stream, over: socket)
        }
    }

    @Test func clientsOfATransparentProxy() throws {
        let rule = ["-d", "198.51.100.7", "-p", "tcp", "-j", "TPROXY", "--on-port", "PORT", "--tproxy-mark", "1"]
        let (site, place) = try router([["-t", "mangle", "-A", "PREROUTING"] + rule], bind: " transparent")
        try translated("sockets.1c", "TPROXY and bind ... transparent", site, expected: 0) {
            let socket = try place.inside { try Socket.connected(to: 80, at: "198.51.100.7") }
            return try Client(.stream, over: socket)
        }
    }
}

// MARK: - News that are late or lost

extension EndToEnd.FieldSocketTests {
    /// Six sessions are left of ten, four of which end while fpxd stands still.
    private func standstill(withRing: Bool = false, _ meanwhile: (Site) throws -> Void) throws -> String {
        let site = try Site(cap: 10, withRing: withRing)
        let clients = try (0..<10).map { _ in try site.open() }
        try site.signal(SIGSTOP)
        clients.prefix(4).forEach { $0.socket.reset() }
        try meanwhile(site)
        try site.signal(SIGCONT)
        return try site.found(Array(clients.dropFirst(4)), for: Site.longer)
    }

    @Test(arguments: [true, false]) func fpxdStandsStillForLong(withRing: Bool) throws {
        let found = try standstill(withRing: withRing) { site in
            // fpxd reads of these when they have ended: no socket is theirs, and the ring alone tells of their ends.
            for _ in 0..<(withRing ? 20 : 0) { #expect(try site.open().outcome == .bypass) }
            // haproxy gives the agent up.
            try site.haproxy.awaitAgent(false)
        }
        #expect(
            Field.row(
                "sockets.1d", "fpxd stands still for seconds, \(withRing ? "with" : "without") a ring",
                expected: "6 live, 6 counted", found: found))
    }

    @Test func eventsAreLost() throws {
        let found = try standstill { site in
            // More sockets end than the kernel keeps news of for fpxd.
            let listener = try Socket.listening()
            let port = try listener.port()
            let isLost = try eventually(within: 60) {
                for _ in 0..<500 {
                    let client = try Socket.connected(to: port)
                    listener.accept()?.reset()
                    client.reset()
                }
                return KernelQueue.drops(of: try #require(site.control.processID)) > 0
            }
            #expect(isLost, "the kernel has dropped events")
        }
        #expect(
            Field.row("sockets.1d", "the kernel drops events (ENOBUFS), no ring", expected: "6 live, 6 counted", found: found))
    }

    /// An answer that is an error says nothing of a socket: not that it is there, nor that it has gone.
    @Test func theKernelDoesNotAnswer() throws {
        let folder = try TemporaryFolder()
        let flag = folder.path + "/refuse"
        // The first answer of each thread is that the kernel could tell.
        let refuse = "-f -qq -o /dev/null -e trace=recvfrom -e inject=recvfrom:error=EPERM:when=2+"
        let site = try Site(
            cap: 20, withRing: false,
            daemon: ["/bin/sh", "-c", "[ -e \(flag) ] || exec \"$@\"; exec /usr/bin/strace \(refuse) \"$@\"", "sh"])
        let clients = try (0..<20).map { _ in try site.open() }
        try site.control.end(by: SIGKILL)
        try folder.write("", to: "refuse")
        try site.control.start()
        #expect(
            Field.row(
                "sockets.1d", "the kernel answers no questions about sockets (EPERM)", expected: "20 live, 20 counted",
                found: try site.found(clients, for: Site.longer)))
        #expect(site.control.log.contains("Socket events"), "it is told")
        // What has ended meanwhile ends when the kernel answers again.
        clients[0].socket.reset()
        try site.control.end(by: SIGKILL)
        unlink(flag)
        try site.control.start()
        #expect(try site.found(Array(clients.dropFirst())) == "19 live, 19 counted")
    }
}

/// What /proc tells of a process' netlink socket for events of sockets.
private enum KernelQueue {
    private static let socketDiagnosis = "4"

    static func drops(of process: pid_t) -> Int {
        let inodes = Set(
            ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd")) ?? []).compactMap {
                (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/fd/\($0)"))
                    .flatMap { $0.firstMatch(of: /socket:\[([0-9]+)\]/)?.output.1 }
            })
        let text = (try? String(contentsOfFile: "/proc/net/netlink", encoding: .utf8)) ?? ""
        // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
        let rows = text.split(separator: "\n").map { $0.split(separator: " ") }
        return rows.filter { $0.count == 10 && $0[1] == socketDiagnosis && inodes.contains($0[9]) }
            .reduce(0) { $0 + (Int($1[8]) ?? 0) }
    }
}
