// Clock: what a unit's processes take for the time. Its CLOCK_BOOTTIME may be ahead of the host's (a time namespace) and run faster
// or slower (a small library that is loaded before the C library); its wall clock is set at will. The oracle knows all of it.

import Foundation

struct UnitClock: Sendable {
    /// Ahead of the host's, by a time namespace.
    let bootSeconds: Int
    /// Parts per million that it runs too fast.
    let rate: Int
    /// The host's CLOCK_BOOTTIME at which it was right, but for `bootSeconds`.
    let base: Int64

    /// What the unit's CLOCK_BOOTTIME shows.
    func reading(at host: Int64) -> Int64 {
        host + Int64(bootSeconds) * second + (host - base) * Int64(rate) / 1_000_000
    }

    /// - Parameters:
    ///   - library: from `build`.
    ///   - wall: a file whose first eight bytes are what the wall clock is ahead, in nanoseconds.
    func environment(library: String, wall: String) -> [String: String] {
        ["LD_PRELOAD": library, "CHAOS_CLOCK": "\(base + Int64(bootSeconds) * second) \(rate) \(wall)"]
    }

    /// Compiles the library.
    static func build(in folder: String) throws(ChaosError) -> String {
        let source = folder + "/clock.c"
        do { try text.write(toFile: source, atomically: true, encoding: .utf8) } catch {
            throw .notReady(what: source, log: "\(error)")
        }
        try must(["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", source, "-o", folder + "/clock.so", "-ldl"], within: 60)
        return folder + "/clock.so"
    }

    private static let text = """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <fcntl.h>
        #include <stdint.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/mman.h>
        #include <sys/time.h>
        #include <time.h>
        #include <unistd.h>

        static int (*real)(clockid_t, struct timespec *);
        static long long base;
        static int rate;
        static const volatile int64_t *wall;

        __attribute__((constructor)) static void begin(void) {
            char path[512] = "";
            const char *text = getenv("CHAOS_CLOCK");
            real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
            if (!text || sscanf(text, "%lld %d %511s", &base, &rate, path) != 3) _exit(125);
            int file = open(path, O_RDONLY | O_CLOEXEC);
            void *memory = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
            if (file < 0 || memory == MAP_FAILED) _exit(125);
            close(file);
            wall = memory;
        }

        int clock_gettime(clockid_t clock, struct timespec *time) {
            if (!real) begin();
            int result = real(clock, time);
            if (result != 0) return result;
            int64_t now = (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
            if (clock == CLOCK_BOOTTIME) now += (now - base) * rate / 1000000;
            else if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now += *wall;
            else return 0;
            time->tv_sec = now / 1000000000;
            time->tv_nsec = now % 1000000000;
            return 0;
        }

        int gettimeofday(struct timeval *restrict time, void *restrict zone) {
            struct timespec now;
            (void)zone;
            if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
            time->tv_sec = now.tv_sec;
            time->tv_usec = now.tv_nsec / 1000;
            return 0;
        }

        time_t time(time_t *result) {
            struct timespec now;
            if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
            if (result) *result = now.tv_sec;
            return now.tv_sec;
        }
        """
}
