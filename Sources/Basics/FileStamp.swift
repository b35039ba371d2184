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
