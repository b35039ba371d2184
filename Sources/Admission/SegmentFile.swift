// SegmentFile: the open file of an attachment, for the locks of others and for memory.
//
// A segment's file is sparse. On a file system in memory a page is taken when it is first touched, also by a read, and where
// none is left whoever touches it gets SIGBUS. So all that a process may touch is reserved before: header and pools when the
// segment is made, a process' record, balances, writers and shards when it attaches, a chunk of handles before its first entry
// is used. What cannot be reserved is an error there. Nobody looks at what others have not reserved: slots and chunks are
// marked after it.
//
// Two things remain that take memory away from under a mapping: somebody cuts the file, and memory fails. fpx_guard_memory
// then puts empty memory in the segment's place, as after a detach: what is counted in it is lost, but no process ends.

import CAdmission
import Synchronization

/// How an attached segment's file stands to the file that has its name now.
public enum SegmentPlace: Equatable, Sendable {
    /// It is the one of that name, and whole.
    case there
    /// There is none of that name.
    case gone
    /// There is another of that name.
    case taken
    /// It has another size than a segment has.
    case cut(bytes: Int)
}

/// A second open file description of a segment, which holds no lock.
final class SegmentFile: Sendable {
    let path: String
    private let descriptor: Atomic<Int32>
    let device: UInt64
    let inode: UInt64

    init(_ descriptor: Int32, path: String) throws(SegmentError) {
        var status = fpx_file_status()
        try Segment.check(unsafe fpx_file_stat(descriptor, nil, &status), "fstat", path)
        self.path = path
        self.descriptor = Atomic(descriptor)
        device = status.device
        inode = status.inode
    }

    func close() {
        let old = descriptor.exchange(-1, ordering: .sequentiallyConsistent)
        if old >= 0 { fpx_file_close(old) }
    }

    /// What the descriptor leads to; nil where it is closed, or is another file by now: some programs close all that they do
    /// not know.
    private var status: fpx_file_status? {
        var status = fpx_file_status()
        guard unsafe fpx_file_stat(descriptor.load(ordering: .relaxed), nil, &status) == 0, status.device == device,
            status.inode == inode
        else { return nil }
        return status
    }

    /// Whether the descriptor still leads to the segment. Look at it before a number of `isLocked`.
    var isOpen: Bool { status != nil }

    /// Whether a living process holds a slot. An error counts as living: nobody is reaped by mistake.
    func isLocked(_ slot: Int) -> Bool {
        fpx_file_byte_is_locked(descriptor.load(ordering: .relaxed), Segment.lockBase + Int64(slot))
    }

    /// Takes memory for a part of the file.
    func reserve(_ offset: Int, _ bytes: Int) throws(SegmentError) {
        let code = status == nil ? EBADF : fpx_file_reserve(descriptor.load(ordering: .relaxed), Int64(offset), Int64(bytes))
        if code != 0 { throw .room(path: path, bytes: bytes, code: code) }
    }

    /// Takes what the holder of a slot may touch, but for its handles.
    func reserve(slot: Int, cpus: Int) throws(SegmentError) {
        try reserve(Layout.process(slot), Layout.processBytes)
        for cpu in 0..<cpus {
            try reserve(Layout.shards + cpu * Layout.cpuStride + slot * Layout.shardsOfProcess, Layout.shardsOfProcess)
        }
    }

    func place(size: Int) -> SegmentPlace {
        var named = fpx_file_status()
        guard let own = status else { return .gone }
        if own.size != Int64(size) { return .cut(bytes: Int(own.size)) }
        guard unsafe fpx_file_stat(-1, path, &named) == 0 else { return .gone }
        return named.device == device && named.inode == inode ? .there : .taken
    }
}
