// Who else may write a file: what everybody can write is nobody's word.

import Glibc

package enum FileWriters {
    /// Names what lets others than root and this program's user change a file, or put another one in a folder's place for it;
    /// nil where nothing does, or where there is nothing of that name.
    ///
    /// A link counts as what it leads to. What is mounted read-only nobody writes, whatever its mode (volumes of containers).
    package static func others(_ path: String) -> String? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        var system = statvfs()
        if statvfs(path, &system) == 0, system.f_flag & UInt(ST_RDONLY) != 0 { return nil }
        if status.st_uid != 0, status.st_uid != geteuid() { return "owned by user \(status.st_uid)" }
        if status.st_mode & S_IWOTH != 0 { return "writable by all (mode \(String(status.st_mode & 0o7777, radix: 8)))" }
        return nil
    }
}
