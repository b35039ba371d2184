// Check: the questions, one line for each answer.

import Admission
import AdmissionNUMA
import Glibc
import Synchronization

enum Check {
    private static let passed = Atomic(0)
    private static let failed = Atomic(0)

    /// - Parameter quiet: say something only when it does not hold.
    static func expect(_ holds: Bool, _ what: String, quiet: Bool = false) {
        if holds { passed.add(1, ordering: .relaxed) } else { failed.add(1, ordering: .relaxed) }
        if !holds || !quiet { print(holds ? "ok      \(what)" : "FAILED  \(what)") }
    }

    static func expect<T: Equatable>(_ found: T, _ expected: T, _ what: String) {
        expect(found == expected, "\(what): \(found)" + (found == expected ? "" : ", expected \(expected)"))
    }

    /// - Parameter summary: whether this is the process that was asked, and not one of its children.
    static func finish(summary: Bool) -> Never {
        let failures = failed.load(ordering: .relaxed)
        if summary { print("\(passed.load(ordering: .relaxed)) passed, \(failures) failed") }
        exit(failures == 0 ? 0 : 1)
    }

    static func all(unplug: Bool) throws {
        let nodes = Machine.nodes.map { node in
            (node, Machine.cpus.filter { Machine.nodeOfCPU[$0] == node })
        }
        print("memory nodes and their CPUs: \(nodes.map { "\($0): \($1)" }.joined(separator: ", "))")
        expect(nodes.count(where: { !$1.isEmpty }) >= 2, "two memory nodes with CPUs are seen")
        try placement()
        try control()
        try late()
        try confined()
        if unplug {
            try offline()
            try Churn.check()
            try full()
        }
    }

    // MARK: - Placement

    static let first = Machine.cpus.first { Machine.nodeOfCPU[$0] == Machine.nodes.first } ?? 0
    static let last = Machine.cpus.last ?? 0

    static func placement() throws {
        let path = try makeSegment("placed")
        defer { unlink(path) }
        let segment = try Segment.attach(path: path)
        expect(segment.cpus, Machine.cpus.count, "CPUs that have shards")
        expect(segment.placeShardsOnNodes(), segment.cpus, "CPUs whose shards were placed")
        let pages = pagesOfCPU(segment)
        // Three ways for a page to come into being: a session on its own CPU, a touch by this process on another node's CPU, and
        // a touch by another process there, which has not asked for anything.
        let pool = try segment.pool(0)
        let sessions = 20
        try pool.setCap(1000 * Machine.cpus.count)
        pool.policy = .block
        for cpu in Machine.cpus {
            let admitted = Machine.on(cpu) { (0..<sessions).count { _ in pool.admit().detach() == .inspect } }
            expect(admitted, sessions, "sessions admitted on CPU \(cpu)")
        }
        for cpu in Machine.cpus {
            // All but those that came with a refill from the pool.
            let fast = pool.writers().filter { $0.kind == .shard(cpu: cpu) }.map(\.fastAdmissions)
            expect(fast.count == 1 && fast[0] > 0, "of them in the shard of CPU \(cpu), by the fast path: \(fast)")
        }
        report(segment, 0..<1, "after sessions on each CPU")
        Machine.on(first) { touch(segment, 1..<pages / 2) }
        report(segment, 1..<pages / 2, "touched first on CPU \(first)")
        let status = Machine.on(first) { Machine.run(["touch", path, "\(pages / 2)", "\(pages)"]) }
        expect(status, 0, "another process, on CPU \(first), ended with")
        touch(segment, pages / 2..<pages)
        report(segment, pages / 2..<pages, "touched first by another process on CPU \(first)")
        Machine.on(last) {
            for _ in 0..<sessions * Machine.cpus.count { pool.release(.inspect) }
        }
        expect(pool.snapshot().inUse, 0, "sessions in use after all were released on CPU \(last)")
    }

    static func touchAsAnother(_ path: String, _ begin: Int, _ end: Int) throws {
        let segment = try Segment.attach(path: path)
        touch(segment, begin..<end)
        report(segment, begin..<end, "as another process sees them")
    }

    /// Without placement a page lies where it was touched first: the check above does check something.
    static func control() throws {
        let path = try makeSegment("control")
        defer { unlink(path) }
        let segment = try Segment.attach(path: path)
        for (cpu, pages) in [(first, 0..<4), (last, 4..<8)] {
            Machine.on(cpu) { touch(segment, pages) }
            let node = Machine.nodeOfCPU[cpu] ?? -1
            for other in Machine.cpus {
                expect(
                    Machine.nodes(of: segment.shardRegion(cpu: other), pages: pages), pages.map { _ in node },
                    "control, no placement: nodes of CPU \(other)'s pages touched first on CPU \(cpu)")
            }
        }
    }

    /// Pages that have been touched stay where they are, as the function says.
    static func late() throws {
        let path = try makeSegment("late")
        defer { unlink(path) }
        let segment = try Segment.attach(path: path)
        Machine.on(first) { touch(segment, 0..<1) }
        expect(segment.placeShardsOnNodes(), segment.cpus, "CPUs whose shards were placed after a touch")
        let there = Machine.nodes(of: segment.shardRegion(cpu: last), pages: 0..<1)
        expect(there, [Machine.nodeOfCPU[first] ?? -1], "node of CPU \(last)'s page that was touched before")
        Machine.on(first) { touch(segment, 1..<2) }
        report(segment, 1..<2, "touched after a late placement")
    }

    /// Creates the pages, changing nothing: a locked exchange of 0 for 0 counts as a store.
    private static func touch(_ segment: Segment, _ pages: Range<Int>) {
        for cpu in Machine.cpus {
            for page in pages {
                _ = Word(segment.shardRegion(cpu: cpu).baseAddress!, at: page * Machine.pageBytes)
                    .compareExchange(0, 0)
            }
        }
    }

