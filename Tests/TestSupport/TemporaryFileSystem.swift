// TemporaryFileSystem: for tests that fill one up.

import Foundation

/// A file system in memory of its own size. It is unmounted when the value goes.
public final class TemporaryFileSystem: Sendable {
    public struct Failure: Error, CustomStringConvertible { public let description: String }

    public let path: String

    /// Mounting takes root.
    public static let isPermitted = (try? TemporaryFileSystem(bytes: 1 << 20)) != nil

    public init(bytes: Int) throws {
        var template = Array("/tmp/fpx-test.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Failure(description: "mkdtemp: errno \(errno)") }
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        let mount = try ChildProcess.run(["mount", "-t", "tmpfs", "-o", "size=\(bytes)", "fpx-test", path])
        guard mount.status == 0 else {
            rmdir(path)
            throw Failure(description: mount.text)
        }
    }

    deinit {
        _ = try? ChildProcess.run(["umount", "--lazy", path])
        rmdir(path)
    }

    /// Takes all that is left.
    public func fill() throws {
        let descriptor = open("\(path)/filler", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Failure(description: "open: errno \(errno)") }
        defer { close(descriptor) }
        let page = [UInt8](repeating: 0, count: 4096)
        while write(descriptor, page, page.count) > 0 {}
        if errno != ENOSPC { throw Failure(description: "write: errno \(errno)") }
    }

    /// Gives back what `fill` has taken.
    public func makeRoom() { unlink("\(path)/filler") }
}
