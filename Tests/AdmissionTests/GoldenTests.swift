import Foundation
import TestSupport
import Testing

/// The fast path is frozen as counts that do not depend on the machine's speed: a regression is a diff, not a noisy number.
///
/// The tests look at the release build of Tests/FastPath. `FPX_UPDATE_GOLDEN=1` writes what is found into Tests/AdmissionTests/Golden.
@Suite struct GoldenTests {
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    private static let program = root.appending(path: ".build/release/FastPath")

    /// What the instructions of the loops over the fast paths do, by class.
    @Test func fastPathInstructions() throws {
        let dump = try run("/usr/bin/objdump", ["-d", "--no-show-raw-insn", Self.program.path])
        var table = "What one turn of the loop in Tests/FastPath executes: an admit and a release.\n"
        for function in ["lanePairs", "shardPairs"] {
            let loop = try #require(hotLoop(of: function, in: dump), "no loop over the fast path in \(function)")
            let counts = Dictionary(loop.map { ($0.kind, 1) }, uniquingKeysWith: +)
            for forbidden in [Instruction.Kind.locked, .fence, .call] {
                #expect(counts[forbidden] == nil, "\(function) has a \(forbidden) instruction")
            }
            table += "\n\(function)\n"
            for kind in Instruction.Kind.allCases {
                table += "  \(kind.rawValue.padding(toLength: 26, withPad: " ", startingAt: 0)) \(counts[kind] ?? 0)\n"
            }
        }
        try expectGolden(table, "fast-path.txt")
    }

    /// How many instructions valgrind executes for each admit and release of a lane, and for each refusal.
    @Test func callgrindCounts() throws {
        // Without debug information, which Debian's valgrind cannot read.
        let stripped = FileManager.default.temporaryDirectory.appending(path: "FastPath.\(getpid())")
        defer { try? FileManager.default.removeItem(at: stripped) }
        _ = try run("/usr/bin/strip", ["-g", "-o", stripped.path, Self.program.path])
        func instructions(_ mode: String, _ count: Int) throws -> Int {
            let output = try run(
                "/usr/bin/valgrind",
                ["--tool=callgrind", "--callgrind-out-file=/dev/null", stripped.path, mode, "\(count)"])
            let line = try #require(output.split(separator: "\n").last { $0.contains("Collected :") }, "\(output)")
            return try #require(Int(line.split(separator: " ").last ?? ""))
        }
        var table = "Instructions that callgrind counts.\n\n"
        for (mode, name) in [("lane", "lane: admit and release"), ("refusal", "lane: refusal at a full cap")] {
            let each = Double(try instructions(mode, 60_000) - instructions(mode, 20_000)) / 40_000
            table += "\(name.padding(toLength: 30, withPad: " ", startingAt: 0)) \(Int(each.rounded()))\n"
        }
        try expectGolden(table, "callgrind.txt")
    }

    private func expectGolden(_ found: String, _ name: String) throws {
        let file = Self.root.appending(path: "Tests/AdmissionTests/Golden/\(name)")
        if ProcessInfo.processInfo.environment["FPX_UPDATE_GOLDEN"] != nil {
            try found.write(to: file, atomically: true, encoding: .utf8)
        }
        #expect(try String(contentsOf: file, encoding: .utf8) == found)
    }

    // MARK: - Reading an object dump

    private struct Instruction {
        enum Kind: String, CaseIterable {
            case load, store, readModifyWrite = "read-modify-write", compareWithMemory = "compare with memory", compare, jump
            case arithmetic, locked, fence, call
        }
        let address: UInt64
        let mnemonic: String
        let operands: String

        /// The target of a jump.
        var target: UInt64? {
            mnemonic.hasPrefix("j") ? UInt64(operands.prefix { $0 != " " }, radix: 16) : nil
        }

        var kind: Kind {
            if mnemonic == "lock" || mnemonic.hasPrefix("xchg") && operands.contains("(") { return .locked }
            if mnemonic.hasSuffix("fence") { return .fence }
            if mnemonic.hasPrefix("call") || mnemonic == "syscall" { return .call }
            if mnemonic.hasPrefix("j") { return .jump }
            let touchesMemory = operands.contains("(")
            if mnemonic.hasPrefix("cmp") || mnemonic.hasPrefix("test") { return touchesMemory ? .compareWithMemory : .compare }
            if mnemonic.hasPrefix("lea") || !touchesMemory { return .arithmetic }
            // AT&T order: the destination comes last, and a memory operand ends in a parenthesis.
            guard operands.last == ")" else { return .load }
            return mnemonic.hasPrefix("mov") ? .store : .readModifyWrite
        }
    }

    /// The smallest loop of a function that tests a gate: from the target of a backward jump to that jump.
    private func hotLoop(of function: String, in dump: String) -> [Instruction]? {
        var instructions: [Instruction] = []
        var inside = false
        for line in dump.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasSuffix(">:") {
                inside = line.contains(function)
            } else if inside, let colon = line.firstIndex(of: ":"),
                let address = UInt64(line[..<colon].drop { $0 == " " }, radix: 16)
            {
                let text = line[line.index(after: colon)...].drop { $0 == "\t" || $0 == " " }
                let mnemonic = text.prefix { $0 != " " }
                if mnemonic.hasPrefix("nop") || mnemonic.hasPrefix("data16") || mnemonic == "cs" { continue }
                let operands = text.dropFirst(mnemonic.count).drop { $0 == " " }.prefix { $0 != "#" }
                instructions.append(
                    Instruction(
                        address: address, mnemonic: String(mnemonic),
                        operands: operands.trimmingCharacters(in: .whitespaces)))
            }
        }
        let loops = instructions.compactMap { jump -> [Instruction]? in
            guard let target = jump.target, target < jump.address else { return nil }
            let body = instructions.filter { (target...jump.address).contains($0.address) }
            return body.contains { $0.operands.contains("0x4000000") } && body.contains { $0.operands.hasPrefix("$0x1,%") }
                ? body : nil
        }
        return loops.min { $0.count < $1.count }
    }

    private func run(_ program: String, _ arguments: [String]) throws -> String {
        let ended = try ChildProcess.run([program] + arguments)
        try #require(ended.status == 0, "\(program) \(arguments.joined(separator: " ")): \(ended.text.suffix(500))")
        return ended.text
    }
}