    private static func report(_ segment: Segment, _ pages: Range<Int>, _ when: String) {
        for cpu in Machine.cpus {
            let found = Machine.nodes(of: segment.shardRegion(cpu: cpu), pages: pages)
            let node = Machine.nodeOfCPU[cpu] ?? -1
            let wrong = found.filter { $0 != node }
            expect(
                wrong.isEmpty,
                "CPU \(cpu)'s pages, \(when): \(found.count - wrong.count) of \(found.count) on node \(node)"
                    + (wrong.isEmpty ? "" : ", others on \(Set(wrong).sorted())"))
        }
    }

    private static func pagesOfCPU(_ segment: Segment) -> Int { segment.shardRegion(cpu: 0).count / Machine.pageBytes }

    static func makeSegment(_ name: String) throws -> String {
        let path = "/dev/shm/fpx-numa-\(name).\(getpid())"
        try Segment.create(path: path)
        return path
    }

    // MARK: - CPUs that are not seen

    /// A process that may run on one CPU only makes a segment for all, and places all.
    static func confined() throws {
        let path = "/dev/shm/fpx-numa-confined.\(getpid())"
        let byAffinity = Machine.on(first) { Machine.run(["create", path]) }
        expect(byAffinity, 0, "a process pinned to CPU \(first) ended with")
        let group = "/sys/fs/cgroup/fpx-numa.\(getpid())"
        guard Machine.write("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset"), mkdir(group, 0o755) == 0,
            Machine.write("\(group)/cpuset.cpus", "\(first)")
        else { return expect(false, "a cpuset with CPU \(first) can be made") }
        defer { rmdir(group) }
        expect(Machine.run(["create", path, group]), 0, "a process in a cpuset with CPU \(first) ended with")
    }

    static func createConfined(_ path: String, cgroup: String?) throws {
        if let cgroup { expect(Machine.write("\(cgroup)/cgroup.procs", "\(getpid())"), "joined \(cgroup)") }
        expect(Machine.allowedCPUs, [first], "CPUs that the process may run on")
        try Segment.create(path: path)
        defer { unlink(path) }
        let segment = try Segment.attach(path: path)
        expect(segment.cpus, Machine.cpus.count, "CPUs that have shards in its segment")
        expect(segment.placeShardsOnNodes(), Machine.cpus.count, "CPUs whose shards it has placed")
        touch(segment, 0..<4)
        report(segment, 0..<4, "touched first in it")
    }

    /// A process that starts while a CPU is off line makes a segment with shards for it too.
    static func offline() throws {
        expect(Machine.setOnline(last, false), "CPU \(last) goes off line")
        let path = "/dev/shm/fpx-numa-offline.\(getpid())"
        expect(Machine.run(["offline", path]), 0, "a process that was started meanwhile ended with")
        defer { unlink(path) }
        expect(Machine.setOnline(last, true), "CPU \(last) comes back")
        let segment = try Segment.attach(path: path)
        let pool = try segment.pool(0)
        try pool.setCap(100)
        let admitted = Machine.on(last) { (0..<20).count { _ in pool.admit().detach() == .inspect } }
        expect(admitted, 20, "sessions admitted on CPU \(last) in the segment made while it was off line")
        expect(
            pool.writers().contains { $0.kind == .shard(cpu: last) && $0.fastAdmissions > 0 },
            "some of them in its shard, by the fast path")
        let page = Machine.nodes(of: segment.shardRegion(cpu: last), pages: 0..<1)
        expect(page, [Machine.nodeOfCPU[last] ?? -1], "node of that shard's page")
    }

    static func createWhileOffline(_ path: String) throws {
        try Segment.create(path: path)
        let segment = try Segment.attach(path: path)
        expect(segment.cpus, Machine.cpus.count, "CPUs that have shards, with CPU \(last) off line")
        print("note    CPUs whose shards were placed, with CPU \(last) off line: \(segment.placeShardsOnNodes())")
    }

    // MARK: - Memory that is full

    /// Placement is a preference: where a node has no memory left, its CPUs' pages lie elsewhere and admissions go on.
    static func full() throws {
        let node = Machine.nodeOfCPU[last] ?? -1
        let path = try makeSegment("full")
        defer { unlink(path) }
        let segment = try Segment.attach(path: path)
        expect(segment.placeShardsOnNodes(), segment.cpus, "CPUs whose shards were placed before node \(node) was filled")
        guard let hog = Machine.fill(node: node) else { return expect(false, "node \(node) can be filled") }
        defer { munmap(hog.baseAddress, hog.count) }
        let lastPage = hog.count / Machine.pageBytes - 1
        let spilled = Machine.nodes(of: hog, pages: lastPage..<lastPage + 1)
        expect(spilled.allSatisfy { $0 >= 0 && $0 != node }, "node \(node) is full: the next page lay on \(spilled)")
        let pool = try segment.pool(0)
        try pool.setCap(100)
        pool.policy = .block
        let admitted = Machine.on(last) { (0..<20).count { _ in pool.admit().detach() == .inspect } }
        expect(admitted, 20, "sessions admitted on CPU \(last) of the full node")
        touch(segment, 0..<pagesOfCPU(segment))
        let found = Machine.nodes(of: segment.shardRegion(cpu: last), pages: 0..<pagesOfCPU(segment))
        let there = Machine.nodes.map { node in "\(found.count { $0 == node }) on node \(node)" }
        expect(found.allSatisfy { $0 >= 0 }, "CPU \(last)'s pages exist: \(there.joined(separator: ", "))")
    }
}
