// Host: what the figures depend on.

import Admission
import CAdmission
import Glibc

struct Host: Codable {
    let cpu: String
    let cpus: Int
    let kernel: String
    let libc: String
    let virtualization: String
    let restartableSequences: Bool
    let membarrier: Bool
    let governor: String
    let clockSource: String
    let loadAverage: String
    let compiler: String
    let optimized: Bool
    let timerNanoseconds: UInt64

    static func look() -> Host {
        let information = text(of: "/proc/cpuinfo") ?? ""
        func field(_ name: String) -> String? {
            information.split(separator: "\n").first { $0.hasPrefix(name) }?.split(separator: ":", maxSplits: 1).last
                .map(trimmed)
        }
        var system = utsname()
        uname(&system)
        let machine = withUnsafeBytes(of: &system.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let release = withUnsafeBytes(of: &system.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let family = field("cpu family").map { " (family \($0), model \(field("model\t") ?? "?"))" } ?? ""
        let isGuest = field("flags")?.split(separator: " ").contains("hypervisor") ?? false
        return Host(
            cpu: (field("model name") ?? machine) + family,
            cpus: allowedCPUs().count, kernel: "Linux \(release) \(machine)", libc: "glibc \(libcVersion())",
            virtualization: isGuest
                ? "virtual machine" + (text(of: "/sys/class/dmi/id/product_name").map { ": \(trimmed($0))" } ?? "")
                : "none visible",
            restartableSequences: fpx_rseq_is_registered(), membarrier: FenceMode.best == .membarrier,
            governor: text(of: "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").map(trimmed) ?? "not visible",
            clockSource: text(of: "/sys/devices/system/clocksource/clocksource0/current_clocksource").map(trimmed)
                ?? "not visible",
            loadAverage: (text(of: "/proc/loadavg") ?? "").split(separator: " ").prefix(3).joined(separator: " "),
            compiler: compiler, optimized: isOptimized, timerNanoseconds: timerCost)
    }

    private static func trimmed(_ text: some StringProtocol) -> String {
        String(text.drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed())
    }

    private static func text(of path: String) -> String? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 16384)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }

    private static func libcVersion() -> String {
        typealias Function = @convention(c) () -> UnsafePointer<CChar>
        guard let symbol = dlsym(nil, "gnu_get_libc_version") else { return "unknown" }
        return String(cString: unsafeBitCast(symbol, to: Function.self)())
    }

    private static var compiler: String {
        #if compiler(>=6.4)
            "Swift 6.4 or later"
        #elseif compiler(>=6.3)
            "Swift 6.3"
        #else
            "Swift 6.2"
        #endif
    }

    private static var isOptimized: Bool {
        var checked = false
        // Asserts are compiled in debug builds alone.
        assert(
            {
                checked = true; return true
            }())
        return !checked
    }
}
