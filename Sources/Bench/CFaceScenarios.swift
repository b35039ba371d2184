// The C face, called as C calls it: the lane's inline functions, and the two ways that are real calls.

import AdmissionC
import CAdmission

@inline(never)
func cLanePairs(_ lane: UnsafeMutablePointer<fpx_lane>, _ n: Int) {
    for _ in 0..<n { fpx_lane_release(lane, fpx_lane_admit(lane)) }
}

@inline(never)
func cPoolPairs(_ segment: OpaquePointer, _ n: Int) -> Int32 {
    var worst: Int32 = 0
    for _ in 0..<n { worst = min(worst, fpx_pool_release(segment, 0, fpx_pool_admit(segment, 0))) }
    return worst
}

@inline(never)
func cHandlePairs(_ segment: OpaquePointer, _ n: Int) -> Int32 {
    var worst: Int32 = 0
    for _ in 0..<n {
        var session: fpx_session = 0
        var verdict = FPX_BLOCK
        worst = min(worst, fpx_admit(segment, 0, &session, &verdict))
        worst = min(worst, fpx_release(segment, session))
    }
    return worst
}

final class CFaceJob: Job {
    enum Run { case lane, pool, handle }

    let segment: OpaquePointer
    let lane: UnsafeMutablePointer<fpx_lane>
    let run: Run

    init(_ segment: OpaquePointer, run: Run) throws {
        self.segment = segment
        self.run = run
        var lane: UnsafeMutablePointer<fpx_lane>?
        guard fpx_lane_open(segment, 0, &lane) == FPX_OK, let lane else {
            throw BenchFailure(String(cString: fpx_last_error()))
        }
        self.lane = lane
    }

    func run(units: Int, seed: UInt64) -> UInt64 {
        var code: Int32 = 0
        switch run {
        case .lane: cLanePairs(lane, units)
        case .pool: code = cPoolPairs(segment, units)
        case .handle: code = cHandlePairs(segment, units)
        }
        if code != FPX_OK { fatalError("the C face failed: \(code)") }
        return 0
    }

    func finish() { fpx_lane_close(lane) }
}

func cFaceScenarios(_ settings: Settings) -> [Scenario] {
    let kinds: [(String, String, CFaceJob.Run)] = [
        ("c_lane", "C face: fpx_lane_admit, inlined", .lane),
        ("c_pool", "C face: fpx_pool_admit, two calls", .pool),
        ("c_handle", "C face: fpx_admit, with a checked handle", .handle),
    ]
    return Shape.all(cpus: settings.cpus).flatMap { shape in
        kinds.map { name, about, run in
            engineScenario(name, about: about, shape, cap: settings.cap) { file, post in
                try CFaceJob(try post.resources.cSegment(file), run: run)
            }
        }
    }
}
