import Foundation
import Licensing
import Testing

@Suite struct StoredFileTests {
    let folder: Folder
    var path: String { folder.path + "/file" }

    init() throws { folder = try Folder() }

    @Test func thePreviousOneIsKept() throws {
        for text in ["one", "two", "three"] { try StoredFile.write(Array(text.utf8), to: path) }
        #expect(folder.read("file") == "three" && folder.read("file.previous") == "two")
        #expect(folder.names == ["file", "file.previous"])
        let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        #expect(mode == 0o600)
    }

    /// What a crash after each step leaves, by the essay in StoredFile.swift; the next write must not mind.
    @Test func whatACrashLeavesIsHarmless() throws {
        try folder.write("one", "file")
        try folder.write("half a fi", "file.tmp")
        #expect(try StoredFile.read(path, limit: 100) == Array("one".utf8))
        try StoredFile.write(Array("two".utf8), to: path)
        #expect(folder.names == ["file", "file.previous"])

        // After the link: three names, two of them of one file.
        try FileManager.default.linkItem(atPath: path, toPath: folder.path + "/file.previous.tmp")
        try folder.write("half", "file.tmp")
        try StoredFile.write(Array("three".utf8), to: path)
        #expect(folder.read("file") == "three" && folder.read("file.previous") == "two")
        #expect(folder.names == ["file", "file.previous"])

        // After the first rename: the file and the previous one are the same.
        try folder.remove("file.previous")
        try FileManager.default.linkItem(atPath: path, toPath: folder.path + "/file.previous")
        try StoredFile.write(Array("four".utf8), to: path)
        #expect(folder.read("file") == "four" && folder.read("file.previous") == "three")
        #expect(folder.names == ["file", "file.previous"])
    }

    @Test func aLinkLeftBehindIsNotFollowed() throws {
        try folder.write("precious", "other")
        try FileManager.default.createSymbolicLink(atPath: path + ".tmp", withDestinationPath: folder.path + "/other")
        try StoredFile.write(Array("x".utf8), to: path)
        #expect(folder.read("other") == "precious" && folder.read("file") == "x")
    }

    @Test func anyLengthIsWrittenWhole() throws {
        for count in [0, 1, 65_535, 65_536, 65_537, 1 << 20] {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            try StoredFile.write(bytes, to: path)
            #expect(try StoredFile.read(path, limit: count) == bytes)
            if count > 0 {
                #expect(throws: LicensingError.tooLarge(path: path, bytes: count, limit: count - 1)) {
                    try StoredFile.read(path, limit: count - 1)
                }
            }
        }
    }

    @Test func otherThingsAreNoFiles() throws {
        #expect(try StoredFile.read(path, limit: 10) == nil)
        #expect(mkfifo(path, 0o600) == 0)
        // Nobody writes into the pipe: reading it must not wait.
        #expect(throws: LicensingError.damaged(path: path, found: "a pipe", expected: "a regular file")) {
            try StoredFile.read(path, limit: 10)
        }
        #expect(throws: LicensingError.damaged(path: folder.path, found: "a folder", expected: "a regular file")) {
            try StoredFile.read(folder.path, limit: 10)
        }
        #expect(
            throws: LicensingError.damaged(path: "/dev/zero", found: "a device", expected: "a regular file")
        ) {
            try StoredFile.read("/dev/zero", limit: 10)
        }
    }

    @Test func aFileIsCreatedOnce() throws {
        try StoredFile.create([1], at: path, mode: 0o600)
        #expect(throws: LicensingError.exists(path: path)) { try StoredFile.create([2], at: path, mode: 0o600) }
        #expect(try StoredFile.read(path, limit: 1) == [1])
    }

    @Test func aWriteThatFailsLeavesTheOldFile() throws {
        #expect(throws: LicensingError.system(call: "open", path: "/proc/fpx/file.tmp", code: ENOENT)) {
            try StoredFile.write([1], to: "/proc/fpx/file")
        }
        // The temporary name is taken by a folder.
        try StoredFile.write([1], to: path)
        try StoredFile.makeFolder(path + ".tmp")
        #expect(throws: LicensingError.self) { try StoredFile.write([2], to: path) }
        #expect(try StoredFile.read(path, limit: 1) == [1])
    }
}
