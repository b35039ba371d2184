// JSONLine: JSON whose keys stand in an order that programs were promised; JSONEncoder knows none but the alphabet's.

import ControlAPI
import Foundation

enum JSONLine {
    /// `show license --json`
    static func license(_ license: LicenseReport) throws -> String {
        try object([
            ("address_ipv4", license.addressIpv4),
            ("total_memory_size", license.totalMemorySize),
            ("logical_cpus_number", license.logicalCpusNumber),
            ("cpu_model", license.cpuModel),
            ("expiration_date", license.summary.expiryDate ?? ""),
            ("licensed_bandwidth", license.licensedBandwidth),
            ("issuer_type", license.issuerType),
            ("business_type", license.businessType),
            ("licensed_bandwidth_unit", license.licensedBandwidthUnit),
        ])
    }

    /// `show license_hardware_data`
    static func hardware(_ hardware: HardwareReport) throws -> String {
        var members: [(key: String, value: any Encodable)] = [
            ("cpu_model", hardware.cpuModel),
            ("logical_cpus_number", hardware.logicalCpusNumber),
            ("total_memory_size", hardware.totalMemorySize),
            ("addresses_ipv4", hardware.addressesIpv4),
            ("hostname", hardware.hostname),
        ]
        if let addresses = hardware.addressesIpv6 { members.append(("addresses_ipv6", addresses)) }
        if let unit = hardware.unitId { members.append(("unit_id", unit)) }
        if let key = hardware.unitKey { members.append(("unit_key", key)) }
        return try object(members)
    }

    /// `diagnose wad license`
    static func seats(_ report: SeatsReport) throws -> String { try encoded(report) + "\n" }

    /// `show usage_report`: the very bytes that go to the authority, and a line end.
    static func usage(_ report: UsageReport) throws -> String { try encoded(report) + "\n" }

    /// `show system global`, in the form of the whole configuration.
    static func section(_ section: Section) throws -> String {
        try encoded(ConfigurationReport(sections: [section])) + "\n"
    }

    /// `help`
    static func help() throws -> String {
        struct Entry: Encodable {
            let command: String
            let help: String
        }
        return try encoded(CommandTable.commands.map { Entry(command: $0.usage, help: $0.help) }) + "\n"
    }

    private static func object(_ members: [(key: String, value: any Encodable)]) throws -> String {
        "{" + (try members.map { "\"\($0.key)\":\(try encoded($0.value))" }.joined(separator: ",")) + "}\n"
    }

    private static func encoded(_ value: any Encodable) throws -> String {
        String(decoding: try ControlJSON.encoder().encode(value), as: UTF8.self)
    }
}
