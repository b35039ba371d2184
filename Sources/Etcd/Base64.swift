// Base64 as etcd's gateway writes it (RFC 4648, padded), decoded straight from the answer's bytes.

import Foundation

enum Base64 {
    /// The six bits of each character; 0xFF: it is none of the alphabet.
    private static let bits: [UInt8] = {
        var bits = [UInt8](repeating: 0xFF, count: 256)
        for (value, character) in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8.enumerated() {
            bits[Int(character)] = UInt8(value)
        }
        return bits
    }()

    static func encode(_ bytes: some Sequence<UInt8>) -> String { Data(bytes).base64EncodedString() }

    /// nil where it is no base64.
    static func decode(_ text: ArraySlice<UInt8>) -> [UInt8]? {
        guard text.count % 4 == 0 else { return nil }
        let padding = text.suffix(2).reversed().prefix { $0 == UInt8(ascii: "=") }.count
        let count = text.count / 4 * 3 - padding
        var isValid = true
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { output, written in
            text.withUnsafeBufferPointer { text in
                bits.withUnsafeBufferPointer { bits in
                    var from = 0
                    // Whatever is wrong has its two upper bits set, whichever of the characters it is.
                    var seen: UInt8 = 0
                    while written < count {
                        let a = bits[Int(text[from])]
                        let b = bits[Int(text[from + 1])]
                        let c = written + 1 < count ? bits[Int(text[from + 2])] : 0
                        let d = written + 2 < count ? bits[Int(text[from + 3])] : 0
                        seen |= a | b | c | d
                        let word = UInt32(a & 63) << 18 | UInt32(b & 63) << 12 | UInt32(c & 63) << 6 | UInt32(d & 63)
                        for place in 0..<min(3, count - written) {
                            output[written + place] = UInt8(truncatingIfNeeded: word >> (16 - 8 * UInt32(place)))
                        }
                        written += min(3, count - written)
                        from += 4
                    }
                    isValid = seen < 64
                }
            }
        }
        return isValid ? bytes : nil
    }
}
