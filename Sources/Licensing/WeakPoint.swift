// Public keys that are none: points of small order.

import Foundation

enum WeakPoint {
    /// Under a point whose order divides 8 anybody can make signatures that verify. These are the five y that such points
    /// have, and the two of them that can be written in a second way; the last bit is the sign of x. Source: RFC 8032, 5.1,
    /// for the curve; the points are the multiples of L P of any point P.
    private static let points: Set<String> = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ]

    /// - Parameter bytes: of a public key of Ed25519.
    static func isOne(_ bytes: [UInt8]) -> Bool {
        var bytes = bytes
        guard let last = bytes.indices.last else { return true }
        bytes[last] &= 0x7F
        return points.contains(bytes.map { String(format: "%02x", $0) }.joined())
    }
}
