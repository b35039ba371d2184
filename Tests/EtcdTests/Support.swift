import AsyncHTTPClient
import Etcd
import Foundation
import NIOCore
import Synchronization
import Testing
import TestSupport

/// Tests with members of etcd's, one after the other: many at once need more than a small machine has.
@Suite(.serialized, .enabled(if: EtcdServer.isInstalled, "etcd is not installed"))
enum WithEtcd {}

/// One member that all tests share which do not harm it.
enum Shared {
    static let server = Task { try await EtcdServer.start() }
}

/// Keys of one test alone.
func newPrefix() -> String { "test/\(UUID().uuidString)/" }

/// - Parameter deadline: long, but where it is what is tested: the machine has other things to do.
func client(_ endpoints: String, deadline: Duration = .seconds(10)) throws -> EtcdClient {
    var configuration = try EtcdConfiguration(endpoints: endpoints)
    configuration.deadline = deadline
    return EtcdClient(configuration)
}

/// The error of what must fail.
func failure<T>(_ body: () async throws(EtcdError) -> T) async -> EtcdError? {
    do {
        _ = try await body()
        return nil
    } catch { return error }
}

/// Asks again until it is so, at most some seconds.
func poll(seconds: Int = 10, _ isSo: () async throws -> Bool) async rethrows -> Bool {
    let end = ContinuousClock.now + .seconds(seconds)
    while ContinuousClock.now < end {
        if try await isSo() { return true }
        try? await Task.sleep(for: .milliseconds(10))
    }
    return false
}

/// Posts to etcd, past the client.
func post(_ url: String, _ body: String) async throws -> String {
    var request = HTTPClientRequest(url: url)
    request.method = .POST
    request.body = .bytes(Array(body.utf8))
    let response = try await HTTPClient.shared.execute(request, timeout: .seconds(10))
    return String(buffer: try await response.body.collect(upTo: 1 << 20))
}

extension EtcdError {
    /// Of its case.
    var name: String { Mirror(reflecting: self).children.first?.label ?? (self == .cancelled ? "cancelled" : "leaseNotFound") }
}

/// A folder of a test's own.
struct Folder: ~Copyable {
    let path = FileManager.default.temporaryDirectory.path + "/etcd-test-" + UUID().uuidString

    init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ name: String, _ text: String) throws -> String {
        try Data(text.utf8).write(to: URL(filePath: "\(path)/\(name)"), options: .atomic)
        return "\(path)/\(name)"
    }
}
