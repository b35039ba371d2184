import Foundation
import Testing

/// A network namespace with its loopback interface up, removed when the value goes.
final class NetworkNamespace: Sendable {
    let name: String

    init() throws {
        name = "fpx-test-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        try NetworkNamespace.ip("netns", "add", name)
        try ip("link", "set", "lo", "up")
    }

    deinit { try? NetworkNamespace.ip("netns", "delete", name) }

    /// What starts a program in it.
    var launcher: [String] { ["/usr/sbin/ip", "netns", "exec", name] }

    /// `ip WORDS` within it.
    func ip(_ words: String...) throws { try NetworkNamespace.ip(["-n", name] + words) }

    static func ip(_ words: String...) throws { try ip(words) }

    static func ip(_ words: [String]) throws { try execute(["/usr/sbin/ip"] + words) }

    /// Runs a program within it, which must succeed.
    func run(_ words: [String]) throws { try NetworkNamespace.execute(launcher + words) }

    private static func execute(_ words: [String]) throws {
        let (status, output) = try EndToEndTests.run(words[0], Array(words.dropFirst()))
        if status != 0 { throw EndToEndError.notReady(what: words.joined(separator: " "), log: output) }
    }

    /// What the body makes is in that namespace; nil: in this one.
    static func inside<Result>(_ place: NetworkNamespace?, _ body: () throws -> Result) throws -> Result {
        if let place { try place.inside(body) } else { try body() }
    }

    /// Sockets that the body makes are in this namespace, whoever uses them later.
    func inside<Result>(_ body: () throws -> Result) throws -> Result {
        let home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
        let there = open("/var/run/netns/\(name)", O_RDONLY | O_CLOEXEC)
        defer {
            close(home)
            close(there)
        }
        guard home >= 0, there >= 0, NetworkNamespace.enter(there) == 0 else {
            throw SocketError.system(call: "setns", code: errno)
        }
        // A thread that stayed there would fail tests that know nothing of it.
        defer { precondition(NetworkNamespace.enter(home) == 0, "cannot return from a network namespace") }
        return try body()
    }

    /// setns(2) for a network namespace, which Swift's Glibc does not have.
    private static func enter(_ descriptor: Int32) -> Int32 {
        typealias Function = @convention(c) (Int32, Int32) -> Int32
        let cloneNewNetwork: Int32 = 0x4000_0000
        guard let symbol = dlsym(nil, "setns") else { return -1 }
        return unsafeBitCast(symbol, to: Function.self)(descriptor, cloneNewNetwork)
    }
}
