// Ledger+Text: the ledger as people and their programs read it. Blanks and colons are exact.

extension Ledger {
    private static let columns = [
        "purchased", "used", "allocated", "reserved", "guaranteed", "preferred", "model_max", "grant?", "conserve",
    ]

    /// All devices and the totals: what the root prints.
    ///
    /// - Parameter isAligned: columns as wide as the widest name.
    package func text(isAligned: Bool = false) -> String {
        var text = ""
        for device in devices {
            text += """
                dev: \(device.serial)(0x\(Self.hexadecimal(device.id))), stale: \(Self.letter(device.isStale)), \
                root: \(Self.letter(device.isRoot)), sharing: \(Self.letter(device.isSharing)), \
                last ping: \(device.lastPing) proto_version=\(device.protocolVersion)\n
                """
            let header = "lic purchased/ used/ allocated/ reserved/guaranteed/ preferred/ model_max/grant?/conserve"
            text += (isAligned ? Self.aligned("lic", Self.columns) : header) + "\n"
            for line in device.lines { text += Self.text(line, isAligned) + "\n" }
            text += "\n"
        }
        text += "Total:\n" + Self.totalHeader(isAligned)
        for total in totals { text += Self.text(total, isAligned) }
        return text + "n_need_grant_seat: \(needingGrant)\n"
    }

    /// The viewer's own line: what another member prints.
    package func memberText(isAligned: Bool = false) -> String {
        let device = devices.first { $0.serial == viewer }
        var text = "fabric license sharing: \(Self.letter(device?.isSharing ?? false))\n"
        text += "device status: disconn \(Self.word(isDisconnected)) stale \(Self.word(device?.isStale ?? true))\n"
        text += Self.totalHeader(isAligned)
        for line in device?.lines ?? [] {
            let total = Total(type: line.type, purchased: line.purchased, used: line.used, allocated: line.allocated)
            text += Self.text(total, isAligned, conserve: line.conserve)
        }
        return text
    }

    private static func text(_ line: Line, _ isAligned: Bool) -> String {
        let numbers = [
            line.purchased, line.used, line.allocated, line.reserved, line.guaranteed, line.preferred, line.modelMax,
        ].map(String.init)
        guard !isAligned else { return aligned(line.type.rawValue, numbers + [word(line.needsGrant), word(line.conserve)]) }
        let grant = line.needsGrant ? "yes" : "no "
        return "\(line.type.rawValue) \(numbers.joined(separator: "/ "))/ \(grant)/ \(word(line.conserve))"
    }

    private static func totalHeader(_ isAligned: Bool) -> String {
        let columns = ["purchased", "used", "allocated", "conserve"]
        return (isAligned ? aligned("lic", columns) : "lic " + columns.joined(separator: "/ ")) + "\n"
    }

    private static func text(_ total: Total, _ isAligned: Bool, conserve: Bool? = nil) -> String {
        let cells = [total.purchased, total.used, total.allocated].map(String.init) + [word(conserve ?? total.conserve)]
        let type = total.type.rawValue
        return (isAligned ? aligned(type, cells) : "\(type) \(cells.joined(separator: "/ "))") + "\n"
    }

    private static func aligned(_ name: String, _ cells: [String]) -> String {
        func blanks(_ width: Int, _ text: String) -> String { String(repeating: " ", count: max(0, width - text.count)) }
        return name + blanks(4, name) + " " + cells.map { blanks(10, $0) + $0 }.joined(separator: "/")
    }

    private static func letter(_ value: Bool) -> String { value ? "y" : "n" }
    private static func word(_ value: Bool) -> String { value ? "yes" : "no" }

    private static func hexadecimal(_ number: UInt32) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }
}

extension HASeats {
    /// - Parameters:
    ///   - available: the seats that this unit may use now.
    ///   - sessionsPerSeat: the licence's.
    ///   - sessions: licensed sessions in use.
    package func text(available: Int, sessionsPerSeat: Int, sessions: Int) -> String {
        // Figures that come from another process may be anything.
        let most = available.multipliedReportingOverflow(by: sessionsPerSeat)
        var text = "License Seats Registered:\n"
        for unit in units { text += "\(unit.serial): \(unit.registered)\n" }
        text += "\nNew license seats adjusted:\n"
        for unit in units { text += "\(unit.serial): \(unit.adjusted)\n" }
        text += "\nAvailable License Seat: \(available)\nMax Licensed Session: \(most.overflow ? Int.max : most.partialValue)\n"
        return text + "Current Licensed Session: \(sessions)\n"
    }
}
