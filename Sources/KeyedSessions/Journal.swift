// Journal: what must be known of each keyed session so that the daemon's next life can end it.
//
//     0       header (one page): magic, version, bytes of a record, records
//     4096    65,536 records x 256 B, the record of entry N at 4096 + 256 N
//
// The engine's handle table says which sessions there are; a record only describes the one that it names. Records of ended
// sessions stay until their entry is used again. They are written by `pwrite`, not through a mapping: a full file system or a
// file that somebody has cut is then an error of one call and not a signal that ends the daemon. A record lies within one page,
// so a process that is killed while it writes has written all of it or nothing.

import Admission
import CKeyedTable

struct Journal: ~Copyable {
    private static let magic: UInt64 = 0x6670_786b_6579_3031  // "fpxkey01"
    private static let version: UInt64 = 1
    private static let headerBytes: Int64 = 4096
    private static let recordBytes = MemoryLayout<fpx_record>.stride
    static let byteCount = headerBytes + Int64(Limits.handles * recordBytes)

    private static let header: [(field: String, value: UInt64)] = [
        ("magic", magic), ("version", version), ("record size", UInt64(recordBytes)), ("records", UInt64(Limits.handles)),
    ]

    let path: String
    private let descriptor: Int32

    /// Opens the journal, or makes it where there is none.
    ///
    /// - Parameter isNeeded: sessions depend on it: a file that is no journal is then an error; otherwise it is made anew.
    init(path: String, isNeeded: Bool) throws(KeyedSessionsError) {
        var size: Int64 = 0
        let descriptor = unsafe fpx_file_open_sized(path, &size)
        guard descriptor >= 0 else { throw .system(call: "open", path: path, code: -descriptor) }
        do throws(KeyedSessionsError) {
            do throws(KeyedSessionsError) {
                try Self.validate(descriptor, path: path, size: size)
            } catch {
                // An empty file was made just now, or its maker was killed before the header was in it.
                guard !isNeeded || size == 0 else { throw error }
                try Self.format(descriptor, path: path)
            }
        } catch {
            fpx_descriptor_close(descriptor)
            throw error
        }
        self.path = path
        self.descriptor = descriptor
    }

    deinit { fpx_descriptor_close(descriptor) }

    private static func validate(_ descriptor: Int32, path: String, size: Int64) throws(KeyedSessionsError) {
        guard size == byteCount else {
            throw .journal(path: path, field: "size", found: UInt64(size), expected: UInt64(byteCount))
        }
        var words = [UInt64](repeating: 0, count: header.count)
        let error = unsafe fpx_file_read(descriptor, &words, words.count * 8, 0)
        guard error == 0 else { throw .system(call: "pread", path: path, code: error) }
        for (found, expected) in zip(words, header) where found != expected.value {
            throw .journal(path: path, field: expected.field, found: found, expected: expected.value)
        }
    }

    private static func format(_ descriptor: Int32, path: String) throws(KeyedSessionsError) {
        var error = fpx_file_reset(descriptor, byteCount)
        guard error == 0 else { throw .system(call: "ftruncate", path: path, code: error) }
        let words = header.map(\.value)
        error = unsafe fpx_file_write(descriptor, words, words.count * 8, 0)
        guard error == 0 else { throw .system(call: "pwrite", path: path, code: error) }
    }

    private static func offset(_ entry: Int) -> Int64 { headerBytes + Int64(entry * recordBytes) }

    /// False: the record could not be written.
    borrowing func write(_ record: fpx_record, entry: Int) -> Bool {
        unsafe withUnsafeBytes(of: record) { bytes in
            guard let base = bytes.baseAddress else { return false }
            return unsafe fpx_file_write(descriptor, base, bytes.count, Self.offset(entry)) == 0
        }
    }

    /// The record of a handle in use; nil if there is none that makes sense.
    borrowing func read(_ handle: SessionHandle) -> fpx_record? {
        var record = fpx_record()
        let error = unsafe fpx_file_read(descriptor, &record, Self.recordBytes, Self.offset(handle.entry))
        guard error == 0, record.handle == handle.rawValue, Hook(rawValue: record.hook) != nil,
            SessionKey.length.contains(Int(record.key_length)), record.owner_pid >= 0,
            record.verdict == (handle.isBypassed ? Verdict.bypass : .inspect).rawValue,
            record.cookie == 0 || record.client_port != 0 && record.local_port != 0
        else { return nil }
        record.forgetWhatIsElsewhere()
        return record
    }
}

extension fpx_record {
    /// Another namespace has sockets and processes of its own: whether those of the record are gone cannot be told from here.
    fileprivate mutating func forgetWhatIsElsewhere() {
        if network_namespace != Namespace.network || network_namespace == 0 { cookie = 0 }
        // Older records do not tell; their daemon was in the same place as this one, as far as is known.
        let isOld = process_namespace == 0 && time_namespace == 0
        if !isOld, process_namespace != Namespace.process || time_namespace != Namespace.time {
            owner_pid = 0
            owner_start = 0
        }
    }
}
