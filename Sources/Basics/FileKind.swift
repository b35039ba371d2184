import Glibc

/// What lies under a name, for errors that say what was found.
package enum FileKind {
    /// - Parameter mode: of `stat`.
    package static func name(of mode: mode_t) -> String {
        switch mode & S_IFMT {
        case S_IFREG: "a file"
        case S_IFDIR: "a folder"
        case S_IFIFO: "a pipe"
        case S_IFSOCK: "a socket"
        case S_IFLNK: "a link"
        case S_IFCHR, S_IFBLK: "a device"
        default: "something of mode \(String(mode, radix: 8))"
        }
    }
}
