// AddressWatch: tells when this machine has other addresses, by the kernel's own word (rtnetlink).
//
// A licence may be bound to an address that comes up after the daemon: an interface that is slow, a VPN, an address that moves between
// hosts. What comes is told at once. What goes is told when it has been gone for some seconds: a network service that restarts takes
// all addresses away for a moment, and nobody's licence should end with that.

import Foundation
import Licensing

/// Watches the addresses of this network namespace until its task is cancelled.
package struct AddressWatch: Sendable {
    /// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR: an interface that is down has no address that counts.
    private static let groups: UInt32 = 0x1 | 0x10 | 0x100
    /// Several steps of one change are told as one.
    private static let calm: Duration = .milliseconds(100)
    private static let patienceWithLoss: Duration = .seconds(10)
    /// Where the kernel does not let us listen.
    private static let lookedEvery: Duration = .seconds(3)

    private let listens: Bool
    private let known: @Sendable () -> [String]
    private let changed: @Sendable () async -> Void

    /// - Parameters:
    ///   - listens: false: it looks every few seconds, as where the kernel refuses the socket.
    ///   - known: the addresses that the licence was judged by.
    ///   - changed: called when they are others, one call at a time; it makes the present ones known.
    package init(
        listens: Bool = true, known: @escaping @Sendable () -> [String], changed: @escaping @Sendable () async -> Void
    ) {
        self.listens = listens
        self.known = known
        self.changed = changed
    }

    package func run() async {
        let (events, news) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        // What has happened before we listen.
        news.yield()
        let descriptor = listens ? Self.listen() : -1
        if descriptor >= 0 {
            let source = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: .global())
            source.setEventHandler {
                Self.drain(descriptor)
                news.yield()
            }
            source.setCancelHandler { close(descriptor) }
            source.activate()
            await judge(events)
            source.cancel()
        } else {
            await withTaskGroup { group in
                group.addTask { await judge(events) }
                group.addTask {
                    while !Task.isCancelled {
                        try? await Task.sleep(for: Self.lookedEvery)
                        news.yield()
                    }
                }
            }
        }
    }

    private func judge(_ events: AsyncStream<Void>) async {
        for await _ in events {
            try? await Task.sleep(for: Self.calm)
            if !hasGained, !hasLost { continue }
            if !hasGained { await waitForReturn() }
            if Task.isCancelled { return }
            if hasGained || hasLost { await changed() }
        }
    }

    private var hasGained: Bool { !Set(Hardware.addresses()).isSubset(of: known()) }
    private var hasLost: Bool { !Set(known()).isSubset(of: Hardware.addresses()) }

    /// Until all is as before, something else has come, or what is gone has been gone for long.
    private func waitForReturn() async {
        let end = ContinuousClock.now + Self.patienceWithLoss
        while hasLost, !hasGained, ContinuousClock.now < end, !Task.isCancelled { try? await Task.sleep(for: Self.calm) }
    }

    /// A socket that hears of interfaces and addresses; negative where the kernel refuses one.
    private static func listen() -> Int32 {
        let descriptor = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        if descriptor < 0 { return descriptor }
        // struct sockaddr_nl: family and padding, port (chosen by the kernel), groups.
        var name: (family: UInt16, padding: UInt16, port: UInt32, groups: UInt32) = (UInt16(AF_NETLINK), 0, 0, groups)
        let result = withUnsafePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, 12) }
        }
        if result == 0 { return descriptor }
        close(descriptor)
        return -1
    }

    /// What an event says is looked up afresh, so that lost ones (ENOBUFS) are none.
    private static func drain(_ descriptor: Int32) {
        var buffer = [UInt8](repeating: 0, count: 64)
        while recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT | MSG_TRUNC)) > 0
            || errno == ENOBUFS
        {}
    }
}
