import Admission
import Foundation
func now() -> Double { var t = timespec(); clock_gettime(CLOCK_MONOTONIC, &t); return Double(t.tv_sec)*1e9+Double(t.tv_nsec) }
@inline(never) func lanePairs(_ lane: borrowing Lane, _ n: Int) { for _ in 0..<n { lane.release(lane.admit()) } }
@inline(never) func shardPairs(_ pool: Pool, _ n: Int) { for _ in 0..<n { pool.admit().end() } }
@inline(never) func handlePairs(_ s: Segment, _ pool: Pool, _ n: Int) { for _ in 0..<n { let h = try! s.handle(pool.admit())!; try! s.release(h) } }
let path = "/dev/shm/fpx.quick"
unlink(path)
try Segment.create(path: path)
let s = try Segment.attach(path: path)
let pool = try s.pool(0)
try pool.setCap(100000)
let lane = try s.openLane(pool: 0)
func m(_ name: String, _ n: Int, _ f: () -> Void) { var a:[Double]=[]; for _ in 0..<31 { let t=now(); f(); a.append((now()-t)/Double(n)) }; a.sort(); print(name, a[3], a[15], a[27]) }
m("lane", 200000) { lanePairs(lane, 200000) }
m("shard", 200000) { shardPairs(pool, 200000) }
m("handle", 50000) { handlePairs(s, pool, 50000) }
print(pool.snapshot())
try pool.setCap(3)
m("lane cap 3", 50000) { lanePairs(lane, 50000) }
m("shard cap 3", 50000) { shardPairs(pool, 50000) }
pool.policy = .block
try pool.setCap(0)
m("refusal lane", 100000) { lanePairs(lane, 100000) }
m("refusal shard", 100000) { shardPairs(pool, 100000) }
print(pool.snapshot())
unlink(path)
