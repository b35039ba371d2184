import ArgumentParser
import AuthorityServer
import Basics
import ControlAPI
import Foundation
import Licensing
import Logging
import ServiceLifecycle
import UnixSignals

struct Serve: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Answers units over TLS until it is told to stop.",
        discussion: """
            Makes the database and a first key where there are none, once it has found all files and the address good. SIGTERM or \
            SIGINT: finishes what it has begun, and ends. Changes made by other commands count at once, a renewed certificate \
            from the next connection on. On stderr: `ready: ` and where it listens.
            """)

    @OptionGroup var files: DatabaseFile
    @Option(help: ArgumentHelp("Where to listen.", valueName: "host:port"))
    var listen = "0.0.0.0:8443"
    @Option(help: ArgumentHelp("The server's certificate and those above it, in PEM.", valueName: "file"))
    var certificate: String
    @Option(help: ArgumentHelp("The certificate's private key, in PEM.", valueName: "file"))
    var key: String
    @Option(
        help: ArgumentHelp(
            "Units must show a certificate of one of these authorities, in PEM (default: they need none).", valueName: "file"))
    var clientCA: String?
    @Option(help: ArgumentHelp("Changed hardware accepted without a person, of each licence in 7 days.", valueName: "n"))
    var reissues = 3
    @Option(help: ArgumentHelp("Questions of one account a minute; 0: no limit.", valueName: "n"))
    var ratePerAccount = 600
    @Option(help: ArgumentHelp("Questions from one address a minute; 0: no limit.", valueName: "n"))
    var ratePerAddress = 600

    private var place: (host: String, port: Int)? {
        guard let colon = listen.lastIndex(of: ":"), let port = Int(listen[listen.index(after: colon)...]),
            (0...65535).contains(port), colon != listen.startIndex
        else { return nil }
        let host = listen[..<colon]
        let isBracketed = host.hasPrefix("[") && host.hasSuffix("]")
        if host.contains(":") && !isBracketed { return nil }
        return (isBracketed ? String(host.dropFirst().dropLast()) : String(host), port)
    }

    func validate() throws {
        if place == nil { throw ValidationError("--listen: found '\(listen)', expected HOST:PORT or [ADDRESS]:PORT") }
        for (name, number) in [
            ("reissues", reissues), ("rate-per-account", ratePerAccount), ("rate-per-address", ratePerAddress),
        ] where !(0...1_000_000).contains(number) {
            throw ValidationError("--\(name): found \(number), expected 0 to 1000000")
        }
    }

    func run() async throws {
        guard let place else { return }
        Descriptor.prepareProcess()
        let log = Log()
        defer { log.flush() }
        let logger = Logger(label: "fpx-authority") { _ in log }
        let configuration = AuthorityServer.Configuration(
            host: place.host, port: place.port, certificate: certificate, privateKey: key, clientCA: clientCA,
            ratePerAccount: ratePerAccount, ratePerAddress: ratePerAddress)
        // A server that cannot begin makes neither a database nor a key.
        try AuthorityServer.checkFiles(of: configuration, logger: logger)
        try checkPlace(place)
        let store = try files.open(creates: true, reissues: reissues)
        if let first = try await store.makeFirstKey() {
            logger.notice("Made key \(first.kid); units must trust \(files.keysFolder)/\(first.kid).pem")
        }
        if let end = try await store.holdsUntil() {
            logger.notice("Restored from a backup: no unit gets a first licence before \(Timestamp.text(end))")
        }
        // A private key that cannot be read is a reason not to begin.
        let signing = try await store.signingKey().id
        let server = try AuthorityServer(
            store: store, configuration: configuration, version: Version.number, logger: logger
        ) { port in
            let host = place.host.contains(":") ? "[\(place.host)]" : place.host
            log.write("ready: https://\(host):\(port), key \(signing)")
        }
        var quiet = logger
        quiet.logLevel = .warning
        let group = ServiceGroup(
            configuration: .init(services: [server], gracefulShutdownSignals: [.sigterm, .sigint], logger: quiet))
        do { try await group.run() } catch let error as AuthorityError { throw error } catch {
            throw Refusal(reason: "\(listen): \(error)")
        }
    }

    /// Whether a socket can be bound there: an address of this machine, at a port that is free and ours to use.
    private func checkPlace(_ place: (host: String, port: Int)) throws {
        var hints = addrinfo()
        hints.ai_flags = AI_PASSIVE
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(place.host, String(place.port), &hints, &found)
        guard status == 0, let address = found?.pointee else {
            throw Refusal(reason: "\(listen): \(String(cString: gai_strerror(status)))")
        }
        defer { freeaddrinfo(found) }
        let socket = socket(address.ai_family, address.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), address.ai_protocol)
        guard socket >= 0 else { throw Refusal(reason: "\(listen): \(String(cString: strerror(errno)))") }
        defer { close(socket) }
        var yes: Int32 = 1
        setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        if bind(socket, address.ai_addr, address.ai_addrlen) != 0 {
            throw Refusal(reason: "\(listen): \(String(cString: strerror(errno)))")
        }
    }
}

/// Log lines on stderr, which nobody waits for: units are answered though nobody reads it.
private struct Log: LogHandler {
    var logLevel = Logger.Level.info
    var metadata: Logger.Metadata = [:]
    private let lines = LineWriter(
        name: "log", notice: { LineWriter.line("warning: \($0) log lines are missing here: stderr did not take them in time") },
        write: { Descriptor.write($0, to: Descriptor.standardError) })

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
        let words =
            ["\(Date.now.formatted(.iso8601))", "\(event.level)", "fpx-authority:"] + all.map { "\($0.key)=\($0.value)" }
        write((words + ["\(event.message)"]).joined(separator: " "))
    }

    func write(_ text: String) { lines.add(LineWriter.line(text)) }

    func flush() { lines.flush() }
}
