// How SPOP puts values into bytes: variable-length integers, strings, typed data. (haproxy, doc/SPOE.txt, section 3.1)

/// A typed value.
enum SPOPValue: Equatable {
    case null
    case boolean(Bool)
    /// All integer types: 32 and 64 bits, signed and unsigned. Negative numbers are sent in two's complement of 64 bits.
    case integer(Int64)
    case unsigned(UInt64)
    case ipv4([UInt8])
    case ipv6([UInt8])
    case string([UInt8])
    case binary([UInt8])

    /// An integer of any type; nil if it is none, or above what Int holds.
    var number: Int? {
        switch self {
        case .integer(let value): Int(value)
        case .unsigned(let value): Int(exactly: value)
        default: nil
        }
    }

    /// The bytes of a string or of binary data.
    var bytes: [UInt8]? {
        switch self {
        case .string(let bytes), .binary(let bytes): bytes
        default: nil
        }
    }

    var address: [UInt8]? {
        switch self {
        case .ipv4(let bytes), .ipv6(let bytes): bytes
        default: nil
        }
    }

    static func string(_ text: String) -> SPOPValue { .string(Array(text.utf8)) }
}

private enum SPOPType {
    static let null: UInt8 = 0
    static let boolean: UInt8 = 1
    static let int32: UInt8 = 2
    static let uint32: UInt8 = 3
    static let int64: UInt8 = 4
    static let uint64: UInt8 = 5
    static let ipv4: UInt8 = 6
    static let ipv6: UInt8 = 7
    static let string: UInt8 = 8
    static let binary: UInt8 = 9
    /// The low half of a type's byte; the high half is flags.
    static let mask: UInt8 = 0x0f
    static let isTrue: UInt8 = 0x10
}

/// Takes a frame apart. Every read that would pass the end, or finds what cannot be, throws `invalidFrame`.
struct SPOPReader {
    private var rest: ArraySlice<UInt8>

    init(_ bytes: ArraySlice<UInt8>) { rest = bytes }

    var isAtEnd: Bool { rest.isEmpty }
    /// What has not been read yet.
    var remainder: ArraySlice<UInt8> { rest }

    mutating func byte() throws(SPOPError) -> UInt8 {
        guard let byte = rest.popFirst() else { throw .invalidFrame }
        return byte
    }

    mutating func bytes(_ count: Int) throws(SPOPError) -> [UInt8] {
        guard count >= 0, count <= rest.count else { throw .invalidFrame }
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count))
    }

    mutating func uint32() throws(SPOPError) -> UInt32 { try bytes(4).reduce(0) { $0 << 8 | UInt32($1) } }

    /// The first byte has 4 bits beside values below 240; each further one has 7, and a high bit that says that another follows.
    mutating func varint() throws(SPOPError) -> UInt64 {
        let first = try byte()
        var value = UInt64(first)
        guard first >= 240 else { return value }
        var shift: UInt64 = 4
        while true {
            let next = try byte()
            // 64 bits need nine bytes after the first: the last has the highest bits.
            guard shift <= 60 else { throw .invalidFrame }
            let part = UInt64(next) << shift
            let (sum, overflow) = value.addingReportingOverflow(part)
            guard !overflow, part >> shift == UInt64(next) else { throw .invalidFrame }
            value = sum
            if next < 128 { return value }
            shift += 7
        }
    }

    mutating func string() throws(SPOPError) -> [UInt8] {
        guard let count = Int(exactly: try varint()) else { throw .invalidFrame }
        return try bytes(count)
    }

    mutating func value() throws(SPOPError) -> SPOPValue {
        let type = try byte()
        switch type & SPOPType.mask {
        case SPOPType.null: return .null
        case SPOPType.boolean: return .boolean(type & SPOPType.isTrue != 0)
        case SPOPType.int32, SPOPType.int64: return .integer(Int64(bitPattern: try varint()))
        case SPOPType.uint32, SPOPType.uint64: return .unsigned(try varint())
        case SPOPType.ipv4: return .ipv4(try bytes(4))
        case SPOPType.ipv6: return .ipv6(try bytes(16))
        case SPOPType.string: return .string(try string())
        case SPOPType.binary: return .binary(try string())
        default: throw .invalidFrame
        }
    }

    /// Name and value pairs: `count` of them, or all up to the end. Of a name that is there twice the last value counts.
    mutating func pairs(_ count: Int? = nil) throws(SPOPError) -> [String: SPOPValue] {
        var pairs: [String: SPOPValue] = [:]
        var left = count ?? Int.max
        while left > 0, count != nil || !isAtEnd {
            let name = String(decoding: try string(), as: UTF8.self)
            pairs[name] = try value()
            left -= 1
        }
        return pairs
    }
}

/// Puts a frame together.
struct SPOPWriter {
    private(set) var bytes: [UInt8] = []

    mutating func byte(_ value: UInt8) { bytes.append(value) }

    mutating func uint32(_ value: UInt32) {
        for shift in stride(from: 24, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: value >> UInt32(shift))) }
    }

    mutating func varint(_ value: UInt64) {
        guard value >= 240 else { return bytes.append(UInt8(value)) }
        bytes.append(UInt8(truncatingIfNeeded: value) | 240)
        var rest = (value - 240) >> 4
        while rest >= 128 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 128)
            rest = (rest - 128) >> 7
        }
        bytes.append(UInt8(rest))
    }

    mutating func string(_ value: some Collection<UInt8>) {
        varint(UInt64(value.count))
        bytes.append(contentsOf: value)
    }

    mutating func string(_ value: String) { string(Array(value.utf8)) }

    mutating func value(_ value: SPOPValue) {
        switch value {
        case .null: byte(SPOPType.null)
        case .boolean(let flag): byte(SPOPType.boolean | (flag ? SPOPType.isTrue : 0))
        case .integer(let number):
            byte(SPOPType.int64)
            varint(UInt64(bitPattern: number))
        case .unsigned(let number):
            byte(number <= UInt64(UInt32.max) ? SPOPType.uint32 : SPOPType.uint64)
            varint(number)
        case .ipv4(let address):
            byte(SPOPType.ipv4)
            bytes.append(contentsOf: address)
        case .ipv6(let address):
            byte(SPOPType.ipv6)
            bytes.append(contentsOf: address)
        case .string(let text):
            byte(SPOPType.string)
            string(text)
        case .binary(let data):
            byte(SPOPType.binary)
            string(data)
        }
    }
}
