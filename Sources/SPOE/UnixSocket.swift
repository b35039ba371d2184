import Glibc

/// Listening sockets in the file system.
enum UnixSocket {
    /// Longest path, in bytes: one less than the kernel's, for the name under which the socket is made.
    static let pathBytesMax = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 2

    /// A listening socket. It gets its name when it has its mode and is ready, so that a client finds it whole or not at all;
    /// the socket of a daemon that is gone is replaced in the same step.
    static func listen(path: String, mode: UInt32, backlog: Int32) throws(SPOEError) -> Int32 {
        try checkFree(path)
        // Not a name with the process id: what a killed daemon leaves is removed by the next one.
        let temporary = path + "~"
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw .system(call: "socket", path: path, code: errno) }
        do throws(SPOEError) {
            unsafe unlink(temporary)
            try check(unsafe withAddress(temporary) { unsafe bind(descriptor, $0, $1) }, "bind", path)
            try check(unsafe chmod(temporary, mode), "chmod", path)
            try check(Glibc.listen(descriptor, backlog), "listen", path)
            try check(unsafe rename(temporary, path), "rename", path)
            return descriptor
        } catch {
            unsafe unlink(temporary)
            close(descriptor)
            throw error
        }
    }

    static func remove(_ path: String) { unsafe unlink(path) }

    private static func checkFree(_ path: String) throws(SPOEError) {
        guard path.utf8.count <= pathBytesMax else {
            throw .pathLength(path: path, bytes: path.utf8.count, max: pathBytesMax)
        }
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else {
            if errno == ENOENT { return }
            throw .system(call: "lstat", path: path, code: errno)
        }
        guard status.st_mode & S_IFMT == S_IFSOCK else { throw .notASocket(path: path) }
        let probe = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard probe >= 0 else { throw .system(call: "socket", path: path, code: errno) }
        defer { close(probe) }
        // A full queue (EAGAIN) is a living one too; only a refusal says that nobody listens.
        var timeout = timeval(tv_sec: 1, tv_usec: 0)
        unsafe _ = setsockopt(probe, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        let failed = unsafe withAddress(path) { unsafe connect(probe, $0, $1) }
        guard failed != 0, errno == ECONNREFUSED || errno == ENOENT else { throw .inUse(path: path) }
    }

    private static func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
        return unsafe withUnsafePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    private static func check(_ result: Int32, _ call: String, _ path: String) throws(SPOEError) {
        if result != 0 { throw .system(call: call, path: path, code: errno) }
    }
}
