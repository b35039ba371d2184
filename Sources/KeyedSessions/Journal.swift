// Journal: what must be known of each keyed session so that the daemon's next life can end it.
//
//     0       header (one page): magic, version, bytes of a record, records
//     4096    65,536 records x 256 B, the record of entry N at 4096 + 256 N
//
// The engine's handle table says which sessions there are; a record describes the one that it names. A record has a sum, and is one of
//
//     session    written before anybody is told the verdict
//     free       written before the handle of an ended session is given back, and to a whole page before its first session
//
// so a handle in use with a free record is that of an admission or of an end that was cut short, and can be given back. With
// anything else (zeros, nonsense, no file) it is a session whose record is lost: nothing but an operator may end it.
//
// The file is written by `pwrite`, not through a mapping: a full file system or a file that somebody has cut is then an error of one
// call and not a signal that ends the daemon. A record lies within one page, so a process that is killed while it writes has
// written all of it or nothing. A new file is written under another name and gets its own when it is whole.

import Admission
import CKeyedTable
import Glibc
import Synchronization

enum JournalLayout {
    static let pageBytes: Int64 = 4096
    static let headerBytes = pageBytes
    static let recordBytes = MemoryLayout<fpx_record>.stride
    static let recordsOfPage = Int(pageBytes) / recordBytes
    static let pages = Limits.handles / recordsOfPage
    static let byteCount = headerBytes + Int64(Limits.handles * recordBytes)

    static let header: [(field: String, value: UInt64)] = [
        ("magic", 0x6670_786b_6579_3031),  // "fpxkey01"
        ("version", 2), ("record size", UInt64(recordBytes)), ("records", UInt64(Limits.handles)),
    ]

    static func offset(_ entry: Int) -> Int64 { headerBytes + Int64(entry * recordBytes) }

    /// What is wrong with the header of a file; nil: nothing.
    static func headerFault(_ descriptor: Int32) -> String? {
        var words = [UInt64](repeating: 0, count: header.count)
        let error = unsafe fpx_file_read(descriptor, &words, words.count * 8, 0)
        if error != 0 { return "its header cannot be read: \(errorName(error))" }
        for (found, expected) in zip(words, header) where found != expected.value {
            return "found \(expected.field) \(found), expected \(expected.value)"
        }
        return nil
    }

    static func sizeFault(_ size: Int64) -> String? {
        size == byteCount ? nil : "found \(size) bytes, expected \(byteCount)"
    }

    static func errorName(_ code: Int32) -> String { unsafe String(cString: fpx_errno_name(code)) }

    /// The records of a page, as far as the file has them.
    static func readPage(_ page: Int, of descriptor: Int32) -> [fpx_record] {
        var records = [fpx_record](repeating: fpx_record(), count: recordsOfPage)
        let first = page * recordsOfPage
        if unsafe fpx_file_read(descriptor, &records, recordsOfPage * recordBytes, offset(first)) == 0 { return records }
        for index in records.indices {
            if unsafe fpx_file_read(descriptor, &records[index], recordBytes, offset(first + index)) != 0 {
                return Array(records.prefix(index))
            }
        }
        return records
    }
}

/// What stands in the file that has a journal's name when the daemon starts.
struct JournalContents {
    enum Record {
        case session(fpx_record)
        case free
        /// Nothing that could be relied on.
        case unknown
    }

    let path: String
    private(set) var isThere = true
    /// What is wrong with it; nil: nothing.
    private(set) var fault: String?
    private(set) var sessions: [Int: fpx_record] = [:]
    private var free: Set<Int> = []
    /// Those with records.
    fileprivate var pages: Set<Int> = []

    init(path: String) {
        self.path = path
        var size: Int64 = 0
        let descriptor = unsafe fpx_file_open_own(path, &size)
        guard descriptor >= 0 else {
            isThere = descriptor != -ENOENT
            fault =
                switch -descriptor {
                case ENOENT: "the file is missing"
                case EINVAL, EISDIR, ENXIO, ELOOP: "found something that is not a regular file"
                case EPERM: "found a file of another user"
                default: "open failed: \(JournalLayout.errorName(-descriptor))"
                }
            return
        }
        defer { fpx_descriptor_close(descriptor) }
        fault = JournalLayout.sizeFault(size) ?? JournalLayout.headerFault(descriptor)
        var damaged = 0
        var offset = JournalLayout.headerBytes
        while true {
            offset = fpx_file_data(descriptor, offset)
            let page = Int((offset - JournalLayout.headerBytes) / JournalLayout.pageBytes)
            guard offset >= JournalLayout.headerBytes, offset < size, page < JournalLayout.pages else { break }
            damaged += read(page, of: descriptor)
            offset = JournalLayout.offset((page + 1) * JournalLayout.recordsOfPage)
        }
        if fault == nil, damaged > 0 { fault = "found \(damaged) damaged records" }
    }

