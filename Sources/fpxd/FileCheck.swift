// FileCheck: the files and folders that settings name, opened as the daemon opens them: for `fpxd --check-config`.

import Basics
import Etcd
import Foundation
import LicenseClient
import Licensing
import Settings

extension Settings {
    private static let bytesMax = 1 << 20
    /// One less than the kernel's: the name under which haproxy's sockets are made is longer.
    private static let socketBytesMax = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 2

    /// What is wrong with files and folders, a sentence each, with the place of the setting in front.
    func troubleWithFiles() -> [String] {
        var trouble: [(name: String, text: String)] = []
        for name in filesToRead {
            if let text = Self.troubleReading(self[name]) { trouble.append((name, "\(name): \(text)")) }
        }
        trouble += troubleWithKeys()
        trouble += troubleWithPlaces()
        for name in [Setting.stateFolder, Setting.runFolder, Setting.haproxyFolder] {
            var status = stat()
            // fpxd makes those that are not there.
            if stat(self[name], &status) == 0, status.st_mode & S_IFMT != S_IFDIR {
                trouble.append((name, "\(name): found a file \(self[name]), expected a folder"))
            }
        }
        if isSet(Setting.logFile), let text = Self.troubleWriting(self[Setting.logFile]) {
            trouble.append((Setting.logFile, "\(Setting.logFile): \(text)"))
        }
        // What is in the files is looked at where all of them can be read.
        if trouble.isEmpty { trouble += troubleInFiles() }
        return sentences(trouble)
    }

    /// What is wrong with where the daemon's own files are to lie, in the same form. It does not start with them either.
    func troubleWithOwnPlaces() -> [String] { sentences(troubleWithPlaces()) }

    private func sentences(_ trouble: [(name: String, text: String)]) -> [String] {
        trouble.map { (place($0.name).map { $0 + ": " } ?? "") + $0.text }
    }

    private func troubleWithPlaces() -> [(name: String, text: String)] {
        var trouble: [(name: String, text: String)] = []
        for (name, socket) in [(Setting.runFolder, "control.sock"), (Setting.haproxyFolder, "spoa.sock")]
        where !self[name].isEmpty {
            let path = self[name] + "/" + socket
            if path.utf8.count > Self.socketBytesMax {
                let (found, expected) = ("a path of \(path.utf8.count) bytes", "at most \(Self.socketBytesMax) for a socket")
                trouble.append((name, "\(name): found \(path), \(found), expected \(expected)"))
            }
        }
        let segment = self[Setting.segment]
        var status = stat()
        let found: String? =
            segment.hasSuffix("/")
            ? "\(segment), which ends as the name of a folder"
            : lstat(segment, &status) == 0 && status.st_mode & S_IFMT != S_IFREG
                ? "\(FileKind.name(of: status.st_mode)) \(segment)" : nil
        if let found {
            trouble.append((Setting.segment, "\(Setting.segment): found \(found), expected a file or the name of a new one"))
        }
        return trouble
    }

    /// Those that must be there: what the operator has named, and what is needed with it.
    private var filesToRead: [String] {
        let hasAuthority = !self[Setting.authority].isEmpty
        return [
            Setting.licenseFile, Setting.accountKeyFile, Setting.authorityCA, Setting.authorityCertificate,
            Setting.authorityPrivateKey, Setting.sharingPasswordFile, Setting.sharingCA, Setting.sharingCertificate,
            Setting.sharingPrivateKey,
        ].filter { name in
            switch name {
            // The authority brings the licence; without a word about it, the built-in one holds.
            case Setting.licenseFile: isThere(name) || isSet(name) && !hasAuthority
            case Setting.accountKeyFile: hasAuthority || isSet(name)
            default: !self[name].isEmpty
            }
        }
    }

    private func isThere(_ name: String) -> Bool { access(self[name], F_OK) == 0 }

    private static func troubleReading(_ path: String) -> String? {
        do {
            guard let bytes = try StoredFile.read(path, limit: bytesMax) else {
                return "found no file \(path), expected one that is there"
            }
            return bytes.isEmpty ? "found an empty file \(path), expected one with something in it" : nil
        } catch {
            return "\(error)"
        }
    }

    private static func troubleWriting(_ path: String) -> String? {
        if path.isEmpty { return nil }
        var status = stat()
        if stat(path, &status) == 0, ![S_IFREG, S_IFCHR].contains(status.st_mode & S_IFMT) {
            return "found \(path), which is not a file, expected a log file"
        }
        let folder = (path as NSString).deletingLastPathComponent
        let isWritable = access(path, F_OK) == 0 ? access(path, W_OK) == 0 : access(folder, W_OK | X_OK) == 0
        return isWritable ? nil : "\(path) cannot be written: \(String(cString: strerror(errno)))"
    }

    private func troubleWithKeys() -> [(name: String, text: String)] {
        let name = Setting.trustedKeys
        let areNeeded = !self[Setting.authority].isEmpty || isThere(Setting.licenseFile)
        guard areNeeded || isSet(name) else { return [] }
        let keys = TrustedKeys(paths: [self[name]])
        if !keys.trouble.isEmpty { return keys.trouble.map { (name, "\(name): \($0)") } }
        guard areNeeded, keys.ids.isEmpty else { return [] }
        return [(name, "\(name): found no public key in \(self[name]), expected the authority's, as KEYID.pem")]
    }

    /// Certificates, keys and passwords, read as the daemon reads them.
    private func troubleInFiles() -> [(name: String, text: String)] {
        var trouble: [(name: String, text: String)] = []
        do throws(LicenseClientError) { try AuthorityConnection(self)?.checkFiles() } catch {
            if case .setting(let name, _, _) = error { trouble.append((name, "\(error)")) }
        }
        do throws(EtcdError) { try EtcdConfiguration(self)?.checkFiles() } catch {
            if case .setting(let name, _, _) = error { trouble.append((name, "\(error)")) }
        }
        return trouble
    }
}

extension EtcdConfiguration {
    /// Nil: the settings name no etcd.
    init?(_ settings: Settings) throws(EtcdError) {
        func text(_ name: String) -> String? { settings[name].isEmpty ? nil : settings[name] }
        if settings.endpoints.isEmpty { return nil }
        try self.init(
            endpoints: settings.endpoints.joined(separator: ","), user: text(Setting.sharingUser),
            passwordFile: text(Setting.sharingPasswordFile), authorityFile: text(Setting.sharingCA),
            certificateFile: text(Setting.sharingCertificate), privateKeyFile: text(Setting.sharingPrivateKey))
    }
}
