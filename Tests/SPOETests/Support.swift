import Foundation
import Testing

@testable import Admission
@testable import KeyedSessions
@testable import SPOE

/// A segment with a keeper and keyed sessions.
final class Fixture: @unchecked Sendable {
    let folder: String
    var segmentPath: String { folder + "/segment" }
    var journalPath: String { folder + "/sessions" }
    let observer: Segment
    private(set) var keeper: Segment
    private(set) var sessions: KeyedSessions

    init(cap: Int, policy: OverLimitPolicy = .bypass) throws {
        folder = "/dev/shm/fpx-spoe.\(getpid()).\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        try Segment.create(path: folder + "/segment")
        observer = try Segment.attach(path: folder + "/segment")
        for pool in 0..<3 {
            try observer.pool(pool).setCap(cap)
            try observer.pool(pool).policy = policy
        }
        keeper = try Segment.attachKeeper(path: folder + "/segment")
        sessions = try KeyedSessions(segment: keeper, journal: folder + "/sessions")
    }

    /// What a restart of the daemon does.
    func restart() throws {
        keeper.detach()
        keeper = try Segment.attachKeeper(path: segmentPath)
        sessions = try KeyedSessions(segment: keeper, journal: journalPath)
    }

    deinit {
        keeper.detach()
        observer.detach()
        try? FileManager.default.removeItem(atPath: folder)
    }

    func snapshot(_ pool: Int = 0) throws -> PoolSnapshot { try observer.pool(pool).snapshot() }
    func inUse(_ pool: Int = 0) throws -> Int { try snapshot(pool).inUse }

    func expectEmpty(sourceLocation: SourceLocation = #_sourceLocation) throws {
        for pool in 0..<3 {
            let snapshot = try snapshot(pool)
            #expect(snapshot.inUse == 0 && snapshot.bypassed == 0, "\(snapshot)", sourceLocation: sourceLocation)
        }
        #expect(sessions.list(limit: 0).total == 0, sourceLocation: sourceLocation)
        #expect(keeper.handlesInUse().isEmpty, sourceLocation: sourceLocation)
    }
}

/// Waits for a condition, and gives up after some seconds.
func eventually(within seconds: Double = 5, _ condition: () throws -> Bool) async throws -> Bool {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while try !condition() {
        if ContinuousClock.now > deadline { return false }
        try await Task.sleep(for: .milliseconds(2))
    }
    return true
}

/// A client of a stream socket that waits at most ten seconds for anything.
final class RawClient {
    let descriptor: Int32

    private init(_ domain: Int32) {
        descriptor = socket(domain, Int32(SOCK_STREAM.rawValue), 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            var timeout = timeval(tv_sec: 10, tv_usec: 0)
            setsockopt(descriptor, SOL_SOCKET, option, &timeout, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    convenience init(unix path: String) throws {
        self.init(AF_UNIX)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        try connect(&address, MemoryLayout<sockaddr_un>.size)
    }

    convenience init(port: Int) throws {
        self.init(AF_INET)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        try connect(&address, MemoryLayout<sockaddr_in>.size)
    }

    private func connect<Address>(_ address: inout Address, _ size: Int) throws {
        let failed = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(descriptor, $0, socklen_t(size)) }
        }
        if failed != 0 { throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }
    }

    deinit { close() }

    private var isClosed = false
    func close() {
        if !isClosed { Glibc.close(descriptor) }
        isClosed = true
    }

    /// Ends the connection by RST.
    func reset() {
        var linger = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout.size(ofValue: linger)))
        close()
    }

    /// False: the other side has closed.
    @discardableResult
    func send(_ bytes: [UInt8]) -> Bool {
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count <= 0 { return false }
            sent += count
        }
        return true
    }

    @discardableResult
    func send(_ text: String) -> Bool { send(Array(text.utf8)) }

    /// What has come; empty: the other side has closed (or reset); nil: nothing came in ten seconds.
    func receive() -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = recv(descriptor, &bytes, bytes.count, 0)
        if count < 0 { return errno == ECONNRESET ? [] : nil }
        return Array(bytes.prefix(count))
    }

    /// Everything up to the end of the connection; nil: it did not end.
    func receiveAll() -> [UInt8]? {
        var all: [UInt8] = []
        while let part = receive() {
            if part.isEmpty { return all }
            all += part
        }
        return nil
    }

    /// Reads until a text has come; nil: it did not come.
    func receive(until text: String) -> String? {
        var all: [UInt8] = []
        while let part = receive(), !part.isEmpty {
            all += part
            let so = String(decoding: all, as: UTF8.self)
            if so.contains(text) { return so }
        }
        return nil
    }
}

/// A TCP connection from this process to itself, accepted.
final class LoopbackConnection {
    private let listener: Int32
    private let server: Int32
    private let client: RawClient
    let port: Int64
    let clientPort: Int64

    init() throws {
        listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard listen(listener, 1) == 0 else { throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }
        port = Self.port(of: listener)
        client = try RawClient(port: Int(port))
        server = accept(listener, nil, nil)
        clientPort = Self.port(of: client.descriptor)
    }

    deinit {
        close(server)
        close(listener)
    }

    private static func port(of descriptor: Int32) -> Int64 {
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = getsockname(descriptor, $0, &length) }
        }
        return Int64(UInt16(bigEndian: address.sin_port))
    }

    /// Ends both ends' sockets by RST.
    func reset() {
        client.reset()
        shutdown(server, Int32(SHUT_RDWR))
        dup2(listener, server)
    }
}