    /// - Returns: how many records are damaged.
    private mutating func read(_ page: Int, of descriptor: Int32) -> Int {
        var unused = 0
        var damaged = 0
        let first = page * JournalLayout.recordsOfPage
        let records = JournalLayout.readPage(page, of: descriptor)
        for (entry, record) in zip(first..., records) {
            var record = record
            switch unsafe fpx_record_kind_of(&record, UInt32(entry)) {
            case FPX_RECORD_UNUSED: unused += 1
            case FPX_RECORD_FREE: free.insert(entry)
            case FPX_RECORD_SESSION where record.isSensible(at: entry):
                record.forgetWhatIsElsewhere()
                sessions[entry] = record
            default: damaged += 1
            }
        }
        // A page is written as a whole before its first session.
        if unused == records.count { return damaged }
        pages.insert(page)
        return damaged + unused
    }

    subscript(_ entry: Int) -> Record {
        if let record = sessions[entry] { return .session(record) }
        return free.contains(entry) ? .free : .unknown
    }
}

final class Journal: Sendable {
    let path: String
    private let descriptor: Int32
    /// Those whose records are written.
    private let pages: Mutex<Set<Int>>

    private var temporary: String { path + ".next" }

    /// Goes on with a file that is in order.
    init(_ contents: JournalContents) throws(KeyedSessionsError) {
        path = contents.path
        var size: Int64 = 0
        descriptor = unsafe fpx_file_open_own(path, &size)
        pages = Mutex(contents.pages)
        if descriptor < 0 { throw .system(call: "open", path: path, code: -descriptor) }
    }

    /// Writes a new file, which does not have its name yet: see `publish`.
    ///
    /// - Parameter records: of sessions, with their handles.
    init(path: String, describing records: [fpx_record]) throws(KeyedSessionsError) {
        self.path = path
        pages = Mutex([])
        descriptor = unsafe fpx_file_make(path + ".next", JournalLayout.byteCount)
        if descriptor < 0 { throw .system(call: "open", path: path + ".next", code: -descriptor) }
        let words = JournalLayout.header.map(\.value)
        let error = unsafe fpx_file_write(descriptor, words, words.count * 8, 0)
        if error != 0 { throw .system(call: "pwrite", path: temporary, code: error) }
        for record in records where !write(record, entry: SessionHandle(rawValue: record.handle).entry) {
            throw .system(call: "pwrite", path: temporary, code: ENOSPC)
        }
    }

    deinit {
        if descriptor < 0 { return }
        // Who could not write it whole leaves nothing behind.
        var size: Int64 = 0
        if unsafe fpx_file_check(descriptor, temporary, JournalLayout.byteCount, &size) == 0 { unsafe unlink(temporary) }
        fpx_descriptor_close(descriptor)
    }

    /// Gives a new file its name.
    func publish() throws(KeyedSessionsError) {
        if unsafe rename(temporary, path) == 0 { return }
        // A folder has it.
        if errno == EISDIR, Self.moveAside(path) != nil, unsafe rename(temporary, path) == 0 { return }
        throw .system(call: "rename", path: path, code: errno)
    }

    /// Puts what has the name where it can be looked at.
    ///
    /// - Returns: where; nil: it stays.
    static func moveAside(_ path: String) -> String? {
        unsafe rename(path, path + ".damaged") == 0 ? path + ".damaged" : nil
    }

    /// False: the record could not be written.
    func write(_ record: fpx_record, entry: Int) -> Bool { prepare(entry / JournalLayout.recordsOfPage) && put(record, entry) }

    /// Writes down that an entry has no session. Its handle must still be in use, so that no other session has the entry yet.
    func clear(_ handle: SessionHandle) {
        let page = handle.entry / JournalLayout.recordsOfPage
        if pages.withLock({ $0.contains(page) }) { _ = put(fpx_record(), handle.entry) }
    }

