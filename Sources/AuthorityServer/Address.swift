// Addresses of the network, as texts.

import Foundation

enum Address {
    static func isIPv4(_ text: String) -> Bool {
        var address = in_addr()
        return inet_pton(AF_INET, text, &address) == 1
    }

    static func isIPv6(_ text: String) -> Bool {
        var address = in6_addr()
        return inet_pton(AF_INET6, text, &address) == 1
    }

    static func isLoopback(_ text: String) -> Bool { text == "::1" || source(text).hasPrefix("127.") }

    /// Who counts as one source: an IPv4 address, or the /64 of an IPv6 one, of which a host has as many as it likes.
    static func source(_ text: String) -> String {
        var address = in6_addr()
        guard inet_pton(AF_INET6, text, &address) == 1 else { return text }
        let bytes = withUnsafeBytes(of: &address) { Array($0) }
        // ::ffff:192.0.2.1 is an IPv4 address on a socket of both families.
        if bytes.prefix(12) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF] {
            return bytes.suffix(4).map(String.init).joined(separator: ".")
        }
        return bytes.prefix(8).hexadecimal
    }
}
