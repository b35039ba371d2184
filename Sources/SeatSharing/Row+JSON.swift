// Row+JSON: a row as bytes. One object, its members in a fixed order, so that the same row is the same bytes.

extension Row {
    package var encoded: [UInt8] {
        var text = """
            {"version":\(Self.version),"cluster":"\(cluster)","serial":"\(serial)","mode":"\(mode.rawValue)",\
            "role":"\(role.rawValue)","incarnation":"\(Self.hexadecimal(incarnation))","sequence":\(sequence),\
            "record":"\(Self.hexadecimal(record))","clock":\(clock.nanoseconds),"ping":\(ping),"entitled":\(isEntitled),\
            "purchased":\(Self.text(purchased)),"own":\(Self.text(own)),"used":\(Self.text(used)),"demand":\(Self.text(demand)),\
            "allocated":\(Self.text(allocated)),"model_max":\(Self.text(modelMax)),"grants":[
            """
        text += grants.map {
            "[\"\($0.borrower)\",\"\(Self.hexadecimal($0.incarnation))\",\($0.number),\(Self.text($0.seats)),\($0.keep)]"
        }.joined(separator: ",")
        text += "],\"holdings\":["
        text += holdings.map { "[\"\($0.lender)\",\($0.through),\(Self.text($0.seats))]" }.joined(separator: ",")
        text += "],\"term\":\(term),\"reclaim_after\":\(reclaimAfter)"
        if let preferences {
            let members = preferences.members.sorted { $0.key < $1.key }.map { "\"\($0.key)\":\(Self.text($0.value))" }
            text += ",\"preferences\":{\"global\":\(Self.text(preferences.global)),"
            text += "\"division\":\"\(preferences.division.rawValue)\",\"members\":{\(members.joined(separator: ","))}}"
        }
        return Array((text + "}").utf8)
    }

    /// The row that lies under a key, or why it counts for nothing.
    package init(key: String, value: [UInt8], cluster: String, mode: SharingMode) throws(SharingError) {
        let prefix = Self.prefix(cluster: cluster)
        guard key.hasPrefix(prefix), Self.isName(String(key.dropFirst(prefix.count))) else {
            throw .foreignKey(key: key, expected: prefix + "SERIAL")
        }
        guard value.count <= Self.bytesMax else { throw .tooLarge(key: key, bytes: value.count, limit: Self.bytesMax) }
        let json: JSON
        do throws(JSONFault) {
            json = try JSONParser.parse(value)
        } catch {
            throw .malformed(key: key, at: error.at, found: error.found, expected: error.expected)
        }
        var reader = try RowReader(json, key: key)
        // First what says how the rest is to be read.
        let version = reader.members["version"] ?? .null
        guard version == .integer(Self.version) else { throw .version(key: key, found: version.shown, expected: Self.version) }
        reader.members["version"] = nil
        self.cluster = try reader.name("cluster")
        guard self.cluster == cluster else { throw .cluster(key: key, found: self.cluster, expected: cluster) }
        serial = try reader.name("serial")
        guard key == prefix + serial else {
            throw .serial(key: key, found: serial, expected: String(key.dropFirst(prefix.count)))
        }
        self.mode = try reader.choice("mode")
        guard self.mode == mode else { throw .mode(key: key, found: self.mode.rawValue, expected: mode.rawValue) }
        role = try reader.choice("role")
        incarnation = try reader.incarnation("incarnation")
        sequence = try reader.integer("sequence", 1...Int.max / 2)
        record = try reader.incarnation("record")
        clock = Instant(Nanoseconds(try reader.integer("clock", 0...Int.max / 2)))
        ping = try reader.integer("ping", 0...Int.max / 2)
        isEntitled = try reader.bool("entitled")
        purchased = try reader.seats("purchased")
        own = try reader.seats("own")
        used = try reader.seats("used")
        demand = try reader.seats("demand")
        allocated = try reader.seats("allocated")
        modelMax = try reader.seats("model_max")
        grants = try reader.grants()
        holdings = try reader.holdings()
        preferences = try reader.preferences()
        term = Nanoseconds(try reader.integer("term", 1...Int.max))
        reclaimAfter = Nanoseconds(try reader.integer("reclaim_after", 1...Int.max))
        try reader.finish()
        guard purchased.covers(own) else { throw reader.wrong("own", "\(own)", "no more than purchased") }
    }

    static func text(_ seats: Seats) -> String { "[\(seats.furl),\(seats.fnbi),\(seats.fcas)]" }

