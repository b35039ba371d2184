// Files that must be whole after a crash at any instruction.
//
// A file is written beside its place and renamed into it, so the name always holds either the old bytes or the new ones:
//
//     NAME.tmp        written, fsync
//     NAME.previous   a second name of the file in place (link), itself put in place by a rename
//     NAME            rename of NAME.tmp
//     folder          fsync, so that the names survive too
//
// A crash leaves at most a `.tmp` behind; nobody reads it, and the next write overwrites it. One process writes in a folder:
// the daemon that owns the state folder.

import Basics
import Foundation

package enum StoredFile {
    /// Where `write` keeps what was there before.
    package static func previous(of path: String) -> String { path + ".previous" }

    /// The bytes of a regular file; nil where there is no file of that name.
    ///
    /// Never reads more than `limit` bytes and never waits, whatever lies there (a pipe, a device, a file that grows).
    /// - Throws: `system`, `tooLarge` for a file of more than `limit` bytes, `damaged` for what is no regular file.
    package static func read(_ path: String, limit: Int) throws(LicensingError) -> [UInt8]? {
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        if file < 0 {
            if errno == ENOENT || errno == ENOTDIR { return nil }
            throw .system(call: "open", path: path, code: errno)
        }
        defer { close(file) }
        var status = stat()
        if fstat(file, &status) != 0 { throw .system(call: "fstat", path: path, code: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw .damaged(path: path, found: FileKind.name(of: status.st_mode), expected: "a regular file")
        }
        if status.st_size > limit { throw .tooLarge(path: path, bytes: Int(status.st_size), limit: limit) }
        // Files of /proc say that they are empty, so the size is only a hint.
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = Foundation.read(file, &chunk, chunk.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw .system(call: "read", path: path, code: errno)
            }
            if count == 0 { return bytes }
            bytes += chunk[..<count]
            if bytes.count > limit { throw .tooLarge(path: path, bytes: bytes.count, limit: limit) }
        }
    }

    /// Puts a file in place as one step; what was there before is `previous(of:)` afterwards.
    ///
    /// Returns when the bytes and the names are on disk. When it throws, the file in place is the old one.
    /// - Throws: `system`, `damaged` where a folder has one of the names.
    package static func write(_ bytes: [UInt8], to path: String, mode: mode_t = 0o600) throws(LicensingError) {
        for path in [path, previous(of: path)] { try checkIsNoFolder(path) }
        try writeTemporary(bytes, path: path, mode: mode)
        do {
            try keepPrevious(of: path)
            try move(temporary(of: path), to: path)
        } catch {
            unlink(temporary(of: path))
            throw error
        }
    }

    /// As `write`, keeping nothing: for files that no one goes back to.
    package static func replace(_ bytes: [UInt8], at path: String, mode: mode_t) throws(LicensingError) {
        try checkIsNoFolder(path)
        try writeTemporary(bytes, path: path, mode: mode)
        do { try move(temporary(of: path), to: path) } catch {
            unlink(temporary(of: path))
            throw error
        }
    }

    /// Puts a file that is whole and on disk in place as one step; what was there before is `previous(of:)` afterwards.
    /// - Throws: `system`.
    package static func putInPlace(_ file: String, at path: String) throws(LicensingError) {
        try keepPrevious(of: path)
        try move(file, to: path)
    }

    /// Writes a file that must not be there yet.
    /// - Throws: `exists`, `system`.
    package static func create(_ bytes: [UInt8], at path: String, mode: mode_t) throws(LicensingError) {
        let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        if file < 0 { throw errno == EEXIST ? .exists(path: path) : .system(call: "open", path: path, code: errno) }
        try fill(file, bytes, path: path)
        try syncFolder(of: path)
    }

    /// Takes a file out of its place; it is `previous(of:)` afterwards. No file is no error.
    /// - Throws: `system`.
    package static func retire(_ path: String) throws(LicensingError) {
        if access(path, F_OK) == 0 { try move(path, to: previous(of: path)) }
    }

    /// Removes a file for good. No file is no error.
    /// - Throws: `system`.
    package static func remove(_ path: String) throws(LicensingError) {
        if unlink(path) != 0 {
            if errno == ENOENT { return }
            throw .system(call: "unlink", path: path, code: errno)
        }
        try syncFolder(of: path)
    }

    /// Makes a folder for one owner, with those above it, unless it is there. An empty name is the folder that we are in.
    /// - Throws: `system`, `damaged` where something else has the name.
    package static func makeFolder(_ path: String) throws(LicensingError) {
        if path.isEmpty || mkdir(path, 0o700) == 0 { return }
        if errno == EEXIST {
            var status = stat()
            if stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR { return }
            lstat(path, &status)
            throw .damaged(path: path, found: FileKind.name(of: status.st_mode), expected: "a folder")
        }
        let parent = (path as NSString).deletingLastPathComponent
        guard errno == ENOENT, !parent.isEmpty, parent != path else { throw .system(call: "mkdir", path: path, code: errno) }
        try makeFolder(parent)
        if mkdir(path, 0o700) != 0, errno != EEXIST { throw .system(call: "mkdir", path: path, code: errno) }
    }

    /// The system calls would speak of a link that is not permitted.
    private static func checkIsNoFolder(_ path: String) throws(LicensingError) {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else { return }
        throw .damaged(path: path, found: FileKind.name(of: status.st_mode), expected: "a regular file")
    }

    static func temporary(of path: String) -> String { path + ".tmp" }

    /// - Parameter owner: whose owner and mode it gets; nil: ours, and `mode`.
    static func writeTemporary(
        _ bytes: [UInt8], path: String, mode: mode_t, as owner: stat? = nil
    ) throws(LicensingError) {
        let temporary = temporary(of: path)
        // What a crash left behind may have another mode or be a link to elsewhere: it is removed, not reused.
        if unlink(temporary) != 0, errno != ENOENT { throw .system(call: "unlink", path: temporary, code: errno) }
        let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        if file < 0 { throw .system(call: "open", path: temporary, code: errno) }
        if let owner, fchown(file, owner.st_uid, owner.st_gid) != 0 || fchmod(file, owner.st_mode & 0o7777) != 0 {
            let code = errno
            close(file)
            unlink(temporary)
            throw .system(call: "fchown", path: temporary, code: code)
        }
        try fill(file, bytes, path: temporary)
    }

    private static func keepPrevious(of path: String) throws(LicensingError) {
        let previous = previous(of: path)
        let temporary = temporary(of: previous)
        if unlink(temporary) != 0, errno != ENOENT { throw .system(call: "unlink", path: temporary, code: errno) }
        if link(path, temporary) != 0 {
            if errno == ENOENT { return }
            throw .system(call: "link", path: path, code: errno)
        }
        try rename(temporary, to: previous)
        // A rename between two names of one file does nothing, so after a crash at this point the temporary name can remain.
        unlink(temporary)
    }

    static func move(_ source: String, to target: String) throws(LicensingError) {
        try rename(source, to: target)
        try syncFolder(of: target)
    }

    private static func rename(_ source: String, to target: String) throws(LicensingError) {
        if Foundation.rename(source, target) != 0 { throw .system(call: "rename", path: target, code: errno) }
    }

    private static func fill(_ file: Int32, _ bytes: [UInt8], path: String) throws(LicensingError) {
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes { Foundation.write(file, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                let code = errno
                close(file)
                unlink(path)
                throw .system(call: "write", path: path, code: code)
            }
            written += count
        }
        let synced = fsync(file)
        let code = errno
        close(file)
        if synced != 0 {
            unlink(path)
            throw .system(call: "fsync", path: path, code: code)
        }
    }

    private static func syncFolder(of path: String) throws(LicensingError) {
        let parent = (path as NSString).deletingLastPathComponent
        let folder = parent.isEmpty ? "." : parent
        let file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if file < 0 { throw .system(call: "open", path: folder, code: errno) }
        defer { close(file) }
        if fsync(file) != 0 { throw .system(call: "fsync", path: folder, code: errno) }
    }
}
