import Foundation

/// The descriptors of this process.
public enum Descriptors {
    public static var count: Int {
        get throws {
            // The one that reads the folder is none of them.
            try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count - 1
        }
    }

    /// How many more descriptors are open after some work than before it; 0: it gives back what it takes.
    ///
    /// Other tests may open and close theirs meanwhile, so work that seems to keep some is done again, up to five times.
    public static func kept(by work: () throws -> Void) throws -> Int {
        try work()  // what is opened once and for all
        var kept = 0
        for _ in 0..<5 {
            let before = try count
            try work()
            kept = try count - before
            if kept == 0 { break }
        }
        return kept
    }

    /// Does some work while so many descriptors more are open. Its limit of them is raised if need be.
    public static func with(_ number: Int, _ work: () throws -> Void) throws {
        struct TooFew: Error { let errno: Int32 }
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        let former = limit
        limit.rlim_cur = max(limit.rlim_cur, rlim_t(try count + number + 100))
        limit.rlim_max = max(limit.rlim_max, limit.rlim_cur)
        guard setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { throw TooFew(errno: errno) }
        var open: [Int32] = []
        defer {
            for descriptor in open { close(descriptor) }
            var former = former
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &former)
        }
        for _ in 0..<number {
            let descriptor = Glibc.open("/dev/null", O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { throw TooFew(errno: errno) }
            open.append(descriptor)
        }
        try work()
    }
}