    private func put(_ record: fpx_record, _ entry: Int) -> Bool {
        var record = record
        unsafe fpx_record_seal(&record, UInt32(entry))
        return unsafe fpx_file_write(descriptor, &record, JournalLayout.recordBytes, JournalLayout.offset(entry)) == 0
    }

    private func prepare(_ page: Int) -> Bool {
        pages.withLock { pages in
            if pages.contains(page) { return true }
            let first = page * JournalLayout.recordsOfPage
            var records = [fpx_record](repeating: fpx_record(), count: JournalLayout.recordsOfPage)
            for index in records.indices { unsafe fpx_record_seal(&records[index], UInt32(first + index)) }
            let bytes = records.count * JournalLayout.recordBytes
            guard unsafe fpx_file_write(descriptor, records, bytes, JournalLayout.offset(first)) == 0 else { return false }
            pages.insert(page)
            return true
        }
    }

    // MARK: the look

    /// What is wrong with the file, but for its records; nil: nothing.
    var fault: String? {
        var size: Int64 = 0
        switch unsafe fpx_file_check(descriptor, path, JournalLayout.byteCount, &size) {
        case 0: return JournalLayout.headerFault(descriptor)
        case ENOENT, ENOTDIR: return "the file was removed"
        case EEXIST: return "another file has its name"
        case EFBIG: return JournalLayout.sizeFault(size)
        case let code: return "fstat failed: \(JournalLayout.errorName(code))"
        }
    }

    /// The handles that records name, by their entries; 0: none.
    func handles() -> [UInt64] {
        var handles = [UInt64](repeating: 0, count: Limits.handles)
        for page in pages.withLock({ $0 }) {
            let first = page * JournalLayout.recordsOfPage
            for (entry, record) in zip(first..., JournalLayout.readPage(page, of: descriptor)) {
                handles[entry] = Self.handle(record, entry)
            }
        }
        return handles
    }

    /// The handle that one record names; 0: none.
    func handle(_ entry: Int) -> UInt64 {
        var record = fpx_record()
        let error = unsafe fpx_file_read(descriptor, &record, JournalLayout.recordBytes, JournalLayout.offset(entry))
        return error == 0 ? Self.handle(record, entry) : 0
    }

    private static func handle(_ record: fpx_record, _ entry: Int) -> UInt64 {
        var record = record
        return unsafe fpx_record_kind_of(&record, UInt32(entry)) == FPX_RECORD_SESSION ? record.handle : 0
    }

    /// Whether there is memory for one more page of records, and for one of handles: what a new session may need.
    var hasRoom: Bool {
        let error = fpx_file_try(descriptor, JournalLayout.byteCount, 8192)
        return error == 0 || error == EOPNOTSUPP
    }
}

extension fpx_record {
    /// Whether it is one that a daemon writes: a sum can be made by anybody.
    fileprivate func isSensible(at entry: Int) -> Bool {
        let handle = SessionHandle(rawValue: handle)
        return handle.entry == entry && State.isLive(handle.rawValue) && (hook == 0 || Hook(rawValue: hook) != nil)
            && SessionKey.length.contains(Int(key_length)) && owner_pid >= 0
            && verdict == (handle.isBypassed ? Verdict.bypass : .inspect).rawValue
            && (cookie == 0 || client_port != 0 && local_port != 0)
    }

    /// Another namespace has sockets and processes of its own: whether those of the record are gone cannot be told from here.
    fileprivate mutating func forgetWhatIsElsewhere() {
        if network_namespace != Namespace.network || network_namespace == 0 { cookie = 0 }
        if process_namespace != Namespace.process || time_namespace != Namespace.time {
            owner_pid = 0
            owner_start = 0
        }
    }

    /// Of a session in progress, as the journal has it.
    func describing(_ handle: SessionHandle) -> fpx_record {
        var record = self
        record.handle = handle.rawValue
        record.verdict = (handle.isBypassed ? Verdict.bypass : .inspect).rawValue
        return record
    }

    /// Of a session of which nothing but its handle is known.
    ///
    /// - Parameter found: milliseconds since 1970.
    init(unknown handle: SessionHandle, found: UInt64) {
        self.init()
        started = found
        // No two have the same key.
        key_length = 16
        unsafe withUnsafeMutableBytes(of: &key) {
            unsafe $0.storeBytes(of: handle.rawValue, as: UInt64.self)
            unsafe $0.storeBytes(of: found, toByteOffset: 8, as: UInt64.self)
        }
        self = describing(handle)
    }
}
