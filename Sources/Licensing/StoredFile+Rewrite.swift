// Files of the operator's, which fpx writes too: what the operator has made of them stays.
//
// A link stays one, and the file that it leads to is written; owner and mode stay. The file is exchanged by a rename, so that it is
// always whole. Where that cannot be done without making it another file, it is written in place:
//
//     it is mounted by itself (a rename of it is EBUSY), or its folder may not be written to
//     its owner cannot be kept, or it has other names (hard links)
//
// In place there is a moment in which a crash or a loss of power leaves the new text cut short. Whoever calls tells people so.

import Foundation

extension StoredFile {
    private static let linksMax = 40

    /// Writes a file of the operator's; makes it where there is none.
    ///
    /// - Parameters:
    ///   - mode: of a new file.
    ///   - keepsPrevious: whether what was there before is `previous(of: path)` afterwards.
    /// - Returns: nil; or why it had to be written in place.
    /// - Throws: `system`, `damaged` for what is no regular file. The file is the old one then.
    package static func rewrite(
        _ bytes: [UInt8], at path: String, mode: mode_t, keepsPrevious: Bool = false
    ) throws(LicensingError) -> String? {
        let target = try end(ofLinksFrom: path)
        var status = stat()
        guard stat(target, &status) == 0 else {
            if errno != ENOENT { throw .system(call: "stat", path: target, code: errno) }
            try replace(bytes, at: target, mode: mode)
            return nil
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw .damaged(path: target, found: "something that is not a file", expected: "a regular file")
        }
        if keepsPrevious, let before = try read(target, limit: Int(status.st_size)) {
            try replace(before, at: previous(of: path), mode: status.st_mode & 0o777)
        }
        if status.st_nlink > 1 {
            try overwrite(bytes, target)
            return "it has other names (hard links)"
        }
        if let reason = try exchange(bytes, target, status) {
            try overwrite(bytes, target)
            return reason
        }
        return nil
    }

    /// Removes what a crash has left beside a file that `rewrite` writes.
    package static func removeLeftovers(of path: String) {
        guard let target = try? end(ofLinksFrom: path) else { return }
        unlink(temporary(of: target))
    }

    private static func end(ofLinksFrom path: String) throws(LicensingError) -> String {
        var path = path
        for _ in 0..<linksMax {
            guard let link = try? FileManager.default.destinationOfSymbolicLink(atPath: path) else { return path }
            path = link.hasPrefix("/") ? link : (path as NSString).deletingLastPathComponent + "/" + link
        }
        throw .system(call: "open", path: path, code: ELOOP)
    }

    /// - Returns: nil where it is done; or why it must be done in place, with nothing done.
    private static func exchange(_ bytes: [UInt8], _ path: String, _ status: stat) throws(LicensingError) -> String? {
        do {
            try writeTemporary(bytes, path: path, mode: 0o600, as: status)
            try move(temporary(of: path), to: path)
            return nil
        } catch {
            unlink(temporary(of: path))
            switch error {
            case .system("open", _, EACCES), .system("open", _, EPERM), .system("open", _, EROFS):
                return "its folder may not be written to"
            case .system("fchown", _, _): return "its owner \(status.st_uid):\(status.st_gid) could not be kept"
            case .system("rename", _, EBUSY), .system("rename", _, EXDEV): return "it is mounted by itself"
            default: throw error
            }
        }
    }

    private static func overwrite(_ bytes: [UInt8], _ path: String) throws(LicensingError) {
        let file = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
        if file < 0 { throw .system(call: "open", path: path, code: errno) }
        defer { close(file) }
        // A disk that is full is found before anything is written.
        let reserved = bytes.isEmpty ? 0 : posix_fallocate(file, 0, off_t(bytes.count))
        if reserved != 0, reserved != EOPNOTSUPP { throw .system(call: "posix_fallocate", path: path, code: reserved) }
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes { pwrite(file, $0.baseAddress, $0.count, off_t(written)) }
            if count < 0, errno != EINTR { throw .system(call: "write", path: path, code: errno) }
            written += max(count, 0)
        }
        if ftruncate(file, off_t(bytes.count)) != 0 { throw .system(call: "ftruncate", path: path, code: errno) }
        if fsync(file) != 0 { throw .system(call: "fsync", path: path, code: errno) }
    }
}
