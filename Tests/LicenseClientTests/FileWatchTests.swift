import Foundation
import LicenseClient
import Licensing
import Synchronization
import Testing

@Suite struct FileWatchTests {
    let folder = FileManager.default.temporaryDirectory.path + "/file-watch-" + UUID().uuidString
    var path: String { folder + "/license.lic" }

    private final class Count: Sendable {
        let value = Mutex(0)
        var now: Int { value.withLock { $0 } }

        /// Waits for more than `before`, at most 20 seconds.
        func grows(over before: Int) async -> Bool {
            for _ in 0..<2000 where now <= before { try? await Task.sleep(for: .milliseconds(10)) }
            return now > before
        }
    }

    private func watching(_ body: (Count) async throws -> Void) async throws {
        let count = Count()
        let watch = FileWatch(path: path) { count.value.withLock { $0 += 1 } }
        let task = Task { await watch.run() }
        try await body(count)
        task.cancel()
        await task.value
        try? FileManager.default.removeItem(atPath: folder)
    }

    private func make() throws { try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true) }
    private func write(_ text: String, _ name: String = "license.lic") throws {
        try Data(text.utf8).write(to: URL(filePath: folder + "/" + name))
    }

    /// From not being there at all: the folder, the file, its changes, its end, and all of it once more.
    @Test func theWholeLifeOfAFile() async throws {
        try await watching { count in
            var before = count.now
            func told(_ what: String) async {
                #expect(await count.grows(over: before), "\(what)")
                before = count.now
            }
            try make()
            await told("the folder")
            try write("one")
            await told("created")
            let handle = try FileHandle(forWritingTo: URL(filePath: path))
            try handle.write(contentsOf: Data("two".utf8))
            try handle.close()
            await told("written in place")
            try StoredFile.replace(Array("three".utf8), at: path, mode: 0o600)
            await told("replaced by a rename")
            try FileManager.default.removeItem(atPath: path)
            await told("removed")
            symlink("/dev/null", path)
            await told("a link")
            try FileManager.default.moveItem(atPath: folder, toPath: folder + ".old")
            try make()
            await told("another folder of that name")
            try write("four")
            await told("in the new folder")
            try FileManager.default.removeItem(atPath: folder + ".old")
        }
    }

    @Test func otherFilesAndReadingTellNothing() async throws {
        try make()
        try write("one")
        try await watching { count in
            // Until the watch is set.
            while count.now == 0 {
                try write("one")
                try await Task.sleep(for: .milliseconds(50))
            }
            try await Task.sleep(for: .milliseconds(500))
            let before = count.now
            for index in 0..<50 {
                try write("x", "other-\(index)")
                try write("x", "license.lic.previous")
                _ = try StoredFile.read(path, limit: 100)
            }
            try await Task.sleep(for: .milliseconds(700))
            #expect(count.now == before)
            // A burst is one change, or two where the machine is slow; not fifty.
            for index in 0..<50 { try StoredFile.replace(Array("\(index)".utf8), at: path, mode: 0o600) }
            #expect(await count.grows(over: before))
            try await Task.sleep(for: .milliseconds(700))
            #expect(count.now - before < 10, "\(count.now - before) calls")
        }
    }
}
