// Files that others may have written or spoilt: hardware data, the record of the authority, the clock witness. The first byte
// chooses.

func fuzzFile(_ bytes: [UInt8]) {
    guard let first = bytes.first else { return }
    let content = Array(bytes.dropFirst())
    do throws(LicensingError) {
        switch first % 3 {
        case 0:
            let machine = try Hardware(dataFile: files[0].holding(content))
            let binding = HardwareBinding(machine, binds: Set(HardwarePart.allCases))
            expect(binding.mismatches(with: machine).isEmpty, "a machine that is not itself: \(machine)")
        case 1:
            let record = try AuthorityRecord(bytes: content, path: "record")
            expect(try again(record.bytes, AuthorityRecord.init(bytes:path:)) == record, "a record that changes: \(record)")
        default:
            let witness = try ClockWitness(bytes: content, path: "clock")
            expect(try again(witness.bytes, ClockWitness.init(bytes:path:)) == witness, "a witness that changes: \(witness)")
        }
    } catch {
        expect(isPlain(error.description), "an error that moves a terminal: \(error)")
    }
}

/// What was read once, written and read again.
private func again<Value>(
    _ bytes: [UInt8], _ read: ([UInt8], String) throws(LicensingError) -> Value
) throws(LicensingError) -> Value {
    try read(bytes, "again")
}
