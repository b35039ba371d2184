// Files for what is read by path.

import Glibc

/// A file in the folder of temporary files, which run.sh makes and removes.
struct ScratchFile {
    let path: String
    private let descriptor: Int32

    init() {
        let folder = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        var template = Array("\(folder)/fpx-fuzz.XXXXXX".utf8CString)
        descriptor = mkstemp(&template)
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        expect(descriptor >= 0, "\(path): \(String(cString: strerror(errno)))")
    }

    /// Its path, with nothing but these bytes in it.
    func holding(_ bytes: [UInt8]) -> String {
        expect(ftruncate(descriptor, 0) == 0, "\(path): \(String(cString: strerror(errno)))")
        overwrite(at: 0, bytes)
        return path
    }

    func overwrite(at offset: Int, _ bytes: [UInt8]) {
        expect(pwrite(descriptor, bytes, bytes.count, offset) == bytes.count, "\(path): \(String(cString: strerror(errno)))")
    }
}

let files = [ScratchFile(), ScratchFile()]
