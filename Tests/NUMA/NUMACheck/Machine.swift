// Machine: its CPUs and memory nodes, read from the kernel and not from what is being checked.

import CNUMA
import Glibc

enum Machine {
    /// CPUs that exist, on line or not.
    static let cpus = list("/sys/devices/system/cpu/present")
    /// Nodes that have memory.
    static let nodes = list("/sys/devices/system/node/has_memory")
    /// Each CPU's node when the program began.
    static let nodeOfCPU: [Int: Int] = {
        var nodeOfCPU: [Int: Int] = [:]
        for node in list("/sys/devices/system/node/online") {
            for cpu in list("/sys/devices/system/node/node\(node)/cpulist") { nodeOfCPU[cpu] = node }
        }
        return nodeOfCPU
    }()
    static var allowedCPUs: [Int] {
        let mask = numa_allocate_cpumask()!
        defer { numa_bitmask_free(mask) }
        numa_sched_getaffinity(0, mask)
        return cpus.filter { numa_bitmask_isbitset(mask, UInt32($0)) != 0 }
    }

    /// Pins the calling thread. False: none of the CPUs is on line.
    @discardableResult
    static func pin(_ cpus: [Int]) -> Bool {
        let mask = numa_allocate_cpumask()!
        defer { numa_bitmask_free(mask) }
        for cpu in cpus { numa_bitmask_setbit(mask, UInt32(cpu)) }
        return numa_sched_setaffinity(0, mask) == 0
    }

    static func on<T>(_ cpu: Int, _ body: () throws -> T) rethrows -> T {
        Check.expect(pin([cpu]), "the thread runs on CPU \(cpu)", quiet: true)
        defer { pin(cpus) }
        return try body()
    }

    static func setOnline(_ cpu: Int, _ online: Bool) -> Bool {
        write("/sys/devices/system/cpu/cpu\(cpu)/online", online ? "1" : "0")
    }

    /// The node on which each page lies: negative where this process has not touched it (-errno).
    static func nodes(of region: UnsafeMutableRawBufferPointer, pages: Range<Int>) -> [Int] {
        var addresses = pages.map { Optional(region.baseAddress! + $0 * pageBytes) }
        var status = [Int32](repeating: -1, count: addresses.count)
        let code = move_pages(0, UInt(addresses.count), &addresses, nil, &status, 0)
        return code == 0 ? status.map(Int.init) : status.map { _ in -1000 }
    }

    /// Takes the memory that a node has left, and 16 MB more, which must come from elsewhere.
    static func fill(node: Int) -> UnsafeMutableRawBufferPointer? {
        var free: Int64 = 0
        guard numa_node_size64(Int32(node), &free) > 0 else { return nil }
        let bytes = (Int(free) + (16 << 20)) & ~(pageBytes - 1)
        let memory = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let memory, memory != MAP_FAILED else { return nil }
        numa_set_bind_policy(0)
        numa_tonode_memory(memory, bytes, Int32(node))
        memset(memory, 1, bytes)
        return UnsafeMutableRawBufferPointer(start: memory, count: bytes)
    }

    static let pageBytes = Int(getpagesize())

    /// Starts this program again and says how it ended; 0: well.
    static func run(_ arguments: [String]) -> Int32 {
        var words = (["NUMACheck"] + arguments).map { strdup($0) } + [nil]
        defer { words.forEach { free($0) } }
        fflush(nil)
        var child: pid_t = 0
        guard posix_spawn(&child, "/proc/self/exe", nil, nil, &words, environ) == 0 else { return -1 }
        var status: Int32 = -1
        while waitpid(child, &status, 0) != child {}
        return status
    }

    static func write(_ path: String, _ text: String) -> Bool {
        let file = open(path, O_WRONLY)
        guard file >= 0 else { return false }
        defer { close(file) }
        return Glibc.write(file, text, text.utf8.count) == text.utf8.count
    }

    /// A list of numbers as the kernel writes it: 0-3,8.
    private static func list(_ path: String) -> [Int] {
        guard let file = fopen(path, "r") else { return [] }
        defer { fclose(file) }
        var line = [UInt8](repeating: 0, count: 4096)
        let length = fread(&line, 1, line.count, file)
        let text = String(decoding: line.prefix(length), as: UTF8.self)
        return text.split { !$0.isNumber && $0 != "-" }.flatMap { part -> [Int] in
            let ends = part.split(separator: "-").compactMap { Int($0) }
            guard let first = ends.first, let last = ends.last else { return [] }
            return Array(first...last)
        }
    }
}
