// Ratio: what is promised, as quotients of scenarios.

struct Ratio {
    struct Place {
        let scenario: String
        var threads = 1
        var processes = 1
    }

    enum Target {
        case atMost(must: Double, aim: Double)
        case atLeast(must: Double, aim: Double)
        case none
    }

    let name: String
    let about: String
    let over: Place
    let under: Place
    let target: Target
    private(set) var value = Double.nan
    private(set) var rounds = 0

    init(_ name: String, _ about: String, _ over: Place, _ under: Place, _ target: Target) {
        self.name = name
        self.about = about
        self.over = over
        self.under = under
        self.target = target
    }

    /// The median over the rounds in which both windows are good. Where there are too few such, the quotient of the medians.
    func filled(_ over: [Window], _ under: [Window]) -> Ratio {
        let pairs = zip(over, under).filter { !$0.disturbed && !$1.disturbed }
        var filled = self
        filled.rounds = pairs.count
        filled.value =
            pairs.count >= min(10, (over.count + 4) / 5)
            ? Spread(pairs.map { $0.nanoseconds / $1.nanoseconds }).median
            : Spread(over.kept.map(\.nanoseconds)).median / Spread(under.kept.map(\.nanoseconds)).median
        return filled
    }

    var verdict: String {
        switch target {
        case .atMost(let must, let aim): value <= aim ? "aim met" : value <= must ? "met" : "NOT MET"
        case .atLeast(let must, let aim): value >= aim ? "aim met" : value >= must ? "met" : "NOT MET"
        case .none: ""
        }
    }

    var targetText: (must: String, aim: String) {
        switch target {
        case .atMost(let must, let aim): ("<= \(must)", "<= \(aim)")
        case .atLeast(let must, let aim): (">= \(must)", ">= \(aim)")
        case .none: ("", "")
        }
    }

    static let wanted: [Ratio] = {
        let floor = Place(scenario: "floor")
        let memory = Place(scenario: "memory")
        let lane = Place(scenario: "lane")
        let shard = Place(scenario: "shard")
        func two(_ name: String) -> Place { Place(scenario: name, threads: 2) }
        let limit = Target.atMost(must: 2, aim: 1.2)
        let refusal = Target.atMost(must: 2, aim: 1.1)
        let steal = Target.atMost(must: 4, aim: 2)
        return [
            Ratio("lane_vs_floor", "lane / floor", lane, floor, .atMost(must: 1.15, aim: 0.8)),
            Ratio("shard_vs_floor", "shard / floor", shard, floor, .atMost(must: 1.2, aim: 0.95)),
            Ratio(
                "lane_2p_vs_floor", "lane / floor, both in 2 processes", Place(scenario: "lane", processes: 2),
                Place(scenario: "floor", processes: 2), .atMost(must: 1.2, aim: 1)),
            Ratio("lane_vs_memory", "lane / memory", lane, memory, .none),
            Ratio("shard_vs_memory", "shard / memory", shard, memory, .none),
            Ratio("lock_vs_lane", "lock_xadd / lane", Place(scenario: "lock_xadd"), lane, .atLeast(must: 3, aim: 4)),
            Ratio(
                "shared_cas_vs_lane_2t", "shared_cas / lane, 2 threads", two("shared_cas"), two("lane"),
                .atLeast(must: 25, aim: 40)),
            Ratio(
                "atomic_limit_counter_vs_lane", "limit_atomic / lane", Place(scenario: "limit_atomic"), lane,
                .atLeast(must: 5, aim: 9)),
            Ratio(
                "sysv_vs_lane", "sysv_semaphore / lane", Place(scenario: "sysv_semaphore"), lane,
                .atLeast(must: 100, aim: 150)),
            Ratio("refusal_vs_floor", "lane refused / floor pair", Place(scenario: "lane_refusal"), floor, refusal),
            Ratio("shard_refusal_vs_floor", "shard refused / floor pair", Place(scenario: "shard_refusal"), floor, refusal),
            Ratio(
                "at_limit_vs_shared_cas", "lane / shared_cas at cap 100, 2 threads", two("lane_limit_100"),
                two("shared_cas_limit_100"), limit),
            Ratio(
                "at_limit_10000_vs_shared_cas", "lane / shared_cas at cap 10000, 2 threads", two("lane_limit_10000"),
                two("shared_cas_limit_10000"), limit),
            Ratio(
                "shard_at_limit_vs_shared_cas", "shard / shared_cas at cap 100, 2 threads", two("shard_limit_100"),
                two("shared_cas_limit_100"), limit),
            Ratio(
                "shard_at_limit_10000_vs_shared_cas", "shard / shared_cas at cap 10000, 2 threads",
                two("shard_limit_10000"), two("shared_cas_limit_10000"), limit),
            Ratio(
                "steal_running_vs_membarrier", "steal / membarrier, other runs",
                Place(scenario: "steal_running", processes: 2), Place(scenario: "membarrier_running", processes: 2), steal),
            Ratio(
                "steal_stopped_vs_membarrier", "steal / membarrier, other is stopped",
                Place(scenario: "steal_stopped", processes: 2), Place(scenario: "membarrier_stopped", processes: 2), steal),
            Ratio(
                "sharing_vs_lane", "lane while seats are shared / lane", Place(scenario: "lane_sharing"), lane,
                .atMost(must: 1.1, aim: 1.03)),
            Ratio(
                "borrowed_vs_pool", "lane on borrowed seats / lane by the pool", Place(scenario: "lane_borrowed"),
                Place(scenario: "lane_cap_3"), .atMost(must: 5, aim: 3)),
            Ratio("c_lane_vs_lane", "C lane / lane", Place(scenario: "c_lane"), lane, .atMost(must: 1.5, aim: 1.25)),
        ]
    }()
}
