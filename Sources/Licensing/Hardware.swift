// The machine as a licence sees it.

import Basics
import Foundation

/// What identifies a machine.
package struct Hardware: Equatable, Sendable {
    /// The first `model name` of /proc/cpuinfo; empty where the kernel names none.
    package var cpuModel: String
    /// The count of `processor` lines.
    package var logicalCPUsNumber: Int
    /// MemTotal in MB: kB / 1024, rounded down.
    package var totalMemorySize: Int
    /// Of interfaces that are up, loopback left out, in the kernel's order.
    package var addressesIPv4: [String]
    /// The same of IPv6, without those of a link and those that the kernel changes by itself (RFC 8981).
    package var addressesIPv6: [String]
    package var hostname: String
    /// The id of the unit that runs here (UnitIdentity); empty where there is none yet.
    package var unitID: String
    /// The public half of that unit's key (UnitKey); empty where there is none.
    package var unitKey: String

    package init(
        cpuModel: String, logicalCPUsNumber: Int, totalMemorySize: Int, addressesIPv4: [String], hostname: String,
        addressesIPv6: [String] = [], unitID: String = "", unitKey: String = ""
    ) {
        self.addressesIPv6 = addressesIPv6
        self.unitID = unitID
        self.unitKey = unitKey
        self.cpuModel = cpuModel
        self.logicalCPUsNumber = logicalCPUsNumber
        self.totalMemorySize = totalMemorySize
        self.addressesIPv4 = addressesIPv4
        self.hostname = hostname
    }

    /// The first address, or an empty text.
    package var addressIPv4: String { addressesIPv4.first ?? "" }

    package var addresses: [String] { addressesIPv4 + addressesIPv6 }

    /// Reads this machine.
    /// - Throws: `absent`, `system` or `damaged`, naming the file.
    package static func read(
        cpuinfo: String = "/proc/cpuinfo", meminfo: String = "/proc/meminfo", addresses: [String]? = nil
    ) throws(LicensingError) -> Hardware {
        var model: Substring?
        var processors = 0
        for line in try lines(of: cpuinfo) {
            if line.hasPrefix("processor") { processors += 1 }
            if model == nil, line.hasPrefix("model name") { model = value(of: line) }
        }
        guard processors > 0 else { throw .damaged(path: cpuinfo, found: "no line `processor`", expected: "one for each CPU") }
        let memory = try lines(of: meminfo).first { $0.hasPrefix("MemTotal:") }
        guard let kilobytes = memory.flatMap({ Int(value(of: $0).split(separator: " ").first ?? "") }), kilobytes >= 0 else {
            throw .damaged(
                path: meminfo, found: memory.map { JSONValue.quote(String($0)) } ?? "no line `MemTotal`",
                expected: "`MemTotal: N kB`")
        }
        return Hardware(
            cpuModel: String(model ?? ""), logicalCPUsNumber: processors, totalMemorySize: kilobytes / 1024,
            addressesIPv4: addresses ?? Self.addresses(), hostname: ProcessInfo.processInfo.hostName,
            addressesIPv6: addresses == nil ? lastingIPv6(in: "/proc/net/if_inet6") : [])
    }

    /// `ADDRESS INDEX PREFIX SCOPE FLAGS NAME` in each line, in hexadecimal digits.
    static func lastingIPv6(in path: String) -> [String] {
        // From the kernel's headers: IFA_F_TEMPORARY, and the scopes of rtnetlink that reach beyond a link.
        let temporary = 0x01
        let scopes: Set = [0x00, 0x40]
        return ((try? lines(of: path)) ?? []).compactMap { line in
            let words = line.split(separator: " ")
            guard words.count == 6, words[0].count == 32, let scope = Int(words[3], radix: 16), scopes.contains(scope),
                let flags = Int(words[4], radix: 16), flags & temporary == 0
            else { return nil }
            let digits = Array(words[0])
            let groups = stride(from: 0, to: 32, by: 4).map { String(digits[$0..<$0 + 4]) }
            return shortIPv6(groups.joined(separator: ":"))
        }
    }

    /// In the form that people write, RFC 5952.
    private static func shortIPv6(_ text: String) -> String? {
        var address = in6_addr()
        guard inet_pton(AF_INET6, text, &address) == 1 else { return nil }
        var short = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        guard inet_ntop(AF_INET6, &address, &short, socklen_t(short.count)) != nil else { return nil }
        return short.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    private static func lines(of path: String) throws(LicensingError) -> [Substring] {
        // A thousand CPUs write 2 MB.
        guard let bytes = try StoredFile.read(path, limit: 64 << 20) else { throw .absent(path: path) }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    }

    private static func value(of line: Substring) -> Substring {
        guard let colon = line.firstIndex(of: ":") else { return "" }
        return line[line.index(after: colon)...].drop { $0 == " " }
    }

    /// Of interfaces that are up, loopback left out, in the kernel's order.
    package static func addresses() -> [String] {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return [] }
        defer { freeifaddrs(first) }
        var addresses: [String] = []
        for interface in sequence(first: first, next: { $0?.pointee.ifa_next }) {
            guard let interface = interface?.pointee, let address = interface.ifa_addr, address.pointee.sa_family == AF_INET,
                interface.ifa_flags & UInt32(IFF_UP) != 0, interface.ifa_flags & UInt32(IFF_LOOPBACK) == 0
            else { continue }
            var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            let length = socklen_t(MemoryLayout<sockaddr_in>.size)
            if getnameinfo(address, length, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0 {
                addresses.append(text.withUnsafeBufferPointer { String(cString: $0.baseAddress!) })
            }
        }
        return addresses
    }
}

extension Hardware {
    /// Opens what `fpx show license_hardware_data` prints.
    /// - Throws: `absent`, `system`, `tooLarge`, `damaged`.
    package static func reader(dataFile path: String) throws(LicensingError) -> JSONReader {
        guard let bytes = try StoredFile.read(path, limit: 64 << 10) else { throw .absent(path: path) }
        guard let members = try? JSONValue.object(in: TextFile.withoutMark(bytes)) else {
            throw .damaged(path: path, found: "\(bytes.count) bytes that are no JSON object", expected: "hardware data")
        }
        return JSONReader(members, path: path + ": ")
    }

    /// Reads it.
    /// - Throws: `absent`, `system`, `tooLarge`, `damaged`, or `claim` for the member that is wrong.
    package init(dataFile path: String) throws(LicensingError) {
        let reader = try Self.reader(dataFile: path)
        self.init(
            cpuModel: try reader.string("cpu_model", allowsEmpty: true),
            logicalCPUsNumber: try reader.integer("logical_cpus_number", in: HardwareBinding.numbers),
            totalMemorySize: try reader.integer("total_memory_size", in: HardwareBinding.numbers),
            addressesIPv4: try reader.strings("addresses_ipv4"), hostname: try reader.string("hostname", allowsEmpty: true))
        if reader.has("addresses_ipv6") { addressesIPv6 = try reader.strings("addresses_ipv6") }
        if reader.has("unit_id") {
            unitID = try reader.string("unit_id")
            if !UnitID.isOne(unitID) { throw reader.wrong("unit_id", "a UUID in small letters") }
        }
        if reader.has("unit_key") {
            unitKey = try reader.string("unit_key")
            if !UnitKey.isPublic(unitKey) { throw reader.wrong("unit_key", "an Ed25519 public key in base64url") }
        }
    }
}

/// A part of the machine that a licence can be bound to; the raw value is its name in claims and messages.
package enum HardwarePart: String, CaseIterable, Sendable {
    case cpuModel = "cpu_model"
    case logicalCPUsNumber = "logical_cpus_number"
    case totalMemorySize = "total_memory_size"
    case addressIPv4 = "address_ipv4"
    case unitID = "unit_id"
}

/// A part that is not what the licence says.
package struct HardwareMismatch: Equatable, Sendable, CustomStringConvertible {
    package var part: HardwarePart
    package var licensed: String
    package var found: String

    package init(part: HardwarePart, licensed: String, found: String) {
        self.part = part
        self.licensed = licensed
        self.found = found
    }

    /// `total_memory_size 16005 -> 32010`
    package var description: String { "\(part.rawValue) \(licensed) -> \(found)" }
}

/// The claim `hardware`: the machine that the licence was made for, and which parts of it must be the same.
package struct HardwareBinding: Equatable, Sendable {
    static let numbers = 0...4_294_967_295

    package var binds: Set<HardwarePart>
    package var cpuModel: String?
    package var logicalCPUsNumber: Int?
    package var totalMemorySize: Int?
    package var addressIPv4: String?
    package var unitID: String?

    /// Binds nothing: the licence runs anywhere.
    package init() { binds = [] }

    package init(_ hardware: Hardware, binds: Set<HardwarePart>) {
        self.binds = binds
        cpuModel = hardware.cpuModel
        logicalCPUsNumber = hardware.logicalCPUsNumber
        totalMemorySize = hardware.totalMemorySize
        addressIPv4 = hardware.addressIPv4
        unitID = binds.contains(.unitID) || !hardware.unitID.isEmpty ? hardware.unitID : nil
    }

    init(_ reader: JSONReader) throws(LicensingError) {
        binds = []
        for name in try reader.strings("binds") {
            guard let part = HardwarePart(rawValue: name) else {
                // Skipping a part that is not known would run the licence where it must not run.
                let known = HardwarePart.allCases.map(\.rawValue).joined(separator: ", ")
                throw reader.wrong("binds", "only \(known), and not \(JSONValue.quote(name))")
            }
            binds.insert(part)
        }
        func isGiven(_ part: HardwarePart) -> Bool { binds.contains(part) || reader.has(part.rawValue) }
        if isGiven(.cpuModel) { cpuModel = try reader.string(HardwarePart.cpuModel.rawValue, allowsEmpty: true) }
        if isGiven(.logicalCPUsNumber) {
            logicalCPUsNumber = try reader.integer(HardwarePart.logicalCPUsNumber.rawValue, in: Self.numbers)
        }
        if isGiven(.totalMemorySize) {
            totalMemorySize = try reader.integer(HardwarePart.totalMemorySize.rawValue, in: Self.numbers)
        }
        if isGiven(.addressIPv4) { addressIPv4 = try reader.string(HardwarePart.addressIPv4.rawValue, allowsEmpty: true) }
        if isGiven(.unitID) { unitID = try reader.string(HardwarePart.unitID.rawValue, allowsEmpty: true) }
    }

    var members: [String: JSONValue] {
        var members: [String: JSONValue] = ["binds": .array(binds.map(\.rawValue).sorted().map(JSONValue.string))]
        members[HardwarePart.cpuModel.rawValue] = cpuModel.map(JSONValue.string)
        members[HardwarePart.logicalCPUsNumber.rawValue] = logicalCPUsNumber.map(JSONValue.integer)
        members[HardwarePart.totalMemorySize.rawValue] = totalMemorySize.map(JSONValue.integer)
        members[HardwarePart.addressIPv4.rawValue] = addressIPv4.map(JSONValue.string)
        members[HardwarePart.unitID.rawValue] = unitID.map(JSONValue.string)
        return members
    }

    /// The parts that bind and are different, in the order of `HardwarePart`. A machine that could not be read differs in all.
    package func mismatches(with hardware: Hardware?) -> [HardwareMismatch] {
        HardwarePart.allCases.filter(binds.contains).compactMap { part in
            let (licensed, found): (String, String?) =
                switch part {
                case .cpuModel: (cpuModel ?? "", hardware?.cpuModel)
                case .logicalCPUsNumber: (String(logicalCPUsNumber ?? 0), hardware.map { String($0.logicalCPUsNumber) })
                case .totalMemorySize: (String(totalMemorySize ?? 0), hardware.map { String($0.totalMemorySize) })
                case .addressIPv4: (addressIPv4 ?? "", address(of: hardware))
                case .unitID: (unitID ?? "", hardware?.unitID)
                }
            if found == licensed { return nil }
            return HardwareMismatch(
                part: part, licensed: licensed.isEmpty ? "none" : licensed,
                found: found.map { $0.isEmpty ? "none" : $0 } ?? "unreadable")
        }
    }

    /// The licensed address where the machine still has it: it need not be the first.
    private func address(of hardware: Hardware?) -> String? {
        guard let hardware, let addressIPv4, hardware.addressesIPv4.contains(addressIPv4) else { return hardware?.addressIPv4 }
        return addressIPv4
    }
}
