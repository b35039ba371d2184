// FileWatch: tells when a file was put in place, changed or removed, by inotify on the folder that it lies in.
//
// It is the folder that is watched, for a file that is put in place by a rename is another file. The folder need not be there, and
// may be exchanged for another one: each second the watch is held against the folder of that name, and set anew where it is not of
// that one. What may have happened before a watch is set is told as a change, at the start too.
//
// The folder does not hear of everything: a link may lead elsewhere (Kubernetes exchanges a link to the folder that all files are
// links into), and a single file may be mounted over another. So each second the file that the name leads to is compared with the
// one that was told of last.

import Basics
import Foundation
import Licensing
import Synchronization

/// Watches a file, and others beside it, until its task is cancelled.
package struct FileWatch: Sendable {
    /// What lies under some names. A folder is known by the files in it.
    private struct Contents: Equatable {
        private var stamps: [String: FileStamp] = [:]

        init(_ paths: [String]) {
            for path in paths {
                stamps[path] = FileStamp(path)
                for name in (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? [] {
                    stamps[path + "/" + name] = FileStamp(path + "/" + name)
                }
            }
        }
    }

    /// What was there when a change was last told.
    private final class Told: Sendable {
        let contents: Mutex<Contents>
        init(_ contents: Contents) { self.contents = Mutex(contents) }
    }

    /// Several steps of one change are told as one: this long after the last of them.
    private static let calm: Duration = .milliseconds(100)
    /// Somebody who writes on and on is heard all the same.
    private static let calmsMax = 10

    private let path: String
    private let paths: [String]
    private let changed: @Sendable () async -> Void

    /// - Parameters:
    ///   - others: files, and folders of files, whose changes are seen within a second.
    ///   - changed: called for one change at a time; changes meanwhile are one more call.
    package init(path: String, others: [String] = [], changed: @escaping @Sendable () async -> Void) {
        self.path = path
        paths = [path] + others
        self.changed = changed
    }

    /// - Parameter polls: told why changes are seen each second and not at once: the host has no inotify instance left.
    package func run(polls: (LicensingError) -> Void = { _ in }) async {
        let (changes, news) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        var watch: FolderWatch?
        do { watch = try FolderWatch(path: path) } catch { polls(error) }
        let folder = watch
        let source = folder.map { DispatchSource.makeReadSource(fileDescriptor: $0.descriptor, queue: .global()) }
        source?.setEventHandler { if folder?.drain() == true { news.yield() } }
        source?.setCancelHandler { folder?.close() }
        source?.activate()
        defer { source?.cancel() }
        let told = Told(Contents(paths))
        await withTaskGroup { group in
            group.addTask {
                while !Task.isCancelled {
                    if folder?.renew() == true || Contents(paths) != told.contents.withLock({ $0 }) { news.yield() }
                    try? await Task.sleep(for: .seconds(1))
                }
            }
            group.addTask {
                for await _ in changes {
                    let contents = await calmContents(folder)
                    told.contents.withLock { $0 = contents }
                    if !Task.isCancelled { await changed() }
                }
            }
        }
    }

    /// What is there when nothing has changed for a moment.
    private func calmContents(_ folder: FolderWatch?) async -> Contents {
        var contents = Contents(paths)
        for _ in 0..<Self.calmsMax {
            let before = (folder?.events, contents)
            try? await Task.sleep(for: Self.calm)
            contents = Contents(paths)
            if before == (folder?.events, contents) || Task.isCancelled { break }
        }
        return contents
    }
}

/// A watch on the folder that a file lies in.
private final class FolderWatch: Sendable {
    private struct State {
        var watch: Int32 = -1
        /// The folder that is watched.
        var device: dev_t = 0
        var inode: ino_t = 0
    }

    private static let mask =
        UInt32(IN_CREATE) | UInt32(IN_CLOSE_WRITE) | UInt32(IN_MOVED_TO) | UInt32(IN_MOVED_FROM) | UInt32(IN_DELETE)
        | UInt32(IN_ONLYDIR)

    let descriptor: Int32
    private let folder: String
    private let name: String
    private let state = Mutex(State())
    private let count = Atomic(0)

    /// Events of the file so far.
    var events: Int { count.load(ordering: .relaxed) }

    init(path: String) throws(LicensingError) {
        folder = (path as NSString).deletingLastPathComponent
        name = (path as NSString).lastPathComponent
        descriptor = inotify_init1(Int32(IN_NONBLOCK) | Int32(IN_CLOEXEC))
        if descriptor < 0 { throw .system(call: "inotify_init1", path: path, code: errno) }
    }

    func close() { _ = Foundation.close(descriptor) }

    /// Sets the watch where it is not on the folder of that name.
    /// - Returns: whether it was set anew, so that something may have been missed.
    func renew() -> Bool {
        state.withLock { state in
            var status = stat()
            let isThere = stat(folder, &status) == 0
            if isThere, state.watch >= 0, status.st_dev == state.device, status.st_ino == state.inode { return false }
            if state.watch >= 0 { inotify_rm_watch(descriptor, state.watch) }
            state.watch = isThere ? inotify_add_watch(descriptor, folder, Self.mask) : -1
            (state.device, state.inode) = (status.st_dev, status.st_ino)
            return state.watch >= 0
        }
    }

    /// Takes what has come.
    /// - Returns: whether the file is concerned.
    func drain() -> Bool {
        var isConcerned = false
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let length = read(descriptor, &buffer, buffer.count)
            if length <= 0 { break }
            buffer.withUnsafeBytes { bytes in
                var offset = 0
                // struct inotify_event: wd, mask, cookie, len, then the name, filled up with zeros.
                while offset + 16 <= length {
                    let mask = bytes.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self)
                    let size = Int(bytes.loadUnaligned(fromByteOffset: offset + 12, as: UInt32.self))
                    guard offset + 16 + size <= length else { return }
                    let name = bytes[(offset + 16)..<(offset + 16 + size)].prefix { $0 != 0 }
                    if mask & UInt32(IN_Q_OVERFLOW) != 0 || name.elementsEqual(self.name.utf8) { isConcerned = true }
                    offset += 16 + size
                }
            }
        }
        if isConcerned { count.add(1, ordering: .relaxed) }
        return isConcerned
    }
}
