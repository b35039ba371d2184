import Foundation

/// The words of the command line, as the kernel has them.
///
/// `CommandLine` looks for them before the environment, where the kernel has put both; a library that is loaded before the
/// program (LD_PRELOAD) may have moved the environment elsewhere, and then all words are lost.
package enum ProgramArguments {
    /// More than the kernel lets a program have.
    private static let bytesMax = 8 << 20

    /// The program's own name first.
    package static let all: [String] = read("/proc/self/cmdline") ?? CommandLine.arguments

    /// All but the program's name.
    package static var words: [String] { Array(all.dropFirst()) }

    /// - Returns: nil: there is no such file, or it is none of words.
    package static func read(_ path: String) -> [String]? {
        guard let file = FileHandle(forReadingAtPath: path), let bytes = try? file.read(upToCount: bytesMax), bytes.last == 0
        else { return nil }
        return bytes.dropLast().split(separator: 0, omittingEmptySubsequences: false).map {
            String(decoding: $0, as: UTF8.self)
        }
    }
}
