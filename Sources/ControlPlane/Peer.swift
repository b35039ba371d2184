// Peer: who is at the other end of the control socket.

import Foundation
import NIOCore

/// The credentials of a connected process (SO_PEERCRED), as they were when it connected.
public struct Peer: Equatable, Sendable {
    public let processID: Int32
    public let userID: UInt32
    public let groupID: UInt32

    /// As the kernel lays it out (struct ucred).
    private struct Credentials {
        var process: Int32 = 0
        var user: UInt32 = 0
        var group: UInt32 = 0
    }

    /// On the channel's event loop. Nil: the kernel does not tell.
    init?(_ channel: any Channel) {
        guard let provider = channel as? any SocketOptionProvider else { return nil }
        let answer: EventLoopFuture<Credentials> = provider.unsafeGetSocketOption(
            level: NIOBSDSocket.OptionLevel(rawValue: SOL_SOCKET), name: NIOBSDSocket.Option(rawValue: SO_PEERCRED))
        var credentials: Credentials?
        // On the channel's own loop the answer is there at once.
        answer.assumeIsolated().whenSuccess { credentials = $0 }
        guard let credentials else { return nil }
        (processID, userID, groupID) = (credentials.process, credentials.user, credentials.group)
    }
}

extension Peer: CustomStringConvertible {
    /// As events name who has changed something: `alice (uid 1000)`.
    public var description: String { Self.name(ofUser: userID).map { "\($0) (uid \(userID))" } ?? "uid \(userID)" }

    /// A user as the system's databases have it; nil: they do not.
    fileprivate static func name(ofUser user: UInt32) -> String? {
        var record = passwd()
        var found: UnsafeMutablePointer<passwd>?
        var text = [CChar](repeating: 0, count: 16384)
        guard getpwuid_r(user, &record, &text, text.count, &found) == 0, found != nil, let name = record.pw_name else {
            return nil
        }
        return String(cString: name)
    }
}

/// Who may change the daemon's state. Who may ask at all is decided by the socket's mode.
public struct AccessRule: Sendable {
    /// The daemon's own user.
    let userID: UInt32
    /// A group whose members may.
    let group: UInt32?

    /// - Parameter group: nil: only root and the daemon's own user.
    public init(userID: UInt32, group: UInt32?) {
        self.userID = userID
        self.group = group
    }

    func allows(_ peer: Peer) -> Bool {
        if peer.userID == 0 || peer.userID == userID { return true }
        guard let group else { return false }
        return peer.groupID == group || Self.groups(ofUser: peer.userID, and: peer.groupID).contains(group)
    }

    /// All groups of a user, as the system's databases say.
    private static func groups(ofUser user: UInt32, and group: UInt32) -> [UInt32] {
        guard let name = Peer.name(ofUser: user) else { return [] }
        var groups = [gid_t](repeating: 0, count: 256)
        var count = Int32(groups.count)
        guard getgrouplist(name, group, &groups, &count) >= 0 else { return [] }
        return Array(groups.prefix(Int(count)))
    }
}
