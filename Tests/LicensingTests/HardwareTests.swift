import Foundation
import Licensing
import Testing

@Suite struct HardwareTests {
    let folder: Folder

    init() throws { folder = try Folder() }

    @Test func procIsRead() throws {
        try folder.write("processor\t: 0\nmodel name\t: One CPU @ 2: x\nprocessor\t: 1\nmodel name\t: Other\n", "cpuinfo")
        try folder.write("MemTotal:       16389999 kB\nMemFree: 1 kB\n", "meminfo")
        let hardware = try Hardware.read(
            cpuinfo: folder.path + "/cpuinfo", meminfo: folder.path + "/meminfo", addresses: ["192.0.2.9"])
        #expect(hardware.cpuModel == "One CPU @ 2: x")
        #expect(hardware.logicalCPUsNumber == 2)
        #expect(hardware.totalMemorySize == 16005)
        #expect(hardware.addressIPv4 == "192.0.2.9")
    }

    @Test func thisMachineAgreesWithItsTools() throws {
        let hardware = try Hardware.read()
        #expect(try run(["grep", "-c", "^processor", "/proc/cpuinfo"])?.output == "\(hardware.logicalCPUsNumber)\n")
        #expect(
            try run(["awk", "/^MemTotal/{print int($2/1024)}", "/proc/meminfo"])?.output == "\(hardware.totalMemorySize)\n")
        #expect(!hardware.addressesIPv4.contains("127.0.0.1"))
    }

    @Test(arguments: [
        ("", "MemTotal: 1 kB", "cpuinfo: found no line `processor`, expected one for each CPU"),
        ("processor: 0", "", "meminfo: found no line `MemTotal`, expected `MemTotal: N kB`"),
        ("processor: 0", "MemTotal: x kB", "meminfo: found \"MemTotal: x kB\", expected `MemTotal: N kB`"),
    ])
    func strangeProcIsTold(_ cpuinfo: String, _ meminfo: String, _ message: String) throws {
        try folder.write(cpuinfo, "cpuinfo")
        try folder.write(meminfo, "meminfo")
        let error = #expect(throws: LicensingError.self) {
            _ = try Hardware.read(cpuinfo: folder.path + "/cpuinfo", meminfo: folder.path + "/meminfo")
        }
        #expect(error?.description == folder.path + "/" + message)
    }

    @Test func eachPartIsNamed() {
        let binding = HardwareBinding(machine, binds: Set(HardwarePart.allCases))
        #expect(binding.mismatches(with: machine) == [])
        func text(_ change: (inout Hardware) -> Void) -> String {
            var other = machine
            change(&other)
            return LicensingError.hardware(binding.mismatches(with: other)).description
        }
        #expect(text { $0.totalMemorySize = 32010 } == "total_memory_size 16005 -> 32010")
        #expect(
            text {
                $0.cpuModel = "New"
                $0.logicalCPUsNumber = 8
            } == "cpu_model Test \"CPU\" @ 3 GHz -> New; logical_cpus_number 2 -> 8")
        #expect(text { $0.addressesIPv4 = ["192.0.2.7"] } == "address_ipv4 192.0.2.1 -> 192.0.2.7")
        #expect(text { $0.addressesIPv4 = [] } == "address_ipv4 192.0.2.1 -> none")
        #expect(text { $0.unitID = "unit-2" } == "unit_id none -> unit-2")
        // The address need not be the first.
        #expect(text { $0.addressesIPv4 = ["192.0.2.7", "192.0.2.1"] } == "")
        #expect(binding.mismatches(with: nil).map(\.found) == Array(repeating: "unreadable", count: 5))
    }

    @Test func whatDoesNotBindMayChange() {
        var other = machine
        other.totalMemorySize = 1
        #expect(HardwareBinding(machine, binds: [.cpuModel, .logicalCPUsNumber]).mismatches(with: other) == [])
        #expect(HardwareBinding().mismatches(with: nil) == [])
    }

    @Test func dataFilesAreRead() throws {
        try folder.write(
            """
            {"cpu_model": "Test \\"CPU\\" @ 3 GHz", "logical_cpus_number": 2, "total_memory_size": 16005,
             "addresses_ipv4": ["192.0.2.1", "192.0.2.2"], "hostname": "unit"}
            """, "hw.lic")
        #expect(try Hardware(dataFile: folder.path + "/hw.lic") == machine)
        let id = "3b9dbf2c-7d53-4f0e-9a43-0d5f4a4a2f10"
        func data(_ id: String) -> String {
            #"{"cpu_model":"","logical_cpus_number":2,"total_memory_size":1,"addresses_ipv4":[],"hostname":"u","#
                + #""unit_id":"\#(id)"}"#
        }
        try folder.write(data(id), "hw.lic")
        #expect(try Hardware(dataFile: folder.path + "/hw.lic").unitID == id)
        for (text, part) in [
            (data(id.uppercased()), "unit_id: found"), (data("x"), "expected a UUID in small letters"),
            ("[]", "no JSON object"), ("{}", "cpu_model: found nothing"), ("", "0 bytes"),
        ] {
            try folder.write(text, "hw.lic")
            let error = #expect(throws: LicensingError.self) { _ = try Hardware(dataFile: folder.path + "/hw.lic") }
            #expect(error?.description.contains(part) == true, "\(String(describing: error))")
        }
    }
}
