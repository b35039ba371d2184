// LedgerText: the table that operators read, held against what its columns mean.

import Foundation

/// The table of `diagnose test application csfd 140`, held against what its columns mean.
enum LedgerText {
    static func faults(in text: String, isRoot: Bool, devices: Int) -> [String] {
        guard isRoot else { return text.contains("fabric license sharing: y") ? [] : ["found no sharing unit"] }
        var faults: [String] = []
        let parts = text.components(separatedBy: "Total:")
        guard parts.count == 2 else { return ["found \(parts.count - 1) totals, expected one"] }
        let found = parts[0].components(separatedBy: "dev: ").count - 1
        if found != devices { faults.append("found \(found) devices, expected \(devices)") }
        for type in Oracle.types {
            let lines = numbers(parts[0], type)
            guard let total = numbers(parts[1], type).first, total.count >= 3, lines.allSatisfy({ $0.count >= 7 }) else {
                faults.append("found no full lines of \(type)")
                continue
            }
            for column in 0..<3 where lines.reduce(0, { $0 + $1[column] }) != total[column] {
                faults.append("column \(column + 1) of \(type) does not add up to \(total[column])")
            }
            if let line = lines.first(where: { $0[2] > $0[3] }) {
                faults.append("\(type): allocated \(line[2]), reserved \(line[3])")
            }
            if total[2] > total[0] { faults.append("\(type): allocated \(total[2]) of \(total[0])") }
        }
        return faults
    }

    /// `furl 40/ 3/ 10/ ...`
    private static func numbers(_ text: String, _ type: String) -> [[Int]] {
        text.split(separator: "\n").filter { $0.hasPrefix(type + " ") }.map { line in
            line.dropFirst(type.count).split(separator: "/").compactMap { Int($0.trimmingCharacters(in: [" "])) }
        }
    }
}
