// The hash tables in C, as safe Swift: all pointers to nodes are in here.

import Admission
import CKeyedTable

/// A session in the tables. Valid until the end of the read section in which it was found or made.
@safe
struct Node: Equatable, @unchecked Sendable {
    fileprivate let session: UnsafeMutablePointer<fpx_session>

    fileprivate init(_ session: UnsafeMutablePointer<fpx_session>) { unsafe self.session = session }

    static func == (left: Node, right: Node) -> Bool { unsafe left.session == right.session }

    /// Written by who decides and who ends the session; see `State`.
    var state: Word { unsafe Word(UnsafeMutableRawPointer(session), at: MemoryLayout<fpx_session>.offset(of: \.state) ?? 0) }

    /// Before the node is in a table only; then it does not change.
    var record: fpx_record {
        get { unsafe session.pointee.record }
        nonmutating set { unsafe session.pointee.record = newValue }
    }

    var hook: Hook? { Hook(rawValue: unsafe session.pointee.record.hook) }
}

/// Nodes by key, and by the socket that they are bound to. Any thread may call; everything but `reading` is for read sections.
@safe
final class KeyedTable: Sendable {
    private nonisolated(unsafe) let table: OpaquePointer

    /// Nil: no memory.
    init?() {
        guard let table = unsafe fpx_keyed_create() else { return nil }
        unsafe self.table = table
    }

    deinit { unsafe fpx_keyed_destroy(table) }

    /// A read section: nodes found in it stay readable to its end. Sections may nest.
    func reading<Result>(_ body: () -> Result) -> Result {
        unsafe fpx_keyed_enter(table)
        defer { unsafe fpx_keyed_leave(table) }
        return body()
    }

    /// A section that nobody else is in, in a read section or otherwise. It nests in none.
    func writing<Result>(_ body: () -> Result) -> Result {
        unsafe fpx_keyed_enter_alone(table)
        defer { unsafe fpx_keyed_leave(table) }
        return body()
    }

    /// Adds a node and returns who has the key now: the new one, or one that was there before. Nil: no memory.
    func add(_ record: fpx_record, state: UInt64) -> (node: Node, isNew: Bool)? {
        guard let session = unsafe fpx_session_make() else { return nil }
        unsafe session.pointee.record = record
        unsafe session.pointee.state = state
        guard let found = unsafe fpx_keyed_add(table, session) else { return nil }
        if unsafe found == session { return (unsafe Node(session), true) }
        unsafe fpx_session_discard(session)
        return (unsafe Node(found), false)
    }

    func find(_ key: SessionKey, _ hook: Hook) -> Node? {
        unsafe fpx_keyed_find(table, hook.rawValue, key.bytes, key.bytes.count).map { unsafe Node($0) }
    }

    /// Once, by who decides.
    func linkSocket(_ node: Node) { unsafe fpx_keyed_link(table, node.session) }

    /// Once, by who ends what was linked.
    func unlinkSocket(_ node: Node) { unsafe fpx_keyed_unlink(table, node.session) }

    /// Its memory is freed when no reader can have it any more. Removing twice does nothing.
    func remove(_ node: Node) { unsafe _ = fpx_keyed_remove(table, node.session) }

    func forEach(_ body: (Node) -> Void) {
        var walk = unsafe fpx_walk()
        var next = unsafe fpx_keyed_first(table, &walk)
        while let session = unsafe next {
            unsafe body(Node(session))
            unsafe next = fpx_keyed_next(table, &walk)
        }
    }

    func forEach(boundTo cookie: UInt64, _ body: (Node) -> Void) {
        var walk = unsafe fpx_walk()
        var next = unsafe fpx_bound_first(table, cookie, &walk)
        while let session = unsafe next {
            unsafe body(Node(session))
            unsafe next = fpx_bound_next(table, &walk)
        }
    }
}

extension fpx_record {
    init(_ request: SessionRequest, socket: ProxySocket?, started: UInt64) {
        self.init()
        self.started = started
        hook = request.hook.rawValue
        owner_pid = request.owner?.owner.processID ?? 0
        owner_start = request.owner?.owner.startTime ?? 0
        process_namespace = Namespace.process
        time_namespace = Namespace.time
        if let client = request.client {
            client_port = client.port
            unsafe withUnsafeMutableBytes(of: &self.client) { unsafe client.store(in: $0) }
        }
        if let socket {
            cookie = socket.cookie
            network_namespace = Namespace.network
            local_port = socket.local.port
            unsafe withUnsafeMutableBytes(of: &local) { unsafe socket.local.store(in: $0) }
        }
        set(request.key)
    }

    mutating func set(_ key: SessionKey) {
        key_length = UInt8(key.bytes.count)
        unsafe withUnsafeMutableBytes(of: &self.key) { unsafe $0.copyBytes(from: key.bytes) }
    }

    var keyText: String {
        unsafe withUnsafeBytes(of: key) { unsafe String(decoding: $0.prefix(Int(key_length)), as: UTF8.self) }
    }

    var clientEndpoint: Endpoint? {
        unsafe withUnsafeBytes(of: client) { unsafe try? Endpoint(address: $0, port: Int(client_port)) }
    }

    /// Whether the end of a socket ends the session.
    var isBound: Bool { cookie != 0 }

    /// The socket whose end ends the session.
    var socket: ProxySocket? {
        let local = unsafe withUnsafeBytes(of: local) { unsafe try? Endpoint(address: $0, port: Int(local_port)) }
        guard isBound, let local, let client = clientEndpoint else { return nil }
        return ProxySocket(local: local, client: client, cookie: cookie)
    }
}
