// OpenFiles: which processes of this host have a file open, as /proc tells: root of all, other users of their own.

import Admission
import Foundation

enum OpenFiles {
    struct Descriptor {
        let processID: Int32
        /// Its path under /proc, by which the file can be opened.
        let link: String
        let file: FileNumber
        let isRemoved: Bool
    }

    /// The descriptors of other processes that lead to files which have one of these names, or had it.
    static func named(_ names: [String]) -> [Descriptor] {
        let processes = (try? FileManager.default.contentsOfDirectory(atPath: "/proc"))?.compactMap { Int32($0) } ?? []
        return processes.flatMap { $0 == getpid() ? [] : named(names, of: $0) ?? [] }
    }

    /// - Returns: nil where they cannot be looked at.
    static func named(_ names: [String], of process: Int32) -> [Descriptor]? {
        let folder = "/proc/\(process)/fd"
        return (try? FileManager.default.contentsOfDirectory(atPath: folder))?.compactMap { number in
            let link = "\(folder)/\(number)"
            guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: link),
                let name = names.first(where: { target == $0 || target == $0 + " (deleted)" })
            else { return nil }
            var status = stat()
            guard stat(link, &status) == 0 else { return nil }
            return Descriptor(
                processID: process, link: link,
                file: FileNumber(device: UInt64(status.st_dev), inode: UInt64(status.st_ino)), isRemoved: target != name)
        }
    }

    /// The other processes that have a file open.
    static func holders(of file: FoundSegment.File) -> Set<Int> {
        Set(named([file.path]).filter { $0.file == file.number }.map { Int($0.processID) })
    }

    /// Whether one process has it open, or cannot be looked at.
    static func holds(_ process: Int, _ file: FoundSegment.File) -> Bool {
        named([file.path], of: Int32(clamping: process))?.contains { $0.file == file.number } ?? true
    }
}
