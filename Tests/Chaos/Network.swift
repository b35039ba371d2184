// Network: a bridge in a namespace of its own, and a namespace with one cable to it for each unit and each member of etcd. The
// host's network is not touched.

struct Network {
    private static let prefix = "10.77.0."
    private let name: String
    private var names: [String] = []
    private var hub: String { name + "-hub" }

    /// - Parameter name: of all namespaces of a run, the beginning.
    init(name: String) throws(ChaosError) {
        self.name = name
        try add(hub)
        try must(["ip", "-n", hub, "link", "add", "bridge", "type", "bridge"])
        try must(["ip", "-n", hub, "link", "set", "bridge", "up"])
    }

    private mutating func add(_ namespace: String) throws(ChaosError) {
        try must(["ip", "netns", "add", namespace])
        names.append(namespace)
        try must(["ip", "-n", namespace, "link", "set", "lo", "up"])
    }

    /// A host with one address: its namespace.
    ///
    /// - Parameter number: the last byte of its address.
    mutating func addHost(_ suffix: String, number: Int) throws(ChaosError) -> Place {
        let namespace = name + "-" + suffix
        try add(namespace)
        let port = "p\(number)"
        try must(["ip", "-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace])
        try must(["ip", "-n", hub, "link", "set", port, "master", "bridge", "up"])
        try must(["ip", "-n", namespace, "addr", "add", Self.address(number) + "/24", "dev", "eth0"])
        try must(["ip", "-n", namespace, "link", "set", "eth0", "up"])
        return Place(network: namespace)
    }

    static func address(_ number: Int) -> String { prefix + String(number) }

    func remove() { for namespace in names { _ = try? run(["ip", "netns", "del", namespace]) } }
}

/// What is wrong with a host's cable.
enum CableFault {
    case cut
    /// It hears nobody, or nobody hears it.
    case deaf, mute
    /// Of packets both ways, this share is lost.
    case loss(Double)
}

extension Place {
    func spoil(_ fault: CableFault) throws(ChaosError) {
        let drop = ["-j", "DROP"]
        switch fault {
        case .cut:
            try filter(["-A", "INPUT", "-i", "eth0"] + drop)
            try filter(["-A", "OUTPUT", "-o", "eth0"] + drop)
        case .deaf: try filter(["-A", "INPUT", "-i", "eth0"] + drop)
        case .mute: try filter(["-A", "OUTPUT", "-o", "eth0"] + drop)
        case .loss(let share):
            let statistic = ["-m", "statistic", "--mode", "random", "--probability", String(share)]
            try filter(["-A", "INPUT", "-i", "eth0"] + statistic + drop)
            try filter(["-A", "OUTPUT", "-o", "eth0"] + statistic + drop)
        }
    }

    func mend() throws(ChaosError) { try filter(["-F"]) }

    private func filter(_ words: [String]) throws(ChaosError) { try must(["iptables", "-w"] + words, in: self) }
}
