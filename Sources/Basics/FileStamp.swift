import Glibc

/// Tells one state of a file from another, without reading it. A link counts as the file that it leads to.
package struct FileStamp: Equatable, Sendable {
    /// Empty where there is no file.
    private var values: [Int] = []

    package init(_ path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return }
        values = [
            Int(status.st_dev), Int(bitPattern: UInt(status.st_ino)), Int(status.st_size), status.st_mtim.tv_sec,
            status.st_mtim.tv_nsec, status.st_ctim.tv_sec, status.st_ctim.tv_nsec,
        ]
    }

    package var isThere: Bool { !values.isEmpty }
}

/// Which file has a name now, whatever becomes of its contents. A link is a file of its own.
package struct FileIdentity: Equatable, Sendable {
    private let device: UInt64
    private let inode: UInt64

    private init(_ status: stat) {
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
    }

    /// Nil: there is nothing of that name, or nothing that may be looked at.
    /// - Parameter followsLinks: whether a link counts as the file that it leads to.
    package init?(_ path: String, followsLinks: Bool = false) {
        var status = stat()
        guard (followsLinks ? stat(path, &status) : lstat(path, &status)) == 0 else { return nil }
        self.init(status)
    }

    /// Nil: it is not open.
    package init?(descriptor: Int32) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return nil }
        self.init(status)
    }
}
