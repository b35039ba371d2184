// Files for what is read by path only.

import Glibc

/// A file in memory that nobody else sees and that goes with the process.
struct ScratchFile {
    private let descriptor: Int32

    init() {
        descriptor = memfd_create("fuzz", 0)
        expect(descriptor >= 0, "memfd_create: \(String(cString: strerror(errno)))")
    }

    /// Its path, with nothing but these bytes in it.
    func holding(_ bytes: [UInt8]) -> String {
        expect(ftruncate(descriptor, 0) == 0 && pwrite(descriptor, bytes, bytes.count, 0) == bytes.count, "no memory")
        return "/proc/self/fd/\(descriptor)"
    }
}

let files = [ScratchFile(), ScratchFile()]
