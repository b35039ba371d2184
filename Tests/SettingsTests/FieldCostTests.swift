import Foundation
import Settings
import TestSupport
import Testing

/// A configuration file that is made to be expensive, or that was destroyed: a named error, at once.
@Suite struct FieldCost {
    private static let bombs: [(name: String, text: String)] = [
        ("30,000 lists in one another", "group: " + String(repeating: "[", count: 30_000)),
        ("10,000 mappings in one another", String(repeating: "{a: ", count: 10_000)),
        ("lists in one another, by dashes", String(repeating: "- ", count: 30_000) + "x"),
        ("keys in one another", String(repeating: "? ", count: 30_000) + "x"),
        ("mappings in one another, by blanks", (0..<300).map { String(repeating: " ", count: $0) + "a:\n" }.joined()),
        (
            "references that grow a thousand million times",
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
                + zip("bcdefghi", "abcdefgh").map {
                    "\($0): &\($0) [\(Array(repeating: "*\($1)", count: 10).joined(separator: ","))]\n"
                }
                .joined() + "? *i\n: x\n"
        ),
        ("a name of 1000 letters", String(repeating: "x", count: 1000) + ": 1"),
    ]

    @Test(arguments: bombs.indices)
    func isRefusedAtOnce(_ index: Int) async throws {
        let (name, text) = Self.bombs[index]
        var found = "accepted"
        let seconds = await Cost.seconds {
            do { _ = try SettingsFile(path: "f.yaml", text: text) } catch { found = "\(error)" }
        }
        #expect(found.hasPrefix("f.yaml:") && found.contains("expected"), "\(found.prefix(300))")
        #expect(
            Field.row(
                "daemon.8", "a configuration file with \(name)", expected: "refused within a second of CPU",
                found: seconds < 1 ? "refused within a second of CPU" : "\(seconds) s"))
    }

    /// What people write is not taken for a bomb.
    @Test func remarksMayHaveAnything() throws {
        let line = "# --- [x] {y} *** &c - - - ? ? ? " + String(repeating: "*", count: 100) + "\n"
        let text =
            "    # indented - remark\n" + String(repeating: line, count: 100) + "log-file: '/a[1]{2}*&'  # - - - [see] *this*\n"
        #expect(try SettingsFile(path: "f.yaml", text: text).values["log-file"] == "/a[1]{2}*&")
    }
}
