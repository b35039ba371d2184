// Setting+All: the table itself.

extension Setting {
    public static let overLimit = "license-overlimit"
    public static let logLevel = "log-level"
    public static let sessionWarning = "session-warning"
    public static let usageReport = "usage-report"
    public static let csfStatus = "csf-status"
    public static let csfRole = "csf-role"
    public static let csfGroupName = "csf-group-name"
    public static let csfPreferredSeats = "csf-preferred-seats"
    public static let csfMemberPreferredSeats = "csf-member-preferred-seats"
    public static let csfDivision = "csf-division"
    public static let haMode = "ha-mode"
    public static let haRole = "ha-role"
    public static let haGroupName = "ha-group-name"
    public static let sharingEndpoints = "sharing-endpoints"
    public static let sharingUser = "sharing-user"
    public static let sharingPasswordFile = "sharing-password-file"
    public static let sharingCA = "sharing-ca"
    public static let sharingCertificate = "sharing-certificate"
    public static let sharingPrivateKey = "sharing-private-key"
    public static let sharingReclaim = "sharing-reclaim"
    public static let sharingReclaimAfter = "sharing-reclaim-after"
    public static let sharingTerm = "sharing-term"
    public static let segment = "segment"
    public static let stateFolder = "state-folder"
    public static let runFolder = "run-folder"
    public static let group = "group"
    public static let licenseFile = "license-file"
    public static let trustedKeys = "trusted-keys"
    public static let logFile = "log-file"
    public static let haproxyFolder = "haproxy-folder"
    public static let authority = "authority"
    public static let accountKeyFile = "account-key-file"
    public static let authorityCA = "authority-ca"
    public static let authorityCertificate = "authority-certificate"
    public static let authorityPrivateKey = "authority-private-key"

    public static let all = global + fabric + ha + sharing + daemon

    private static let global = [
        Setting(
            overLimit, .choice(["bypass", "block"]), in: .global,
            help: "verdict of a new session when no licensed session is free"),
        Setting(
            logLevel, .choice(["debug", "info", "warning", "error"]), in: .global,
            help: "least severe lines that are logged"),
        Setting(
            sessionWarning, .number(0...100, unit: "percent"), in: .global,
            help: "share of the licensed sessions in use that raises a warning, 0 for none"),
        Setting(
            usageReport, .choice(["enable", "disable"]), in: .global,
            help: "hourly usage report to the authority"),
    ]

    private static let fabric = [
        Setting(
            csfStatus, .choice(["enable", "disable"]), in: .fabric,
            help: "sharing of seats by demand, with the units of a fabric"),
        Setting(
            csfRole, .choice(["root", "member"]), in: .fabric,
            help: "the root's preferred seats and division apply to the whole fabric"),
        Setting(csfGroupName, .name(lengthMax: 64), in: .fabric, help: "the fabric's name, the same on all its units"),
        Setting(
            csfPreferredSeats, .seats, in: .fabric,
            help: "of the root: seats that each unit gets on demand before others get more"),
        Setting(
            csfMemberPreferredSeats, .seatsOfUnits, in: .fabric,
            help: "of the root: preferred seats of single units, instead"),
        Setting(
            csfDivision, .choice(["max-min", "proportional"]), in: .fabric,
            help: "of the root: how seats beyond the preferred ones are divided when there are too few"),
    ]

    private static let ha = [
        Setting(
            haMode, .choice(["standalone", "pre-7.2", "7.2"]), in: .ha,
            help: "sharing of seats in a high availability cluster, by the rule of those releases"),
        Setting(
            haRole, .choice(["primary", "secondary"]), in: .ha, help: "whether this unit has the traffic"),
        Setting(haGroupName, .name(lengthMax: 64), in: .ha, help: "the cluster's name, the same on all its units"),
    ]

    private static let sharing = [
        Setting(sharingEndpoints, .endpoints, in: .sharing, help: "the etcd that units share seats by"),
        Setting(sharingUser, .name(lengthMax: 64), in: .sharing, help: "this unit's user of etcd, empty for none"),
        Setting(
            sharingPasswordFile, .path(mayBeEmpty: true), in: .sharing, help: "file with that user's password, empty for none"),
        Setting(
            sharingCA, .path(mayBeEmpty: true), in: .sharing,
            help: "CA that signed etcd's certificate (PEM), empty for the system's CAs"),
        Setting(
            sharingCertificate, .path(mayBeEmpty: true), in: .sharing,
            help: "this unit's certificate for etcd (PEM), empty for none"),
        Setting(
            sharingPrivateKey, .path(mayBeEmpty: true), in: .sharing, help: "the private key of that certificate (PEM)"),
        Setting(
            sharingReclaim, .policy, in: .sharing,
            help: "when lent seats come back from a unit that is out of reach"),
        Setting(
            sharingReclaimAfter, .patience, in: .sharing,
            help: "how long this unit waits for lent seats that it needs while sessions are on them"),
        Setting(sharingTerm, .number(3...3600, unit: "seconds"), in: .sharing, help: "how long a loan by time lasts"),
    ]

    private static let daemon = [
        Setting(segment, .path(mayBeEmpty: false), help: "file of the shared counters, on a file system in memory"),
        Setting(stateFolder, .path(mayBeEmpty: false), help: "folder of what must outlive a restart"),
        Setting(runFolder, .path(mayBeEmpty: false), help: "folder of the sockets"),
        Setting(
            group, .name(lengthMax: 32), help: "group that may use segment and sockets, empty for the user's own"),
        Setting(licenseFile, .path(mayBeEmpty: false), help: "the signed licence"),
        Setting(trustedKeys, .path(mayBeEmpty: false), help: "folder of the authority's public keys, KEYID.pem"),
        Setting(logFile, .path(mayBeEmpty: true), help: "log file besides standard error, empty for none"),
        Setting(
            haproxyFolder, .path(mayBeEmpty: true),
            help: "folder of the sockets for HAProxy, spoa.sock and ring.sock; empty: none are served"),
        Setting(authority, .address, help: "the licensing server that issues and extends leases, empty for none"),
        Setting(accountKeyFile, .path(mayBeEmpty: false), help: "file with the account key for the authority"),
        Setting(
            authorityCA, .path(mayBeEmpty: true),
            help: "CA that signed the authority's certificate (PEM), empty for the system's CAs"),
        Setting(
            authorityCertificate, .path(mayBeEmpty: true),
            help: "this unit's certificate for the authority (PEM), empty for none"),
        Setting(authorityPrivateKey, .path(mayBeEmpty: true), help: "the private key of that certificate (PEM)"),
    ]
}
