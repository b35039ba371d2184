import CKeyedTable
import Glibc

/// A TCP socket of this network namespace that a proxy has open to a client.
public struct ProxySocket: Hashable, Sendable {
    /// The proxy's own end.
    public let local: Endpoint
    public let client: Endpoint
    /// The kernel's number of the socket (SO_COOKIE): no other socket has it until the machine starts again.
    public let cookie: UInt64

    init(local: Endpoint, client: Endpoint, cookie: UInt64) {
        self.local = local
        self.client = client
        self.cookie = cookie
    }

    /// The socket between these ends that a process has open now. Nil: there is none, one that another socket may outlive
    /// (MPTCP), or the kernel does not tell. Some microseconds; waits for no other process.
    public init?(local: Endpoint, client: Endpoint) {
        var socket = fpx_socket(local: local, client: client, cookie: 0)
        guard unsafe fpx_socket_find(&socket) == 0 else { return nil }
        self.init(local: local, client: client, cookie: socket.cookie)
    }

    enum Life {
        case there
        /// Counts only if the kernel knows sockets at all, asked afterwards.
        case gone
        case unknown(code: Int32)
    }

    /// Whether the kernel still has the socket.
    var life: Life {
        var socket = fpx_socket(local: local, client: client, cookie: cookie)
        return switch unsafe fpx_socket_exists(&socket) {
        case 1: .there
        case 0: .gone
        case let code: .unknown(code: -code)
        }
    }

    /// Of the given sockets those that are gone, and those that the kernel does not tell of now, with its error.
    static func gone(_ sockets: some Sequence<ProxySocket>) -> (gone: [ProxySocket], unknown: [ProxySocket], code: Int32) {
        var gone: [ProxySocket] = []
        var unknown: [ProxySocket] = []
        var code: Int32 = 0
        for socket in sockets {
            switch socket.life {
            case .there: break
            case .gone: gone.append(socket)
            case .unknown(let error):
                unknown.append(socket)
                code = error
            }
        }
        // A kernel that has lost the means to find TCP sockets says of each that it is not there.
        let error = gone.isEmpty ? 0 : -fpx_sockets_known()
        return error == 0 ? (gone, unknown, code) : ([], unknown + gone, error)
    }
}

extension fpx_socket {
    fileprivate init(local: Endpoint, client: Endpoint, cookie: UInt64) {
        self.init()
        local_port = local.port
        remote_port = client.port
        self.cookie = cookie
        unsafe withUnsafeMutableBytes(of: &self.local) { unsafe local.store(in: $0) }
        unsafe withUnsafeMutableBytes(of: &remote) { unsafe client.store(in: $0) }
    }
}

/// The network namespace of this process.
public enum Network {
    /// The socket option (of level SOL_SOCKET) that tells the number, a UInt64, of the namespace that a socket was made in. An
    /// accepted unix socket counts as made where its other end was.
    public static let cookieOption = FPX_SO_NETNS_COOKIE
    /// That number for this process; 0: the kernel is older than Linux 5.14 and does not tell.
    public static let cookie = fpx_network_cookie()
}

/// What the journal knows the namespaces of this process by: their inodes, 0 where one cannot be told. Namespaces of one kind
/// have different inodes while they exist.
enum Namespace {
    static let network = unsafe fpx_namespace("net")
    static let process = unsafe fpx_namespace("pid")
    static let time = unsafe fpx_namespace("time")
}
