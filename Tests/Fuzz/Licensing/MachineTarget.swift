// /proc/cpuinfo and /proc/meminfo: the input up to its first zero, and the rest.

func fuzzMachine(_ bytes: [UInt8]) {
    let cpuinfo = Array(bytes.prefix { $0 != 0 })
    let meminfo = Array(bytes.dropFirst(cpuinfo.count + 1))
    do throws(LicensingError) {
        let machine = try Hardware.read(
            cpuinfo: files[0].holding(cpuinfo), meminfo: files[1].holding(meminfo), addresses: [])
        expect((1...cpuinfo.count).contains(machine.logicalCPUsNumber), "found \(machine.logicalCPUsNumber) CPUs")
        expect((0...Int.max / 1024).contains(machine.totalMemorySize), "found \(machine.totalMemorySize) MB")
        expect(!machine.cpuModel.contains("\n"), "a model of more than a line: \(machine.cpuModel.debugDescription)")
        let binding = HardwareBinding(machine, binds: Set(HardwarePart.allCases))
        expect(binding.mismatches(with: machine).isEmpty, "a machine that is not itself: \(machine)")
    } catch {
        expect(isPlain(error.description), "an error that moves a terminal: \(error)")
    }
}
