// The state folder while the keeper lives: somebody may remove it, or files in it, and what the keeper knows would be lost with
// the next start. So it is looked at each second, and what is gone is written anew from memory.
//
// What lies under one of the names is never overwritten here. Two kinds of file a person may remove for good: the clock witness
// while the clock is behind it (ClockWitness), and keys that the authority announced, unless the whole folder is gone.

import Basics
import Foundation

extension LicenseKeeper {
    /// What must be in the state folder, as the keeper knows it.
    struct State {
        /// Which folder it is; nil: it was not looked at yet.
        var folder: FileIdentity?
        var mode: mode_t = 0o700
        /// The unit's id and key by their paths, as they were read first.
        var unit: [String: [UInt8]] = [:]
        /// Keys that the authority announced, by their paths, and the state of their folder.
        var keys: [String: [UInt8]] = [:]
        var keysStamp: FileStamp?
        /// What was gone and is there again, and was not told yet.
        var news: [String] = []
    }

    private static let folderName = "the state folder"

    /// Writes anew what is gone from the state folder. Each second.
    package func restoreState() { holding.withLock { restoreState(&$0) } }

    /// What was gone and is there again, since this was last asked, a sentence each.
    package func takeNews() -> [String] {
        holding.withLock { holding in
            defer { holding.state.news = [] }
            return holding.state.news
        }
    }

    /// Takes in what others have written there: the unit's id and key, and keys that the authority announced.
    func noteState(_ holding: inout Holding) {
        let folder = configuration.stateFolder
        var status = stat()
        guard stat(folder, &status) == 0, let identity = FileIdentity(folder + "/.") else { return }
        holding.state.folder = identity
        holding.state.mode = status.st_mode & 0o7777
        let isUnit = [
            UnitIdentity.file(folder): UnitIdentity.read(stateFolder: folder) != nil,
            UnitKey.file(folder): !UnitKey.readPublic(stateFolder: folder).isEmpty,
        ]
        for (path, isUnit) in isUnit where isUnit && holding.state.unit[path] == nil {
            holding.state.unit[path] = try? StoredFile.read(path, limit: KeyFile.bytesMax)
        }
        // Not each second, for there may be many of them.
        if FileStamp(configuration.learnedKeys) != holding.state.keysStamp { noteKeys(&holding) }
    }

    func noteKeys(_ holding: inout Holding) {
        let folder = configuration.learnedKeys
        holding.state.keysStamp = FileStamp(folder)
        holding.state.keys = [:]
        for name in (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] where name.hasSuffix(".pem") {
            let path = folder + "/" + name
            holding.state.keys[path] = try? StoredFile.read(path, limit: KeyFile.bytesMax)
        }
    }

    func restoreState(_ holding: inout Holding) {
        guard let known = holding.state.folder else { return }
        let folder = configuration.stateFolder
        let isGone = FileIdentity(folder + "/.") != known
        let missing = kept(holding, isGone: isGone).filter { FileIdentity($0.path) == nil }
        compareUnit(&holding)
        if missing.isEmpty {
            holding.writeWarnings[Self.folderName] = nil
            return noteState(&holding)
        }
        let (wasThere, mode) = (FileIdentity(folder + "/.") != nil, holding.state.mode)
        write(Self.folderName, &holding) { () throws(LicensingError) in
            try StoredFile.makeFolder(folder)
            if !wasThere { chmod(folder, mode) }
        }
        var written: [String] = []
        for file in missing where holding.writeWarnings[Self.folderName] == nil {
            write(file.what, &holding) { () throws(LicensingError) in
                try StoredFile.makeFolder((file.path as NSString).deletingLastPathComponent)
                try StoredFile.replace(file.bytes, at: file.path, mode: file.mode)
            }
            if holding.writeWarnings[file.what] == nil { written.append(String(file.path.dropFirst(folder.count + 1))) }
        }
        if written.isEmpty { return }
        let files = written.sorted().joined(separator: ", ")
        let (was, are) = written.count == 1 ? ("was", "is") : ("were", "are")
        holding.state.news.append(
            wasThere
                ? "\(folder): \(files) \(was) removed, and \(are) written anew from memory"
                : "\(folder) was removed: \(files) \(are) written anew from memory")
        // With something missing still, the folder counts as gone until all is there.
        if written.count == missing.count { noteState(&holding) }
    }

    private struct Kept {
        let what: String
        let path: String
        let bytes: [UInt8]
        var mode: mode_t = 0o600
    }

    private func kept(_ holding: Holding, isGone: Bool) -> [Kept] {
        var kept = holding.state.unit.map { Kept(what: Self.unitName($0.key), path: $0.key, bytes: $0.value) }
        if let copy = holding.copy {
            kept.append(Kept(what: Self.copyName, path: configuration.copyFile, bytes: copy.token + [UInt8(ascii: "\n")]))
        }
        if let record = holding.record, record != AuthorityRecord() {
            kept.append(Kept(what: Self.recordName, path: configuration.recordFile, bytes: record.bytes))
        }
        if holding.witnessWritten > 0, isGone || !holding.witness.isRollback(currentTime) {
            kept.append(Kept(what: Self.witnessName, path: configuration.witnessFile, bytes: holding.witness.bytes))
        }
        if isGone {
            kept += holding.state.keys.map {
                Kept(what: "a key of the authority", path: $0.key, bytes: $0.value, mode: 0o644)
            }
        }
        return kept
    }

    private static func unitName(_ path: String) -> String { path.hasSuffix(".key") ? "the unit's key" : "the unit's id" }

    /// Somebody may have put another unit's files in the place of ours, or spoilt them: the next start would be that of another
    /// unit.
    private func compareUnit(_ holding: inout Holding) {
        for (path, bytes) in holding.state.unit where FileIdentity(path) != nil {
            let remedy = "; remove it, and fpxd writes it anew from memory"
            var trouble: String?
            do throws(LicensingError) {
                if try StoredFile.read(path, limit: KeyFile.bytesMax) != bytes {
                    trouble = "\(path): found another than fpxd has read, expected the same" + remedy
                }
            } catch {
                trouble = "\(error)" + (error.isOfTheFile ? remedy : "; fpxd goes on with what it has read, and looks again")
            }
            holding.writeWarnings[Self.unitName(path)] = trouble
        }
    }
}
