// fpxd: parse, wire, run.

import ArgumentParser
import Basics
import ControlAPI
import ControlPlane
import Foundation
import Logging
import ServiceLifecycle
import Settings

@main
struct FPXD: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fpxd", abstract: "The admission daemon: caps by licence, over-limit policy, control socket, wire hooks.",
        discussion: """
            Settings come from flags, then from the environment (FPX_LICENSE_OVERLIMIT=block), then from the configuration file
            (license-overlimit: block), then from defaults. SIGHUP reads licence and file again; SIGTERM stops. Sessions in
            progress, caps and policy stay in the segment whatever becomes of fpxd.

            Exit status: 0 stopped as told, or the configuration is in order; 1 did not start, or the configuration is not; 2 usage.
            """,
        version: Version.line)

    @Option(help: "The configuration file (YAML); default /etc/fpx/fpxd.yaml, or fpxd.yaml in --home.")
    var config: String?
    @Option(help: "A folder for everything, instead of the places of the system.")
    var home: String?
    @Flag(
        name: [.customShort("t"), .long],
        help: "Check the configuration and the files that it names, print the settings in force, and stop.")
    var checkConfig = false

    @Option(help: "bypass or block: verdict of a new session when no licensed session is free.") var licenseOverlimit: String?
    @Option(help: "debug, info, warning or error.") var logLevel: String?
    @Option(help: "Percent of the licensed sessions in use that raises a warning, 0 for none.") var sessionWarning: String?
    @Option(help: "File of the shared counters, on a file system in memory.") var segment: String?
    @Option(help: "Folder of what must outlive a restart.") var stateFolder: String?
    @Option(help: "Folder of the sockets.") var runFolder: String?
    @Option(help: "Group that may use segment and sockets.") var group: String?
    @Option(help: "The signed licence.") var licenseFile: String?
    @Option(help: "Folder of the authority's public keys.") var trustedKeys: String?
    @Option(help: "Log file besides standard error.") var logFile: String?
    @Option(help: "Folder of the sockets for HAProxy, spoa.sock and ring.sock; empty: none are served.") var haproxyFolder:
        String?

    @Option(help: "enable or disable: hourly usage report to the authority.") var usageReport: String?
    @Option(help: "The licensing server, https://HOST[:PORT]; empty: none.") var authority: String?
    @Option(help: "File with the account key for the authority.") var accountKeyFile: String?
    @Option(help: "PEM file: the CA that signed the authority's certificate; empty: the system's CAs.")
    var authorityCa: String?
    @Option(help: "PEM file: this unit's certificate for the authority; empty: none.") var authorityCertificate: String?
    @Option(help: "PEM file: the private key of that certificate.") var authorityPrivateKey: String?

    @Option(help: "enable or disable: sharing of seats with the units of a fabric.") var csfStatus: String?
    @Option(help: "root or member of the fabric.") var csfRole: String?
    @Option(help: "The fabric's name.") var csfGroupName: String?
    @Option(help: "Of the root: preferred seats of each unit, FURL/FNBI/FCAS.") var csfPreferredSeats: String?
    @Option(help: "Of the root: preferred seats of single units, \"SERIAL F/N/C, SERIAL F/N/C\".")
    var csfMemberPreferredSeats: String?
    @Option(help: "Of the root: max-min or proportional.") var csfDivision: String?
    @Option(help: "standalone, pre-7.2 or 7.2: sharing of seats in a high availability cluster.") var haMode: String?
    @Option(help: "primary or secondary unit of the cluster.") var haRole: String?
    @Option(help: "The cluster's name.") var haGroupName: String?
    @Option(help: "The etcd to share seats by, \"URL,URL\" with http://HOST:PORT or https://HOST:PORT.")
    var sharingEndpoints: String?
    @Option(help: "This unit's user of etcd.") var sharingUser: String?
    @Option(help: "File with that user's password.") var sharingPasswordFile: String?
    @Option(help: "PEM file: the CA that signed etcd's certificate; empty: the system's CAs.")
    var sharingCa: String?
    @Option(help: "PEM file: this unit's certificate for etcd; empty: none.") var sharingCertificate: String?
    @Option(help: "PEM file: the private key of that certificate.") var sharingPrivateKey: String?
    @Option(help: "time, ack-only or \"recovery 14d\": when lent seats come back from a unit that is out of reach.")
    var sharingReclaim: String?
    @Option(help: "\"10m\" or never: how long this unit waits for lent seats that it needs while sessions are on them.")
    var sharingReclaimAfter: String?
    @Option(help: "Seconds for which a seat is lent, 3 to 3600.") var sharingTerm: String?

    private var flags: [String: String] {
        [
            Setting.overLimit: licenseOverlimit, Setting.logLevel: logLevel, Setting.sessionWarning: sessionWarning,
            Setting.segment: segment, Setting.stateFolder: stateFolder, Setting.runFolder: runFolder, Setting.group: group,
            Setting.licenseFile: licenseFile, Setting.trustedKeys: trustedKeys, Setting.logFile: logFile,
            Setting.haproxyFolder: haproxyFolder, Setting.usageReport: usageReport, Setting.authority: authority,
            Setting.accountKeyFile: accountKeyFile, Setting.authorityCA: authorityCa,
            Setting.authorityCertificate: authorityCertificate, Setting.authorityPrivateKey: authorityPrivateKey,
        ].merging(sharingFlags) { $1 }.compactMapValues { $0 }
    }

    private var sharingFlags: [String: String?] {
        [
            Setting.csfStatus: csfStatus, Setting.csfRole: csfRole, Setting.csfGroupName: csfGroupName,
            Setting.csfPreferredSeats: csfPreferredSeats, Setting.csfMemberPreferredSeats: csfMemberPreferredSeats,
            Setting.csfDivision: csfDivision, Setting.haMode: haMode, Setting.haRole: haRole, Setting.haGroupName: haGroupName,
            Setting.sharingEndpoints: sharingEndpoints, Setting.sharingUser: sharingUser,
            Setting.sharingPasswordFile: sharingPasswordFile, Setting.sharingCA: sharingCa,
            Setting.sharingCertificate: sharingCertificate, Setting.sharingPrivateKey: sharingPrivateKey,
            Setting.sharingReclaim: sharingReclaim, Setting.sharingReclaimAfter: sharingReclaimAfter,
            Setting.sharingTerm: sharingTerm,
        ]
    }

    private func settings() throws(SettingsError) -> Settings {
        // An empty name would be the folder that we are in.
        for (origin, value) in [
            ("flag --home", self.home), ("flag --config", config),
            ("environment variable FPX_HOME", ProcessInfo.processInfo.environment["FPX_HOME"]),
        ] where value == "" { throw .value(origin: origin, found: "", expected: "a path") }
        let home = (self.home ?? ProcessInfo.processInfo.environment["FPX_HOME"]).map {
            URL(filePath: $0).standardizedFileURL.path(percentEncoded: false)
        }
        let defaults = Settings.Defaults(home: home.map { $0.count > 1 && $0.hasSuffix("/") ? String($0.dropLast()) : $0 })
        let path = config.map { URL(filePath: $0).standardizedFileURL.path(percentEncoded: false) }
        if let path, access(path, F_OK) != 0 { throw .file(path: path, reason: String(cString: strerror(errno))) }
        return try Settings(
            defaults: defaults, file: try SettingsFile.read(path ?? defaults.configurationFile), flags: flags,
            environment: ProcessInfo.processInfo.environment)
    }

    static func main() async {
        do {
            var command = try parseAsRoot(ProgramArguments.words)
            // Nothing but --help and the like is a command of another type; to run it is to throw what it prints.
            if let fpxd = command as? FPXD { try await fpxd.run() } else { try command.run() }
        } catch {
            let code = exitCode(for: error)
            let text = fullMessage(for: error)
            // A reader that has gone away is no reason to fail.
            if !text.isEmpty {
                try? (code.isSuccess ? FileHandle.standardOutput : .standardError).write(contentsOf: Data((text + "\n").utf8))
            }
            Foundation.exit(code == .validationFailure ? 2 : code.rawValue)
        }
    }

    func run() async throws {
        Descriptor.prepareProcess()
        let log = LineLog()
        defer { log.flush() }
        LoggingSystem.bootstrap { _ in LineLogHandler(log: log) }
        let logger = Logger(label: "fpxd")
        // To the terminal even where the level would hide it.
        func fail(_ reasons: [String]) -> ExitCode {
            for reason in reasons { log.write(.critical, "fpxd: \(reason)") }
            return ExitCode(1)
        }
        let settings: Settings
        do { settings = try self.settings() } catch { throw fail(["\(error)"]) }
        for line in Settings.unknownVariables(in: ProcessInfo.processInfo.environment) { log.write(.warning, line) }
        if checkConfig {
            let trouble = settings.troubleWithFiles()
            if !trouble.isEmpty { throw fail(trouble) }
            return printSettings(settings)
        }
        let trouble = settings.troubleWithOwnPlaces()
        if !trouble.isEmpty { throw fail(trouble) }
        do {
            try await serve(try await Daemon.start(settings, log: log, logger: logger))
        } catch {
            let name = (error as? any NamesSetting)?.settingName
            throw fail([(name.flatMap(settings.place).map { $0 + ": " } ?? "") + "\(error)"])
        }
    }

    private func printSettings(_ settings: Settings) {
        print("# \(settings.file.path): accepted")
        for setting in Setting.all { print("\(setting.name): \(settings[setting.name])") }
    }

    private func serve(_ daemon: Daemon) async throws {
        let manager = ServiceManager(environment: ProcessInfo.processInfo.environment)
        let pulses = [Pulse("the reaper", longest: .seconds(1)), Pulse("housekeeping", longest: .seconds(5))]
        var services: [any Service] = [
            Rounds.reaping(daemon, pulses[0]), Rounds.looking(daemon), Rounds.housekeeping(daemon, pulses[1]),
            CommitOnHangup(daemon: daemon),
            SharingService(seats: daemon.sharedSeats),
        ]
        if let watchdog = Rounds.watchdog(
            manager, pulses: pulses, socket: daemon.places.controlSocket, logger: daemon.logger)
        {
            services.append(watchdog)
        }
        if let agent = daemon.haproxy {
            try await agent.start()
            services.append(agent)
        }
        services.append(
            ControlServer(
                path: daemon.places.controlSocket, backend: daemon,
                access: AccessRule(userID: geteuid(), group: daemon.places.group), version: Version.number,
                connectionsMax: daemon.shares.control, logger: daemon.logger,
                ready: { isFirst in
                    do {
                        try Places.give(daemon.places.controlSocket, to: daemon.places.group, mode: 0o660)
                    } catch {
                        daemon.logger.error("\(error)")
                    }
                    guard isFirst else { return }
                    daemon.logger.info("Ready: control socket \(daemon.places.controlSocket)")
                    manager.notify("READY=1")
                }, lost: { await daemon.names.restore(daemon.places.controlSocket, $0) }))
        // Told of a shutdown before the control socket: who waits there for the authority is answered then.
        services.append(LicenseService(daemon: daemon))
        services.append(Farewell(manager: manager))
        var quiet = daemon.logger
        quiet.logLevel = .warning
        let group = ServiceGroup(
            configuration: .init(services: services, gracefulShutdownSignals: [.sigterm, .sigint], logger: quiet))
        try await group.run()
        daemon.events.note(.info, .daemon, "\(Version.line) stopped; sessions in progress stay counted")
        daemon.events.flush()
    }
}
