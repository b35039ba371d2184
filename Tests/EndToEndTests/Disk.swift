// A disk that fills up, or stops answering: a real file system on a loop device, which is frozen while a test wants it to hang.

import Foundation
import Testing

final class Disk: Sendable {
    private let folder: TemporaryFolder
    /// Thaws and unmounts when the value goes, or when the test runner dies in whatever way: who waits for a frozen disk
    /// cannot be killed.
    private let lifeline: ProxyProcess

    /// Where it is mounted.
    let path: String

    /// Needs root.
    init(megabytes: Int = 4) throws {
        folder = try TemporaryFolder()
        path = folder.path + "/mounted"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        let image = folder.path + "/image"
        try Self.must("truncate -s \(megabytes)M \(image) && mkfs.ext4 -q -m 0 \(image) && mount -o loop \(image) \(path)")
        lifeline = try ProxyProcess(
            // In a group of its own: the lifeline kills its group, and this is what must go on then.
            ["setsid", "/bin/sh", "-c", "while kill -0 $PPID; do sleep 0.1; done; fsfreeze -u $0; umount -l $0", path],
            output: folder.path + "/lifeline")
    }

    deinit {
        try? thaw()
        _ = try? run("/bin/umount", ["-l", path])
    }

    /// From now on whoever writes to it waits.
    func freeze() throws { try Self.must("fsfreeze -f \(path)") }
    func thaw() throws { try Self.must("fsfreeze -u \(path)") }

    /// Leaves no room on it.
    func fill() throws { _ = try run("/bin/sh", ["-c", "dd if=/dev/zero of=\(path)/filler bs=4k; sync"]) }
    func makeRoom() throws { try FileManager.default.removeItem(atPath: path + "/filler") }

    /// Mounts a file of it over a file elsewhere, until the disk goes.
    func mount(_ name: String, over target: String) throws {
        try Self.must("touch \(path)/\(name) \(target) && mount --bind \(path)/\(name) \(target)")
    }

    func unmount(_ target: String) throws { try Self.must("umount -l \(target)") }

    private static func must(_ command: String) throws {
        let (status, output) = try run("/bin/sh", ["-c", command])
        if status != 0 { throw EndToEndError.notReady(what: command, log: output) }
    }
}
