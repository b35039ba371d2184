// JSON of others: the claims of a licence, the clock witness, and the hardware data of another machine.

import Foundation

private func checkValue(_ members: [String: JSONValue], _ bytes: [UInt8]) throws {
    let again = try JSONDecoder().decode([String: JSONValue].self, from: JSONValue.encoder.encode(members))
    expect(again == members, "found \(again), expected \(members)")
    for value in members.values { expect(isPlain(value.description), "a description that moves a terminal: \(value)") }
}

/// Claims that are taken can be written, and can be judged at any time on any machine.
private func checkClaims(_ members: [String: JSONValue]) throws {
    let claims: LicenseClaims
    do throws(LicensingError) { claims = try LicenseClaims(members) } catch {
        return expect(isPlain(error.description), "an error that moves a terminal: \(error)")
    }
    let again = try LicenseClaims(claims.members)
    expect(again == claims, "found \(again), expected \(claims)")
    let license = License(claims: claims, keyID: "key", token: [])
    let machine = Hardware(
        cpuModel: claims.hardware.cpuModel ?? "", logicalCPUsNumber: claims.hardware.logicalCPUsNumber ?? 0,
        totalMemorySize: claims.hardware.totalMemorySize ?? 0, addressesIPv4: [claims.hardware.addressIPv4 ?? ""], hostname: "")
    for now in [0, claims.notBefore, claims.end - 1, claims.end, Timestamp.range.upperBound] {
        for hardware in [machine, nil] {
            var error: LicensingError?
            do throws(LicensingError) {
                try license.check(now: now, witness: ClockWitness(), hardware: hardware)
            } catch let found {
                error = found
            }
            let isIn = now >= claims.notBefore - ClockWitness.toleranceSeconds && now < claims.end
            expect((error == nil) == (isIn && (hardware != nil || claims.hardware.binds.isEmpty)), "at \(now): \(error as Any)")
            let status = license.status(now: now, error: error)
            expect(status.isValid == (error == nil), "at \(now): \(status)")
            for type in LicenseType.allCases {
                expect((0...LicenseClaims.sessionsMax).contains(status.cap(of: type)), "a cap of \(status.cap(of: type))")
            }
        }
    }
    expect(Timestamp.parse(Timestamp.text(claims.end)) == claims.end, "\(Timestamp.text(claims.end)) for \(claims.end)")
}

private func checkWitness(_ bytes: [UInt8]) throws {
    do throws(LicensingError) {
        let witness = try ClockWitness(bytes: bytes, path: "clock")
        let again = try ClockWitness(bytes: witness.bytes, path: "clock")
        expect(again == witness && witness.merging(again) == witness, "found \(again), expected \(witness)")
        expect(!witness.isRollback(witness.latest) && witness.latest >= 0, "found \(witness)")
    } catch {
        expect(isPlain(error.description), "an error that moves a terminal: \(error)")
    }
}

private func checkHardware(_ bytes: [UInt8]) throws {
    do throws(LicensingError) {
        let hardware = try Hardware(dataFile: files[0].holding(bytes))
        // A licence that is made for the machine that sent them holds on it.
        let binding = HardwareBinding(hardware, binds: Set(HardwarePart.allCases))
        let found = binding.mismatches(with: hardware)
        expect(found.isEmpty, "found \(found), expected no mismatch")
        let read = try HardwareBinding(JSONReader(binding.members))
        expect(read == binding, "found \(read), expected \(binding)")
    } catch {
        expect(isPlain(error.description), "an error that moves a terminal: \(error)")
    }
}

func fuzzClaims(_ bytes: [UInt8]) {
    do {
        if let members = try? JSONDecoder().decode([String: JSONValue].self, from: Data(bytes)) {
            try checkValue(members, bytes)
            try checkClaims(members)
        }
        try checkWitness(bytes)
        try checkHardware(bytes)
    } catch {
        expect(false, "what was written cannot be read: \(error)")
    }
}
