// What a unit tells its authority once an hour, and an operator who wants to see it.

/// GET /v1/usage_report: the next one. No address of a client, nothing of what they send.
public struct UsageReport: Codable, Equatable, Sendable {
    public var version: String
    /// Hooks that admitted sessions since fpxd started: `haproxy`, `nginx`; `library` for any other process.
    public var hooks: [String]
    /// Bits per second from clients and to them, at present.
    public var incomingSpeed: Int
    public var outgoingSpeed: Int
    /// Different client addresses of sessions that are known by key, at present. Processes that attach tell no addresses.
    public var activeClientsIpv4: Int
    public var activeClientsIpv6: Int
    /// In progress.
    public var sessions: Int
    /// New ones, licensed or not, over the last minute.
    public var admissionsPerSecond: Int
    /// `none`, `kvm`, `vmware` ..., or empty where it cannot be told.
    public var virtualization: String
    /// Time that it took to count all this.
    public var censusMicroseconds: Int
    public var kernel: String
    public var distribution: String
    public var distributionVersion: String
    public var cpuFlags: [String]
    /// What is switched on: `license-overlimit-block`, `membarrier`, `rseq` ...
    public var features: [String]

    public init(
        version: String, hooks: [String], incomingSpeed: Int, outgoingSpeed: Int, activeClientsIpv4: Int,
        activeClientsIpv6: Int, sessions: Int, admissionsPerSecond: Int, virtualization: String, censusMicroseconds: Int,
        kernel: String, distribution: String, distributionVersion: String, cpuFlags: [String], features: [String]
    ) {
        self.version = version
        self.hooks = hooks
        self.incomingSpeed = incomingSpeed
        self.outgoingSpeed = outgoingSpeed
        self.activeClientsIpv4 = activeClientsIpv4
        self.activeClientsIpv6 = activeClientsIpv6
        self.sessions = sessions
        self.admissionsPerSecond = admissionsPerSecond
        self.virtualization = virtualization
        self.censusMicroseconds = censusMicroseconds
        self.kernel = kernel
        self.distribution = distribution
        self.distributionVersion = distributionVersion
        self.cpuFlags = cpuFlags
        self.features = features
    }
}