    static func hexadecimal(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

/// Takes typed and range-checked members out of an object; what is left at the end is not of this version.
struct RowReader {
    var members: [String: JSON]
    private let key: String
    private let path: String

    init(_ json: JSON, key: String, path: String = "") throws(SharingError) {
        guard case .object(let members) = json else {
            throw .field(key: key, name: path.isEmpty ? "row" : path, found: json.shown, expected: "an object")
        }
        self.members = members
        self.key = key
        self.path = path.isEmpty ? "" : path + "."
    }

    func wrong(_ name: String, _ found: String, _ expected: String) -> SharingError {
        .field(key: key, name: path + name, found: found, expected: expected)
    }

    private mutating func take(_ name: String) -> JSON? { members.removeValue(forKey: name) }

    mutating func finish() throws(SharingError) {
        if let name = members.keys.min() { throw wrong(SharingError.quote(name), "a member of that name", "none") }
    }

    mutating func integer(_ name: String, _ range: ClosedRange<Int>) throws(SharingError) -> Int {
        try integer(take(name), name, range)
    }

    private func integer(_ json: JSON?, _ name: String, _ range: ClosedRange<Int>) throws(SharingError) -> Int {
        guard case .integer(let value)? = json, range.contains(value) else {
            throw wrong(name, json?.shown ?? "nothing", "a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    mutating func bool(_ name: String) throws(SharingError) -> Bool {
        let json = take(name)
        guard case .bool(let value)? = json else { throw wrong(name, json?.shown ?? "nothing", "true or false") }
        return value
    }

    mutating func name(_ name: String) throws(SharingError) -> String { try text(take(name), name) }

    private func text(_ json: JSON?, _ name: String) throws(SharingError) -> String {
        guard case .string(let value)? = json, Row.isName(value) else {
            throw wrong(name, json?.shown ?? "nothing", "a name of 1 to 64 letters, digits, dots, dashes and underscores")
        }
        return value
    }

    mutating func choice<Choice>(_ name: String) throws(SharingError) -> Choice
    where Choice: RawRepresentable<String> & CaseIterable {
        let json = take(name)
        guard case .string(let value)? = json, let choice = Choice(rawValue: value) else {
            throw wrong(name, json?.shown ?? "nothing", Choice.allCases.map(\.rawValue).joined(separator: ", "))
        }
        return choice
    }

    mutating func incarnation(_ name: String) throws(SharingError) -> UInt64 { try incarnation(take(name), name) }

    private func incarnation(_ json: JSON?, _ name: String) throws(SharingError) -> UInt64 {
        guard case .string(let value)? = json, value.utf8.count == 16, let number = UInt64(value, radix: 16),
            Row.hexadecimal(number) == value
        else { throw wrong(name, json?.shown ?? "nothing", "16 hexadecimal digits") }
        return number
    }

    mutating func seats(_ name: String) throws(SharingError) -> Seats { try seats(take(name), name) }

    private func seats(_ json: JSON?, _ name: String) throws(SharingError) -> Seats {
        guard case .array(let values)? = json, values.count == 3 else {
            throw wrong(name, json?.shown ?? "nothing", "a list of 3 numbers")
        }
        return Seats(
            furl: try integer(values[0], name, 0...Seats.limit), fnbi: try integer(values[1], name, 0...Seats.limit),
            fcas: try integer(values[2], name, 0...Seats.limit))
    }

    private mutating func entries(_ name: String, of count: Int) throws(SharingError) -> [[JSON]] {
        let json = take(name)
        guard case .array(let values)? = json, values.count <= Row.entriesMax else {
            throw wrong(name, json?.shown ?? "nothing", "a list of at most \(Row.entriesMax)")
        }
        var entries: [[JSON]] = []
        var names: Set<JSON.Name> = []
        for value in values {
            guard case .array(let entry) = value, entry.count == count else {
                throw wrong(name, value.shown, "lists of \(count) in the list")
            }
            let unit = try text(entry[0], name)
            // A borrower that restarts may stand there once for each of its processes.
            let incarnation = count == 5 ? try self.incarnation(entry[1], name) : 0
            guard names.insert(JSON.Name(text: unit, number: incarnation)).inserted else {
                throw wrong(name, "\(SharingError.quote(unit)) twice", "each unit once")
            }
            entries.append(entry)
        }
        return entries
    }

    mutating func grants() throws(SharingError) -> [Grant] {
        var grants: [Grant] = []
        for entry in try entries("grants", of: 5) {
            grants.append(
                Grant(
                    borrower: try text(entry[0], "grants"), incarnation: try incarnation(entry[1], "grants"),
                    number: try integer(entry[2], "grants", 1...Int.max / 2), seats: try seats(entry[3], "grants"),
                    keep: Nanoseconds(try integer(entry[4], "grants", 1...Int.max))))
        }
        return grants
    }

    mutating func holdings() throws(SharingError) -> [Holding] {
        var holdings: [Holding] = []
        for entry in try entries("holdings", of: 3) {
            holdings.append(
                Holding(
                    lender: try text(entry[0], "holdings"), through: try integer(entry[1], "holdings", 0...Int.max / 2),
                    seats: try seats(entry[2], "holdings")))
        }
        return holdings
    }

    mutating func preferences() throws(SharingError) -> Preferences? {
        guard let json = take("preferences") else { return nil }
        var reader = try RowReader(json, key: key, path: "preferences")
        var preferences = Preferences(global: try reader.seats("global"), division: try reader.choice("division"))
        var members = try RowReader(reader.take("members") ?? .null, key: key, path: "preferences.members")
        guard members.members.count <= Row.entriesMax else {
            throw reader.wrong("members", "\(members.members.count) members", "at most \(Row.entriesMax)")
        }
        for serial in members.members.keys.sorted() {
            guard Row.isName(serial) else { throw reader.wrong("members", SharingError.quote(serial), "names of units") }
            preferences.members[serial] = try members.seats(serial)
        }
        try reader.finish()
        return preferences
    }
}

extension JSON {
    /// What must not stand twice in a list.
    fileprivate struct Name: Hashable {
        let text: String
        let number: UInt64
    }
}
