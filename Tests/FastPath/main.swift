// The fast paths as a program would use them, for those who count their instructions: an object dump of the loops below, and
// callgrind on `FastPath lane|shard PAIRS`.

import Admission
import Glibc

@inline(never)
func lanePairs(_ lane: borrowing Lane, _ count: Int) {
    for _ in 0..<count { lane.release(lane.admit()) }
}

@inline(never)
func shardPairs(_ pool: Pool, _ count: Int) {
    for _ in 0..<count { pool.admit().end() }
}

@inline(never)
func laneRefusals(_ lane: borrowing Lane, _ count: Int) {
    for _ in 0..<count { _ = lane.admit().detach() }
}

let arguments = CommandLine.arguments
guard arguments.count == 3, let count = Int(arguments[2]), ["lane", "shard", "refusal"].contains(arguments[1]) else {
    print("usage: FastPath lane|shard|refusal COUNT")
    exit(2)
}
let path = "/dev/shm/fpx-fastpath.\(getpid())"
do {
    try Segment.create(path: path)
    let segment = try Segment.attach(path: path)
    unlink(path)  // the mapping is all that is needed
    let pool = try segment.pool(0)
    try pool.setCap(arguments[1] == "refusal" ? 0 : 100_000)
    pool.policy = .block
    let lane = try segment.openLane(pool: 0)
    switch arguments[1] {
    case "lane": lanePairs(lane, count)
    case "shard": shardPairs(pool, count)
    default: laneRefusals(lane, count)
    }
    let inUse = pool.snapshot().inUse
    print("\(arguments[1]) \(count) \(segment.fenceMode) in use \(inUse)")
    exit(inUse == 0 ? 0 : 1)
} catch {
    print(error)
    exit(1)
}
