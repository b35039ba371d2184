// Resources: what the jobs of one process have in common, one attachment or mapping for each scenario.

import Admission
import CAdmission
import CRivals
import Glibc

/// Files of a run are called `prefix` and something. A process' workers prepare and finish one at a time, so nothing here is
/// locked.
final class Resources: @unchecked Sendable {
    let prefix: String
    private var segments: [String: Segment] = [:]
    private var cSegments: [String: OpaquePointer] = [:]
    private var mappings: [String: UnsafeMutableRawPointer] = [:]
    /// What the latency scenarios have found, by name.
    var latencies: [String: LatencyHistograms] = [:]

    init(prefix: String) { self.prefix = prefix }

    func path(_ name: String) -> String { "\(prefix).\(name.map { $0 == " " ? "_" : $0 }.map(String.init).joined())" }

    /// Makes a segment with one pool in use.
    func create(_ name: String, cap: Int, fenceMode: FenceMode) throws {
        try Segment.create(path: path(name), fenceMode: fenceMode)
        let segment = try Segment.attach(path: path(name))
        let pool = try segment.pool(0)
        try pool.setCap(cap)
        pool.policy = .block
        segment.detach()
    }

    /// This process' attachment to the segment of a scenario.
    func segment(_ name: String) throws -> Segment {
        if let segment = segments[name] { return segment }
        let segment = try Segment.attach(path: path(name))
        segments[name] = segment
        return segment
    }

    /// The same through the C face, which is an attachment of its own.
    func cSegment(_ name: String) throws -> OpaquePointer {
        if let segment = cSegments[name] { return segment }
        var segment: OpaquePointer?
        guard fpx_attach(path(name), &segment) == FPX_OK, let segment else {
            throw BenchFailure(String(cString: fpx_last_error()))
        }
        cSegments[name] = segment
        return segment
    }

    /// The memory that a rival shares between its workers.
    func mapping(_ name: String, bytes: Int, create: Bool) throws -> UnsafeMutableRawPointer {
        if let memory = mappings[name] { return memory }
        let memory = try mapShared(path(name), bytes: (bytes + 4095) & ~4095, create: create)
        mappings[name] = memory
        return memory
    }

    func remove(_ name: String) { unlink(path(name)) }
}

/// Removes files of runs that were killed.
func removeStaleFiles() {
    guard let directory = opendir("/dev/shm") else { return }
    defer { closedir(directory) }
    while let entry = readdir(directory) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        guard name.hasPrefix("fpx-bench."), let pid = Int32(name.split(separator: ".")[1]) else { continue }
        if pid == getpid() || kill(pid, 0) != 0 && errno == ESRCH { unlink("/dev/shm/\(name)") }
    }
}
