import Glibc

/// An end of a TCP connection: an address and a port. IPv4 addresses are kept mapped into IPv6, as the kernel shows
/// them on dual-stack sockets, so that both forms of one client are equal.
public struct Endpoint: Hashable, Sendable {
    /// The address' first and last eight bytes, most significant byte first.
    let high: UInt64
    let low: UInt64
    /// 1 to 65535.
    public let port: UInt16

    private static let mappedPrefix: UInt64 = 0xffff_0000_0000

    /// - Parameters:
    ///   - address: 4 or 16 bytes in network order.
    ///   - port: 1 to 65535.
    public init(address: some Collection<UInt8>, port: Int) throws(KeyedSessionsError) {
        guard (1...0xffff).contains(port) else { throw .range(what: "port", found: port, allowed: 1...0xffff) }
        func word(_ bytes: some Collection<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
        switch address.count {
        case 4:
            high = 0
            low = Self.mappedPrefix | word(address)
        case 16:
            high = word(address.prefix(8))
            low = word(address.suffix(8))
        default:
            throw .range(what: "bytes of an address", found: address.count, allowed: 4...16)
        }
        self.port = UInt16(port)
    }

    /// From text such as `192.0.2.1` or `2001:db8::1`.
    public init(_ text: String, port: Int) throws(KeyedSessionsError) {
        var four = in_addr()
        var six = in6_addr()
        if unsafe inet_pton(AF_INET, text, &four) == 1 {
            try self.init(address: unsafe withUnsafeBytes(of: &four) { unsafe Array($0) }, port: port)
        } else if unsafe inet_pton(AF_INET6, text, &six) == 1 {
            try self.init(address: unsafe withUnsafeBytes(of: &six) { unsafe Array($0) }, port: port)
        } else {
            throw .address(found: text)
        }
    }

    /// Writes the 16 bytes of the address in network order.
    func store(in bytes: UnsafeMutableRawBufferPointer) {
        unsafe bytes.storeBytes(of: high.bigEndian, as: UInt64.self)
        unsafe bytes.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
    }

    public var address: String {
        if high == 0, low >> 32 == 0xffff {
            return stride(from: 24, through: 0, by: -8).map { String(low >> $0 & 255) }.joined(separator: ".")
        }
        var six = in6_addr()
        unsafe withUnsafeMutableBytes(of: &six) { unsafe store(in: $0) }
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        unsafe _ = inet_ntop(AF_INET6, &six, &text, socklen_t(INET6_ADDRSTRLEN))
        return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}

extension Endpoint: CustomStringConvertible {
    /// `ADDRESS:PORT`, or `[ADDRESS]:PORT` for IPv6.
    public var description: String {
        let address = self.address
        return address.contains(":") ? "[\(address)]:\(port)" : "\(address):\(port)"
    }
}
