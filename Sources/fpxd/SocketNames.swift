// SocketNames: the names by which others find fpxd: the run-folder, the pid file in it, and the sockets.
//
// Somebody may remove them, or put something else in their place, while fpxd runs. So they are looked at each second, and what
// is gone is made anew. Whoever holds the lock of the pid file owns the names in the run-folder: without it nothing is made
// there.

import Basics
import Foundation
import Logging
import Synchronization

final class SocketNames: Sendable {
    private let places: Places
    private let note: HostSegment.Note
    /// By path; an entry goes when the name is there again.
    private let troubles = Mutex<[String: String]>([:])

    init(_ places: Places, note: @escaping HostSegment.Note) {
        self.places = places
        self.note = note
    }

    /// What is not there and cannot be made, a sentence each.
    var trouble: [String] { troubles.withLock { $0.sorted { $0.key < $1.key }.map(\.value) } }

    /// Looks at run-folder and pid file, and makes anew what is gone. Each second.
    ///
    /// - Returns: whether they are ours.
    @discardableResult
    func look() -> Bool {
        let path = places.processFile
        // Before it is made: afterwards it cannot be told what was wrong.
        let fault = Self.fault(of: path)
        do {
            if try places.holdRunFolder() { note(.warning, "\(fault): it is made anew") }
            troubles.withLock { $0[path] = nil }
            return true
        } catch {
            tell("\(fault), and it cannot be made anew: \(error)", of: path)
            return false
        }
    }

    /// As `restore`, unless the path leads to the socket: what was wrong with it somebody has put right.
    func keep(_ path: String, isThere: Bool, _ make: () async throws -> Void) async {
        if isThere { troubles.withLock { $0[path] = nil } } else { await restore(path, make) }
    }

    /// Has a socket made anew whose path leads to it no more.
    ///
    /// - Parameter make: makes it, and listens.
    func restore(_ path: String, _ make: () async throws -> Void) async {
        let fault = Self.fault(of: path)
        guard look() else { return }
        do {
            try await make()
            troubles.withLock { $0[path] = nil }
            note(.warning, "\(fault): a new socket is made, and connections go on")
        } catch {
            tell("\(fault), and no new socket can be made: \(error)", of: path)
        }
    }

    private func tell(_ text: String, of path: String) {
        let isNews = troubles.withLock { troubles in
            defer { troubles[path] = text }
            return troubles[path] != text
        }
        if isNews { note(.error, text) }
    }

    private static func fault(of path: String) -> String {
        FileIdentity(path) == nil ? "\(path) was removed" : "another file has the name \(path)"
    }
}
