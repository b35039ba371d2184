// Where a segment's pages lie on a machine with several memory nodes.

public import Admission
import CNUMA

extension Segment {
    /// Asks the kernel to keep each CPU's shards on that CPU's node. Call it once, after the segment was made and before others
    /// attach: pages that have been touched stay where they are.
    ///
    /// - Returns: how many CPUs' shards were placed; 0 on a machine with one node or without NUMA.
    @discardableResult
    public func placeShardsOnNodes() -> Int {
        guard numa_available() >= 0, numa_max_node() > 0, let mask = unsafe numa_allocate_nodemask() else { return 0 }
        defer { unsafe numa_bitmask_free(mask) }
        var placed = 0
        for cpu in 0..<cpus {
            let node = numa_node_of_cpu(Int32(cpu))
            guard node >= 0 else { continue }
            unsafe numa_bitmask_clearall(mask)
            unsafe numa_bitmask_setbit(mask, UInt32(node))
            let region = unsafe shardRegion(cpu: cpu)
            // Preferred, not bound: a full node must not make an admission fail. The kernel reads one bit less than it is told.
            let code = unsafe mbind(
                region.baseAddress, UInt(region.count), MPOL_PREFERRED, mask.pointee.maskp, mask.pointee.size + 1, 0)
            if code == 0 { placed += 1 }
        }
        return placed
    }
}
